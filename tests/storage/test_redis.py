"""`RedisStorage`: the conformance suite, on a Redis and on a Redis Cluster of three."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import redis

from memory_async.keys import Key
from memory_async.storage.protocol import Storage
from memory_async.storage.redis import RedisStorage
from memory_async.storage.redis.rows import field
from memory_async.testing import MakeStorage, StorageConformance
from memory_async.testing.runs import RunConformance
from memory_async.testing.suite import Suite
from tests.servers.redis import shared, shared_cluster
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


def damage(client: redis.Redis, storage: Storage, key: Key) -> None:
    """Overwrite a payload."""
    assert isinstance(storage, RedisStorage)
    header, turns, _, runs, _, payloads, _ = storage._keys.partition(str(key.partition))
    if key.kind == "turn":
        seq = client.hget(runs, key.id)
        assert seq is not None
        trimmed = client.hlen(runs) - client.llen(turns)
        place = int(seq) - trimmed - 1
        packed: Any = client.lindex(turns, place)
        client.lset(turns, place, packed[:-3] + b"rubbish")
    elif key.kind == "session":
        assert client.hset(header, "p", "{}") == 0
    else:
        assert client.hset(payloads, field(key.kind, key.id), '{"v":1,') == 0


class OnRedis(Suite):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return RedisStorage(shared().url, namespace=namespace)

        return make


class OnCluster(Suite):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return RedisStorage(shared_cluster().nodes[0].url, cluster=True, namespace=namespace)

        return make


@pytest.mark.no_cover
class TestRunsOnRedis(OnRedis, RunConformance):
    """Runs that wait for a human."""


@pytest.mark.no_cover
class TestRunsOnRedisCluster(OnCluster, RunConformance):
    """Runs that wait for a human."""


class TestRedis(OnRedis, StorageConformance):
    """One server."""

    async def damage(self, storage: Storage, key: Key) -> None:
        with shared().client() as client:
            damage(client, storage, key)


class TestRedisCluster(OnCluster, StorageConformance):
    """Three nodes."""

    async def damage(self, storage: Storage, key: Key) -> None:
        for node in shared_cluster().nodes:
            with node.client() as client, suppress(redis.exceptions.MovedError):
                return damage(client, storage, key)
        raise AssertionError("no node holds it")


class TestRedisThroughTheFacade(ThroughTheFacade, TestRedis): ...


class TestRunsOnRedisThroughTheFacade(RunsThroughTheFacade, TestRunsOnRedis): ...


class TestRedisClusterThroughTheFacade(ThroughTheFacade, TestRedisCluster): ...


class TestRunsOnRedisClusterThroughTheFacade(RunsThroughTheFacade, TestRunsOnRedisCluster): ...
