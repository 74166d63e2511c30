"""The conformance suite through the facade: in memory and on SQLite, with ``with`` and bare."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from memory_async import InMemoryStorage, Key, SqliteStorage, Storage, sync
from memory_async.testing import MakeStorage, StorageConformance
from tests.storage import test_in_memory, test_sqlite
from tests.sync.threaded import Threaded


@pytest.fixture(scope="class")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests, never closed in between: making files is slow, and tested natively."""
    path = tmp_path_factory.mktemp("storage") / "memory.db"
    with sync.Storage(f"sqlite:///{path}"):
        yield path


class ThroughTheFacade(StorageConformance):
    one_loop = False
    within: ClassVar[bool]


class InMemory(ThroughTheFacade):
    shared = False

    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            driver = InMemoryStorage(namespace=namespace)
            return Threaded(sync.Storage(driver), within=self.within)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        assert isinstance(storage, Threaded)
        native = test_in_memory.TestInMemoryStorage()
        await native.damage(storage.storage._driver, key)


class Sqlite(ThroughTheFacade):
    @pytest.fixture
    def storages(self, file: Path) -> MakeStorage:
        self.file = file

        def make(namespace: str = "default") -> Storage:
            driver = SqliteStorage(file, namespace=namespace, durability="normal")
            return Threaded(sync.Storage(driver), within=self.within)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        with closing(sqlite3.connect(self.file)) as db:
            test_sqlite.damage(db.execute, key)
            db.commit()


class TestInMemoryBare(InMemory):
    within = False


class TestInMemoryWith(InMemory):
    within = True


class TestSqliteBare(Sqlite):
    within = False


class TestSqliteWith(Sqlite):
    within = True
