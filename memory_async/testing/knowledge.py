"""`KnowledgeConformance`: a knowledge base, on any storage."""

from __future__ import annotations

from memory_async.testing.knowledge_documents import DocumentConformance
from memory_async.testing.knowledge_races import RaceConformance
from memory_async.testing.knowledge_search import SearchConformance

__all__ = ["KnowledgeConformance"]


class KnowledgeConformance(DocumentConformance, RaceConformance, SearchConformance):
    """What `KnowledgeBase` promises, over a storage of yours. Subclass it as `StorageConformance`,
    with the same fixture ``storages``::

        class TestKnowledgeOnMyStorage(KnowledgeConformance):
            @pytest.fixture
            def storages(self, tmp_path):
                def make(namespace="default"):
                    return MyStorage(tmp_path / "memory.db", namespace=namespace)

                return make

    ``knowledge`` may be overridden, to test something else that behaves like `KnowledgeBase`.
    """
