"""The suites through the facade, on what needs no server; the others are beside their drivers'."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from memory_async import Key, SqliteStorage, Storage, sync
from memory_async.testing import MakeStorage, StorageConformance
from tests.runs import test_conformance as runs
from tests.storage import test_in_memory, test_sqlite
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


@pytest.fixture(scope="class")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests, never closed in between: making files is slow, and tested natively."""
    path = tmp_path_factory.mktemp("storage") / "memory.db"
    with sync.Storage(f"sqlite:///{path}"):
        yield path


class OnSqlite(StorageConformance):
    @pytest.fixture
    def storages(self, file: Path) -> MakeStorage:
        self.file = file

        def make(namespace: str = "default") -> Storage:
            return SqliteStorage(file, namespace=namespace, durability="normal")

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        with closing(sqlite3.connect(self.file)) as db:
            test_sqlite.damage(db.execute, key)
            db.commit()


class TestSqliteBare(ThroughTheFacade, OnSqlite):
    within: ClassVar[bool | None] = False


class TestSqliteWith(ThroughTheFacade, OnSqlite):
    within: ClassVar[bool | None] = True


class TestInMemory(ThroughTheFacade, test_in_memory.TestInMemoryStorage): ...


class TestRunsOnSqlite(RunsThroughTheFacade, runs.TestRunsOnSqlite): ...


class TestRunsInMemory(RunsThroughTheFacade, runs.TestRunsInMemory): ...
