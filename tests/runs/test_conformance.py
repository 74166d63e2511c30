"""Runs on the drivers that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_async import InMemoryStorage, SqliteStorage, Storage
from memory_async.testing.runs import RunConformance
from memory_async.testing.suite import MakeStorage


class TestRunsInMemory(RunConformance):
    shared = False

    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return InMemoryStorage(namespace=namespace)

        return make


class TestRunsOnSqlite(RunConformance):
    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            path = tmp_path / "memory.db"
            return SqliteStorage(path, namespace=namespace, durability="normal")

        return make
