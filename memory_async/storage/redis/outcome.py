"""What becomes of a batch: whether it may be sent again, and why it was refused."""

from __future__ import annotations

from typing import Any

from memory_async.errors import ConflictError
from memory_async.storage.batch import (
    AdvanceOp,
    AppendOp,
    Batch,
    PutOp,
    PutSessionOp,
    check_owner,
    must_advance,
    must_delete,
    must_put,
)
from memory_async.storage.protocol import ABSENT, Delete, Expect


def may_repeat(batch: Batch) -> bool:
    """Whether applying the batch twice is applying it once, and looks so."""
    if batch.append is not None:
        return True
    return all(isinstance(op, PutOp | PutSessionOp) and op.when is ABSENT for op in batch.ops)


def raise_ownership(batch: Batch, owner: str | None) -> None:
    for op in batch.ops:
        if isinstance(op, AppendOp | PutSessionOp):
            header = op.session if isinstance(op, AppendOp) else op.row
            check_owner(header.session_id, owner, header.user_id)


def raise_conflict(op: Any, stored: str | None) -> None:
    match op:
        case PutOp(row=row, when=when):
            must_put(f"{row.kind} {row.id!r}", stored, row.version, when)
        case PutSessionOp(row=header, when=when):
            must_put(f"session {header.session_id!r}", stored, header.version, when)
        case Delete() | Expect():
            must_delete(op, stored)
        case AdvanceOp():
            must_advance(op, None, 0, 0)
    raise ConflictError("others kept writing to this partition: read again")
