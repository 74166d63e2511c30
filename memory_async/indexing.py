"""The job that makes a session's turns findable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from memory_async.records import Session, Turn
from memory_async.searchable import said
from memory_async.storage.protocol import Advance, Storage, SupportsSearch

__all__ = ["SEARCH_JOB", "SearchJob"]

SEARCH_JOB = "search"
EVERY = 20  # turns that are indexed together while they come fast
IDLE = 2.0  # seconds after which fewer are


class SearchJob:
    """Due when `EVERY` turns have come, or after a pause of `IDLE` seconds."""

    name = SEARCH_JOB
    every = EVERY
    idle: float | None = IDLE

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Index ``turns``, then move on: what died between is indexed again, to the same end."""
        if isinstance(storage, SupportsSearch):
            await asyncio.gather(*(_index(storage, turn) for turn in turns))
        await storage.apply(
            Advance(
                session.session_id,
                self.name,
                session.jobs[self.name].through,
                turns[-1].seq,
                created_at=session.created_at,
            )
        )
        return True


async def _index(storage: SupportsSearch, turn: Turn) -> None:
    texts, labels = zip(*said(turn), strict=True) if turn.messages else ((), ())
    await storage.index(turn.key, texts, [str(label) for label in labels])
