"""Two workers on one run of a server without transactions, one statement at a time.

In whatever order their statements reach the server, and wherever one of them stops for good: the
run's turn is in the log, or its checkpoint is there. Never both, never neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any, NamedTuple

import pytest

pytest.importorskip("motor")

from pymongo.errors import BulkWriteError

from memory_async.errors import ConflictError
from memory_async.keys import Key, compound_prefix
from memory_async.records import Checkpoint, Decision, Lease, Session
from memory_async.storage.mongo import MongoStorage
from memory_async.storage.mongo.journal import ByJournal
from memory_async.storage.protocol import (
    ABSENT,
    Delete,
    Drop,
    Expect,
    Put,
    Storage,
    Trim,
    Write,
)
from memory_async.testing.material import append, at, changed, seqs, session_key, unique
from tests.servers import mongo

MOST = 20  # statements of a batch
ENDINGS = ("first goes on", "second goes on", "first is killed", "both are killed")


class Killed(BaseException):
    """What a worker never sees of its own end."""


class Worker:
    """A storage whose calls reach the server one statement at a time, each when it is let."""

    def __init__(self, storage: Storage) -> None:
        assert isinstance(storage, MongoStorage)
        assert isinstance(storage._commit, ByJournal)
        self.storage = storage
        collection = storage._commit._collection
        self._find, self._write = collection.find, collection.write
        vars(collection).update(find=self._find_later, write=self._write_one_by_one)
        self._work: asyncio.Task[Any] | None = None

    def begin(self, *writes: Write) -> None:
        self._may, self._asks = asyncio.Semaphore(0), asyncio.Event()
        self._free = self._killed = False
        self._work = asyncio.ensure_future(self.storage.apply(*writes))

    async def step(self) -> bool:
        """Let it make one more; False when there is none."""
        assert self._work is not None
        asks = asyncio.ensure_future(self._asks.wait())
        await asyncio.wait([asks, self._work], return_when=asyncio.FIRST_COMPLETED)
        asks.cancel()
        if self._work.done():
            return False
        self._asks.clear()
        self._may.release()
        asks = asyncio.ensure_future(self._asks.wait())
        await asyncio.wait([asks, self._work], return_when=asyncio.FIRST_COMPLETED)
        asks.cancel()
        return True

    async def end(self, *, killed: bool = False) -> BaseException | None:
        """Let it make all that is left, or nothing any more; what came of it."""
        assert self._work is not None
        self._killed, self._free = killed, True
        self._may.release()
        await asyncio.wait([self._work])
        return self._work.exception()

    async def _let(self) -> None:
        if self._work is None:
            return
        if not self._free:
            self._asks.set()
            await self._may.acquire()
        if self._killed:
            raise Killed

    async def _find_later(self, *args: Any, **kwargs: Any) -> Any:
        await self._let()
        return await self._find(*args, **kwargs)

    async def _write_one_by_one(
        self, statements: Sequence[Any], session: Any = None, *, ordered: bool = True
    ) -> None:
        failed: BulkWriteError | None = None
        for number, each in enumerate(statements):
            await self._let()
            try:
                await self._write([each], session)
            except BulkWriteError as error:
                error.details["writeErrors"][0]["index"] = number
                failed = error
                if ordered:
                    break
        if failed is not None:
            raise failed


class Workers(NamedTuple):
    first: Worker
    second: Worker
    witness: Storage


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    make = mongo.storages(transactions=False)
    storages = [make() for _ in range(3)]
    for each in storages:
        await each.open()
    yield Workers(Worker(storages[0]), Worker(storages[1]), storages[2])
    for each in storages:
        await each.close()


class Story(NamedTuple):
    """A run that is under way, with a decision made."""

    run: Checkpoint
    lease: Lease
    decision: Decision

    def writes(self, what: str) -> list[Write]:
        run, where = self.run, self.run.key.partition
        match what:
            case "finish" | "finish, too":
                return [
                    append(run.session_id, what, run_id=run.run_id),
                    Delete(run.key, run.version),
                    Delete(self.lease.key),
                    Drop(where, "decision", compound_prefix(run.run_id)),
                ]
            case "pause":
                paused = changed(run, status="paused", state="mine")
                return [Put(paused, run.version), Delete(self.lease.key)]
            case "claim":
                taken = changed(run, status="running", state="taken")
                return [Put(taken, run.version), Put(changed(self.lease), self.lease.version)]
        decided = replace(self.decision, requirement_id="other")
        return [Expect(run.key, run.version), Put(decided, ABSENT)]

    def holds(self, what: str, seen: Seen) -> bool:
        """Whether what is seen is what a worker leaves who was the last, or the only one."""
        match what:
            case "finish" | "finish, too":
                return seen.turn is not None and (seen.run, seen.lease, seen.decisions) == (
                    None,
                    None,
                    0,
                )
            case "pause":
                return getattr(seen.run, "state", None) == "mine" and seen.lease is None
            case "claim":
                return getattr(seen.run, "state", None) == "taken" and seen.lease is not None
        return seen.run == self.run and seen.decisions == 2


class Seen(NamedTuple):
    run: Any
    turn: Any
    lease: Any
    decisions: int


async def begin(storage: Storage) -> Story:
    s = unique("session")
    story = Story(
        Checkpoint(session_id=s, run_id="run"),
        Lease(session_id=s, run_id="run", owner="me", until=at(0)),
        Decision(session_id=s, run_id="run", requirement_id="one"),
    )
    await storage.apply(append(s, "before"), *[Put(each, ABSENT) for each in story])
    return story


async def look(storage: Storage, story: Story) -> Seen:
    where = story.run.key.partition
    seen = Seen(
        await storage.get(story.run.key),
        await storage.get(Key("turn", where, "run")),
        await storage.get(story.lease.key),
        len(await storage.find("decision", where)),
    )
    assert (seen.run is None) == (seen.turn is not None), "never both, never neither"
    view = await storage.snapshot(where.id)
    assert seqs(view.turns) == [1, 2][: view.session.last_seq]
    assert seqs(view.turns) == ([1] if seen.turn is None else [1, 2])
    return seen


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("finish", "pause"), ("pause", "finish"), ("finish", "finish, too"), ("finish", "claim"),
        ("decide", "finish"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
async def test_never_both_never_neither(workers: Workers, one: str, other: str, every: int) -> None:
    """``every`` so many of the interleavings, evenly spread."""
    first, second, witness = workers
    interleavings = 0
    for stop in range(MOST):
        steps: list[bool] = []
        for switch in range(stop % every, MOST, every):
            ending = ENDINGS[(stop + 3 * switch) % len(ENDINGS)]
            story = await begin(witness)
            first.begin(*story.writes(one))
            steps = [await first.step() for _ in range(stop)]
            second.begin(*story.writes(other))
            steps += [await second.step() for _ in range(switch)]
            if (stop + switch) % 2:
                await look(witness, story)  # which may have to make what is promised
            came = {}
            if ending == "second goes on":
                came[other] = await second.end()
            came[one] = await first.end(killed="killed" in ending)
            if ending != "second goes on":
                came[other] = await second.end(killed=ending == "both are killed")
            seen = await look(witness, story)
            interleavings += 1
            assert all(
                isinstance(each, (ConflictError, Killed, NoneType)) for each in came.values()
            )
            won = [what for what, error in came.items() if error is None]
            if other == "finish" and one == "decide" and "finish" in won:
                assert story.holds("finish", seen)  # whether it was decided before or not
            elif won and "killed" not in ending:
                # Of two that end a run the later one finds it ended, and is content.
                assert len(won) == 1 or sorted(won) == ["finish", "finish, too"]
                assert story.holds(won[0], seen)
            elif won:
                assert any(story.holds(what, seen) for what in (one, other))
            if not all(steps[stop:]):
                break  # the second had no more
        if not all(steps[:stop]):
            break
    assert interleavings > 20 / every  # it was one statement at a time


@pytest.mark.parametrize("end", ["dropped", "trimmed", "expired"])
async def test_who_is_late_brings_nothing_back(workers: Workers, end: str) -> None:
    """One makes what another has promised, and is stopped amid it for as long as it takes others
    to make that too, and then to take it away."""
    first, second, witness = workers
    assert isinstance(witness, MongoStorage)
    stops: list[bool] = [True]
    while all(stops):
        first.storage.ttl = witness.ttl = 0.05 if end == "expired" else None
        story = await begin(witness)
        s, where = story.run.session_id, story.run.key.partition
        first.begin(append(s, "late"))
        assert [await first.step(), await first.step()] == [True, True]  # a look, and the promise
        assert isinstance(await first.end(killed=True), Killed)
        second.begin(Expect(story.run.key, "no version of it"))
        stops = [await second.step() for _ in stops]
        with mongo.documents(witness) as documents:
            if end == "dropped":
                await witness.apply(Delete(session_key(s)), Drop(where))
            elif end == "trimmed":
                await witness.apply(Trim(s))
            else:
                async with asyncio.timeout(10):
                    while await witness.get(session_key(s)) is not None:
                        await asyncio.sleep(0.01)
                documents.delete_one({"p": str(where), "kind": "session"})
                assert await witness.sweep()
            assert isinstance(await second.end(), ConflictError)
            left = list(documents.find({"p": str(where), "payload": {"$exists": True}}))
            assert [each.get("run") for each in left] == [None] * (3 if end == "trimmed" else 0)
        stops.append(stops[-1])
    assert len(stops) > 5  # it was one statement at a time


async def test_a_listing_makes_what_is_promised(workers: Workers) -> None:
    first, _, witness = workers
    story = await begin(witness)
    first.begin(*story.writes("finish"))
    for _ in range(3):  # what it needs, in two parts; and the promise
        assert await first.step()
    assert isinstance(await first.end(killed=True), Killed)
    assert await witness.find("checkpoint") == []
    [session] = await witness.find("session")
    assert isinstance(session, Session)
    assert session.last_seq == 2


async def test_opening_makes_what_is_promised_also_where_there_are_transactions_now(
    workers: Workers,
) -> None:
    first, _, witness = workers
    story = await begin(witness)
    first.begin(*story.writes("finish"))
    for _ in range(3):
        assert await first.step()
    await first.end(killed=True)
    storage = first.storage
    # Nothing in this test needs a transaction, which this server has not.
    async with MongoStorage(
        mongo.url_of(transactions=False), database=storage._database, transactions=True
    ) as after:
        await look(after, story)
        assert await after.get(story.run.key) is None
