"""What is asked of Mem0, wherever it runs: memories, found by the scope and metadata they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["Found", "Scope", "Service", "found"]

Scope = Mapping[str, str]
"""One of Mem0's entities, e.g. ``{"agent_id": "…"}``: a memory of the Platform has one, not two."""


class Found(NamedTuple):
    """One memory as Mem0 gives it."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    created_at: str
    updated_at: str
    score: float


class Service(Protocol):
    """Every method raises a `StorageError` unless Mem0 has confirmed; none takes a failure for
    "not found"."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def abandon(self) -> None:
        """Forget inherited connections without closing them: they are another process's."""

    async def add(
        self,
        scope: Scope,
        messages: Sequence[Mapping[str, str]],
        metadata: Mapping[str, Any],
        *,
        infer: bool,
    ) -> list[str]:
        """The ids of the new memories; none when Mem0 names none."""
        ...

    async def read_all(self, scope: Scope, metadata: Mapping[str, str]) -> list[Found]:
        """All memories, of every page."""
        ...

    async def search(
        self, query: str, scope: Scope, metadata: Mapping[str, str], limit: int
    ) -> list[Found]:
        """The best, best first."""
        ...

    async def update(self, id: str, text: str, metadata: Mapping[str, Any]) -> bool:
        """Whether there still is such a memory; it is changed then."""
        ...

    async def delete(self, id: str) -> None:
        """Also a success when it is gone already."""


def found(memory: Mapping[str, Any]) -> Found:
    """One of the results of a listing or a search."""
    return Found(
        str(memory["id"]),
        memory.get("memory") or "",
        memory.get("metadata") or {},
        memory.get("created_at") or "",
        memory.get("updated_at") or memory.get("created_at") or "",
        float(memory.get("score") or 0.0),
    )
