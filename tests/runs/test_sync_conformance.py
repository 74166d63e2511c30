"""Runs through the sync facade keep what they promise, each call from a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_async import SqliteStorage, Storage, sync
from memory_async.testing.runs import RunConformance
from memory_async.testing.suite import MakeStorage
from tests.runs import facade


class TestRunsThroughTheSyncFacade(RunConformance):
    one_loop = False

    @pytest.fixture(autouse=True)
    def _facades(self) -> Iterator[None]:
        self.facades = facade.Facades()
        yield
        self.facades.close()

    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            path = tmp_path / "memory.db"
            driver = SqliteStorage(path, namespace=namespace, durability="normal")
            return facade.InThread(sync.Storage(driver))

        return make

    def memory(self, storage: Storage, *args: Any, **kwargs: Any) -> Any:
        return self.facades.make(facade.Memory, sync.Memory, storage, *args, **kwargs)

    def inbox(self, storage: Storage) -> Any:
        return self.facades.make(facade.Inbox, sync.Inbox, storage)
