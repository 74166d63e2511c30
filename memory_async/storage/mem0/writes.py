"""One batch, applied to what is there: checked as a whole first, then written one memory after the
other. Mem0 has no transactions, so the order is chosen for what an interruption would leave: the
turn first, removals last, and the same batch again does what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.keys import Key, Partition
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
from memory_async.storage.engine import is_expired, trimmed
from memory_async.storage.mem0.log import Log
from memory_async.storage.mem0.rows import (
    LOG,
    Entry,
    JobRow,
    Piece,
    key_of,
    log_of,
    pieces,
    place,
    records_of,
)
from memory_async.storage.mem0.shelf import Shelf
from memory_async.storage.protocol import Delete, Drop, Expect, Trim
from memory_async.turns import Turn

__all__ = ["apply_batch"]


async def apply_batch(shelf: Shelf, batch: Batch) -> Applied:
    """Nobody else in this process may write to the partition meanwhile."""
    state = State(shelf, batch.partition)
    await state.load(batch.ops)
    return await state.apply(batch)


@dataclass
class State:
    """What is stored of a partition, as far as a batch touches it."""

    shelf: Shelf
    partition: Partition
    log: Log = field(default_factory=Log)
    records: dict[str, Entry] = field(default_factory=dict)

    async def load(self, ops: Sequence[Op]) -> None:
        wanted = []
        if any(map(_touches_log, ops)):
            wanted.append(log_of(self.partition.id))
        if any(isinstance(op, Drop) for op in ops):
            wanted.append(records_of(self.partition))
        else:
            wanted += [{"key": key} for op in ops if (key := _record_key(op)) is not None]
        found = await self.shelf.gather(self.shelf.read(each, remains=True) for each in wanted)
        rows = [entry for each in found for entry in each]
        self.log = Log(rows)
        self.records = {entry.key: entry for entry in rows if _is_record(entry)}

    async def apply(self, batch: Batch) -> Applied:
        header = self.log.header
        for op in batch.ops:
            if header is not None and isinstance(op, (AppendOp, PutSessionOp)):
                given = op.session if isinstance(op, AppendOp) else op.row
                check_owner(header.session_id, header.user_id, given.user_id)
        if batch.append is not None:
            key = key_of(Key("turn", self.partition, batch.append.turn.run_id))
            if (known := self.log.runs.get(key)) is not None:
                if known.created_at == batch.append.turn.created_at:
                    await self._go_on(batch.ops)
                return Applied((), known=known)
        ops = _bounded(batch.ops, self.log.last_seq)
        todo = [self._check(op) for op in ops]
        planned = [self._plan(op, batch.turn) for op in ops]  # what is too large is refused
        did = list(todo)
        for number in sorted(range(len(ops)), key=lambda number: _order(ops[number])):
            if todo[number]:
                did[number] = await self._write(ops[number], planned[number])
        return Applied(did, self.log.last_seq if batch.append is not None else 0)

    async def _go_on(self, ops: Iterable[Op]) -> None:
        """The very same turn again, after an interruption: remove what was to go with it."""
        for op in ops:
            if isinstance(op, (Drop, Trim)) or (isinstance(op, Delete) and self._fits(op)):
                await self._write(op, [])

    def _fits(self, op: Delete) -> bool:
        stored = self._version(op.key)
        return stored is not None and (not isinstance(op.when, str) or op.when == stored)

    # --- checking: `ConflictError` when a condition fails, else whether there is anything to do ---

    def _check(self, op: Op) -> bool:
        header = self.log.header
        match op:
            case PutOp(row=row, when=when):
                key = Key(row.kind, Partition.parse(row.partition), row.id)
                return must_put(f"{row.kind} {row.id!r}", self._version(key), row.version, when)
            case PutSessionOp(row=row, when=when):
                stored = header.version if header else None
                return must_put(f"session {row.session_id!r}", stored, row.version, when)
            case Delete() | Expect():
                return must_delete(op, self._version(op.key))
            case AdvanceOp():
                if header is None or op.job not in header.jobs:
                    must_advance(op, None, 0, 0)
                else:
                    through = header.jobs[op.job][0]
                    must_advance(op, through, header.last_seq, header.created_at)
        return True

    def _version(self, key: Key) -> str | None:
        if key.kind == "session":
            return self.log.header.version if self.log.header else None
        entry = self.records.get(key_of(key))
        row = entry.row if entry else None
        return row.version if isinstance(row, RecordRow) and not is_expired(row) else None

    # --- planning: all that is to be written, before anything is ---

    def _plan(self, op: Op, turn: Turn | None) -> list[list[Piece]]:
        match op:
            case AppendOp() if turn is not None:
                return self._plan_append(op, turn)
            case PutOp(row=row, text=text):
                at = place(row.kind, row.partition, row.id)
                said = row.payload if text is None else text
                return [pieces(at, row, said, row.user_id, whole=text is not None)]
            case PutSessionOp(row=row):
                stored = self.log.header
                if stored is not None:
                    row = stored._replace(
                        updated_at=row.updated_at, version=row.version, payload=row.payload
                    )
                return [self._header(row)]
            case AdvanceOp():
                kept = self.log.job_rows[op.job].value
                value = kept if op.value is None else op.value
                return [self._job(JobRow(op.job, op.through, value))]
        return []

    def _plan_append(self, op: AppendOp, turn: Turn) -> list[list[Piece]]:
        header = self.log.header
        plan = []
        if header is None:
            plan.append(self._header(op.session))
        elif op.session.keep_turns and not header.keep_turns:
            plan.append(self._header(header._replace(keep_turns=True)))
        plan += [self._job(JobRow(name, 0, None)) for name in op.due if name not in self.log.jobs]
        row = op.turn._replace(seq=self.log.last_seq + 1)
        plan.append(self._turn(row, _said(turn), op.session.user_id))
        return plan

    def _header(self, row: SessionRow) -> list[Piece]:
        at = place("session", self.partition, row.session_id)
        return pieces(at, row, f"Session {row.session_id}: {row.payload}", row.user_id)

    def _job(self, row: JobRow) -> list[Piece]:
        return pieces(place("job", self.partition, row.name), row, f"{row.name}: {row.value}")

    def _turn(self, row: TurnRow, text: str, owner: str | None) -> list[Piece]:
        return pieces(place("turn", self.partition, row.run_id), row, text, owner, whole=True)

    # --- writing ---

    async def _write(self, op: Op, plan: list[list[Piece]]) -> bool:
        match op:
            case AppendOp() | PutOp() | PutSessionOp():
                *before, last = plan
                await self.shelf.gather(map(self._store, before))
                await self._store(last)  # the turn, when the session is ready for it
            case AdvanceOp():
                await self._store(plan[0])
                await self._trim(self.log.last_seq)
            case Trim(through=through):
                return await self._trim(self.log.last_seq if through is None else through)
            case Delete(key=Key(kind="session")):
                await self._remove(self._of_the_log())
            case Delete(key=key):
                entry = self.records.get(key_of(key))  # None: dropped in the same batch
                await self._remove([entry] if entry is not None else [])
            case Drop(kind=kind, prefix=prefix):
                whole = kind is None and self.partition.space == "session"
                rows = [e for e in self.records.values() if _is_dropped(e, kind, prefix)]
                return await self._remove(rows + (self._of_the_log() if whole else []))
        return True

    async def _store(self, new: list[Piece]) -> None:
        key = new[0].metadata["key"]
        entry = await self.shelf.write(new, self._stored(key))
        if _is_record(entry):
            self.records[key] = entry
        else:
            self.log.add(entry)

    def _stored(self, key: str) -> Entry | None:
        known = [*self.log.rest, *self.log.jobs.values()]
        if self.log.header_entry is not None:
            known.append(self.log.header_entry)
        return {entry.key: entry for entry in known}.get(key) or self.records.get(key)

    async def _trim(self, through: int) -> bool:
        header = self.log.header
        if header is None:
            return False
        after = trimmed(header, through)
        stale = [
            (number, row, entry)
            for number, (row, entry) in enumerate(self.log.turns)
            if row.seq <= after.trimmed and row.payload is not None
        ]
        frames = [row._replace(payload=None) for _, row, _ in stale]
        new = await self.shelf.gather(
            self.shelf.write(self._turn(frame, "", header.user_id), entry)
            for frame, (_, _, entry) in zip(frames, stale, strict=True)
        )
        for (number, _, _), frame, entry in zip(stale, frames, new, strict=True):
            self.log.turns[number] = frame, entry
        return after != header

    def _of_the_log(self) -> list[Entry]:
        """The header last: as long as it is there, what was interrupted can be repeated."""
        header = [self.log.header_entry] if self.log.header_entry is not None else []
        turns = [entry for _, entry in self.log.turns]
        return [*self.log.rest, *turns, *self.log.jobs.values(), *header]

    async def _remove(self, rows: list[Entry]) -> bool:
        if not rows:
            return False
        await self.shelf.gather(map(self.shelf.remove, rows[:-1]))
        await self.shelf.remove(rows[-1])
        self.records = {key: each for key, each in self.records.items() if each not in rows}
        if self.log.header_entry in rows:
            self.log = Log()
        return True


def _said(turn: Turn) -> str:
    """The real text: what Mem0's search finds it by."""
    return "\n".join(f"{m.name or m.role}: {m.text}" for m in turn.messages if m.text)


def _touches_log(op: Op) -> bool:
    match op:
        case PutOp():
            return False
        case Delete(key=key) | Expect(key=key):
            return key.kind == "session"
        case Drop(partition=partition, kind=kind):
            return kind is None and partition.space == "session"
    return True


def _record_key(op: Op) -> str | None:
    match op:
        case PutOp(row=row):
            return place(row.kind, row.partition, row.id).key
        case Delete(key=key) | Expect(key=key) if key.kind != "session":
            return key_of(key)
    return None


def _is_record(entry: Entry) -> bool:
    return entry.kind not in LOG


def _is_dropped(entry: Entry, kind: str | None, prefix: str | None) -> bool:
    if kind is None:
        return True
    id = entry.row.id if isinstance(entry.row, RecordRow) else None
    # Of one that cannot be read only the kind is known.
    return entry.kind == kind and (not prefix or (id is not None and id.startswith(prefix)))


def _bounded(ops: Sequence[Op], last_seq: int) -> list[Op]:
    """The same, though the turn is written first: a trim before it does not reach it."""
    first = next((n for n, op in enumerate(ops) if isinstance(op, AppendOp)), 0)
    return [
        replace(op, through=last_seq if op.through is None else min(op.through, last_seq))
        if n < first and isinstance(op, Trim)
        else op
        for n, op in enumerate(ops)
    ]


def _order(op: Op) -> int:
    """Conditional removals come last: until they are done, the same batch can be tried again."""
    match op:
        case AppendOp():
            return 0
        case Delete(when=str()):
            return 3
        case Delete() | Drop() | Trim():
            return 2
    return 1
