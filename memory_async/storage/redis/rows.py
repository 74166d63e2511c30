"""Rows as the scripts take and give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.errors import PayloadError
from memory_async.keys import Key, Kind
from memory_async.storage.batch import AdvanceOp, AppendOp, Op, PutOp, PutSessionOp
from memory_async.storage.protocol import ABSENT, ALWAYS, Condition, Delete, Drop, Expect, Trim
from memory_async.storage.redis.keys import EPOCH, from_stamp, stamp

Argument: TypeAlias = str | bytes | int


def field(kind: Kind, id: str) -> bytes:
    """Where a record stands in the hashes of its partition."""
    return f"{kind}\0{id}".encode()


# --- writes -------------------------------------------------------------------------------------


def write_arguments(op: Op) -> list[Argument]:
    """A write as `apply.lua` reads it."""
    match op:
        case AppendOp(session=session, turn=turn, due=due):
            at = stamp(turn.created_at)
            head = f"{at}{turn.run_id}\0{turn.usage or ''}"
            written: list[Argument] = ["append", *_header(session), turn.run_id, head]
            return [*written, f"{head}\0{turn.payload}", at, len(due), *due]
        case PutSessionOp(row=session, when=when):
            return ["header", *_header(session), _when(when)]
        case PutOp(row=row, when=when):
            return ["put", row.kind, row.id, _meta(row), row.payload, row.version, _when(when)]
        case AdvanceOp():
            born = "" if op.created_at is None else stamp(op.created_at)
            return ["advance", op.job, op.expected, op.through, op.value or "", born]
        case Delete(key=key) | Expect(key=key):
            name = "delete" if isinstance(op, Delete) else "expect"
            return [name, key.kind, key.id, _when(op.when)]
        case Drop(kind=kind, prefix=prefix):
            return ["drop", kind or "", prefix or ""]
        case Trim(through=through):
            return ["trim", "" if through is None else through]


def _when(when: Condition) -> str:
    if when is ABSENT:
        return "-"
    return "*" if when is ALWAYS else f"={when}"


def _header(row: SessionRow) -> list[Argument]:
    return [
        *(row.session_id, row.user_id or "", row.agent_id or "", int(row.keep_turns)),
        *(stamp(row.created_at), stamp(row.updated_at), row.version, row.payload),
    ]


def _meta(row: RecordRow) -> str:
    if row.status is not None and (not row.status or "\0" in row.status):
        raise PayloadError(f"{row.status!r} is no status")
    expires = "" if row.expires_at is None else stamp(row.expires_at)
    times = stamp(row.created_at), stamp(row.updated_at)
    # A tag given twice is one tag of the index, but comes back twice.
    return "\0".join((row.version, expires, *times, row.user_id or "", row.status or "", *row.tags))


# --- replies ------------------------------------------------------------------------------------


def record_row(key: Key, meta: bytes, payload: bytes | None) -> RecordRow:
    version, expires, created, updated, user, status, *tags = meta.decode().split("\0")
    return RecordRow(
        key.kind,
        str(key.partition),
        key.id,
        user or None,
        status or None,
        tuple(tags),
        from_stamp(created),
        from_stamp(updated),
        from_stamp(expires) if expires else None,
        version,
        text(payload or b""),
    )


def session_row(
    session_id: str, found: Sequence[bytes] | Mapping[bytes, bytes]
) -> SessionRow | None:
    """A header, from the fields of its hash and their values; None of an empty one."""
    if isinstance(found, Mapping):  # by RESP3, which a client of the caller's may speak
        fields = found
    else:
        fields = dict(zip(found[::2], found[1::2], strict=True))
    if b"h" not in fields:
        return None
    packed = fields[b"h"].decode().split("\0")
    version, user, agent, keep, created, updated, last, trimmed, *jobs = packed
    return SessionRow(
        session_id,
        user or None,
        agent or None,
        keep == "1",
        from_stamp(created),
        from_stamp(updated),
        version,
        text(fields.get(b"p", b"")),
        int(last),
        int(trimmed),
        _jobs(jobs, fields) if jobs else {},
    )


def _jobs(
    packed: Sequence[str], fields: Mapping[bytes, bytes]
) -> dict[str, tuple[int, str | None]]:
    return {
        job: (int(through), None if value is None else text(value))
        for job, through in zip(packed[::2], packed[1::2], strict=True)
        for value in (fields.get(b"v" + job.encode()),)
    }


def turn_row(seq: int, packed: bytes) -> StoredTurn:
    return next(turn_rows(seq, [packed]))


def turn_rows(first: int, *parts: Sequence[bytes]) -> Iterator[StoredTurn]:
    """Turns that follow one another, each packed: created_at and run_id, usage, and unless it is
    trimmed its payload, between NULs."""
    for seq, packed in enumerate(chain(*parts), first):
        fields = packed.split(b"\0", 2)
        try:
            head = fields[0].decode()
            created_at, usage = int(head[:18]) - EPOCH, fields[1] or None
        except (ValueError, IndexError):  # not written by us: the codec will call it corrupt
            yield seq, "", 0, None, ""
        else:
            yield seq, head[18:], created_at, usage, fields[2] if len(fields) > 2 else None


def text(payload: bytes) -> str:
    # What is not UTF-8 was not written by us: the codec will call it corrupt.
    return payload.decode("utf-8", "replace")
