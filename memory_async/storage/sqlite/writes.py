"""The writing side: the statements of one batch, run inside a transaction the caller opened."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from memory_async.codec import SessionRow, TurnRow
from memory_async.keys import Key, Kind, Partition, to_micros, utc_now
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

# With the turn of a run, if that is in the log already.
HEADER = """
SELECT s.id, s.user_id, s.version, s.last_seq, s.trimmed,
       t.id & 0xffffffff, t.run_id, t.created_at, t.usage, t.payload
FROM memory_sessions s LEFT JOIN memory_turns t ON t.session = s.id AND t.run_id = ?
WHERE s.namespace = ? AND s.session_id = ?"""

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
UPDATE memory_sessions SET last_seq = ?, keep_turns = max(keep_turns, ?),
    updated_at = max(updated_at, ?), lagging = EXISTS (SELECT 1 FROM memory_jobs WHERE session = ?)
WHERE id = ?"""

NEW_TURN = """
INSERT INTO memory_turns (id, session, run_id, created_at, usage, payload)
VALUES (?, ?, ?, ?, ?, ?)"""

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

TRIM = "UPDATE memory_turns SET payload = NULL WHERE id > ? AND id <= ?"

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


class _Header:
    """What decides about writes to a session: looked up once a batch, and kept up to date."""

    __slots__ = ("id", "known", "last_seq", "trimmed", "user_id", "version")

    def __init__(self, row: Any) -> None:
        self.id: int
        self.last_seq: int
        self.version: str
        self.id, self.user_id, self.version, self.last_seq, self.trimmed = row[:5]
        self.known = None if row[5] is None else TurnRow._make(row[5:])


def apply(db: sqlite3.Connection, namespace: str, batch: Batch) -> Applied:
    """Check every condition against what is stored, then write; raises before the first write."""
    return _Applying(db, namespace, batch).run()


class _Applying:
    def __init__(self, db: sqlite3.Connection, namespace: str, batch: Batch) -> None:
        self._execute = db.execute
        self._db = db
        self._namespace = namespace
        self._batch = batch
        self._header: _Header | None = None
        in_session = batch.partition.space == "session"
        if batch.append or (in_session and any(map(_needs_header, batch.ops))):
            run_id = batch.append and batch.append.turn.run_id
            place = (run_id, namespace, batch.partition.id)
            if row := db.execute(HEADER, place).fetchone():
                self._header = _Header(row)

    def run(self) -> Applied:
        header = self._header
        for op in self._batch.ops:
            if header and isinstance(op, (AppendOp, PutSessionOp)):
                row = op.session if isinstance(op, AppendOp) else op.row
                check_owner(row.session_id, header.user_id, row.user_id)
        if header and header.known:
            return Applied((), known=header.known)
        todo = [isinstance(op, AppendOp) or self._check(op) for op in self._batch.ops]
        seq, did = 0, []
        for op, do in zip(self._batch.ops, todo, strict=True):
            if isinstance(op, AppendOp):
                seq = self._append(op)
                did.append(True)
            else:
                did.append(do and self._write(op))
        return Applied(did, seq)

    def _version(self, kind: str, id: str, partition: str) -> str | None:
        if kind == "session":
            return None if self._header is None else self._header.version
        now = to_micros(utc_now())
        row = self._execute(RECORD_VERSION, (self._namespace, kind, id, partition, now)).fetchone()
        return row and row[0]  # type: ignore[no-any-return]

    def _check(self, op: Op) -> bool:
        """Whether ``op`` has anything to do; `ConflictError` when its condition fails."""
        match op:
            case PutOp(row=row, when=when):
                stored = self._version(row.kind, row.id, row.partition)
                return must_put(f"{row.kind} {row.id!r}", stored, row.version, when)
            case PutSessionOp(row=header, when=when):
                stored = self._version("session", header.session_id, "")
                return must_put(f"session {header.session_id!r}", stored, header.version, when)
            case Delete(key=key) | Expect(key=key):
                return must_delete(op, self._version(key.kind, key.id, str(key.partition)))
            case AdvanceOp():
                place = (self._namespace, op.session_id, op.job)
                cursor, last_seq, created_at = self._execute(CURSOR, place).fetchone() or (
                    None,
                    0,
                    0,
                )
                must_advance(op, cursor, last_seq, created_at)
        return True

    def _append(self, op: AppendOp) -> int:
        header = self._header or self._new_session(op.session)
        if op.due:
            self._db.executemany(REGISTER, [(header.id, job) for job in op.due])
        header.last_seq += 1
        id, seq, turn = header.id, header.last_seq, op.turn
        self._execute(COUNT_TURN, (seq, op.session.keep_turns, turn.created_at, id, id))
        self._execute(NEW_TURN, (id << 32 | seq, id, *turn[1:]))
        return seq

    def _new_session(self, row: SessionRow) -> _Header:
        id = self._execute(NEW_SESSION, (self._namespace, *row[:8])).lastrowid
        self._header = header = _Header((id, row.user_id, row.version, 0, 0, None))
        return header

    def _write(self, op: Op) -> bool:
        match op:
            case PutOp(row=row, text=text):
                tags = json.dumps(row.tags, ensure_ascii=False) if row.tags else None
                columns = (self._namespace, *row[:5], tags, *row[6:])
                [(id,)] = self._execute(PUT_RECORD, columns).fetchall()
                self._execute(UNTAG, (id,))
                self._db.executemany(TAG, [(tag, id) for tag in dict.fromkeys(row.tags)])
                search.index_record(self._db, self._namespace, id, row, text)
            case PutSessionOp(row=row):
                if self._header:
                    given = (row.updated_at, row.version, row.payload, self._header.id)
                    self._execute(SET_METADATA, given)
                else:
                    self._new_session(row)
            case AdvanceOp():
                assert self._header is not None  # noqa: S101 - it has the cursor that was checked
                self._execute(ADVANCE, {"id": self._header.id, **op._asdict()})
                self._execute(CAUGHT_UP, {"id": self._header.id})
                self._trim(self._header.last_seq)
            case Trim(through=through):
                return self._trim(through)
            case Delete(key=key):
                return self._delete(key)
            case Drop(partition=partition, kind=kind, prefix=prefix):
                return self._drop(partition, kind, prefix)
        return True

    def _trim(self, through: int | None) -> bool:
        header = self._header
        if header is None:
            return False
        reach = header.last_seq if through is None else through
        moved = self._execute(MOVE_TRIMMED, {"id": header.id, "through": reach}).fetchall()
        if not moved:
            return False
        start, header.trimmed = header.trimmed, moved[0][0]
        self._execute(TRIM, (header.id << 32 | start, header.id << 32 | header.trimmed))
        return True

    def _delete(self, key: Key) -> bool:
        if key.kind == "session":
            return self._execute(DELETE_SESSION, (self._namespace, key.id)).rowcount > 0
        place = (self._namespace, key.kind, key.id, str(key.partition))
        return self._execute(DELETE_RECORD, place).rowcount > 0

    def _drop(self, partition: Partition, kind: Kind | None, prefix: str | None) -> bool:
        where = {"partition": str(partition), "kind": kind, "prefix": prefix}
        dropped = self._execute(DROP_RECORDS, {"namespace": self._namespace, **where}).rowcount > 0
        if kind is None and partition.space == "session":
            gone = self._execute(DELETE_SESSION, (self._namespace, partition.id)).rowcount > 0
            dropped = gone or dropped
        return dropped


def _needs_header(op: Op) -> bool:
    match op:
        case AppendOp() | PutSessionOp() | AdvanceOp() | Trim():
            return True
        case Delete(key=key) | Expect(key=key):
            return key.kind == "session"
    return False
