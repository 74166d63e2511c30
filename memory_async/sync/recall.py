"""Knowledge that is searched without ``await``, for `sync.Memory.load`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from typing import Protocol

from memory_async.recall import RECALLED, Knowledge, KnowledgePassage

__all__ = ["PlainKnowledge", "searched"]


class PlainKnowledge(Protocol):
    """Anything that can be searched, e.g. a `sync.KnowledgeBase`."""

    def search(self, query: str, limit: int) -> Sequence[KnowledgePassage]: ...


def searched(given: Knowledge | PlainKnowledge | None, query: str | None) -> Knowledge | None:
    """``given``, for the loop. What is plain is searched here: it may need that loop itself."""
    if given is None or query is None or inspect.iscoroutinefunction(given.search):
        return given  # type: ignore[return-value]
    return _Found(given.search(query, RECALLED))


class _Found:
    def __init__(
        self, passages: Sequence[KnowledgePassage] | Awaitable[Sequence[KnowledgePassage]]
    ) -> None:
        self._passages = passages

    async def search(self, query: str, limit: int) -> Sequence[KnowledgePassage]:
        return await self._passages if inspect.isawaitable(self._passages) else self._passages
