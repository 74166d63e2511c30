"""Records: what comes back, version tokens, and expiry."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from memory_async.errors import ConflictError, PayloadError
from memory_async.keys import Partition
from memory_async.message import Message
from memory_async.records import (
    Checkpoint,
    Chunk,
    Decision,
    Document,
    Item,
    Lease,
    Record,
    Requirement,
    Session,
    UserProfile,
)
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Put, Result, Storage
from memory_async.testing.material import (
    append,
    at,
    changed,
    fill,
    header,
    in_session,
    item,
    put,
    unique,
)
from memory_async.testing.suite import Suite, promises

EARLIER = datetime(2020, 1, 1, tzinfo=UTC)


def one_of_each(id: str) -> list[Record]:
    """A record of every kind with every field filled."""
    shared: dict[str, Any] = {"created_at": at(1), "updated_at": at(2), "extra": {"new": [1]}}
    says = [Message(role="user", content="hi"), Message.parse({"role": "assistant", "x": None})]
    asks = Requirement("r1", "approval", "pay", {"sum": 1}, "Pay?")
    return [
        Session(session_id=id, user_id="ann", agent_id="bot", metadata={"a": None}, **shared),
        Checkpoint(
            session_id=id, run_id=id, user_id="ann", agent_id="bot", status="paused", input=says,
            messages=says, state={"step": 1}, requirements=[asks], usage={"tokens": 1}, error="no",
            **shared,
        ),
        Lease(session_id=id, run_id=id, owner="worker", until=at(3), **shared),
        Decision(
            session_id=id, run_id=id, requirement_id="r1", approved=False, value={"v": 1},
            by="eve", note="too much", **shared,
        ),
        UserProfile(
            user_id=id, name="work", traits={"likes": ["tea"]}, applied={id: 3},
            forgotten_at=at(4), forgetting={id: 5}, **shared,
        ),
        Document(
            knowledge_base_id=id, document_id=id, name="n", source="s", status="ready",
            metadata={"m": 1}, **shared,
        ),
        Chunk(knowledge_base_id=id, document_id=id, index=7, text="t", metadata={"m": 1}, **shared),
        Item(
            partition=Partition("collection", id), id=id, value=b"\0\xff", tags=("t", "u"),
            expires_at=datetime.now(UTC) + timedelta(days=1), **shared,
        ),
    ]  # fmt: skip


KINDS = [record.kind for record in one_of_each("id")]


def of_kind(kind: str, id: str) -> Record:
    return next(record for record in one_of_each(id) if record.kind == kind)


class RecordConformance(Suite):
    """`Put` and what it promises to two writers."""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_record_comes_back_as_it_was_written(self, storage: Storage, kind: str) -> None:
        record = of_kind(kind, unique())
        assert await storage.get(record.key) is None
        assert await storage.apply(Put(record, ABSENT)) == [Result(True)]
        assert await storage.get(record.key) == record
        found = await storage.find(record.kind, record.key.partition)
        assert found == [record]

    @pytest.mark.parametrize("kind", KINDS)
    async def test_fields_of_a_newer_version_survive_a_rewrite(
        self, storage: Storage, kind: str
    ) -> None:
        record = of_kind(kind, unique())
        await put(storage, record)
        stored = await storage.get(record.key)
        assert isinstance(stored, Record)
        await storage.apply(Put(changed(stored, updated_at=at(9)), stored.version))
        again = await storage.get(record.key)
        assert isinstance(again, Record)
        assert again.extra == {"new": [1]}
        assert again.version != record.version

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_put_is_conditional_on_the_version(self, storage: Storage, kind: str) -> None:
        record = of_kind(kind, unique())
        with pytest.raises(ConflictError):
            await storage.apply(Put(record, "a version nobody wrote"))
        assert await storage.get(record.key) is None
        await storage.apply(Put(record, ABSENT))
        second, third = changed(record), changed(record)
        for when in (ABSENT, "a version nobody wrote", record.version + " "):
            with pytest.raises(ConflictError):
                await storage.apply(Put(second, when))
        assert await storage.get(record.key) == record
        assert await storage.apply(Put(second, record.version)) == [Result(True)]
        assert await storage.get(record.key) == second
        with pytest.raises(ConflictError):
            await storage.apply(Put(third, record.version))
        assert await storage.apply(Put(third, ALWAYS)) == [Result(True)]
        assert await storage.get(record.key) == third

    @pytest.mark.parametrize("kind", KINDS)
    async def test_the_same_put_again_is_a_success(self, storage: Storage, kind: str) -> None:
        record = of_kind(kind, unique())
        await storage.apply(Put(record, ABSENT))
        second = changed(record)
        for when in (ABSENT, ALWAYS, "a version nobody wrote"):
            assert await storage.apply(Put(record, when)) == [Result(False)]
        await storage.apply(Put(second, record.version))
        for when in (record.version, ABSENT, ALWAYS, second.version):
            assert await storage.apply(Put(second, when)) == [Result(False)]
        assert await storage.get(record.key) == second

    @promises("compare-and-set")
    @pytest.mark.parametrize("kind", ["item", "checkpoint", "session"])
    async def test_of_racing_puts_one_wins(self, storage: Storage, kind: str) -> None:
        record = of_kind(kind, unique())
        for when in (ABSENT, record.version):
            rivals = [changed(record, version=f"{n} of {when}") for n in range(20)]
            answers = await asyncio.gather(
                *[storage.apply(Put(rival, when)) for rival in rivals], return_exceptions=True
            )
            won = [r for r, a in zip(rivals, answers, strict=True) if isinstance(a, list)]
            assert len(won) == 1
            assert sum(isinstance(answer, ConflictError) for answer in answers) == 19
            assert await storage.get(record.key) == won[0]
            await put(storage, record)

    async def test_a_rewrite_changes_what_a_record_is_found_by(self, storage: Storage) -> None:
        s = unique("session")
        first = Checkpoint(session_id=s, run_id="r", user_id="ann", agent_id="a", status="paused")
        await put(storage, first)
        second = changed(first, user_id="bob", agent_id="b", status="error")
        await storage.apply(Put(second, first.version))
        where = in_session(s)
        before: list[dict[str, Any]] = [
            {"user_id": "ann"},
            {"status": "paused"},
            {"tags": ["agent:a"]},
        ]
        after: list[dict[str, Any]] = [
            {"user_id": "bob"},
            {"status": "error"},
            {"tags": ["agent:b"]},
        ]
        for old in before:
            assert await storage.find("checkpoint", where, **old) == []
        for new in after:
            assert await storage.find("checkpoint", where, **new) == [second]

    async def test_an_item_may_lose_its_tags_and_its_expiry(self, storage: Storage) -> None:
        name = unique()
        first = item(name, "a", tags=("x", "y"), expires_at=at(0) + timedelta(days=36_500))
        await put(storage, first)
        second = changed(first, tags=(), expires_at=None)
        await put(storage, second)
        assert await storage.get(first.key) == second
        assert await storage.find("item", first.partition, tags=["x"]) == []

    # --- session headers: only the metadata is written ---

    async def test_a_session_may_begin_with_its_metadata(self, storage: Storage) -> None:
        s = unique("session")
        first = Session(session_id=s, user_id="ann", agent_id="bot", metadata={"a": 1})
        await storage.apply(Put(first, ABSENT))
        assert await header(storage, s) == first
        await storage.apply(append(s, user_id="ann"))
        stored = await header(storage, s)
        assert (stored.last_seq, stored.version, stored.metadata) == (1, first.version, {"a": 1})

    async def test_metadata_leaves_the_log_alone(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3, due=("a", "b"))
        await storage.apply(Advance(s, "a", 0, 3, "value"), Advance(s, "b", 0, 2))
        before = await header(storage, s)
        bare = Session(session_id=s, agent_id="other", metadata={"a": 1}, created_at=EARLIER)
        await storage.apply(Put(bare, before.version))
        after = await header(storage, s)
        assert (after.metadata, after.version) == ({"a": 1}, bare.version)
        assert (
            replace(
                after,
                metadata=before.metadata,
                version=before.version,
                updated_at=before.updated_at,
            )
            == before
        )
        assert await storage.find("session", in_session(s), lagging="b") == [after]

    async def test_appending_and_advancing_move_no_version(self, storage: Storage) -> None:
        s = unique("session")
        record = item(in_session(s), "a")
        await storage.apply(append(s, due=("a",)), Put(record, ABSENT))
        before = await header(storage, s)
        await fill(storage, s, 2, keep_turns=True)
        await storage.apply(Advance(s, "a", 0, 3, "value"))
        assert (await header(storage, s)).version == before.version
        assert await storage.get(record.key) == record
        await storage.apply(Put(changed(before, metadata={"a": 1}), before.version))

    # --- times ---

    async def test_times_come_back_to_the_microsecond(self, storage: Storage) -> None:
        far = timezone(timedelta(hours=5, minutes=45))
        for moment in (
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2001, 9, 9, 1, 46, 39, 999_999, tzinfo=far),
            datetime(2286, 11, 20, 17, 46, 40, 1, tzinfo=UTC),
        ):
            record = replace(item(unique(), "a"), created_at=moment, updated_at=moment)
            lease = Lease(session_id=unique(), run_id="r", owner="o", until=moment)
            await put(storage, record, lease)
            assert await storage.get(record.key) == record
            assert await storage.get(lease.key) == lease
            [found] = await storage.find("item", record.partition)
            assert found.created_at == moment
            assert found.created_at.tzinfo is not None

    async def test_a_time_without_a_zone_is_refused(self, storage: Storage) -> None:
        naive = at(0).replace(tzinfo=None)
        name, s = unique(), unique("session")
        turn = append(s)
        for write in (
            Put(replace(item(name, "a"), created_at=naive), ABSENT),
            Put(replace(item(name, "a"), updated_at=naive), ABSENT),
            Put(item(name, "a", expires_at=naive), ABSENT),
            Put(Lease(session_id=s, run_id="r", owner="o", until=naive), ABSENT),
            Put(Session(session_id=s, created_at=naive), ABSENT),
            replace(turn, turn=replace(turn.turn, created_at=naive)),
        ):
            with pytest.raises(PayloadError):
                await storage.apply(write)
        assert await storage.find("item", item(name, "a").partition) == []
        assert await storage.find("session", id=s) == []

    # --- expiry ---

    async def test_an_expired_item_is_gone(self, storage: Storage) -> None:
        name = unique()
        past = item(name, "a", tags=("t",), expires_at=EARLIER)
        await storage.apply(Put(past, ABSENT))
        assert await storage.get(past.key) is None
        assert await storage.find("item", past.partition) == []
        assert await storage.find("item", past.partition, tags=["t"]) == []

    async def test_an_expired_item_stands_in_nobodys_way(self, storage: Storage) -> None:
        name = unique()
        past = item(name, "a", expires_at=EARLIER)
        await storage.apply(Put(past, ABSENT))
        with pytest.raises(ConflictError):
            await storage.apply(Put(changed(past, expires_at=None), past.version))
        now = changed(past, expires_at=None)
        assert await storage.apply(Put(now, ABSENT)) == [Result(True)]
        assert await storage.get(now.key) == now

    async def test_an_item_lives_until_it_expires(self, storage: Storage) -> None:
        name = unique()
        where = Partition("collection", name)
        soon = await storage.now(where) + timedelta(hours=1)
        record = item(name, "a", expires_at=soon)
        await put(storage, record)
        assert await storage.get(record.key) == record
        gone = changed(record, expires_at=EARLIER)
        await storage.apply(Put(gone, record.version))
        assert await storage.get(record.key) is None
