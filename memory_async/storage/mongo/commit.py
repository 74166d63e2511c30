"""How the changes of a batch become durable, all or none: what the two ways (`transaction`,
`journal`) have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from bson import encode
from pymongo.errors import BulkWriteError, PyMongoError

from memory_async.errors import PayloadError
from memory_async.storage.mongo.changes import Change, Statements
from memory_async.storage.mongo.client import Collection
from memory_async.storage.mongo.documents import Document, Names

LARGEST = 16 << 20
"""Bytes of a document, as BSON."""

DUPLICATE = 11000
WRITE_CONFLICT = 112
TRANSIENT = "TransientTransactionError"


class LostError(Exception):
    """Somebody else was first, and nothing was written: read again."""


class Commit(ABC):
    """One of the two ways."""

    def __init__(self, collection: Collection, names: Names, clock: Callable[[], datetime]) -> None:
        self._collection = collection
        self._names = names
        self._clock = clock

    @abstractmethod
    async def read(
        self, partition: str, ids: list[str], ways: list[Document]
    ) -> tuple[list[Document], str]:
        """What is stored under the ids, and what is found in the partition in one of the ways; all
        without the payloads of records and turns. And a token for `make`."""

    @abstractmethod
    async def make(self, partition: str, changes: list[Change], token: str) -> None:
        """Make all changes or none; `LostError` when what was read has changed since."""

    def guards(self, *partitions: str) -> list[str]:
        """What else to read, so as to see what is promised but not done; see `settled`."""
        return []

    async def settled(self, found: Sequence[Document]) -> bool:
        """Whether all that was read is as promised; else it is now, and to be read again."""
        return True

    async def settle(self, partition: str | None = None) -> None:  # noqa: B027 - nothing to do
        """Make what is promised in the partition, or anywhere."""

    def of(self, partition: str) -> Document:
        return {"ns": self._names.namespace, "p": partition}

    def statements(self, partition: str) -> Statements:
        return Statements(self._names, partition, self._clock())


def is_lost(error: PyMongoError) -> bool:
    """Whether an error of the server only says that somebody else was first."""
    codes = {getattr(error, "code", None)}
    if isinstance(error, BulkWriteError):
        codes = {each.get("code") for each in error.details.get("writeErrors", ())}
    return error.has_error_label(TRANSIENT) or bool(codes & {DUPLICATE, WRITE_CONFLICT})


def check_size(document: Document, what: str, why: str = "") -> None:
    """`PayloadError` unless it fits into a document of the engine's."""
    # Encoding it just to see is not for free, and hardly any is near the limit.
    if 4 * _characters(document) > LARGEST and (size := len(encode(document))) > LARGEST:
        raise PayloadError(
            f"{what} is {size} bytes as stored; MongoDB takes at most {LARGEST}{why}"
        )


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values())) + 64 * len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_characters, value)) + 64
    return 0
