"""A knowledge base through the sync facade keeps what it promises, each call from a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_async import SqliteStorage, Storage, sync
from memory_async.testing import KnowledgeConformance, MakeStorage
from tests.sync import dressed
from tests.sync.conformance import ThroughTheFacade


class TestKnowledgeThroughTheSyncFacade(ThroughTheFacade, KnowledgeConformance):
    @pytest.fixture(autouse=True)
    def _facades(self) -> Iterator[None]:
        self.facades = dressed.Facades()
        yield
        self.facades.close()

    @pytest.fixture
    def storages(self, tmp_path: Path) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            path = tmp_path / "memory.db"
            return SqliteStorage(path, namespace=namespace, durability="normal")

        return make

    def knowledge(self, storage: Storage, id: str, **options: Any) -> Any:
        return self.facades.make(dressed.Dressed, sync.KnowledgeBase, storage, id, **options)
