"""`PartitionFiles`: one partition's folder. Every use is under its lock, across threads and
processes, and begins by finishing what a crash left."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from memory_async.codec import RecordRow, SessionRow
from memory_async.errors import MemoryAsyncError
from memory_async.keys import Key, Kind
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
from memory_async.storage.engine import appended, is_expired, trimmed
from memory_async.storage.json.files import (
    read_text,
    remove,
    safe_name,
    sync_folder,
    write_whole,
)
from memory_async.storage.json.log import Log
from memory_async.storage.json.rows import dump_header, dump_record, load_header, load_record
from memory_async.storage.protocol import Delete, Drop, Expect, Trim

__all__ = ["PartitionFiles"]


class PartitionFiles:
    """The files of one partition: for a session its log and header, and a folder for each kind of
    record. A batch commits with one file: its line in the log, the one record or header it writes,
    or ``batch.json``, which holds the writes until all are done."""

    def __init__(self, folder: Path, lock: Path, *, timeout: float) -> None:
        self._folder = folder
        self._batch = folder / "batch.json"
        self._mine = threading.Lock()
        lock.parent.mkdir(parents=True, exist_ok=True)
        self._others = FileLock(lock, timeout=timeout, thread_local=False, is_singleton=False)
        self.log = Log(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._mine, self._others.acquire(poll_interval=0.005):
            try:
                if redo := self.log.refresh():
                    self._redo(redo)
                    self.log.absorb(at_once=True)
                if (text := read_text(self._batch)) is not None:
                    self._redo(json.loads(text))
                    remove(self._batch)
                yield
            except MemoryAsyncError:
                raise
            except BaseException:
                self.log.forget()  # what is committed and not yet done is in the files
                raise

    # --- writing ---

    def apply(self, batch: Batch) -> Applied:
        header = self.log.header
        for op in batch.ops:
            if isinstance(op, (AppendOp, PutSessionOp)) and header is not None:
                given = op.session if isinstance(op, AppendOp) else op.row
                check_owner(given.session_id, header.user_id, given.user_id)
        if batch.append and (known := self.log.seq_of(batch.append.turn.run_id)):
            return Applied((), known=self.log.turn(known))
        todo = [self._check(op) for op in batch.ops]
        if any(_drops_all(op) for op in batch.ops):
            # One rename; what else such a batch deletes is in the folder too.
            dropped = self._drop_all()
            return Applied(
                [dropped if _drops_all(op) else do for op, do in zip(batch.ops, todo, strict=True)]
            )
        did = []
        writes: list[Any] = []
        for op, do in zip(batch.ops, todo, strict=True):
            header, done = self._plan(op, header, writes) if do else (header, False)
            did.append(done)
        self._commit(batch.append, header, writes)
        return Applied(did, header.last_seq if header and batch.append else 0)

    def _commit(
        self, append: AppendOp | None, header: SessionRow | None, writes: list[Any]
    ) -> None:
        changed = header != self.log.header
        if append is not None:
            assert header is not None  # noqa: S101 - an append makes one
            at_once = self.log.append(append, header, writes)
            self._redo(writes)
            self.log.absorb(at_once=at_once)
        elif len(writes) + changed > 1:
            if changed:
                writes = [*writes, {"session": header and json.loads(dump_header(header, {}))}]
            write_whole(self._batch, json.dumps(writes, ensure_ascii=False))
            self._redo(writes)
            remove(self._batch)
        elif changed and header is not None:
            self.log.put(header)
        else:
            self._redo(writes)
        self.log.compact()

    def _check(self, op: Op) -> bool:
        """Whether ``op`` has anything to do; `ConflictError` when its condition fails."""
        match op:
            case PutOp(row=row, when=when):
                stored = self.record(row.kind, row.id)
                return must_put(
                    f"{row.kind} {row.id!r}", stored and stored.version, row.version, when
                )
            case PutSessionOp(row=row, when=when):
                header = self.log.header
                name = f"session {row.session_id!r}"
                return must_put(name, header.version if header else None, row.version, when)
            case Delete(key=key) | Expect(key=key):
                found = self.row(key)
                return must_delete(op, found and found.version)
            case AdvanceOp():
                header = self.log.header
                if header is None or op.job not in header.jobs:
                    must_advance(op, None, 0, 0)
                else:
                    must_advance(op, header.jobs[op.job][0], header.last_seq, header.created_at)
        return True

    def _plan(
        self, op: Op, header: SessionRow | None, writes: list[Any]
    ) -> tuple[SessionRow | None, bool]:
        """The header after ``op``, whether that changes anything; other writes go to ``writes``."""
        match op:
            case AppendOp():
                return appended(op, header), True
            case PutOp(row=row):
                writes.append({"put": json.loads(dump_record(row))})
            case PutSessionOp(row=row):
                if header is None:
                    return row, True
                return header._replace(
                    updated_at=row.updated_at, version=row.version, payload=row.payload
                ), True
            case AdvanceOp() if header is not None:
                value = header.jobs[op.job][1] if op.value is None else op.value
                header = header._replace(jobs={**header.jobs, op.job: (op.through, value)})
                return trimmed(header, header.last_seq), True
            case Trim(through=through):
                if header is None:
                    return None, False
                after = trimmed(header, header.last_seq if through is None else through)
                return after, after != header
            case Delete(key=Key(kind="session")):
                writes.append({"end": True})
                return None, True
            case Delete(key=key):
                writes.append({"delete": [key.kind, key.id]})
            case Drop(kind=str() as kind, prefix=prefix):
                gone = [row.id for row in self.records(kind) if row.id.startswith(prefix or "")]
                writes.extend({"delete": [kind, id]} for id in gone)
                return header, bool(gone)
            case Drop():
                return header, False
        return header, True

    def _redo(self, writes: list[Any]) -> None:
        """Do committed writes to the files; doing them twice is the same as once."""
        for write in writes:
            if "put" in write:
                row = load_record(json.dumps(write["put"]))
                write_whole(self._path(row.kind, row.id), dump_record(row))
            elif "delete" in write:
                remove(self._path(*write["delete"]))
            elif "end" in write:
                self._end_log()
            elif write.get("session"):
                self.log.put(load_header(write["session"]))

    def _end_log(self) -> None:
        remove(self._folder / "session.json")
        remove(self._folder / "turns.jsonl")
        self.log = Log(self._folder)

    def _drop_all(self) -> bool:
        """Delete the folder: gone at once under its name, then file by file."""
        if not self._folder.exists():
            return False
        gone = self._folder.with_name(f".{uuid.uuid4().hex}")
        self._folder.rename(gone)
        sync_folder(gone.parent)
        shutil.rmtree(gone, ignore_errors=True)
        self.log = Log(self._folder)
        return True

    # --- reading ---

    def row(self, key: Key) -> SessionRow | RecordRow | None:
        return self.log.header if key.kind == "session" else self.record(key.kind, key.id)

    def record(self, kind: Kind, id: str) -> RecordRow | None:
        return self._read(self._path(kind, id), kind, id)

    def records(self, kind: Kind) -> list[RecordRow]:
        folder = self._folder / kind
        paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
        return [row for path in paths if (row := self._read(path, kind, path.stem)) is not None]

    def _read(self, path: Path, kind: Kind, id: str) -> RecordRow | None:
        text = read_text(path)
        if text is None:
            return None
        try:
            row = load_record(text)
        except (ValueError, KeyError, TypeError, RecursionError):
            # A payload that cannot be read: whoever decodes the row says so.
            return RecordRow(kind, "/", id, None, None, (), 0, 0, None, "", text[:200])
        return None if is_expired(row) else row

    def _path(self, kind: str, id: str) -> Path:
        return self._folder / kind / f"{safe_name(id)}.json"


def _drops_all(op: Op) -> bool:
    return isinstance(op, Drop) and op.kind is None
