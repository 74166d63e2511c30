"""The SQL of the reading side: one statement, so one hop and one moment, for each call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.keys import MAX_KEY_BYTES, Key
from memory_async.storage.driver import Query, Span, View

Row: TypeAlias = Sequence[Any]
Statement: TypeAlias = tuple[str, dict[str, Any]]

_JOBS = """(SELECT json_group_array(json_array(j.job, j.through, j.value))
            FROM memory_jobs j WHERE j.session = s.id)"""
_SESSION = f"""s.session_id, s.user_id, s.agent_id, s.keep_turns, s.created_at, s.updated_at,
       s.version, s.payload, s.last_seq, s.trimmed, {_JOBS}"""
_RECORD = """r.kind, r.partition, r.record_id, r.user_id, r.status, r.tags, r.created_at,
       r.updated_at, r.expires_at, r.version, r.payload"""
# A payload goes from UTF-8 to JSON's values: no text has to be made of it on the way.
_TURN = "t.id & 0xffffffff, t.run_id, t.created_at, t.usage, CAST(t.payload AS BLOB)"
_LIVE = "(r.expires_at IS NULL OR r.expires_at > :now)"

GET_SESSION = f"""
SELECT {_SESSION} FROM memory_sessions s
WHERE s.namespace = :namespace AND s.session_id = :id"""

GET_TURN = f"""
SELECT {_TURN} FROM memory_turns t JOIN memory_sessions s ON s.id = t.session
WHERE s.namespace = :namespace AND s.session_id = :session_id AND t.run_id = :id"""

GET_RECORD = f"""
SELECT {_RECORD} FROM memory_records r
WHERE r.namespace = :namespace AND r.kind = :kind AND r.record_id = :id
  AND r.partition = :partition AND {_LIVE}"""

HISTORY = f"""
SELECT {_TURN} FROM memory_sessions s CROSS JOIN memory_turns t
WHERE s.namespace = :namespace AND s.session_id = :session_id
  AND t.id > (s.id << 32) + min(max(:after, iif(:trimmed, 0, s.trimmed)), s.last_seq)
  AND t.id < (s.id << 32) + min(coalesce(:before, s.last_seq + 1), s.last_seq + 1)
ORDER BY t.id {{order}} LIMIT coalesce(:limit, -1)"""


def _packed(columns: str, table: str) -> str:
    text = f"iif(typeof({table}.payload) = 'text', {table}.payload, '')"
    # A payload that is a blob is corrupt, and no JSON can hold it.
    return f"json_array({columns.replace(f'{table}.payload', text)}), '{table}', NULL, NULL, NULL"


# One statement, so header, turns and profile are of one moment. As many columns as a turn has:
# each further one would be fetched for every turn.
SNAPSHOT = f"""
SELECT {_packed(_SESSION, "s")} FROM memory_sessions s
WHERE s.namespace = :namespace AND s.session_id = :session_id
UNION ALL
SELECT {_TURN} FROM memory_sessions s CROSS JOIN memory_turns t
WHERE s.namespace = :namespace AND s.session_id = :session_id
  AND t.id > (s.id << 32) + max(s.trimmed, min(
        iif(:last IS NULL, 0, s.last_seq - :last),
        coalesce((SELECT j.through FROM memory_jobs j WHERE j.session = s.id AND j.job = :since),
                 s.last_seq)))
  AND t.id <= (s.id << 32) + s.last_seq
UNION ALL
SELECT {_packed(_RECORD, "r")} FROM memory_records r
WHERE r.namespace = :namespace AND r.kind = 'profile' AND r.record_id = :profile
  AND r.partition = :partition AND {_LIVE}"""


def get(namespace: str, key: Key, now: int) -> Statement:
    place = {"namespace": namespace, "id": key.id}
    if key.kind == "session":
        return GET_SESSION, place
    if key.kind == "turn":
        return GET_TURN, {**place, "session_id": key.partition.id}
    return GET_RECORD, {
        **place,
        "kind": key.kind,
        "partition": str(key.partition),
        "now": now,
    }


def history(namespace: str, session_id: str, span: Span) -> Statement:
    return HISTORY.format(order="DESC" if span.newest else "ASC"), {
        "namespace": namespace,
        "session_id": session_id,
        "after": span.after,
        "before": span.before,
        "limit": span.limit,
        "trimmed": span.trimmed,
    }


def find(namespace: str, query: Query, now: int) -> Statement:
    """The conditions given, and only those: an index serves each common set of them."""
    given: dict[str, Any] = {"namespace": namespace, "limit": query.limit}
    if query.kind == "session":
        columns, table, id, place = (
            _SESSION,
            "memory_sessions s",
            "s.session_id",
            "'session/' || s.session_id",
        )
        conditions = ["s.namespace = :namespace"]
        if query.status is not None or query.tags:
            conditions.append("0")  # headers have neither
        if query.lagging is not None:
            # lagging = 1 is what the partial index holds; the job is looked up only in those.
            conditions.append("s.lagging = 1")
            conditions.append(
                "EXISTS (SELECT 1 FROM memory_jobs j WHERE j.session = s.id"
                " AND j.job = :lagging AND j.through < s.last_seq)"
            )
            given["lagging"] = query.lagging
    else:
        columns, table, id, place = (
            _RECORD,
            "memory_records r",
            "r.record_id",
            "r.partition",
        )
        # Tags are few among many, but the planner would rather walk everything of the kind: "+".
        by_tag = query.tags and not (query.partition or query.id or query.user_id or query.status)
        plus = "+" if by_tag else ""
        conditions = [f"{plus}r.namespace = :namespace", f"{plus}r.kind = :kind", _LIVE]
        given |= {"kind": query.kind, "now": now}
        if query.lagging is not None:
            conditions.append("0")  # only sessions lag
        if query.status is not None:
            conditions.append("r.status = :status")
            given["status"] = query.status
        for number, tag in enumerate(query.tags):
            conditions.append(f"r.id IN (SELECT record FROM memory_tags WHERE tag = :tag{number})")
            given[f"tag{number}"] = tag
    letter = table[-1]
    if query.partition is not None:
        if query.kind == "session":
            space, _, given["partition_id"] = query.partition.partition("/")
            conditions.append("s.session_id = :partition_id" if space == "session" else "0")
        else:
            conditions.append("r.partition = :partition")
            given["partition"] = query.partition
    if query.id is not None:
        conditions.append(f"{id} = :id")
        given["id"] = query.id
    if query.prefix is not None:
        conditions.append(f"{id} BETWEEN :prefix AND :prefix_end")
        given["prefix"] = query.prefix
        given["prefix_end"] = query.prefix + "\U0010ffff" * MAX_KEY_BYTES
    if query.user_id is not None:
        conditions.append(f"{letter}.user_id = :user_id")
        given["user_id"] = query.user_id
    if query.before is not None:
        conditions.append(
            f"({letter}.created_at, {id}, {place}) < (:at, :before_id, :before_place)"
        )
        given["at"], given["before_id"], given["before_place"] = query.before
    order = f"ORDER BY {letter}.created_at DESC, {id} DESC, {place} DESC LIMIT :limit"
    return f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)} {order}", given


def session_row(row: Row) -> SessionRow:
    jobs = json.loads(row[10]) if isinstance(row[10], str) else row[10]
    by_name = {job: (through, value) for job, through, value in jobs}
    return SessionRow._make((*row[:3], bool(row[3]), *row[4:10], by_name))


def record_row(row: Row) -> RecordRow:
    tags = tuple(json.loads(row[5])) if row[5] else ()
    return RecordRow._make((*row[:5], tags, *row[6:]))


def view(rows: Iterable[Any]) -> View:
    session, profile = None, None
    turns: list[StoredTurn] = []
    for row in rows:
        if type(row[0]) is int:
            turns.append(row)
        elif row[1] == "s":
            session = session_row(json.loads(row[0]))
        else:
            profile = record_row(json.loads(row[0]))
    turns.sort()
    return View(session, turns, profile)
