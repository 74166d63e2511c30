"""`SqliteStorage`: the conformance suite, on a file and in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory_async.keys import Key
from memory_async.storage.protocol import Storage
from memory_async.storage.sqlite import SqliteStorage
from memory_async.testing import MakeStorage, StorageConformance
from memory_async.testing.batches import BatchConformance
from memory_async.testing.log import LogConformance
from memory_async.testing.robustness import RobustnessConformance
from memory_async.testing.sharing import SharingConformance

DAMAGE = {
    "turn": """
        UPDATE memory_turns SET payload = 'rubbish' WHERE run_id = :id
        AND session = (SELECT id FROM memory_sessions WHERE session_id = :partition)""",
    "session": "UPDATE memory_sessions SET payload = '{}' WHERE session_id = :id",
    "record": """
        UPDATE memory_records SET payload = '{"v":1,'
        WHERE record_id = :id AND partition = :space || '/' || :partition""",
}


def damage(execute: Callable[[str, dict[str, str]], Any], key: Key) -> None:
    where = {"id": key.id, "partition": key.partition.id, "space": key.partition.space}
    execute(DAMAGE.get(key.kind, DAMAGE["record"]), where)


class TestSqliteFile(StorageConformance):
    """With the default, ``durability="full"``."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        self.file = tmp_path / "memory.db"
        return self.file

    @pytest.fixture
    def storages(self, path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return SqliteStorage(path, namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        db = sqlite3.connect(self.file)
        damage(db.execute, key)
        assert db.total_changes == 1
        db.commit()
        db.close()


class TestSqliteNormal(LogConformance, BatchConformance, RobustnessConformance, SharingConformance):
    """With ``durability="normal"``, what that could change."""

    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            path = str(tmp_path / "memory.db")
            return SqliteStorage(path, namespace=namespace, durability="normal")

        return make


class TestSqliteInMemory(StorageConformance):
    shared = False

    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return SqliteStorage(namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        assert isinstance(storage, SqliteStorage)
        writer = storage._connections[0]._conn
        before = writer.total_changes
        damage(writer.execute, key)
        assert writer.total_changes == before + 1
