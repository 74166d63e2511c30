"""From a batch, and what the collection holds, to the changes that apply it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from memory_async.codec import SessionRow, TurnRow
from memory_async.keys import Key, Partition, new_version
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
from memory_async.storage.engine import appended, trimmed
from memory_async.storage.mongo import documents
from memory_async.storage.mongo.changes import Change, Clear, Forget, Remove, Touch, Write
from memory_async.storage.mongo.documents import Document, Names, belongs, is_live
from memory_async.storage.protocol import Delete, Drop, Expect, Trim


def needed(names: Names, batch: Batch) -> tuple[list[str], list[Document]]:
    """The ids of what a batch depends on, and conditions for what else it does."""
    partition = str(batch.partition)
    ids: list[str] = []
    ways: list[Document] = []
    if batch.partition.space == "session":
        ids.append(names.header(batch.partition.id))
    for op in batch.ops:
        match op:
            case PutOp() | Delete() | Expect():
                ids.append(names.record(_key(op)))
            case AppendOp(turn=turn):
                ids.append(names.turn(partition, turn.run_id))
            case Drop(kind=None):
                ways.append({"kind": {"$exists": True}})
            case Drop(kind=kind, prefix=prefix):
                ways.append({"kind": kind, **with_prefix(prefix)})
    return ids, ways


def with_prefix(prefix: str | None) -> Document:
    if not prefix:
        return {}
    after = prefix.rstrip("\U0010ffff")
    if not after:
        return {"id": {"$gte": prefix}}
    last = ord(after[-1]) + 1
    following = chr(0xE000 if last == 0xD800 else last)  # in between is no character
    return {"id": {"$gte": prefix, "$lt": after[:-1] + following}}


class Plan(NamedTuple):
    """``known``: the ``_id`` of the turn that says the batch was applied already."""

    changes: list[Change]
    did: list[bool]
    seq: int = 0
    known: str | None = None


def plan(
    names: Names, batch: Batch, found: Iterable[Document], now: datetime, ttl: float | None
) -> Plan:
    """Checked first, as a whole, and then done in order; raises what `Storage.apply` does."""
    return _Planner(names, batch, found, now, ttl).plan()


class _Planner:
    def __init__(
        self,
        names: Names,
        batch: Batch,
        found: Iterable[Document],
        now: datetime,
        ttl: float | None,
    ) -> None:
        self._names, self._batch, self._now, self._ttl = names, batch, now, ttl
        self._partition = str(batch.partition)
        self._stored = {each["_id"]: each for each in found}
        self._changes: dict[Any, Change] = {}
        self._turn: tuple[int, TurnRow] | None = None
        self._header_id = ""
        self._stored_header: Document | None = None
        self._header: SessionRow | None = None
        self._log = ""
        if batch.partition.space == "session":
            self._header_id = names.header(batch.partition.id)
            if is_live(stored := self._stored.get(self._header_id), now):
                assert stored is not None  # noqa: S101 - for the type
                self._stored_header = stored
                self._header, self._log = documents.session_row(stored), stored["log"]
        self._before = self._header

    def plan(self) -> Plan:
        for op in self._batch.ops:
            if isinstance(op, (AppendOp, PutSessionOp)) and self._header:
                header = op.session if isinstance(op, AppendOp) else op.row
                check_owner(header.session_id, self._header.user_id, header.user_id)
        if self._batch.append and self._header:
            id = self._names.turn(self._partition, self._batch.append.turn.run_id)
            if id in self._stored and self._stored[id].get("log") == self._log:
                return Plan([], [], known=id)
        todo = [self._check(op) for op in self._batch.ops]
        did = [do and self._do(op) for op, do in zip(self._batch.ops, todo, strict=True)]
        for op in self._batch.ops:
            if isinstance(op, Expect):
                self._touch(self._names.record(op.key))
        self._finish()
        seq = self._turn[0] if self._turn else 0
        # The header first, as what belongs to none is swept; and last what may take a turn away.
        order = sorted(self._changes, key=lambda each: (each != self._header_id, each == "log"))
        return Plan([self._changes[id] for id in order], did, seq)

    # --- conditions ---

    def _check(self, op: Op) -> bool:
        """Whether ``op`` has anything to do; `ConflictError` when its condition fails."""
        match op:
            case PutOp(row=row, when=when):
                return must_put(
                    f"{row.kind} {row.id!r}", self._version(_key(op)), row.version, when
                )
            case PutSessionOp(row=row, when=when):
                version = self._header and self._header.version
                return must_put(f"session {row.session_id!r}", version, row.version, when)
            case Delete() | Expect():
                return must_delete(op, self._version(op.key))
            case AdvanceOp():
                header = self._header
                if header is None or op.job not in header.jobs:
                    must_advance(op, None, 0, 0)
                else:
                    must_advance(op, header.jobs[op.job][0], header.last_seq, header.created_at)
        return True

    def _version(self, key: Key) -> str | None:
        stored = self._stored.get(self._names.record(key))
        if not stored or not is_live(stored, self._now):
            return None
        return stored["version"] if belongs(stored, self._stored_header) else None

    # --- writing ---

    def _do(self, op: Op) -> bool:
        match op:
            case AppendOp():
                self._header = appended(op, self._begun(op.session))
                self._turn = (self._header.last_seq, op.turn._replace(seq=self._header.last_seq))
            case PutOp(row=row):
                document = documents.record(
                    self._at(self._names.record(_key(op))), new_version(), row
                )
                self._write(document)
            case PutSessionOp(row=row):
                self._header = self._begun(row)._replace(
                    updated_at=row.updated_at, version=row.version, payload=row.payload
                )
            case AdvanceOp(job=job):
                header = self._begun(None)
                value = header.jobs[job][1] if op.value is None else op.value
                jobs = {**header.jobs, job: (op.through, value)}
                self._header = trimmed(header._replace(jobs=jobs), header.last_seq)
            case Trim(through=through):
                before = self._header
                if before is not None:
                    to = before.last_seq if through is None else through
                    self._header = trimmed(before, to)
                return self._header != before
            case Delete(key=key):
                self._remove(self._names.record(key))
            case Drop(kind=kind):
                return self._drop(op, whole=kind is None)
        return True

    def _begun(self, row: SessionRow | None) -> SessionRow:
        """The header there is, else the one that the session begins with."""
        if self._header is None:
            assert row is not None  # noqa: S101 - what needs a header was checked for one
            self._log = new_version()
            self._header = row
        return self._header

    def _drop(self, drop: Drop, *, whole: bool) -> bool:
        ids = [
            id
            for id, each in self._stored.items()
            if id not in self._changes
            and "kind" in each
            and (whole or each["kind"] == drop.kind)
            and each["id"].startswith(drop.prefix or "")
        ]
        for id in ids:
            self._remove(id)
        return bool(ids)

    def _write(self, document: Document) -> None:
        stored = self._stored.get(document["_id"])
        self._changes[document["_id"]] = Write(document, stored["rev"] if stored else None)

    def _remove(self, id: str) -> None:
        stored = self._stored[id]
        self._changes[id] = Remove(id, stored["rev"])
        if id == self._header_id:
            self._header = None
            self._changes["log"] = Forget(stored["log"])

    def _touch(self, id: str) -> None:
        if id not in self._changes and not (id == self._header_id and self._header_moves()):
            stored = self._stored.get(id)
            self._changes[id] = Touch(id, stored["rev"] if stored else None)

    def _header_moves(self) -> bool:
        return self._header is not None and (self._header != self._before or self._ttl is not None)

    def _finish(self) -> None:
        """What follows from the batch as a whole: its header, its turn, what is trimmed."""
        header = self._header
        if header is None:
            return
        if self._header_moves():
            expires = None if self._ttl is None else self._now + timedelta(seconds=self._ttl)
            document = documents.header(
                self._at(self._header_id), new_version(), self._log, header, expires
            )
            self._write(document)
            stored = self._stored.get(self._header_id)
            if self._before is None and stored and "log" in stored:
                self._changes["log"] = Forget(stored["log"])  # of a session past its time
        start = 0 if self._before is None else self._before.trimmed
        last = header.trimmed
        if self._turn is not None:
            seq, row = self._turn
            if seq <= header.trimmed:
                row, last = row._replace(payload=None), seq - 1
            place = self._names.of(self._partition, self._names.turn(self._partition, row.run_id))
            self._write(documents.turn(place, new_version(), self._log, row))
        if last > start:
            self._changes["trim"] = Clear(self._log, start + 1, last)
        if self._ttl is not None:
            self._tie()

    def _tie(self) -> None:
        """Where sessions expire, what goes with one says which: for `sweep`."""
        for change in self._changes.values():
            if isinstance(change, Write):
                document = change.document
                is_one = "kind" in document or document["at"] == 1
                if is_one and document["_id"] != self._header_id:
                    document |= {"head": self._header_id, "log": self._log}

    def _at(self, id: str) -> Document:
        return self._names.place(self._partition, id)


def _key(op: PutOp | Delete | Expect) -> Key:
    if isinstance(op, PutOp):
        return Key(op.row.kind, Partition.parse(op.row.partition), op.row.id)
    return op.key
