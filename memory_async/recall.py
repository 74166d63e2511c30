"""What of earlier turns, and of a knowledge base, is brought into a prompt for a query."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from memory_async.search import Hit

__all__ = ["RECALLED", "Knowledge", "KnowledgePassage", "recall_lines", "source_lines"]

RECALLED = 5
"""Passages of each kind that a query brings along."""

MAX_LINE = 1000  # characters of a message that are brought along


class KnowledgePassage(Protocol):
    """What `Knowledge.search` finds: ``source`` says where it stands."""

    @property
    def text(self) -> str: ...

    @property
    def source(self) -> str | None: ...


class Knowledge(Protocol):
    """Anything that can be searched, e.g. a `KnowledgeBase`."""

    async def search(self, query: str, limit: int) -> Sequence[KnowledgePassage]: ...


def recall_lines(hits: Iterable[Hit], loaded: Collection[tuple[str, int]]) -> list[str]:
    """The best that are in none of the ``loaded`` turns (session, seq), in the order they were
    said: a line each, with its day and speaker."""
    others = [hit for hit in hits if (hit.session_id, hit.seq) not in loaded][:RECALLED]
    others.sort(key=lambda hit: (hit.created_at, hit.session_id, hit.seq, hit.index))
    return [f"{hit.created_at:%Y-%m-%d} {hit.name or hit.role}: {_cut(hit.text)}" for hit in others]


def source_lines(passages: Iterable[KnowledgePassage]) -> list[str]:
    """Each passage after the name of its source, best first."""
    return [f"{each.source}: {each.text}" if each.source else each.text for each in passages]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…"
