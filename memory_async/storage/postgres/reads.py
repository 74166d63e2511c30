"""The SQL of the reading side: one statement, so one round trip and one moment, for each call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from asyncpg import Record as Row

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.keys import MAX_KEY_BYTES, Key, Kind
from memory_async.storage.driver import Query, Span, View
from memory_async.storage.postgres.writes import HIGHEST


class Statement(NamedTuple):
    sql: str
    given: tuple[Any, ...]


# Payloads travel as text: a codec for json is the caller's to set on a pool of his.
_SESSION = """h.session_id, h.user_id, h.agent_id, h.keep_turns, h.created_at, h.updated_at,
       h.version, h.payload::text AS payload, h.last_seq, h.trimmed,
       j.jobs, j.throughs, j.job_values"""
_JOBS = """LEFT JOIN LATERAL (
    SELECT array_agg(job) AS jobs, array_agg(through::text) AS throughs,
           array_agg(value::text) AS job_values
    FROM memory_async.jobs WHERE session = h.id) j ON true"""
# In the order of `StoredTurn`.
_TURN = "t.seq, t.run_id, t.created_at, t.usage::text AS usage, t.payload::text AS payload"
_RECORD = """r.kind, r.partition, r.record_id, r.user_id, r.status, r.tags, r.created_at,
       r.updated_at, r.expires_at, r.version, r.payload::text AS payload"""
# The clock once, as it is volatile.
_LIVE = "(r.expires_at IS NULL OR r.expires_at > (SELECT memory_async.now_micros()))"

NOW = "SELECT memory_async.now_micros()"

GET_SESSION = f"""
SELECT {_SESSION} FROM memory_async.headers h {_JOBS}
WHERE h.namespace = $1 AND h.session_id = $2"""

GET_TURN = f"""
SELECT {_TURN} FROM memory_async.turns t
WHERE t.run_id = $3 AND t.session = (
    SELECT id FROM memory_async.headers WHERE namespace = $1 AND session_id = $2)"""

GET_RECORD = f"""
SELECT {_RECORD} FROM memory_async.records r
WHERE r.namespace = $1 AND r.kind = $2 AND r.record_id = $3 AND r.partition = $4 AND {_LIVE}"""

# Bounds on both sides, by which the planner knows a part of the log is meant, however long it is;
# the session as a subquery, so that the index gives the order.
HISTORY = f"""
WITH h AS MATERIALIZED (
    SELECT id, last_seq, trimmed FROM memory_async.headers
    WHERE namespace = $1 AND session_id = $2
)
SELECT {_TURN} FROM memory_async.turns t
WHERE t.session = (SELECT id FROM h)
  AND t.seq > (SELECT greatest($3, CASE WHEN $6 THEN 0 ELSE trimmed END) FROM h)
  AND t.seq < (SELECT coalesce($4, last_seq + 1) FROM h)
ORDER BY t.seq LIMIT $5"""

NEWEST = HISTORY.replace("ORDER BY t.seq", "ORDER BY t.seq DESC")

# Rows of three kinds, of which each fills its own columns; those of a turn come first.
SNAPSHOT = f"""
WITH h AS MATERIALIZED (
    SELECT * FROM memory_async.headers WHERE namespace = $1 AND session_id = $2
), start AS MATERIALIZED (
    SELECT greatest(h.trimmed, least(
        CASE WHEN $3::bigint IS NULL THEN 0 ELSE h.last_seq - $3 END,
        coalesce((SELECT through FROM memory_async.jobs WHERE session = h.id AND job = $4),
                 h.last_seq))) AS seq
    FROM h
)
SELECT 's' AS what, h.last_seq AS seq, h.session_id AS id, h.created_at, NULL AS usage,
       h.payload::text AS payload, h.user_id, h.updated_at, h.version,
       h.agent_id, h.keep_turns, h.trimmed, j.jobs, j.throughs, j.job_values,
       NULL AS partition, NULL AS status, NULL::text[] AS tags, NULL::bigint AS expires_at
FROM h {_JOBS}
UNION ALL
SELECT 't', {_TURN}, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM memory_async.turns t
WHERE t.session = (SELECT id FROM h)
  AND t.seq > (SELECT seq FROM start) AND t.seq <= (SELECT last_seq FROM h)
UNION ALL
SELECT 'r', NULL, r.record_id, r.created_at, NULL, r.payload::text, r.user_id, r.updated_at,
       r.version, NULL, NULL, NULL, NULL, NULL, NULL,
       r.partition, r.status, r.tags, r.expires_at
FROM memory_async.records r
WHERE r.namespace = $1 AND r.kind = 'profile' AND r.record_id = $6 AND r.partition = $5
  AND {_LIVE}"""

FIND_SESSIONS = f"""
SELECT {_SESSION}
FROM memory_async.find_sessions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) h {_JOBS}
ORDER BY h.created_at DESC, h.session_id DESC"""

FIND_RECORDS = f"""
SELECT {_RECORD}
FROM memory_async.find_records($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) r"""


def get(namespace: str, key: Key) -> Statement:
    if key.kind == "session":
        return Statement(GET_SESSION, (namespace, key.id))
    if key.kind == "turn":
        return Statement(GET_TURN, (namespace, key.partition.id, key.id))
    return Statement(GET_RECORD, (namespace, key.kind, key.id, str(key.partition)))


def history(namespace: str, session_id: str, span: Span) -> Statement:
    return Statement(
        NEWEST if span.newest else HISTORY,
        (
            namespace,
            session_id,
            _at_most(span.after),
            _at_most(span.before),
            _at_most(span.limit),
            span.trimmed,
        ),
    )


def snapshot(
    namespace: str, session_id: str, profile: Key | None, last: int | None, since: str | None
) -> Statement:
    partition, name = (None, None) if profile is None else (str(profile.partition), profile.id)
    return Statement(SNAPSHOT, (namespace, session_id, _at_most(last), since, partition, name))


def find(namespace: str, query: Query) -> Statement | None:
    """None when there can be nothing: headers have neither status nor tags, only sessions lag."""
    limit, first, last = _at_most(query.limit), query.prefix, None
    if first is not None:
        # Also the last of all ids that begin so is below this.
        last = first + "\U0010ffff" * MAX_KEY_BYTES
    before = query.before or (None, None, None)
    if query.kind != "session":
        if query.lagging is not None:
            return None
        tags = list(query.tags) or None
        where = (query.partition, query.id, first, last, query.user_id, query.status, tags)
        return Statement(FIND_RECORDS, (namespace, query.kind, *where, *before, limit))
    space, _, session_id = (query.partition or "session/").partition("/")
    if query.status is not None or query.tags or space != "session":
        return None
    of = (session_id or None, query.id, first, last, query.user_id, query.lagging)
    return Statement(FIND_SESSIONS, (namespace, *of, *before[:2], limit))


def _at_most(number: int | None) -> int | None:
    return None if number is None else min(number, HIGHEST // 2)


def session_row(row: Row, id: str = "session_id", last_seq: str = "last_seq") -> SessionRow:
    jobs = zip(row["jobs"] or (), row["throughs"] or (), row["job_values"] or (), strict=True)
    return SessionRow(
        row[id],
        row["user_id"],
        row["agent_id"],
        row["keep_turns"],
        row["created_at"],
        row["updated_at"],
        row["version"],
        row["payload"],
        row[last_seq],
        row["trimmed"],
        {job: (int(through), value) for job, through, value in jobs},
    )


def record_row(row: Row, kind: Kind | None = None, id: str = "record_id") -> RecordRow:
    return RecordRow(
        kind or row["kind"],
        row["partition"],
        row[id],
        row["user_id"],
        row["status"],
        tuple(row["tags"] or ()),
        row["created_at"],
        row["updated_at"],
        row["expires_at"],
        row["version"],
        row["payload"],
    )


def turn_row(row: Row) -> StoredTurn:
    turn: StoredTurn = row[:5]
    return turn


def view(rows: Iterable[Row]) -> View:
    session, profile = None, None
    turns: list[StoredTurn] = []
    for row in rows:
        if row["what"] == "t":
            turns.append(row[1:6])
        elif row["what"] == "s":
            session = session_row(row, "id", "seq")
        else:
            profile = record_row(row, "profile", "id")
    turns.sort()
    return View(session, turns, profile)
