"""Ids: whatever characters they have, they stay apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from memory_async.errors import MemoryAsyncError, PayloadError
from memory_async.keys import Key, Partition
from memory_async.records import (
    Checkpoint,
    Chunk,
    Decision,
    Document,
    Item,
    JobState,
    Lease,
    Session,
    UserProfile,
)
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Delete,
    Drop,
    Put,
    Storage,
    Trim,
    Write,
)
from memory_async.testing.material import (
    append,
    fill,
    header,
    ids,
    in_session,
    item,
    put,
    session_key,
    texts,
    unique,
)
from memory_async.testing.suite import Suite
from memory_async.turns import Turn

ODD = [
    "a", "A", " ", " a", "a ", "a.", "a\n", "\t", ".", "..", "../x", "/", "//", "a/b", "a/", "/a",
    "a:b", "a:", ":", "{}", "{", "}", "{a}", "}{", "%", "%61", "%%", "_", "*", "?", "[a]", "'", '"',
    "`", "\\", "\\0", "$where", "$", "a.b", "__proto__", "constructor", "null", "None", "0", "-1",
    "1e3", "1", "01", "\u200b", "\u00e9", "e\u0301", "ß", "ss", "SS", "İ", "i", "I", "ı",
    "日本語", "\U0001f600", "\U0010ffff", "\u202e", "\ufeff", "\ufffe", "\x7f", "\x01", "~", "#",
    "&=", "?q=1", "default", "session", "CON", "nul.txt", "a;DROP TABLE x", "--", "x" * 512,
    "x" * 511, "X" * 512, "é" * 256, "\U0001f600" * 128,
]  # fmt: skip

IMPOSSIBLE = {
    "empty": "",
    "513 bytes": "x" * 513,
    "514 bytes": "é" * 257,
    "a NUL": "a\0b",
    "only NUL": "\0",
    "lone surrogate": "\ud800",
    "half a character": "a\udfff",
}

PLACES: dict[str, Callable[[str, str], Write]] = {
    "session": lambda s, bad: append(bad),
    "user": lambda s, bad: append(s, user_id=bad),
    "run": lambda s, bad: replace(append(s), turn=Turn(session_id=s, run_id=bad)),
    "agent": lambda s, bad: Put(Session(session_id=s, agent_id=bad), ABSENT),
    "job": lambda s, bad: append(s, due=("good", bad)),
    "header": lambda s, bad: Put(Session(session_id=bad), ABSENT),
    "item": lambda s, bad: Put(item(in_session(s), bad), ABSENT),
    "collection": lambda s, bad: Put(item(bad, "a"), ABSENT),
    "tag": lambda s, bad: Put(item(in_session(s), "a", tags=("good", bad * 2)), ABSENT),
    "checkpoint": lambda s, bad: Put(Checkpoint(session_id=s, run_id=bad), ABSENT),
    "checkpoint's user": lambda s, bad: Put(
        Checkpoint(session_id=s, run_id="r", user_id=bad), ABSENT
    ),
    "lease": lambda s, bad: Put(
        Lease(session_id=bad, run_id="r", owner="o", until=Session(session_id=s).created_at), ABSENT
    ),
    "decision": lambda s, bad: Put(Decision(session_id=s, run_id=bad, requirement_id="q"), ABSENT),
    "profile": lambda s, bad: Put(UserProfile(user_id=s, name=bad), ABSENT),
    "profile's user": lambda s, bad: Put(UserProfile(user_id=bad), ABSENT),
    "document": lambda s, bad: Put(Document(knowledge_base_id=s, document_id=bad), ABSENT),
    "chunk": lambda s, bad: Put(
        Chunk(knowledge_base_id=s, document_id=bad, index=0, text=""), ABSENT
    ),
    "deleted": lambda s, bad: Delete(Key("item", in_session(s), bad)),
    "dropped": lambda s, bad: Drop(Partition("collection", bad)),
    "trimmed": lambda s, bad: Trim(bad),
    "advanced": lambda s, bad: Advance(bad, "job", 0, 0),
}


FEW = ["a", "A", "a/b", "a:", "{a}", "%61", "$where", "é" * 256, "x" * 512]


class NameConformance(Suite):
    """Odd ids, and impossible ones."""

    @pytest.fixture
    def odd(self) -> list[str]:
        return ODD if self.thorough else FEW

    async def test_odd_sessions_stay_apart(self, fresh: Storage, odd: list[str]) -> None:
        for id in odd:
            metadata = Session(session_id=id, user_id=id, agent_id=id, metadata={"id": id})
            await fresh.apply(append(id, id, user_id=id), Put(metadata, ALWAYS))
        for id in odd:
            view = await fresh.snapshot(id, id)
            assert texts(view.turns) == [id]
            assert view.session is not None
            assert (view.session.session_id, view.session.metadata) == (id, {"id": id})
            assert ids(await fresh.find("session", id=id)) == [id]
            assert ids(await fresh.find("session", user_id=id)) == [id]
            assert ids(await fresh.find("session", in_session(id))) == [id]
        assert set(ids(await fresh.find("session", limit=1000))) == set(odd)
        for id in odd[::2]:
            await fresh.apply(Drop(in_session(id)))
        for id in odd[1::2]:
            assert texts(await fresh.history(id)) == [id]
        assert set(ids(await fresh.find("session", limit=1000))) == set(odd[1::2])

    async def test_odd_items_stay_apart(self, fresh: Storage, odd: list[str]) -> None:
        where = Partition("collection", "all")
        await fresh.apply(*[Put(item(where, id, id, tags=(id,)), ABSENT) for id in odd])
        for id in odd:
            await put(fresh, item(id, "own", id, tags=(id,)))
        for id in odd:
            for key in (Key("item", where, id), Key("item", Partition("collection", id), "own")):
                stored = await fresh.get(key)
                assert isinstance(stored, Item)
                assert (stored.value, stored.tags) == (id, (id,))
            assert len(await fresh.find("item", tags=[id])) == 2
            assert ids(await fresh.find("item", where, tags=[id])) == [id]
            assert ids(await fresh.find("item", where, id=id)) == [id]
            found = await fresh.find("item", where, prefix=id, limit=1000)
            assert set(ids(found)) == {each for each in odd if each.startswith(id)}
        left = set(odd)
        for id in odd[::3]:
            await fresh.apply(Drop(Partition("collection", id)))
            if id in left:
                await fresh.apply(Drop(where, "item", id))
                left = {each for each in left if not each.startswith(id)}
                assert set(ids(await fresh.find("item", where, limit=1000))) == left
        owners = {each.key.partition.id for each in await fresh.find("item", id="own", limit=1000)}
        assert owners == set(odd) - set(odd[::3])

    async def test_odd_runs_stay_apart(self, storage: Storage, odd: list[str]) -> None:
        s = unique("session")
        for id in odd:
            checkpoint = Checkpoint(session_id=s, run_id=id, agent_id=id, error=id)
            decision = Decision(session_id=s, run_id=id, requirement_id=id, note=id)
            await storage.apply(
                append(s, id, run_id=id), Put(checkpoint, ABSENT), Put(decision, ABSENT)
            )
        for id in odd:
            turn = await storage.get(Key("turn", in_session(s), id))
            assert isinstance(turn, Turn)
            assert texts([turn]) == [id]
            run = await storage.get(Key("checkpoint", in_session(s), id))
            assert isinstance(run, Checkpoint)
            assert (run.run_id, run.error) == (id, id)
            decision = Decision(session_id=s, run_id=id, requirement_id=id)
            found = await storage.get(decision.key)
            assert isinstance(found, Decision)
            assert (found.run_id, found.requirement_id, found.note) == (id, id, id)
        [again] = await storage.apply(append(s, "again", run_id=odd[-1]))
        assert again.created is False

    async def test_odd_users_and_profiles_stay_apart(self, fresh: Storage, odd: list[str]) -> None:
        for id in odd:
            await put(
                fresh,
                UserProfile(user_id=id, traits={"id": id}),
                UserProfile(user_id="all", name=id, traits={"name": id}),
            )
        for id in odd:
            own = (await fresh.snapshot("none", id)).profile
            named = (await fresh.snapshot("none", "all", profile=id)).profile
            assert own is not None
            assert named is not None
            # "default" and "all" are names as good as the others.
            assert own.traits == ({"id": id})
            assert named.traits == {"name": id}

    async def test_odd_jobs_stay_apart(self, storage: Storage, odd: list[str]) -> None:
        s = unique("session")
        await storage.apply(append(s, due=tuple(odd), keep_turns=True))
        for id in odd[::2]:
            await storage.apply(Advance(s, id, 0, 1, id))
        assert (await header(storage, s)).jobs == {
            **{id: JobState(1, id) for id in odd[::2]},
            **{id: JobState(0) for id in odd[1::2]},
        }
        [turn] = (await storage.snapshot(s, last=0, since=odd[1])).turns
        assert turn.seq == 1
        assert (await storage.snapshot(s, last=0, since=odd[0])).turns == []

    @pytest.mark.parametrize("place", PLACES)
    async def test_an_impossible_id_is_refused(self, storage: Storage, place: str) -> None:
        s = unique("session")
        good = Put(item(in_session(s), "good"), ABSENT)
        for bad in IMPOSSIBLE.values():
            with pytest.raises(PayloadError):
                await storage.apply(PLACES[place](s, bad))
            with pytest.raises(
                MemoryAsyncError
            ):  # where the partition is the bad id, it is another
                await storage.apply(good, PLACES[place](s, bad))
        assert await storage.get(good.record.key) is None
        assert await storage.find("session", id=s) == []

    @pytest.mark.parametrize("bad", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    async def test_an_impossible_id_is_not_found(self, storage: Storage, bad: str) -> None:
        await fill(storage, unique("session"), 1)
        where = Partition("collection", unique())
        await put(storage, item(where, "a", tags=("t",)))
        # Saying so with a PayloadError is fine; a failure of the engine's own is not.
        for read in (
            lambda: storage.get(session_key(bad)),
            lambda: storage.get(Key("turn", in_session(bad), "r")),
            lambda: storage.get(Key("item", where, bad)),
            lambda: storage.history(bad),
            lambda: storage.find("item", where, id=bad),
            lambda: storage.find("item", Partition("collection", bad)),
            lambda: storage.find("item", where, tags=[bad]),
            lambda: storage.find("session", user_id=bad),
            lambda: storage.find("session", lagging=bad),
        ):
            try:
                found = await read()
            except PayloadError:
                continue
            assert not found
