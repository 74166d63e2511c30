"""What a `find` asks for, and whether a row is it."""

from __future__ import annotations

from memory_async.codec import RecordRow, SessionRow
from memory_async.storage.driver import Query, place_of

Row = SessionRow | RecordRow


def family(query: Query) -> tuple[str, bool]:
    """The family to walk through, the one with the fewest entries first; and whether it is one
    family or a stretch of several (ids with a prefix)."""
    for letter, value in (
        ("i", query.id),
        ("l", query.lagging),
        ("t", query.tags[0] if query.tags else None),
        ("u", query.user_id),
        ("s", query.status),
    ):
        if value is not None:
            return letter + value, True
    if query.prefix and query.partition is not None:
        return f"i{query.prefix}", False
    return "a", True


def is_impossible(query: Query) -> bool:
    if query.kind == "session":
        wrong = query.partition is not None and not query.partition.startswith("session/")
        return wrong or query.status is not None or bool(query.tags)
    return query.lagging is not None


def matches(row: Row, query: Query) -> bool:
    where = place_of(row)
    if isinstance(row, SessionRow):
        through = row.jobs.get(query.lagging or "", (row.last_seq, None))[0]
        fits = query.lagging is None or through < row.last_seq
    else:
        fits = set(query.tags) <= set(row.tags) and query.status in (None, row.status)
    return (
        fits
        and query.id in (None, where[1])
        and where[1].startswith(query.prefix or "")
        and query.user_id in (None, row.user_id)
        and (query.before is None or where < query.before)
    )


def visible(row: Row | None, now: int) -> Row | None:
    """The row, unless it has expired."""
    expires = row.expires_at if isinstance(row, RecordRow) else None
    return None if expires is not None and expires <= now else row
