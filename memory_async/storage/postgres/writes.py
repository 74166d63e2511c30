"""The writing side: a batch as the arguments of ``apply()`` in schema/0002, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from memory_async.codec import SessionRow, TurnRow
from memory_async.errors import StorageError
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
from memory_async.storage.postgres import search
from memory_async.storage.protocol import ABSENT, ALWAYS, Condition, Delete, Drop, Expect, Trim

# Of arrays only text[], which asyncpg knows: for others it asks the catalog on each new connection.
APPLY = """
SELECT failed, foreign_owner, stored, did::text[] AS did, known, seq, created_at, usage, payload
FROM memory_async.apply($1, $2, $3, $4)"""

HIGHEST = (1 << 63) - 1


class Payloads(list[str]):
    """Texts that travel beside the writes, which refer to them by number."""

    def number(self, text: str | None) -> int | None:
        if text is None:
            return None
        self.append(text)
        return len(self)


def is_repeatable(batch: Batch) -> bool:
    """Whether the batch, sent again after an answer was lost, does nothing more than it did."""
    return batch.append is not None or all(
        isinstance(op, (PutOp, PutSessionOp, Trim)) for op in batch.ops
    )


def arguments(namespace: str, batch: Batch) -> tuple[str, str, str, list[str]]:
    payloads = Payloads()
    ops = [
        {name: value for name, value in _op(op, payloads).items() if value is not None}
        for op in batch.ops
    ]
    return namespace, str(batch.partition), json.dumps(ops), payloads


def _op(op: Op, payloads: Payloads) -> dict[str, Any]:
    match op:
        case AppendOp(session=session, turn=turn, due=due):
            return {
                "do": "append",
                **_header(session, payloads),
                "run_id": turn.run_id,
                "run_at": turn.created_at,
                "usage": payloads.number(turn.usage),
                "turn": payloads.number(turn.payload),
                "due": due or None,
            }
        case PutSessionOp(row=header, when=when):
            return {
                "do": "header",
                "kind": "session",
                **_header(header, payloads),
                **_condition(when),
            }
        case PutOp(row=row, when=when, text=text):
            put = {**row._asdict(), "id": row.id, "payload": payloads.number(row.payload)}
            return {
                "do": "put",
                **put,
                "tags": row.tags or None,
                **_condition(when),
                **_texts(text),
            }
        case AdvanceOp():
            return {
                "do": "advance",
                "job": op.job,
                "expected": min(op.expected, HIGHEST),
                "through": min(op.through, HIGHEST),
                "value": payloads.number(op.value),
                "born": op.created_at,
            }
        case Trim(through=through):
            return {"do": "trim", "through": None if through is None else _int8(through)}
        case Drop(kind=kind, prefix=prefix):
            return {"do": "drop", "kind": kind, "prefix": prefix}
        case Delete(key=key, when=when) | Expect(key=key, when=when):
            do = "delete" if isinstance(op, Delete) else "expect"
            return {"do": do, "kind": key.kind, "id": key.id, **_condition(when)}


def _header(row: SessionRow, payloads: Payloads) -> dict[str, Any]:
    return {
        "id": row.session_id,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "keep_turns": row.keep_turns,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "version": row.version,
        "payload": payloads.number(row.payload),
    }


def _texts(text: str | None) -> dict[str, Any]:
    return {} if text is None else {"texts": search.texts((text,), ("",))}


def _condition(when: Condition) -> dict[str, Any]:
    if when is ALWAYS:
        return {}
    return {"absent": True} if when is ABSENT else {"when": when}


def _int8(number: int) -> int:
    return max(min(number, HIGHEST), -HIGHEST)


def answer(batch: Batch, row: Mapping[str, Any]) -> Applied:
    """What came of the batch; raises what a failed condition means."""
    if row["failed"] is not None:
        _raise(batch.ops[row["failed"]], row["foreign_owner"], row["stored"])
    if row["known"] and batch.append is not None:
        run = batch.append.turn.run_id
        turn = TurnRow(row["seq"], run, row["created_at"], row["usage"], row["payload"])
        return Applied((), known=turn)
    return Applied([did == "true" for did in row["did"]], row["seq"] or 0)


def _raise(op: Op, foreign_owner: bool | None, stored: str | None) -> NoReturn:
    """The server has said no; why, the functions shared by all drivers say."""
    match op:
        case AppendOp(session=header) | PutSessionOp(row=header) if foreign_owner:
            check_owner(header.session_id, stored, header.user_id)
        case PutSessionOp(row=header, when=when):
            must_put(f"session {header.session_id!r}", stored, header.version, when)
        case PutOp(row=row, when=when):
            must_put(f"{row.kind} {row.id!r}", stored, row.version, when)
        case AdvanceOp():
            must_advance(op, None, 0, 0)
        case Delete() | Expect():
            must_delete(op, stored)
    raise StorageError(f"PostgreSQL refused {op!r}")
