"""A knowledge base on every driver, by the suite that is part of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_async import InMemoryStorage, SqliteStorage, Storage
from memory_async.testing import KnowledgeConformance, MakeStorage


class TestKnowledgeInMemory(KnowledgeConformance):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return InMemoryStorage(namespace=namespace)

        return make


class TestKnowledgeOnSqlite(KnowledgeConformance):
    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return SqliteStorage(tmp_path / "m.db", namespace=namespace, durability="normal")

        return make


@pytest.mark.no_cover
class TestKnowledgeOnJSON(KnowledgeConformance):
    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        pytest.importorskip("filelock")
        from memory_async.storage.json import JSONStorage

        def make(namespace: str = "default") -> Storage:
            return JSONStorage(tmp_path / "memory", namespace=namespace)

        return make


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    pytest.importorskip("asyncpg")
    from tests.servers.postgres import postgres

    with postgres() as server:
        yield server.url()


@pytest.mark.no_cover
class TestKnowledgeOnPostgres(KnowledgeConformance):
    @pytest.fixture
    def storages(self, url: str) -> MakeStorage:
        from memory_async.storage.postgres import PostgresStorage

        def make(namespace: str = "default") -> Storage:
            return PostgresStorage(url, namespace=namespace)

        return make


@pytest.mark.no_cover
class TestKnowledgeOnRedis(KnowledgeConformance):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        pytest.importorskip("redis", exc_type=ImportError)
        from memory_async.storage.redis import RedisStorage
        from tests.servers.redis import shared

        def make(namespace: str = "default") -> Storage:
            return RedisStorage(shared().url, namespace=namespace)

        return make


@pytest.mark.no_cover
class TestKnowledgeOnRedisCluster(KnowledgeConformance):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        pytest.importorskip("redis", exc_type=ImportError)
        from memory_async.storage.redis import RedisStorage
        from tests.servers.redis import shared_cluster

        def make(namespace: str = "default") -> Storage:
            url = shared_cluster().nodes[0].url
            return RedisStorage(url, cluster=True, namespace=namespace)

        return make
