"""The job that makes a session's turns findable, and what of a turn is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from memory_async.keys import from_micros, to_micros
from memory_async.message import Message
from memory_async.records import Session, Turn
from memory_async.storage.protocol import Advance, Storage, SupportsSearch

__all__ = ["SEARCH_JOB", "Label", "SearchJob", "said"]

SEARCH_JOB = "search"
EVERY = 20  # turns that are indexed together while they come fast
IDLE = 2.0  # seconds after which fewer are
MAX_TEXT = 20_000  # characters of a message that are searched
_UNSEARCHED = ("system", "developer")


class Label(NamedTuple):
    """What comes back with an indexed text: whose it is, and when it was said."""

    role: str
    name: str
    created_at: datetime

    def __str__(self) -> str:
        return f"{to_micros(self.created_at)} {self.role} {self.name}"

    @classmethod
    def parse(cls, text: str) -> Label:
        at, role, name = text.split(" ", 2)
        return cls(role, name, from_micros(int(at)))

    @classmethod
    def of(cls, turn: Turn, message: Message) -> Label:
        return cls(message.role, message.name or "", message.created_at or turn.created_at)


def said(turn: Turn) -> Iterator[tuple[str, Label]]:
    """The text of each message of a turn (empty where it is not searched), and its label."""
    for message in turn.messages:
        text = "" if message.role in _UNSEARCHED else message.text[:MAX_TEXT]
        yield text, Label.of(turn, message)


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
