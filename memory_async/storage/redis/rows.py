"""Rows as the scripts take and give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import PayloadError
from memory_async.keys import Key, Kind
from memory_async.storage.batch import AdvanceOp, AppendOp, Op, PutOp, PutSessionOp
from memory_async.storage.protocol import ABSENT, ALWAYS, Condition, Delete, Drop, Expect, Trim
from memory_async.storage.redis.keys import from_stamp, stamp

Argument: TypeAlias = str | bytes | int


def field(kind: Kind, id: str) -> bytes:
    """Where a record stands in the hashes of its partition."""
    return f"{kind}\0{id}".encode()


# --- writes -------------------------------------------------------------------------------------


def write_arguments(op: Op) -> list[Argument]:
    """A write as `apply.lua` reads it."""
    match op:
        case AppendOp(session=session, turn=turn, due=due):
            head = f"{stamp(turn.created_at)}{turn.run_id}\0{turn.usage or ''}"
            at = stamp(turn.created_at)
            written: list[Argument] = ["append", *_header(session), turn.run_id, head]
            return [*written, turn.payload or "", at, len(due), *due]
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


def session_row(session_id: str, reply: Sequence[Any]) -> SessionRow:
    user, agent, keep, created, updated, version, payload, last, trimmed, cursors, values = reply
    known = {job: text(value) for job, value in _pairs(values)}
    return SessionRow(
        session_id,
        user.decode() or None,
        agent.decode() or None,
        keep == b"1",
        from_stamp(created),
        from_stamp(updated),
        version.decode(),
        text(payload),
        last,
        trimmed,
        {job.decode(): (int(through), known.get(job)) for job, through in _pairs(cursors)},
    )


def _pairs(flat: Any) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def turn_row(seq: int, head: bytes, payload: bytes | None) -> TurnRow:
    run_id, _, usage = head[18:].decode().partition("\0")
    body = None if payload is None else text(payload)
    return TurnRow(seq, run_id, from_stamp(head[:18]), usage or None, body)


def turn_rows(first: int, parts: Sequence[bytes]) -> list[TurnRow]:
    """Turns from heads and payloads, each given as sizes and as one text."""
    heads, payloads = _cut(parts[0], parts[1]), _cut(parts[2], parts[3])
    missing = len(heads) - len(payloads)  # of trimmed turns nothing but the head is left
    rows: list[TurnRow] = []
    for number, head in enumerate(heads):
        payload = payloads[number - missing] if number >= missing else None
        rows.append(turn_row(first + number, head, payload))
    return rows


def _cut(sizes: bytes, joined: bytes) -> list[bytes]:
    found, start = [], 0
    for size in map(int, sizes.split(b",")) if sizes else ():
        found.append(joined[start : start + size])
        start += size
    return found


def text(payload: bytes) -> str:
    # What is not UTF-8 was not written by us: the codec will call it corrupt, and skip it.
    return payload.decode(errors="replace")
