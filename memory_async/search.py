"""Finding what was said: the engine's full text, what it has not taken yet, and a ranking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from memory_async.indexing import SEARCH_JOB
from memory_async.ranking import AROUND, Passage, rank
from memory_async.records import Session, Turn
from memory_async.searchable import Label, said
from memory_async.storage.protocol import Match, Storage, SupportsSearch

__all__ = ["Hit", "search_turns"]

CANDIDATES = 50
"""Texts the engine is asked for; with those around them they are ranked."""

SESSIONS = 20
"""Of a user's sessions that no engine has indexed, so many of the newest are looked at."""

UNINDEXED = 1000
"""Turns, the newest, that are ranked of those which no engine has indexed."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found: ``index`` is its place in the turn. Higher scores fit better; they
    compare within one answer only."""

    session_id: str
    seq: int
    run_id: str
    index: int
    role: str
    name: str | None
    text: str
    created_at: datetime
    score: float


async def search_turns(
    storage: Storage,
    query: str,
    *,
    user_id: str | None,
    session: Session | None,
    limit: int,
) -> list[Hit]:
    """The messages of the user, or of the one ``session``, that fit ``query`` best."""
    found: dict[tuple[str, int, int], _Said] = {}
    if session is not None:
        sessions: Sequence[Session] = [session]
    else:
        sessions = await _behind(storage, user_id)
    for turn in await _unindexed(storage, sessions):
        for index, (text, label) in enumerate(said(turn)):
            if text:
                place = (turn.session_id, turn.seq, index)
                found[place] = _Said(turn.run_id, text, label, fits=True)
    if isinstance(storage, SupportsSearch):
        matches = await storage.search(
            query,
            kind="turn",
            partition=None if session is None else session.key.partition,
            user_id=user_id,
            limit=CANDIDATES,
            around=AROUND,
        )
        for match in matches:
            place = (match.key.partition.id, match.seq, match.part)
            found.setdefault(place, _Said.of(match))
    return _best(query, found, limit)


@dataclass(frozen=True, slots=True)
class _Said:
    run_id: str
    text: str
    label: Label
    fits: bool

    @classmethod
    def of(cls, match: Match) -> _Said:
        return cls(match.key.id, match.text, Label.parse(match.label), match.score > 0)


async def _behind(storage: Storage, user_id: str | None) -> list[Session]:
    """The user's sessions of which turns may be in no index, newest first."""
    pages = await asyncio.gather(
        storage.find("session", user_id=user_id, limit=SESSIONS),
        storage.find("session", user_id=user_id, lagging=SEARCH_JOB, limit=SESSIONS),
    )
    found = {each.key: each for page in pages for each in page if isinstance(each, Session)}
    return list(found.values())


async def _unindexed(storage: Storage, sessions: Sequence[Session]) -> list[Turn]:
    turns: list[Turn] = []
    for session in sessions:
        job = session.jobs.get(SEARCH_JOB)
        indexed = job.through if job is not None and isinstance(storage, SupportsSearch) else 0
        left = UNINDEXED - len(turns)
        if max(indexed, session.trimmed) < session.last_seq and left > 0:
            turns += await storage.history(session.session_id, after=indexed, last=left)
    return turns


def _best(query: str, found: dict[tuple[str, int, int], _Said], limit: int) -> list[Hit]:
    places = list(found)
    passages = [
        Passage(each.text, each.label.name, place, each.fits) for place, each in found.items()
    ]
    hits = []
    for number, score in rank(query, passages, limit):
        (session_id, seq, index), each = places[number], found[places[number]]
        hits.append(
            Hit(
                session_id,
                seq,
                each.run_id,
                index,
                each.label.role,
                each.label.name or None,
                each.text,
                each.label.created_at,
                score,
            )
        )
    return hits
