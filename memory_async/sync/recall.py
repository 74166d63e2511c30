"""Knowledge that is searched without ``await``, for `sync.Memory.load`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, Protocol

from memory_async.recall import Knowledge, KnowledgePassage

__all__ = ["PlainKnowledge", "searchable"]


class PlainKnowledge(Protocol):
    """Anything that can be searched, e.g. a `sync.KnowledgeBase`."""

    def search(self, query: str, limit: int) -> Sequence[KnowledgePassage]: ...


def searchable(given: Knowledge | PlainKnowledge | None) -> Knowledge | None:
    """``given``, for the loop: what is plain is searched in a thread."""
    if given is None or inspect.iscoroutinefunction(given.search):
        return given  # type: ignore[return-value]
    return _InThread(given)


class _InThread:
    def __init__(self, of: Knowledge | PlainKnowledge) -> None:
        self._of = of

    async def search(self, query: str, limit: int) -> Sequence[KnowledgePassage]:
        found: Any = await asyncio.to_thread(self._of.search, query, limit)
        passages: Sequence[KnowledgePassage] = await found if inspect.isawaitable(found) else found
        return passages
