"""A knowledge base through the sync facade keeps what it promises, each call from a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_async import SqliteStorage, Storage, sync
from memory_async.testing import KnowledgeConformance, MakeStorage
from tests.runs import facade


class TestKnowledgeThroughTheSyncFacade(KnowledgeConformance):
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

    def knowledge(self, storage: Storage, id: str, **options: Any) -> Any:
        return self.facades.make(facade._Dressed, sync.KnowledgeBase, storage, id, **options)
