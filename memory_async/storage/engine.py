"""What an engine without queries or scripts of its own does in Python: the conditions of `find`,
and what writes make of a session's header."""

from __future__ import annotations

from collections.abc import Iterable

from memory_async.codec import RecordRow, SessionRow
from memory_async.keys import to_micros, utc_now
from memory_async.storage.batch import AppendOp
from memory_async.storage.driver import Query, place_of

__all__ = ["appended", "is_expired", "scan", "start_of_view", "trimmed"]


def scan(rows: Iterable[SessionRow | RecordRow], query: Query) -> list[SessionRow | RecordRow]:
    """The rows that meet the query, newest first."""
    found = [row for row in rows if _matches(row, query)]
    return sorted(found, key=place_of, reverse=True)[: query.limit]


def start_of_view(header: SessionRow, last: int | None, since: str | None) -> int:
    """The seq after which the turns of a `snapshot` begin."""
    start = 0 if last is None else header.last_seq - last
    if since is not None and since in header.jobs:
        start = min(start, header.jobs[since][0])
    return max(start, header.trimmed)


def appended(op: AppendOp, header: SessionRow | None) -> SessionRow:
    """The header after an append; without one before, the session begins."""
    before = header or op.session
    return before._replace(
        last_seq=before.last_seq + 1,
        keep_turns=before.keep_turns or op.session.keep_turns,
        updated_at=max(before.updated_at, op.turn.created_at),
        jobs={**dict.fromkeys(op.due, (0, None)), **before.jobs},
    )


def trimmed(header: SessionRow, through: int) -> SessionRow:
    """The header after trimming: never past the smallest cursor, never where turns are kept."""
    reach = min((cursor for cursor, _ in header.jobs.values()), default=through)
    through = min(through, reach, header.last_seq)
    if header.keep_turns or through <= header.trimmed:
        return header
    return header._replace(trimmed=through)


def is_expired(row: RecordRow) -> bool:
    return row.expires_at is not None and row.expires_at <= to_micros(utc_now())


def _matches(row: SessionRow | RecordRow, query: Query) -> bool:
    place = place_of(row)
    if isinstance(row, SessionRow):
        through = row.jobs.get(query.lagging or "", (row.last_seq, None))[0]
        fits = not query.tags and query.status is None
        fits = fits and (query.lagging is None or through < row.last_seq)
    else:
        fits = set(query.tags) <= set(row.tags) and query.status in (None, row.status)
        fits = fits and query.lagging is None and not is_expired(row)
    return (
        fits
        and query.partition in (None, place[2])
        and query.id in (None, place[1])
        and place[1].startswith(query.prefix or "")
        and query.user_id in (None, row.user_id)
        and (query.before is None or place < query.before)
    )
