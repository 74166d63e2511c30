"""The job that makes a session's turns findable, by their words and by what they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from memory_async.meaning import lines_of, vectors_of
from memory_async.records import Session
from memory_async.searchable import said
from memory_async.storage.protocol import ALWAYS, Advance, Put, Storage, SupportsSearch, Write
from memory_async.turns import Turn
from memory_async.vectors import Embed

__all__ = ["SEARCH_JOB", "SearchJob"]

SEARCH_JOB = "search"
EVERY = 20  # turns that are indexed together while they come fast
IDLE = 2.0  # seconds after which fewer are


class SearchJob:
    """Due when `EVERY` turns have come, or after a pause of `IDLE` seconds."""

    name = SEARCH_JOB
    every = EVERY
    idle: float | None = IDLE

    def __init__(self, embed: Embed | None = None) -> None:
        self._embed = embed

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Index ``turns``, then move on: what died between is indexed again, to the same end."""
        after, through = session.jobs[self.name].through, turns[-1].seq
        if isinstance(storage, SupportsSearch):
            await asyncio.gather(*(_index(storage, turn) for turn in turns))
        writes: list[Write] = [
            Advance(session.session_id, self.name, after, through, created_at=session.created_at)
        ]
        if self._embed is not None:
            before = await storage.history(session.session_id, before=turns[0].seq, last=1)
            lines = lines_of(turns, before[0] if before else None)
            if vectors := await vectors_of(self._embed, session, after, lines):
                writes.append(Put(vectors, ALWAYS))
        await storage.apply(*writes)
        return True


async def _index(storage: SupportsSearch, turn: Turn) -> None:
    texts, labels = zip(*said(turn), strict=True) if turn.messages else ((), ())
    said_by = [str(label) for label in labels]
    await storage.index(turn.key, texts, said_by, created_at=turn.created_at)
