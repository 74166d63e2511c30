"""`InMemoryStorage`: everything in this process, gone with it. For tests, and for agents that only
need memory while they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import ConfigurationError
from memory_async.forked import Whole
from memory_async.keys import Key, Kind, Partition
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
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.engine import appended, is_expired, scan, start_of_view, trimmed
from memory_async.storage.protocol import Delete, Drop, Expect, Trim

__all__ = ["InMemoryStorage"]


class _Log:
    """One session: its header as stored, and its turns by seq."""

    def __init__(self, header: SessionRow) -> None:
        self.header = header
        self.turns: list[TurnRow] = []
        self.runs: dict[str, int] = {}

    def trim(self, through: int) -> bool:
        after = trimmed(self.header, through)
        for index in range(self.header.trimmed, after.trimmed):
            self.turns[index] = self.turns[index]._replace(payload=None)
        changed, self.header = after != self.header, after
        return changed


class InMemoryStorage(Driver):
    """A private store in memory. With ``max_sessions``, the session written longest ago is dropped
    when a new one would be too many."""

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "max_sessions": int,
    }

    def __init__(self, *, max_sessions: int | None = None, namespace: str = "default") -> None:
        super().__init__(namespace=namespace)
        if max_sessions is not None and max_sessions < 1:
            raise ConfigurationError("max_sessions must be at least 1")
        self._max_sessions = max_sessions
        self._logs: dict[str, _Log] = {}  # in order of the last write
        self._records: dict[str, dict[tuple[Kind, str], RecordRow]] = {}
        self._whole = Whole()

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        if rest.strip("/"):
            raise ConfigurationError(
                f"{scheme}:// is a private store without a name: leave out {rest!r}"
            )
        return cls(**options)

    async def _open(self) -> None:
        return

    async def _close(self) -> None:
        self._logs.clear()
        self._records.clear()

    def _abandon(self) -> None:
        return  # a forked child has its own copy, which is all there is

    # --- writing: no await between check and write, so a batch is atomic in its loop ---

    async def _apply(self, batch: Batch) -> Applied:
        with self._whole:  # also in the copy of a child that is forked meanwhile
            return self._apply_whole(batch)

    def _apply_whole(self, batch: Batch) -> Applied:
        for op in batch.ops:
            if isinstance(op, (AppendOp, PutSessionOp)):
                header = op.session if isinstance(op, AppendOp) else op.row
                if log := self._logs.get(header.session_id):
                    check_owner(header.session_id, log.header.user_id, header.user_id)
        seq = 1
        if batch.append and (log := self._logs.get(batch.append.session.session_id)):
            if known := log.runs.get(batch.append.turn.run_id):
                return Applied((), known=log.turns[known - 1])
            seq = log.header.last_seq + 1
        todo = [self._check(op) for op in batch.ops]
        return Applied(
            [do and self._write(op) for op, do in zip(batch.ops, todo, strict=True)],
            seq,
        )

    def _check(self, op: Op) -> bool:
        """Whether ``op`` has anything to do; `ConflictError` when its condition fails."""
        match op:
            case PutOp(row=row, when=when):
                stored = self._live(row.partition, row.kind, row.id)
                return must_put(
                    f"{row.kind} {row.id!r}",
                    stored and stored.version,
                    row.version,
                    when,
                )
            case PutSessionOp(row=header, when=when):
                log = self._logs.get(header.session_id)
                name = f"session {header.session_id!r}"
                return must_put(name, log.header.version if log else None, header.version, when)
            case Delete() | Expect():
                found = self._row(op.key)
                return must_delete(op, found and found.version)
            case AdvanceOp():
                log = self._logs.get(op.session_id)
                if log is None or op.job not in log.header.jobs:
                    must_advance(op, None, 0, 0)
                else:
                    header = log.header
                    must_advance(op, header.jobs[op.job][0], header.last_seq, header.created_at)
        return True

    def _write(self, op: Op) -> bool:
        match op:
            case AppendOp():
                self._append(op)
            case PutOp(row=row):
                self._records.setdefault(row.partition, {})[row.kind, row.id] = row
            case PutSessionOp(row=row):
                log = self._log_of(row)
                log.header = log.header._replace(
                    updated_at=row.updated_at, version=row.version, payload=row.payload
                )
            case AdvanceOp(job=job):
                log = self._logs[op.session_id]
                value = log.header.jobs[job][1] if op.value is None else op.value
                log.header = log.header._replace(jobs={**log.header.jobs, job: (op.through, value)})
                log.trim(log.header.last_seq)
            case Delete(key=key):
                if key.kind == "session":
                    return self._logs.pop(key.id, None) is not None
                self._records.get(str(key.partition), {}).pop((key.kind, key.id), None)
            case Drop(partition=partition, kind=kind, prefix=prefix):
                return self._drop(partition, kind, prefix)
            case Trim(session_id=session_id, through=through):
                found = self._logs.get(session_id)
                return found is not None and found.trim(
                    found.header.last_seq if through is None else through
                )
        return True

    def _append(self, op: AppendOp) -> None:
        log = self._log_of(op.session)
        log.header = appended(op, log.header)
        seq = log.header.last_seq
        log.turns.append(op.turn._replace(seq=seq))
        log.runs[op.turn.run_id] = seq

    def _log_of(self, header: SessionRow) -> _Log:
        log = self._logs.pop(header.session_id, None)
        if log is None:
            if self._max_sessions is not None and len(self._logs) >= self._max_sessions:
                self._drop(Partition("session", next(iter(self._logs))), None, None)
            log = _Log(header)
        self._logs[header.session_id] = log
        return log

    def _drop(self, partition: Partition, kind: Kind | None, prefix: str | None) -> bool:
        rows = self._records.get(str(partition), {})
        gone = [key for key in rows if kind in (None, key[0]) and key[1].startswith(prefix or "")]
        for key in gone:
            del rows[key]
        whole = kind is None and prefix is None and partition.space == "session"
        log = self._logs.pop(partition.id, None) if whole else None
        return bool(gone) or log is not None

    # --- reading ---

    def _live(self, partition: str, kind: Kind, id: str) -> RecordRow | None:
        row = self._records.get(partition, {}).get((kind, id))
        return None if row is None or is_expired(row) else row

    def _row(self, key: Key) -> SessionRow | RecordRow | None:
        if key.kind == "session":
            log = self._logs.get(key.id)
            return log.header if log else None
        return self._live(str(key.partition), key.kind, key.id)

    async def _get(self, key: Key) -> SessionRow | RecordRow | TurnRow | None:
        if key.kind == "turn":
            log = self._logs.get(key.partition.id)
            seq = log.runs.get(key.id) if log else None
            return log.turns[seq - 1] if log and seq else None
        return self._row(key)

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        rows: list[SessionRow | RecordRow]
        if query.kind == "session":
            rows = [log.header for log in self._logs.values()]
        else:
            parts = self._records.values()
            rows = [row for part in parts for row in part.values() if row.kind == query.kind]
        return scan(rows, query)

    async def _history(self, session_id: str, span: Span) -> Sequence[TurnRow]:
        log = self._logs.get(session_id)
        if log is None:
            return []
        start = span.after if span.trimmed else max(span.after, log.header.trimmed)
        rows = log.turns[start : None if span.before is None else max(span.before - 1, 0)]
        if span.newest and span.limit is not None:
            return rows[max(len(rows) - span.limit, 0) :]
        return rows[: span.limit]

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        row = profile and self._live(str(profile.partition), profile.kind, profile.id)
        log = self._logs.get(session_id)
        if log is None:
            return View(None, [], row)
        return View(log.header, log.turns[start_of_view(log.header, last, since) :], row)
