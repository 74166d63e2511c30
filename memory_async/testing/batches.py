"""A batch is whole or absent: whatever fails, nothing of the other writes stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    MemoryAsyncError,
    PayloadError,
    SessionOwnershipError,
)
from memory_async.keys import Key
from memory_async.records import Checkpoint, Item, Session
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Append,
    Delete,
    Drop,
    Expect,
    Put,
    Result,
    Storage,
    Trim,
    Write,
)
from memory_async.testing.material import (
    append,
    changed,
    contents,
    fill,
    header,
    in_session,
    item,
    put,
    seqs,
    session_key,
    texts,
    unique,
)
from memory_async.testing.suite import Suite, promises

Make = Callable[[str], Write]
"""From a session's id to a write of its partition."""


def _stored(s: str, id: str) -> Item:
    return item(in_session(s), id, version=f"version of {id}")


def _naive(s: str) -> Write:
    write = append(s)
    return replace(
        write, turn=replace(write.turn, created_at=write.turn.created_at.replace(tzinfo=None))
    )


# After `_prepare` each of these but the trim (not past job "b") changes what a reader sees.
GOOD: dict[str, Make] = {
    "append": lambda s: append(s, due=("a", "new"), keep_turns=False),
    "metadata": lambda s: Put(Session(session_id=s, metadata={"changed": True}), ALWAYS),
    "new record": lambda s: Put(Checkpoint(session_id=s, run_id="new"), ABSENT),
    "rewrite": lambda s: Put(changed(_stored(s, "old")), "version of old"),
    "delete": lambda s: Delete(_stored(s, "doomed").key, "version of doomed"),
    "drop": lambda s: Drop(in_session(s), "item", "many"),
    "advance": lambda s: Advance(s, "a", 1, 2, "value"),
    "trim": lambda s: Trim(s, 3),
}

FAILING: dict[str, tuple[Make, type[MemoryAsyncError]]] = {
    "put what exists": (lambda s: Put(item(in_session(s), "guard"), ABSENT), ConflictError),
    "put over a change": (lambda s: Put(item(in_session(s), "guard"), "older"), ConflictError),
    "put over nothing": (lambda s: Put(item(in_session(s), "none"), "older"), ConflictError),
    "metadata over a change": (lambda s: Put(Session(session_id=s), "older"), ConflictError),
    "metadata of what exists": (lambda s: Put(Session(session_id=s), ABSENT), ConflictError),
    "metadata of another user's": (
        lambda s: Put(Session(session_id=s, user_id="bob"), ALWAYS),
        SessionOwnershipError,
    ),
    "delete a change": (lambda s: Delete(_stored(s, "guard").key, "older"), ConflictError),
    "delete nothing": (lambda s: Delete(_stored(s, "none").key, "older"), ConflictError),
    "expect no record": (lambda s: Expect(_stored(s, "guard").key, ABSENT), ConflictError),
    "expect a change": (lambda s: Expect(_stored(s, "guard").key, "older"), ConflictError),
    "expect what is gone": (lambda s: Expect(_stored(s, "none").key, "older"), ConflictError),
    "expect no session": (lambda s: Expect(session_key(s), ABSENT), ConflictError),
    "advance from elsewhere": (lambda s: Advance(s, "a", 0, 3), ConflictError),
    "advance the unregistered": (lambda s: Advance(s, "none", 0, 1), ConflictError),
    "advance too far": (lambda s: Advance(s, "b", 0, 9), ConflictError),
    "append to another user's": (lambda s: append(s, user_id="bob"), SessionOwnershipError),
    "not JSON": (lambda s: Put(item(in_session(s), "x", float("nan")), ABSENT), PayloadError),
    "bad id": (lambda s: Put(item(in_session(s), "\0"), ABSENT), PayloadError),
    "naive time": (_naive, PayloadError),
    "value not JSON": (lambda s: Advance(s, "a", 1, 2, {1}), PayloadError),
    "cursor back": (lambda s: Advance(s, "a", 2, 1), ConfigurationError),
    "another partition": (lambda s: append(s + "2"), ConfigurationError),
    "the end of the session": (lambda s: Delete(session_key(s)), ConfigurationError),
}


def _key(write: Write) -> Key | None:
    match write:
        case Put(record=record):
            return record.key
        case Delete(key=key) | Expect(key=key):
            return key
    return None


async def _prepare(storage: Storage) -> str:
    """A session of three turns, one trimmed, with a few records."""
    s = unique("session")
    await fill(storage, s, 3, due=("a", "b"))
    await storage.apply(Advance(s, "a", 0, 1), Advance(s, "b", 0, 1))
    await put(storage, *[_stored(s, id) for id in ("old", "doomed", "guard", "many1", "many2")])
    assert (await header(storage, s)).trimmed == 1
    return s


class BatchConformance(Suite):
    """`Storage.apply`: all writes or none."""

    async def test_a_failing_write_leaves_nothing_of_the_others(self, storage: Storage) -> None:
        s = await _prepare(storage)
        before = await contents(storage, s)
        for failing, (make, error) in FAILING.items():
            bad = make(s)
            good = [
                make_good(s)
                for name, make_good in GOOD.items()
                if not (name == "append" and isinstance(bad, Append))
                and not (name == "metadata" and _key(bad) == session_key(s))
                and not (name == "advance" and isinstance(bad, Advance))
            ]
            for batch in ([*good, bad], [bad, *good]):
                with pytest.raises(error):
                    await storage.apply(*batch)
            assert await contents(storage, s) == before, failing
        for make in GOOD.values():  # and not because the good ones would have failed
            await storage.apply(make(s))

    async def test_each_kind_of_write_goes_with_the_batch(self, storage: Storage) -> None:
        s = await _prepare(storage)
        before = await contents(storage, s)
        for name, make in GOOD.items():
            with pytest.raises(ConflictError):
                await storage.apply(make(s), Put(item(in_session(s), "guard"), ABSENT))
            assert await contents(storage, s) == before, name

    async def test_a_failing_batch_trims_nothing(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3)
        with pytest.raises(ConflictError):
            await storage.apply(Trim(s), append(s), Advance(s, "none", 0, 0))
        assert texts(await storage.history(s)) == ["1", "2", "3"]

    async def test_a_batch_of_all_kinds_of_writes_is_applied_in_order(
        self, storage: Storage
    ) -> None:
        s = await _prepare(storage)
        expected = [name != "trim" for name in GOOD]
        results = await storage.apply(*[make(s) for make in GOOD.values()])
        assert [result.created for result in results] == expected
        assert [result.turn is not None for result in results] == [n == "append" for n in GOOD]
        stored = await header(storage, s)
        assert (stored.last_seq, stored.metadata) == (4, {"changed": True})
        assert {name: state.through for name, state in stored.jobs.items()} == {
            "a": 2, "b": 1, "new": 0
        }  # fmt: skip
        items = await storage.find("item", in_session(s))
        assert {each.key.id for each in items} == {"old", "guard"}
        assert len(await storage.find("checkpoint", in_session(s))) == 1

    async def test_conditions_are_of_the_state_before_the_batch(self, storage: Storage) -> None:
        s = await _prepare(storage)
        before = await contents(storage, s)
        with pytest.raises(ConflictError):  # turn 4 is not there yet
            await storage.apply(append(s), Advance(s, "a", 1, 4))
        with pytest.raises(ConflictError):  # nor is the job
            await storage.apply(append(s, due=("new",)), Advance(s, "new", 0, 0))
        assert await contents(storage, s) == before

    @promises("unique seq", "transactions")
    async def test_a_failing_batch_takes_no_other_along(self, storage: Storage) -> None:
        s = unique("session")
        guard = item(in_session(s), "guard")
        await put(storage, guard)
        await storage.apply(append(s, "first"))
        good = [append(s, str(number)) for number in range(12)]
        batches: list[tuple[Write, ...]] = []
        for write in good:
            batches += [(write,), (append(s, "never"), Put(changed(guard), ABSENT))]
        answers = await asyncio.gather(
            *[storage.apply(*batch) for batch in batches], return_exceptions=True
        )
        assert [isinstance(answer, list) for answer in answers] == [True, False] * 12
        assert all(isinstance(answer, ConflictError) for answer in answers[1::2])
        turns = await storage.history(s)
        assert seqs(turns) == list(range(1, 14))
        assert {turn.run_id for turn in turns[1:]} == {write.turn.run_id for write in good}

    async def test_a_batch_that_cannot_be_is_refused(self, storage: Storage) -> None:
        s = await _prepare(storage)
        before = await contents(storage, s)
        old, other = _stored(s, "old"), Session(session_id=unique("session"))
        batches: list[list[Write]] = [
            [],
            [append(s), append(s)],
            [append(s), append(unique("session"))],
            [Put(changed(old), ALWAYS), Put(changed(old), ALWAYS)],
            [Put(changed(old), ALWAYS), Delete(old.key)],
            [Delete(old.key), Delete(old.key)],
            [Expect(old.key, old.version), Delete(old.key)],
            [Put(changed(old), ALWAYS), Put(item(unique(), "old"), ALWAYS)],
            [Advance(s, "a", 1, 2), Advance(s, "a", 2, 3)],
            [Drop(in_session(s), "item"), Put(changed(old), ALWAYS)],
            [Put(changed(old), ALWAYS), Drop(in_session(s), "item", "ol")],
            [Drop(in_session(s)), Put(Session(session_id=s), ALWAYS)],
            [append(s), Drop(in_session(s))],
            [Drop(in_session(s)), append(s)],
            [Advance(s, "a", 1, 2), Delete(session_key(s))],
            [replace(append(s), session=other)],
        ]
        for batch in batches:
            with pytest.raises(ConfigurationError):
                await storage.apply(*batch)
        assert await contents(storage, s) == before

    async def test_results_come_in_the_order_of_the_writes(self, storage: Storage) -> None:
        s = unique("session")
        where = in_session(s)
        results = await storage.apply(
            Delete(item(where, "none").key),
            Put(item(where, "new"), ABSENT),
            append(s),
            Drop(where, "lease"),
            Trim(s, 0),
        )
        assert [result.created for result in results] == [False, True, True, False, False]
        assert results[2].turn == (await storage.history(s))[0]
        assert all(isinstance(result, Result) for result in results)
