"""What Redis is asked, how often, and what is left there: trips, indexes, time to live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import redis

from memory_async.errors import ConfigurationError
from memory_async.records import Checkpoint, UserProfile
from memory_async.storage.protocol import ABSENT, Advance, Delete, Drop, Put, SupportsTTL
from memory_async.storage.redis import RedisStorage
from memory_async.storage.redis.wire import PoolWire
from memory_async.storage.url import open_storage
from memory_async.testing.material import (
    append,
    at,
    changed,
    fill,
    ids,
    in_session,
    item,
    put,
    seqs,
    session_key,
    unique,
)
from tests.servers.redis import shared, shared_cluster

DEADLINE = 60


@pytest.fixture
def behind() -> Iterator[redis.Redis]:
    with shared().client() as client:
        yield client


@pytest.fixture
async def storage() -> AsyncIterator[RedisStorage]:
    async with RedisStorage(shared().url, namespace=unique()) as made:
        yield made


def left(behind: redis.Redis, storage: RedisStorage) -> set[bytes]:
    keys: Any = behind.keys(f"memory_async:{{{storage.namespace}*")
    return set(keys)


def members(behind: redis.Redis, storage: RedisStorage) -> list[bytes]:
    found: Any = behind.zrange(storage._keys.index("session", "a"), 0, -1)
    return list(found)


class Counted:
    """Round trips of a storage, as what is written to the wire at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trips = 0
        exchange = PoolWire._exchange

        async def count(wire: PoolWire, commands: Any, answers: list[Any]) -> None:
            self.trips += 1
            await exchange(wire, commands, answers)

        monkeypatch.setattr(PoolWire, "_exchange", count)


class TestTrips:
    async def test_one_command_a_call(self, storage: RedisStorage, behind: redis.Redis) -> None:
        """As the server counts them."""
        s, ann = unique("session"), unique("user")

        def commands() -> int:
            stats: Any = behind.info("commandstats")
            outer = ("evalsha", "eval", "multi", "script|load")
            return sum(stats.get(f"cmdstat_{each}", {"calls": 0})["calls"] for each in outer)

        checkpoint = Checkpoint(session_id=s, run_id="r", user_id=ann)
        calls: dict[str, Any] = {
            "append": lambda: storage.apply(append(s, user_id=ann, due=("job",))),
            "start": lambda: storage.apply(Put(checkpoint, ABSENT)),
            "finish": lambda: storage.apply(
                append(s, user_id=ann, run_id="r"), Delete(checkpoint.key, checkpoint.version)
            ),
            "advance": lambda: storage.apply(Advance(s, "job", 0, 1, "value")),
            "snapshot": lambda: storage.snapshot(s, ann, last=5, since="job"),
            "history": lambda: storage.history(s, last=5),
            "get": lambda: storage.get(session_key(s)),
            "turn": lambda: storage.get(append(s, run_id="r").turn.key),
            "local": lambda: storage.find("checkpoint", in_session(s), status="paused"),
            "drop": lambda: storage.apply(Drop(in_session(s))),
        }
        for call in calls.values():  # now the scripts are known
            await call()
        counts = {}
        for name, call in calls.items():
            before = commands()
            await call()
            counts[name] = commands() - before
        assert counts == dict.fromkeys(calls, 1)

    async def test_calls_at_once_share_trips(
        self, storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await storage.apply(append("warm"))
        counted = Counted(monkeypatch)
        await asyncio.gather(*[storage.apply(append(f"s{n}")) for n in range(100)])
        assert counted.trips <= 12


async def test_it_waits_for_no_more_turns_of_a_busy_loop_than_it_must(
    storage: RedisStorage,
) -> None:
    """Looking for the answer before waiting for it is for loops that have nothing to do."""
    await storage.apply(append("s"))
    turns = 0

    async def busy() -> None:
        nonlocal turns
        while True:
            time.sleep(0.01)
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(busy())
    took = []
    for _ in range(20):
        before = turns
        await storage.snapshot("s")
        took.append(turns - before)
    task.cancel()
    assert min(took) <= 2


@pytest.mark.parametrize(
    "packed", ['["1","r",0,null,{}]', '[7,"r",0,null,{}]', '[1,"r",0,null]', '{"v":1}', "null", "?"]
)
async def test_what_is_no_turn_hides_no_other(
    storage: RedisStorage, behind: redis.Redis, packed: str
) -> None:
    s = unique("session")
    await fill(storage, s, 3)
    behind.lset(storage._keys.partition(str(in_session(s)))[1].decode(), 0, packed)
    assert seqs(await storage.history(s)) == [2, 3]
    assert storage.corrupt_rows == 1


async def test_a_header_without_payload_hides_no_session(
    storage: RedisStorage, behind: redis.Redis
) -> None:
    for s in ("s", "t"):
        await fill(storage, s, 1)
    behind.hdel(storage._keys.partition(str(in_session("s")))[0].decode(), "p")
    assert seqs((await storage.snapshot("s")).turns) == [1]
    assert {each.key.id for each in await storage.find("session")} == {"s", "t"}
    assert storage.corrupt_rows == 2


class TestIndex:
    async def test_nothing_is_left_of_what_is_dropped(
        self, storage: RedisStorage, behind: redis.Redis
    ) -> None:
        s, ann = unique("session"), unique("user")
        run = Checkpoint(session_id=s, run_id="r", user_id=ann, agent_id="bot")
        await fill(storage, s, 3, user_id=ann, due=("a", "b"))
        await put(storage, run, item(in_session(s), "i", tags=("t",)))
        await put(storage, changed(run, status="paused"))
        await put(storage, UserProfile(user_id=ann))
        await storage.apply(Advance(s, "a", 0, 3))
        assert members(behind, storage)
        await storage.apply(Drop(in_session(s)))
        await storage.apply(Drop(UserProfile(user_id=ann).key.partition))
        assert left(behind, storage) == set()

    async def test_an_entry_moves_with_its_record(
        self, storage: RedisStorage, behind: redis.Redis
    ) -> None:
        run = Checkpoint(session_id="s", run_id="r", status="running", created_at=at(1))
        await put(storage, run)
        before = len(members(behind, storage))
        for status in ("paused", "running", "error", "paused"):
            run = changed(run, status=status)
            await put(storage, run)
            assert ids(await storage.find("checkpoint", status=status)) == ["r"]
        assert len(members(behind, storage)) == before

    @pytest.mark.parametrize("status", [None, "paused"])
    async def test_stale_entries_are_filtered_and_taken_out(
        self, storage: RedisStorage, behind: redis.Redis, status: str | None
    ) -> None:
        runs = [
            Checkpoint(session_id=f"s{n}", run_id=f"r{n}", status="paused", created_at=at(n))
            for n in range(9)
        ]
        await put(storage, *runs)
        for n in range(9):
            await storage.apply(append(f"s{n}", due=("job",)))
        for n in range(1, 9, 2):
            behind.delete(*storage._keys.partition(f"session/s{n}"))
        good = ["r8", "r6", "r4", "r2", "r0"]
        assert ids(await storage.find("checkpoint", status=status, limit=3)) == good[:3]
        assert ids(await storage.find("checkpoint", status=status)) == good
        assert len(await storage.find("session", lagging="job")) == 5
        assert len(await storage.find("session")) == 5
        assert storage._index is not None
        await storage._index.finish()
        found = [
            each for each in members(behind, storage) if b":s" + (status or "").encode() in each
        ]
        assert not any(b"session/s1" in each for each in found if status)
        marks = [b"session:ljob", b"session:a", b"checkpoint:" + (b"spaused" if status else b"a")]
        for mark in marks:
            assert len([each for each in members(behind, storage) if each.startswith(mark)]) == 5

    async def test_expired_items_are_taken_out_when_seen(
        self, storage: RedisStorage, behind: redis.Redis
    ) -> None:
        gone = datetime.now(UTC) - timedelta(seconds=1)
        await put(storage, item("c", "old", tags=("t",), expires_at=gone), item("c", "new"))
        assert await storage.get(item("c", "old").key) is None
        assert ids(await storage.find("item")) == ["new"]
        assert storage._index is not None
        await storage._index.finish()
        assert not [each for each in members(behind, storage) if b"old" in each]
        metas = storage._keys.partition("collection/c")[4]
        assert behind.hkeys(metas) == [b"item\0new"]

    async def test_on_a_cluster_entries_follow_at_last(self) -> None:
        """Adding, moving and removing while others do the same to the same run."""
        import asyncio

        url, namespace = shared_cluster().nodes[0].url, unique()
        first = RedisStorage(url, cluster=True, namespace=namespace)
        second = RedisStorage(url, cluster=True, namespace=namespace)
        async with first, second:
            run = Checkpoint(session_id="s", run_id="r", status="running")

            async def turn(storage: RedisStorage) -> None:
                for status in ("paused", "running") * 10:
                    await put(storage, changed(run, status=status))

            await asyncio.gather(turn(first), turn(second))
            assert first._index is not None
            assert second._index is not None
            await first._index.finish()
            await second._index.finish()
            assert ids(await first.find("checkpoint", status="running")) == ["r"]
            assert await first.find("checkpoint", status="paused") == []


class TestTTL:
    async def test_every_key_of_a_session_expires(self, behind: redis.Redis) -> None:
        async with RedisStorage(shared().url, namespace=unique(), ttl=1000) as storage:
            assert isinstance(storage, SupportsTTL)
            s = unique("session")
            await fill(storage, s, 3, due=("job",))
            await storage.apply(Advance(s, "job", 0, 2, "value"))
            await put(storage, Checkpoint(session_id=s, run_id="r"))
            await put(storage, UserProfile(user_id="ann"))
            keys = [each for each in left(behind, storage) if s.encode() in each]
            assert len(keys) == 7
            assert all(900_000 < behind.pttl(key) <= 1_000_000 for key in keys)
            for key in keys:
                behind.pexpire(key, 5000)
            await storage.apply(append(s))
            assert all(behind.pttl(key) > 900_000 for key in keys)
            [profile] = [each for each in left(behind, storage) if each.endswith(b"ann}:m")]
            assert behind.pttl(profile) == -1

    async def test_an_expired_session_is_gone_whole(self, behind: redis.Redis) -> None:
        import asyncio

        async with RedisStorage(shared().url, namespace=unique(), ttl=0.05) as storage:
            s = unique("session")
            await storage.apply(append(s, user_id="ann", due=("job",)))
            await put(storage, Checkpoint(session_id=s, run_id="r", user_id="ann"))
            async with asyncio.timeout(DEADLINE):
                while await storage.get(session_key(s)) is not None:
                    await asyncio.sleep(0.005)
            assert await storage.snapshot(s) == (None, [], None)
            assert await storage.find("session", user_id="ann") == []
            assert await storage.find("session", lagging="job") == []
            assert await storage.find("checkpoint", user_id="ann") == []
            [again] = await storage.apply(append(s, user_id="bob"))
            assert again.turn is not None
            assert again.turn.seq == 1

    async def test_a_writer_without_ttl_keeps_the_sessions_own(self, behind: redis.Redis) -> None:
        namespace, s = unique(), unique("session")
        async with RedisStorage(shared().url, namespace=namespace, ttl=1000) as storage:
            await storage.apply(append(s))
        async with RedisStorage(shared().url, namespace=namespace) as storage:
            await put(storage, Checkpoint(session_id=s, run_id="r"))
            keys = [each for each in left(behind, storage) if s.encode() in each]
            assert all(behind.pttl(key) > 0 for key in keys)

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e15, "1", True])
    def test_a_ttl_that_means_nothing_is_refused(self, ttl: Any) -> None:
        with pytest.raises(ConfigurationError, match="ttl"):
            RedisStorage(shared().url, ttl=ttl)

    async def test_it_stands_in_a_url(self) -> None:
        storage = open_storage(f"{shared().url}?ttl=3600&namespace=mine")
        assert isinstance(storage, SupportsTTL)
        assert (storage.ttl, storage.namespace) == (3600, "mine")


async def test_turns_written_at_once_by_two_objects_are_contiguous() -> None:
    import asyncio

    namespace, s = unique(), unique("session")
    one = RedisStorage(shared().url, namespace=namespace)
    other = RedisStorage(shared().url, namespace=namespace)
    async with one, other:
        await asyncio.gather(*[each.apply(append(s)) for each in (one, other) for _ in range(200)])
        assert seqs(await one.history(s)) == list(range(1, 401))
