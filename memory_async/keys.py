"""Addresses of what is stored, ids, times and version tokens.

Every thing has an address, `Key(kind, partition, id)`. A partition is what is atomic together:
a session, a user, a knowledge base, a collection of items.
"""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

from memory_async.errors import PayloadError

__all__ = [
    "MAX_ID_BYTES",
    "MAX_KEY_BYTES",
    "Cursor",
    "Key",
    "Kind",
    "Partition",
    "Space",
    "check_id",
    "compound_id",
    "compound_prefix",
    "from_micros",
    "new_run_id",
    "new_version",
    "to_micros",
    "utc_now",
]

MAX_ID_BYTES = 512
MAX_KEY_BYTES = MAX_ID_BYTES + 33  # a compound id: a hash, a slash, an id
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Space: TypeAlias = Literal["session", "user", "knowledge", "collection"]
Kind: TypeAlias = Literal[
    "turn",
    "session",
    "checkpoint",
    "lease",
    "decision",
    "profile",
    "document",
    "chunk",
    "item",
]


def check_id(what: str, value: object, limit: int = MAX_ID_BYTES) -> str:
    """``value`` if it can be an id (1 to 512 bytes of UTF-8, no NUL), else `PayloadError`."""
    if type(value) is str and 0 < len(value) <= limit and "\0" not in value and value.isascii():
        return value
    if not isinstance(value, str):
        raise PayloadError(f"{what} must be a str, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise PayloadError(f"{what} holds a lone surrogate, which is not valid UTF-8") from None
    if not 1 <= size <= limit:
        raise PayloadError(f"{what} must be 1 to {limit} bytes of UTF-8; this one has {size}")
    if "\0" in value:
        raise PayloadError(f"{what} holds a NUL character; leave it out")
    return value


def compound_prefix(outer: str) -> str:
    """What every `compound_id` under ``outer`` begins with, and no other does; of fixed length."""
    check_id("an id", outer)
    return hashlib.sha256(outer.encode()).hexdigest()[:32] + "/"


def compound_id(outer: str, inner: str) -> str:
    """The id of something that belongs to ``outer``, e.g. a decision to its run."""
    return compound_prefix(outer) + inner


def utc_now() -> datetime:
    return datetime.now(UTC)


def to_micros(when: datetime) -> int:
    """UTC microseconds since 1970, exactly; `PayloadError` for a time without a zone."""
    if when.tzinfo is None:
        raise PayloadError(f"{when!r} has no time zone: use datetime.now(UTC)")
    return (when - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


def new_version() -> str:
    """A fresh version token; opaque, only ever compared for equality."""
    return os.urandom(16).hex()


def new_run_id() -> str:
    """A fresh id, a UUID of version 7: it begins with the time in ms, so that a session's runs are
    side by side in an index, in order, and adding one touches the same page as the one before."""
    now, rest = f"{time.time_ns() // 1_000_000:012x}", os.urandom(9).hex()
    return f"{now[:8]}-{now[8:]}-7{rest[:3]}-8{rest[3:6]}-{rest[6:]}"


class Partition(NamedTuple):
    """What is atomic together, e.g. ``Partition("session", "chat-1")``."""

    space: Space
    id: str

    def __str__(self) -> str:
        return f"{self.space}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> Partition:
        space, _, id = text.partition("/")
        return cls(space, id)  # type: ignore[arg-type]


class Key(NamedTuple):
    """The address of one stored thing."""

    kind: Kind
    partition: Partition
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id!r} in {self.partition}"

    def check(self) -> None:
        """Raise `PayloadError` unless this can be the key of something."""
        check_id(f"the id of a {self.partition.space}", self.partition.id)
        compound = self.kind in ("decision", "chunk")
        check_id(f"the id of a {self.kind}", self.id, MAX_KEY_BYTES if compound else MAX_ID_BYTES)


class Cursor(NamedTuple):
    """A place in a listing, newest first; give the last record's `Record.cursor` as ``before=``."""

    created_at: datetime
    id: str
    partition: Partition
