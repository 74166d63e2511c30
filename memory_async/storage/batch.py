"""From writes to what drivers apply: checked and encoded as a whole, before anything is written."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from memory_async import codec
from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    PayloadError,
    SessionOwnershipError,
)
from memory_async.jsontext import dump_json
from memory_async.keys import MAX_KEY_BYTES, Key, Partition, check_id, to_micros
from memory_async.records import Session
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Append,
    Condition,
    Delete,
    Drop,
    Expect,
    Put,
    Trim,
    When,
    Write,
)
from memory_async.turns import Turn, encode_turn


class AppendOp(NamedTuple):
    session: SessionRow
    turn: TurnRow
    due: tuple[str, ...]


class PutOp(NamedTuple):
    row: RecordRow
    when: Condition
    text: str | None = None  # what `SupportsSearch` finds it by


class PutSessionOp(NamedTuple):
    row: SessionRow
    when: Condition


class AdvanceOp(NamedTuple):
    session_id: str
    job: str
    expected: int
    through: int
    value: str | None
    created_at: int | None


class IndexOp(NamedTuple):
    """What `SupportsSearch.index` was given: a write on its own, in no batch."""

    key: Key
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    created_at: int | None


Op: TypeAlias = AppendOp | PutOp | PutSessionOp | AdvanceOp | Delete | Expect | Drop | Trim


class Batch(NamedTuple):
    """Encoded writes of one partition; ``append`` is the one `AppendOp` among ``ops``, if any."""

    partition: Partition
    ops: tuple[Op, ...]
    append: AppendOp | None
    turn: Turn | None


def prepare(writes: tuple[Write, ...], max_payload_bytes: int) -> Batch:
    """Check and encode ``writes``; raises `PayloadError`, `ConfigurationError`, writes nothing."""
    if not writes:
        raise ConfigurationError("apply() needs at least one write")
    partition = _partition(writes[0])
    if len(writes) > 1:
        _check_together(writes)
    append, turn = None, None
    ops: list[Op] = []
    for write in writes:
        if isinstance(write, Append):
            append, turn = _encode_append(write, max_payload_bytes), write.turn
            ops.append(append)
        else:
            ops.append(_encode(write, max_payload_bytes))
    return Batch(partition, tuple(ops), append, turn)


def _check_together(writes: tuple[Write, ...]) -> None:
    partitions = {_partition(write) for write in writes}
    if len(partitions) > 1:
        names = ", ".join(sorted(map(str, partitions)))
        raise ConfigurationError(
            f"a batch is of one partition, this one has {names}: apply them apart"
        )
    appends = [write for write in writes if isinstance(write, Append)]
    if len(appends) > 1:
        raise ConfigurationError("a batch holds at most one Append: apply them one after the other")
    keys = [key for write in writes if (key := _target(write)) is not None]
    if len(set(keys)) < len(keys):
        raise ConfigurationError("a batch writes no record twice: apply those writes apart")
    if any(map(_ends_session, writes)) and any(
        isinstance(w, (Append, Advance, Trim)) for w in writes
    ):
        raise ConfigurationError("a batch that deletes a session writes nothing to its log")
    drops = [write for write in writes if isinstance(write, Drop)]
    if any(
        _drops(drop, put.record.key) for drop in drops for put in writes if isinstance(put, Put)
    ):
        raise ConfigurationError("a batch puts nothing that it drops: apply those writes apart")


def check_owner(session_id: str, owner: str | None, user_id: str | None) -> None:
    """Raise `SessionOwnershipError` unless the session's owner is ``user_id`` (None: nobody)."""
    if owner != user_id:
        # The owner's id is not named: it is not the caller's to know.
        whose = "belongs to another user" if owner is not None else "is anonymous"
        who = "no user" if user_id is None else f"user {user_id!r}"
        raise SessionOwnershipError(
            f"session {session_id!r} {whose}; {who} cannot open it: use another session_id"
        )


def must_put(name: str, stored: str | None, version: str, when: Condition) -> bool:
    """Whether a `Put` has to be written, given the ``stored`` version (None: no record); False when
    it was applied before. `ConflictError` when its condition fails."""
    if stored == version:
        return False
    if when is ABSENT:
        if stored is not None:
            raise ConflictError(f"{name} exists already")
    elif when is not ALWAYS and stored != when:
        raise ConflictError(f"{name} has changed or is gone")
    return True


def must_advance(op: AdvanceOp, cursor: int | None, last_seq: int, created_at: int) -> None:
    """`ConflictError` unless an `Advance` still starts where the job stands."""
    again = op.created_at is not None and op.created_at != created_at
    if cursor != op.expected or op.through > last_seq or again:
        raise ConflictError(f"job {op.job!r} of session {op.session_id!r} has moved or is gone")


def must_delete(op: Delete | Expect, stored: str | None) -> bool:
    """Whether a `Delete` has anything to do; `ConflictError` when its condition, or that of an
    `Expect`, fails."""
    if op.when is ABSENT and stored is not None:
        raise ConflictError(f"{op.key} exists")
    if isinstance(op.when, str) and stored != op.when:
        raise ConflictError(f"{op.key} has changed or is gone")
    return stored is not None and isinstance(op, Delete)


def _partition(write: Write) -> Partition:
    match write:
        case Append(session=session):
            return Partition("session", session.session_id)
        case Put(record=record):
            return record.key.partition
        case Delete(key=key) | Expect(key=key):
            return key.partition
        case Drop(partition=partition):
            return partition
        case Advance(session_id=session_id) | Trim(session_id=session_id):
            return Partition("session", check_id("session_id", session_id))
    raise ConfigurationError(f"{write!r} is no write")


def _target(write: Write) -> object:
    """What two writes of one batch must not share."""
    match write:
        case Put(record=record):
            return record.key
        case Delete(key=key) | Expect(key=key):
            return key
        case Advance(job=job):
            return job
    return None


def _drops(drop: Drop, key: Key) -> bool:
    fits = drop.kind in (None, key.kind) and key.id.startswith(drop.prefix or "")
    return fits and drop.partition == key.partition


def _ends_session(write: Write) -> bool:
    match write:
        case Delete(key=Key(kind="session")):
            return True
        case Drop(partition=Partition(space="session"), kind=None, prefix=None):
            return True
    return False


def _encode_append(write: Append, limit: int) -> AppendOp:
    session, turn = write.session, write.turn
    if turn.session_id != session.session_id or turn.user_id != session.user_id:
        raise ConfigurationError("the turn and the session of an Append differ in id or user")
    encoded = encode_turn(turn)
    _check_size(encoded.payload, limit, "turn")
    due = () if not write.due else dict.fromkeys(check_id("a job's name", j) for j in write.due)
    return AppendOp(codec.encode_session(session), encoded, tuple(due))


def _encode(write: Put | Advance | Delete | Expect | Drop | Trim, limit: int) -> Op:
    match write:
        case Put(record=Session() as session):
            header = codec.encode_session(session)
            _check_size(header.payload, limit, "session")
            return PutSessionOp(header, write.when)
        case Put():
            row = codec.encode_record(write.record)
            _check_size(row.payload, limit, row.kind)
            return PutOp(row, write.when, write.record.index_text)
        case Advance():
            if not 0 <= write.expected <= write.through:
                raise ConfigurationError(f"a cursor only moves on: {write!r}")
            check_id("a job's name", write.job)
            value = None if write.value is None else dump_json(write.value, write.job)
            _check_size(value, limit, f"the value of job {write.job}")
            born = None if write.created_at is None else to_micros(write.created_at)
            return AdvanceOp(
                write.session_id, write.job, write.expected, write.through, value, born
            )
        case Delete(key=Key(kind="turn")) | Drop(kind="turn" | "session"):
            raise ConfigurationError("turns go with their session, or by Trim: " + repr(write))
        case Drop(kind=None, prefix=str()):
            raise ConfigurationError("Drop takes a prefix together with a kind: " + repr(write))
        case Drop(partition=partition, prefix=prefix):
            check_id(f"the id of a {partition.space}", partition.id)
            if prefix:
                check_id("a prefix", prefix, MAX_KEY_BYTES)
            return write
        case Delete(when=When.ABSENT) | Expect(when=When.ALWAYS) | Expect(key=Key(kind="turn")):
            raise ConfigurationError(f"this write can do nothing: {write!r}")
        case Delete(key=key) | Expect(key=key):
            key.check()
            return write
        case Trim():
            return write


def _check_size(payload: str | None, limit: int, what: str) -> None:
    if payload is not None and len(payload) * 4 > limit and (size := len(payload.encode())) > limit:
        raise PayloadError(f"{what} is {size} bytes as stored; this storage takes at most {limit}")
