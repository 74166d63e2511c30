"""The writing side: the statements of one batch, run inside a transaction the caller opened."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from memory_async.codec import SessionRow, TurnRow
from memory_async.keys import Key, to_micros, utc_now
from memory_async.storage.batch import (
    AdvanceOp,
    AppendOp,
    Batch,
    Op,
    PutOp,
    PutSessionOp,
    check_owner,
    must_advance,
    must_delete,
    must_put,
)
from memory_async.storage.driver import Applied
from memory_async.storage.protocol import Delete, Drop, Expect, Trim
from memory_async.storage.sqlite import search

HEADER = """
SELECT id, user_id, version, last_seq, trimmed FROM memory_sessions
WHERE namespace = ? AND session_id = ?"""

KNOWN_RUN = """
SELECT seq, run_id, created_at, usage, payload FROM memory_turns WHERE session = ? AND run_id = ?"""

CURSOR = """
SELECT j.through, s.last_seq, s.created_at
FROM memory_sessions s JOIN memory_jobs j ON j.session = s.id
WHERE s.namespace = ? AND s.session_id = ? AND j.job = ?"""

NEW_SESSION = """
INSERT INTO memory_sessions (namespace, session_id, user_id, agent_id, keep_turns, created_at,
                             updated_at, version, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

REGISTER = "INSERT OR IGNORE INTO memory_jobs (session, job) VALUES (?, ?)"

# After an append every registered job lags.
COUNT_TURN = """
UPDATE memory_sessions SET last_seq = last_seq + 1, keep_turns = max(keep_turns, :keep_turns),
    updated_at = max(updated_at, :at),
    lagging = EXISTS (SELECT 1 FROM memory_jobs WHERE session = :id)
WHERE id = :id RETURNING last_seq"""

NEW_TURN = """
INSERT INTO memory_turns (id, session, seq, run_id, created_at, usage, payload)
VALUES (?1 << 32 | ?2, ?1, ?2, ?3, ?4, ?5, ?6)"""

SET_METADATA = "UPDATE memory_sessions SET updated_at = ?, version = ?, payload = ? WHERE id = ?"

ADVANCE = """
UPDATE memory_jobs SET through = :through, value = coalesce(:value, value)
WHERE session = :id AND job = :job AND through = :expected"""

CAUGHT_UP = """
UPDATE memory_sessions SET lagging = EXISTS (
    SELECT 1 FROM memory_jobs WHERE session = :id AND through < last_seq)
WHERE id = :id"""

# Never past the smallest cursor, never in a session that keeps its turns.
MOVE_TRIMMED = """
WITH reach (seq) AS (SELECT ifnull(min(through), :through) FROM memory_jobs WHERE session = :id)
UPDATE memory_sessions SET trimmed = min(:through, last_seq, (SELECT seq FROM reach))
WHERE id = :id AND NOT keep_turns
  AND trimmed < min(:through, last_seq, (SELECT seq FROM reach))
RETURNING trimmed"""

TRIM = "UPDATE memory_turns SET payload = NULL WHERE session = ? AND seq > ? AND seq <= ?"

RECORD_VERSION = """
SELECT version FROM memory_records
WHERE namespace = ? AND kind = ? AND record_id = ? AND partition = ?
  AND (expires_at IS NULL OR expires_at > ?)"""

PUT_RECORD = """
INSERT INTO memory_records (namespace, kind, partition, record_id, user_id, status, tags,
                            created_at, updated_at, expires_at, version, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, kind, record_id, partition) DO UPDATE SET
    user_id = excluded.user_id, status = excluded.status, tags = excluded.tags,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    expires_at = excluded.expires_at, version = excluded.version, payload = excluded.payload
RETURNING id"""

UNTAG = "DELETE FROM memory_tags WHERE record = ?"
TAG = "INSERT INTO memory_tags (tag, record) VALUES (?, ?)"

DELETE_RECORD = """
DELETE FROM memory_records
WHERE namespace = ? AND kind = ? AND record_id = ? AND partition = ?"""

DELETE_SESSION = "DELETE FROM memory_sessions WHERE namespace = ? AND session_id = ?"

DROP_RECORDS = """
DELETE FROM memory_records WHERE namespace = :namespace AND partition = :partition
  AND (:kind IS NULL OR kind = :kind)
  AND (:prefix IS NULL OR substr(record_id, 1, length(:prefix)) = :prefix)"""

DROP_EXPIRED = "DELETE FROM memory_records WHERE expires_at <= ?"


def apply(db: sqlite3.Connection, namespace: str, batch: Batch) -> Applied:
    """Check every condition against what is stored, then write; raises before the first write."""
    for op in batch.ops:
        if isinstance(op, (AppendOp, PutSessionOp)):
            header = op.session if isinstance(op, AppendOp) else op.row
            if stored := _header(db, namespace, header.session_id):
                check_owner(header.session_id, stored[1], header.user_id)
    if batch.append and (stored := _header(db, namespace, batch.append.session.session_id)):
        known = db.execute(KNOWN_RUN, (stored[0], batch.append.turn.run_id)).fetchone()
        if known:
            return Applied((), known=TurnRow(*known))
    todo = [_check(db, namespace, op) for op in batch.ops]
    seq, did = 0, []
    for op, do in zip(batch.ops, todo, strict=True):
        if isinstance(op, AppendOp):
            seq = _append(db, namespace, op)
            did.append(True)
        else:
            did.append(do and _write(db, namespace, op))
    return Applied(did, seq)


def _header(db: sqlite3.Connection, namespace: str, session_id: str) -> Any:
    return db.execute(HEADER, (namespace, session_id)).fetchone()


def _version(db: sqlite3.Connection, namespace: str, kind: str, id: str, partition: str) -> Any:
    if kind == "session":
        header = _header(db, namespace, id)
        return header and header[2]
    now = to_micros(utc_now())
    row = db.execute(RECORD_VERSION, (namespace, kind, id, partition, now)).fetchone()
    return row and row[0]


def _check(db: sqlite3.Connection, namespace: str, op: Op) -> bool:
    """Whether ``op`` has anything to do; `ConflictError` when its condition fails."""
    match op:
        case PutOp(row=row, when=when):
            stored = _version(db, namespace, row.kind, row.id, row.partition)
            return must_put(f"{row.kind} {row.id!r}", stored, row.version, when)
        case PutSessionOp(row=header, when=when):
            stored = _version(db, namespace, "session", header.session_id, "")
            return must_put(f"session {header.session_id!r}", stored, header.version, when)
        case Delete(key=key) | Expect(key=key):
            stored = _version(db, namespace, key.kind, key.id, str(key.partition))
            return must_delete(op, stored)
        case AdvanceOp():
            row = db.execute(CURSOR, (namespace, op.session_id, op.job)).fetchone()
            cursor, last_seq, created_at = row or (None, 0, 0)
            must_advance(op, cursor, last_seq, created_at)
    return True


def _append(db: sqlite3.Connection, namespace: str, op: AppendOp) -> int:
    stored = _header(db, namespace, op.session.session_id)
    id = stored[0] if stored else _new_session(db, namespace, op.session)
    if op.due:
        db.executemany(REGISTER, [(id, job) for job in op.due])
    given = {"id": id, "keep_turns": op.session.keep_turns, "at": op.turn.created_at}
    [(seq,)] = db.execute(COUNT_TURN, given).fetchall()
    turn = op.turn
    db.execute(NEW_TURN, (id, seq, turn.run_id, turn.created_at, turn.usage, turn.payload))
    return int(seq)


def _new_session(db: sqlite3.Connection, namespace: str, row: SessionRow) -> int:
    return db.execute(NEW_SESSION, (namespace, *row[:8])).lastrowid or 0


def _write(db: sqlite3.Connection, namespace: str, op: Op) -> bool:
    match op:
        case PutOp(row=row, text=text):
            tags = json.dumps(row.tags, ensure_ascii=False) if row.tags else None
            columns = (namespace, *row[:5], tags, *row[6:])
            [(id,)] = db.execute(PUT_RECORD, columns).fetchall()
            db.execute(UNTAG, (id,))
            db.executemany(TAG, [(tag, id) for tag in dict.fromkeys(row.tags)])
            search.index_record(db, namespace, id, row, text)
        case PutSessionOp(row=header):
            if stored := _header(db, namespace, header.session_id):
                given = (header.updated_at, header.version, header.payload, stored[0])
                db.execute(SET_METADATA, given)
            else:
                _new_session(db, namespace, header)
        case AdvanceOp():
            header = _header(db, namespace, op.session_id)
            db.execute(ADVANCE, {"id": header[0], **op._asdict()})
            db.execute(CAUGHT_UP, {"id": header[0]})
            _trim(db, header[0], header[4], header[3])
        case Trim(session_id=session_id, through=through):
            stored = _header(db, namespace, session_id)
            return stored is not None and _trim(
                db, stored[0], stored[4], stored[3] if through is None else through
            )
        case Delete(key=key):
            return _delete(db, namespace, key)
        case Drop(partition=partition, kind=kind, prefix=prefix):
            where = {"partition": str(partition), "kind": kind, "prefix": prefix}
            dropped = db.execute(DROP_RECORDS, {"namespace": namespace, **where}).rowcount > 0
            if kind is None and partition.space == "session":
                gone = db.execute(DELETE_SESSION, (namespace, partition.id)).rowcount > 0
                dropped = gone or dropped
            return dropped
    return True


def _trim(db: sqlite3.Connection, id: int, trimmed: int, through: int) -> bool:
    moved = db.execute(MOVE_TRIMMED, {"id": id, "through": through}).fetchall()
    if not moved:
        return False
    db.execute(TRIM, (id, trimmed, moved[0][0]))
    return True


def _delete(db: sqlite3.Connection, namespace: str, key: Key) -> bool:
    if key.kind == "session":
        return db.execute(DELETE_SESSION, (namespace, key.id)).rowcount > 0
    place = (namespace, key.kind, key.id, str(key.partition))
    return db.execute(DELETE_RECORD, place).rowcount > 0
