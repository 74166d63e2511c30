"""Finding what was said: the engine's full text, what it has not taken yet, and a ranking."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from memory_async.indexing import SEARCH_JOB
from memory_async.meaning import Place, lines_of, nearest
from memory_async.ranking import AROUND, Passage, rank
from memory_async.records import Record, Session
from memory_async.searchable import Label, said, speaker_of
from memory_async.storage.protocol import Storage, SupportsSearch
from memory_async.turns import Turn
from memory_async.vectors import Embed, cosine, embed_texts

__all__ = ["Hit", "search_turns"]

CANDIDATES = 25
"""Texts the engine is asked for; with those around them they are ranked."""

SESSIONS, GLANCE = 20, 3
"""Of a user's sessions, so many of the newest are looked at: for turns that no index has taken, and
for sessions that none takes; for those only when the few newest have one."""

EMBEDDED = 32
"""Turns no vectors are stored of yet, the newest, that are embedded together with the query."""

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
    embed: Embed | None = None,
) -> list[Hit]:
    """The messages of the user, or of the one ``session``, that fit ``query`` best."""
    sessions = [session] if session is not None else await _behind(storage, user_id)
    owner = user_id if session is None else session.user_id
    turns = await _unindexed(storage, sessions, owner)
    found = {
        Place(turn.session_id, turn.seq, index): _Said(turn.run_id, text, str(label), fits=True)
        for turn in turns
        for index, (text, label) in enumerate(said(turn))
        if text
    }
    if isinstance(storage, SupportsSearch):
        matches = await storage.search(
            query,
            kind="turn",
            partition=None if session is None else session.key.partition,
            user_id=user_id,
            limit=max(CANDIDATES, limit),
            around=AROUND,
        )
        for key, part, seq, text, score, label in matches:
            place = Place(key.partition.id, seq, part)
            found.setdefault(place, _Said(key.id, text, label, score > 0))
    alike: dict[Place, float] = {}
    if embed is not None:
        newest = sorted(turns, key=lambda turn: turn.created_at)[-EMBEDDED:]
        lines = [line for turn in newest for line in lines_of([turn])]
        vector, *others = await embed_texts(embed, [query, *(line.text for line in lines)])
        alike = await nearest(
            storage,
            vector,
            user_id=user_id,
            session_id=None if session is None else session.session_id,
            limit=max(CANDIDATES, limit),
            also=found,
        )
        alike |= {
            line.place: cosine(vector, other) for line, other in zip(lines, others, strict=True)
        }
        found |= await _look_up(storage, alike.keys() - found.keys(), owner)
    return _best(query, found, alike, limit)


class _Said(NamedTuple):
    run_id: str
    text: str
    label: str
    fits: bool


async def _behind(storage: Storage, user_id: str | None) -> list[Session]:
    """The user's sessions of which turns may be in no index, newest first."""
    newest, lagging = await asyncio.gather(
        storage.find("session", user_id=user_id, limit=GLANCE),
        storage.find("session", user_id=user_id, lagging=SEARCH_JOB, limit=SESSIONS),
    )
    if len(newest) == GLANCE and not all(_is_indexed(storage, each) for each in newest):
        newest = await storage.find("session", user_id=user_id, limit=SESSIONS)
    found = {each.key: each for each in (*newest, *lagging) if isinstance(each, Session)}
    return list(found.values())


def _is_indexed(storage: Storage, session: Record) -> bool:
    indexed = isinstance(session, Session) and SEARCH_JOB in session.jobs
    return indexed and isinstance(storage, SupportsSearch)


async def _unindexed(
    storage: Storage, sessions: Sequence[Session], owner: str | None
) -> list[Turn]:
    turns: list[Turn] = []
    for session in sessions:
        indexed = session.jobs[SEARCH_JOB].through if _is_indexed(storage, session) else 0
        left = UNINDEXED - len(turns)
        if max(indexed, session.trimmed) < session.last_seq and left > 0:
            turns += await storage.history(session.session_id, after=indexed, last=left)
    # A session may have been deleted meanwhile, and begun anew by somebody else.
    return [turn for turn in turns if turn.user_id == owner]


async def _look_up(
    storage: Storage, places: Collection[Place], owner: str | None
) -> dict[Place, _Said]:
    """What was said there, where it still is."""
    wanted = sorted({(place.session_id, place.seq) for place in places})
    pages = await asyncio.gather(
        *(storage.history(id, after=seq - 1, before=seq + 1) for id, seq in wanted)
    )
    found = {}
    for turn in (turn for page in pages for turn in page):
        for index, (text, label) in enumerate(said(turn)):
            place = Place(turn.session_id, turn.seq, index)
            if place in places and text and turn.user_id == owner:
                found[place] = _Said(turn.run_id, text, str(label), fits=True)
    return found


def _best(
    query: str, found: dict[Place, _Said], alike: dict[Place, float], limit: int
) -> list[Hit]:
    places = list(found)
    passages = [
        Passage(each.text, speaker_of(each.label), place, each.fits)
        for place, each in found.items()
    ]
    hits = []
    close = [alike.get(place, 0.0) for place in places] if alike else ()
    for number, score in rank(query, passages, limit, close):
        (session_id, seq, index), each = places[number], found[places[number]]
        label = Label.parse(each.label)
        hits.append(
            Hit(
                session_id,
                seq,
                each.run_id,
                index,
                label.role,
                label.name or None,
                each.text,
                label.created_at,
                score,
            )
        )
    return hits
