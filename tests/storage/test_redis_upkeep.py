"""The indexes of a Redis Cluster while two writers work on one record, step by step, and die."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import redis

from memory_async.records import Checkpoint, Item, UserProfile
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Delete, Drop, Put
from memory_async.storage.redis import RedisStorage, upkeep
from memory_async.storage.redis.index import Index
from memory_async.testing.material import append, changed, ids, in_session, item, put, unique
from tests.servers.redis import shared_cluster


class Stepped:
    """A wire on which each call waits for its turn."""

    def __init__(self, storage: RedisStorage) -> None:
        self._wire: Any = storage._wire
        self._worn_by: tuple[Any, ...] = (storage, index_of(storage), index_of(storage).upkeep)
        self._waiting: deque[asyncio.Event] = deque()
        self._under_way = 0
        for each in self._worn_by:
            each._wire = self

    def let_go(self) -> None:
        """Let those through who still wait."""
        for turn in self._waiting:
            turn.set()

    def take_off(self) -> None:
        for each in self._worn_by:
            each._wire = self._wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    async def run(self, *args: Any, **options: Any) -> Any:
        return await self._in_turn(lambda: self._wire.run(*args, **options))

    async def command(self, *args: Any, **options: Any) -> Any:
        return await self._in_turn(lambda: self._wire.command(*args, **options))

    async def _in_turn(self, call: Any) -> Any:
        turn = asyncio.Event()
        self._waiting.append(turn)
        await turn.wait()
        try:
            return await call()
        finally:
            self._under_way -= 1

    async def step(self) -> bool:
        """Let the calls through that wait, and their callers go on to the next; False when there
        are none."""
        await settled()
        if not self._waiting:
            return False
        self._under_way += len(self._waiting)
        while self._waiting:
            self._waiting.popleft().set()
        while self._under_way:
            await asyncio.sleep(0)
        await settled()
        return True


async def settled() -> None:
    for _ in range(20):  # more than any caller needs from one call to the next
        await asyncio.sleep(0)


@pytest.fixture
async def storages() -> AsyncIterator[list[RedisStorage]]:
    """Two writers and somebody who looks, in one namespace."""
    url, namespace = shared_cluster().nodes[0].url, unique()
    made = [RedisStorage(url, cluster=True, namespace=namespace) for _ in range(3)]
    for each in made:
        await each.open()
    yield made
    for each in made:
        await each.close()


async def is_found(storage: RedisStorage, tag: str) -> bool:
    """Whether the record is found by its tag if it has it; and again after what that repairs."""
    stored = await storage.get(item("c", tag).key)
    if not isinstance(stored, Item) or stored.tags != (tag,):
        return True
    for _ in range(2):
        for condition in ({"tags": [tag]}, {"id": tag}):
            if ids(await storage.find("item", **condition)) != [tag]:
                return False
        await finished(storage)
    return True


def index_of(storage: RedisStorage) -> Index:
    assert storage._index is not None
    return storage._index


async def finished(storage: RedisStorage) -> None:
    await index_of(storage).finish()


def orders(steps: str, a: int, b: int) -> Iterator[str]:
    """Every order of at most so many steps of A and of B; where one ends, both have died."""
    yield steps
    if a:
        yield from orders(steps + "A", a - 1, b)
    if b:
        yield from orders(steps + "B", a, b - 1)


class Writers:
    """A has taken a tag from an item, and is about to take its entry out of the index; B is about
    to give the tag back."""

    def __init__(self, a: RedisStorage, b: RedisStorage) -> None:
        self.storages = {"A": a, "B": b}
        self.wires: dict[str, Stepped] = {}

    async def start(self, tag: str, *, deleting: bool) -> None:
        record, a = item("c", tag, tags=(tag,)), self.storages["A"]
        await put(a, record)
        await finished(a)
        self.wires = {name: Stepped(storage) for name, storage in self.storages.items()}
        write = Delete(record.key) if deleting else Put(changed(record, tags=()), ALWAYS)
        writing = asyncio.ensure_future(a.apply(write))
        while not writing.done():
            await self.wires["A"].step()
        self._writing = asyncio.ensure_future(put(self.storages["B"], changed(record)))

    async def step(self, name: str) -> bool:
        return await self.wires[name].step()

    async def die(self) -> None:
        left: list[asyncio.Future[Any]] = [self._writing]
        for storage in self.storages.values():
            left += index_of(storage)._work
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for wire in self.wires.values():
            wire.take_off()


async def test_trips(storages: list[RedisStorage]) -> None:
    """One more where an index entry changes; calls to several slots go out at once."""
    storage, *_ = storages
    record, run = item("c", "i", tags=("t",)), Checkpoint(session_id="s", run_id="r")
    ann = UserProfile(user_id="ann")
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "new session": (2, lambda: storage.apply(append("s", user_id="ann", due=("job",)))),
        "append": (1, lambda: storage.apply(append("s", user_id="ann", due=("job",)))),
        "new item": (2, lambda: put(storage, record)),
        "same tags": (1, lambda: put(storage, changed(record))),
        "other tags": (2, lambda: put(storage, changed(record, tags=("other",)))),
        "start": (2, lambda: storage.apply(Put(run, ABSENT))),
        "finish": (
            1,
            lambda: storage.apply(
                append("s", user_id="ann", run_id="r"), Delete(run.key, run.version)
            ),
        ),
        "profile": (2, lambda: put(storage, ann)),
        "catch up": (1, lambda: storage.apply(Advance("s", "job", 0, 3, "value"))),
        "fall behind": (2, lambda: storage.apply(append("s", user_id="ann", due=("job",)))),
        "snapshot": (1, lambda: storage.snapshot("s", "ann", last=5, since="job")),
        "history": (1, lambda: storage.history("s", last=5)),
        "get": (1, lambda: storage.get(run.key)),
        "local": (1, lambda: storage.find("checkpoint", in_session("s"), status="paused")),
        "global": (2, lambda: storage.find("session", user_id="ann")),
        "delete": (1, lambda: storage.apply(Delete(record.key))),
        "drop": (1, lambda: storage.apply(Drop(in_session("s")))),
    }
    await storage.get(run.key)
    counts = {}
    for name, (_, call) in calls.items():
        wire = Stepped(storage)
        calling = asyncio.ensure_future(call())
        counts[name] = 0
        while not calling.done():
            counts[name] += await wire.step()
        wire.take_off()
        wire.let_go()
        await calling
        await finished(storage)
    assert counts == {name: count for name, (count, _) in calls.items()}


@pytest.mark.parametrize("deleting", [False, True], ids=["moved", "deleted"])
async def test_writers_may_die_between_any_two_steps(
    storages: list[RedisStorage], *, deleting: bool
) -> None:
    a, b, looker = storages
    tried = set()
    for number, order in enumerate(orders("", 3, 4)):
        tag = f"t{number}"
        writers = Writers(a, b)
        await writers.start(tag, deleting=deleting)
        taken = "".join([each for each in order if await writers.step(each)])
        await writers.die()
        assert await is_found(looker, tag), taken
        tried.add(taken)
    assert len(tried) > 30


async def test_whoever_was_given_up_adds_its_entry_again(
    storages: list[RedisStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B adds the entry, and comes back when its time is over and A has taken the entry out."""
    a, b, looker = storages
    writers = Writers(a, b)
    await writers.start("t", deleting=False)
    with monkeypatch.context() as late:
        late.setattr(upkeep, "GRACE", -10)
        await writers.step("B")  # the guess: written without the entry, which fails, and added
        while await writers.step("A"):
            pass
    assert await looker.find("item", tags=["t"]) == []
    while not writers._writing.done():
        await writers.step("B")
    assert await is_found(looker, "t")
    assert ids(await looker.find("item", tags=["t"])) == ["t"]
    await writers.die()


async def test_what_was_not_written_is_taken_out_at_last(
    storages: list[RedisStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B dies having added the entry only: it stays while B might still come, and not for ever."""
    a, b, looker = storages
    writers = Writers(a, b)
    await writers.start("t", deleting=True)
    await writers.step("B")
    await writers.die()
    assert await looker.find("item", tags=["t"]) == []
    await finished(looker)
    assert b"t" in tags_in(looker)
    monkeypatch.setattr(upkeep, "GRACE", -10)
    assert await looker.find("item", tags=["t"]) == []
    await finished(looker)
    assert tags_in(looker) == []


def tags_in(storage: RedisStorage) -> list[bytes]:
    key = storage._keys.index("item", "tt")
    for node in shared_cluster().nodes:
        with node.client() as client, suppress(redis.exceptions.MovedError):
            members: Any = client.zrange(key, 0, -1)
            return [each.partition(b"\0")[0].removeprefix(b"item:t") for each in members]
    raise AssertionError("no node holds it")
