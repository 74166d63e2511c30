"""Rows as the scripts take and give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from memory_async.codec import RecordRow, SessionRow, StoredTurn, TurnRow
from memory_async.errors import PayloadError
from memory_async.jsontext import dump_json, load_json
from memory_async.keys import Key, Kind
from memory_async.storage.batch import AdvanceOp, AppendOp, Op, PutOp, PutSessionOp
from memory_async.storage.protocol import ABSENT, ALWAYS, Condition, Delete, Drop, Expect, Trim
from memory_async.storage.redis.keys import from_stamp, stamp

Argument: TypeAlias = str | bytes | int
TURN_FIELDS = len(TurnRow._fields)


def field(kind: Kind, id: str) -> bytes:
    """Where a record stands in the hashes of its partition."""
    return f"{kind}\0{id}".encode()


# --- writes -------------------------------------------------------------------------------------


def write_arguments(op: Op) -> list[Argument]:
    """A write as `apply.lua` reads it."""
    match op:
        case AppendOp(session=session, turn=turn, due=due):
            at = stamp(turn.created_at)
            head = f",{dump_json(turn.run_id, 'run_id')},{turn.created_at},{turn.usage or 'null'},"
            written: list[Argument] = ["append", *_header(session), turn.run_id, head]
            return [*written, turn.payload or "null", at, len(due), *due]
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


def session_row(session_id: str, found: list[bytes] | Mapping[bytes, bytes]) -> SessionRow | None:
    """A header, from the fields of its hash and their values; None of an empty one."""
    fields: Mapping[bytes, bytes]
    if isinstance(found, list):
        each = iter(found)
        fields = dict(zip(each, each, strict=True))
    else:  # by RESP3, which a client of the caller's may speak
        fields = found
    if b"h" not in fields:
        return None
    packed = fields[b"h"].decode().split("\0")
    version, user, agent, keep, created, updated, last, trimmed = packed[:8]
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
        _jobs(packed[8:], fields) if len(packed) > 8 else {},
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


def turn_rows(first: int, packed: Iterable[bytes]) -> Iterator[StoredTurn]:
    """Turns that follow one another: each is the JSON of a `StoredTurn`, with usage and payload as
    they are. Of what was not written by us comes a row that the codec will call corrupt."""
    for seq, each in enumerate(packed, first):
        try:
            row = load_json(each)
        except (ValueError, RecursionError):
            row = None
        if row is None:
            yield seq, "", 0, None, each
        elif type(row) is list and len(row) == TURN_FIELDS and row[0] == seq:
            yield row  # type: ignore[misc]
        else:
            yield seq, "", 0, None, ""


def text(payload: bytes) -> str:
    # What is not UTF-8 was not written by us: the codec will call it corrupt.
    return payload.decode("utf-8", "replace")
