"""`sync.KnowledgeBase`: `memory_async.KnowledgeBase` for plain callers."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any

from memory_async import knowledge
from memory_async.keys import Cursor
from memory_async.knowledge import Content, KnowledgeHit, OnProgress
from memory_async.records import Document, DocumentStatus
from memory_async.storage import protocol
from memory_async.sync.block import Block
from memory_async.sync.storage import Storage
from memory_async.vectors import Embed

__all__ = ["KnowledgeBase"]


class KnowledgeBase(Block):
    """See `memory_async.KnowledgeBase`. A URL or driver closes with it, a `sync.Storage` stays
    open. ``embed`` and an async ``on_progress`` run in the facade's event loop."""

    def __init__(
        self,
        storage: str | protocol.Storage | Storage,
        knowledge_base_id: str,
        *,
        embed: Embed | None = None,
        passage_size: int = 1_000,
    ) -> None:
        self._owns_storage = not isinstance(storage, Storage)
        self._storage = storage if isinstance(storage, Storage) else Storage(storage)
        self._portal = self._storage._portal
        self._knowledge = knowledge.KnowledgeBase(
            self._storage._driver, knowledge_base_id, embed=embed, passage_size=passage_size
        )

    @property
    def knowledge_base_id(self) -> str:
        return self._knowledge.knowledge_base_id

    def add(
        self,
        content: Content,
        *,
        name: str | None = None,
        source: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Document:
        return self._portal.call(
            self._knowledge.add,
            content,
            name=name,
            source=source,
            description=description,
            metadata=metadata,
        )

    def add_many(
        self, contents: Iterable[Content], *, on_progress: OnProgress | None = None
    ) -> builtins.list[Document]:
        return self._portal.call(self._knowledge.add_many, contents, on_progress=on_progress)

    def delete(self, document: str | Document) -> bool:
        return self._portal.call(self._knowledge.delete, document)

    def clear(self) -> None:
        self._portal.call(self._knowledge.clear)

    def get(self, document: str | Document) -> Document | None:
        return self._portal.call(self._knowledge.get, document)

    def list(
        self,
        *,
        source: str | None = None,
        status: DocumentStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 100,
        before: Document | Cursor | None = None,
    ) -> builtins.list[Document]:
        return self._portal.call(
            self._knowledge.list,
            source=source,
            status=status,
            metadata=metadata,
            limit=limit,
            before=before,
        )

    def count(
        self,
        *,
        source: str | None = None,
        status: DocumentStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        return self._portal.call(
            self._knowledge.count, source=source, status=status, metadata=metadata
        )

    def search(
        self, query: str, limit: int = 5, *, metadata: Mapping[str, Any] | None = None
    ) -> builtins.list[KnowledgeHit]:
        return self._portal.call(self._knowledge.search, query, limit, metadata=metadata)

    def close(self) -> None:
        self._portal.refuse_own_thread()
        if self._portal.running:
            self._portal.call(self._knowledge.close)
        if self._owns_storage:
            self._storage.close()

    def _begin(self) -> None:
        self._storage.open()

    def __repr__(self) -> str:
        return f"sync.{self._knowledge!r}"
