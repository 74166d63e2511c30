"""The changes a batch comes down to, one a document; made in either of two ways (`commit`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from pymongo import DeleteMany, DeleteOne, ReplaceOne, UpdateMany, UpdateOne

from memory_async.keys import new_version
from memory_async.storage.mongo.documents import Document, Names


class Write(NamedTuple):
    """Put ``document`` where one of revision ``was`` stands, or none if that is None."""

    document: Document
    was: str | None


class Remove(NamedTuple):
    """Take away the document of revision ``was``, and no other one: what decided about a partition
    must not miss what has been added to it meanwhile."""

    id: str
    was: str


class Touch(NamedTuple):
    """Write nothing, but be in the way of whoever changes the document, or puts one there."""

    id: str
    was: str | None


class Clear(NamedTuple):
    """Take the messages out of turns, from the first seq through the last."""

    log: str
    first: int
    last: int


class Forget(NamedTuple):
    """Take away all turns of a log, which have no header any more."""

    log: str


Change: TypeAlias = Write | Remove | Touch | Clear | Forget
Statement: TypeAlias = Any  # of pymongo's bulk_write


class Statements:
    """Changes of one partition as statements to the server."""

    def __init__(self, names: Names, partition: str, now: datetime) -> None:
        self._names = names
        self.partition = partition
        self._now = now

    def in_transaction(self, changes: list[Change]) -> Iterator[Statement]:
        """Updates first, then deletions: two commands. What does not find its document inserts
        one, which is an error where another stands; see `foreseen` for where none does."""
        yield from (each for change in changes for each in self._updates(change))
        for change in changes:
            if isinstance(change, Remove):
                yield DeleteOne(self._at(change.id))
            elif isinstance(change, Forget):
                yield DeleteMany({**self._of_log(change.log), "at": {"$gt": 0}})

    def foreseen(self, changes: list[Change]) -> set[str]:
        """The documents that may be inserted."""
        written = {c.document["_id"] for c in changes if isinstance(c, Write) and c.was is None}
        return written | {c.id for c in changes if isinstance(c, Touch) and c.was is None}

    def alone(self, change: Write) -> Statement:
        """Changes nothing unless it finds its document."""
        return self._write(change, upsert=change.was is None)

    def _write(self, change: Write, *, upsert: bool) -> Statement:
        document = change.document
        rev = document["rev"] if change.was is None else change.was
        return ReplaceOne({**self._at(document["_id"]), "rev": rev}, document, upsert=upsert)

    def _updates(self, change: Change) -> Iterator[Statement]:
        match change:
            case Write():
                yield self._write(change, upsert=True)
            case Remove(id, was) | Touch(id, str(was)):
                at = {**self._at(id), "rev": was}
                yield UpdateOne(at, {"$set": {"rev": new_version()}}, upsert=True)
            case Touch(id):
                trace = self.trace(id)
                at = {**self._at(id), "rev": trace["rev"]}
                yield ReplaceOne(at, trace, upsert=True)
            case Clear():
                yield self._clear(change)

    def rolling(self, change: Change) -> Iterator[Statement]:
        """A change that is promised already: made by the first who comes along, and left alone by
        everybody later. So whatever is removed leaves a trace for a while, in whose place nobody
        late can insert anything."""
        match change:
            case Write():
                yield self._write(change, upsert=True)  # what expired may be gone meanwhile
            case Remove(id, was):
                yield ReplaceOne({**self._at(id), "rev": was}, self.trace(id))
            case Clear():
                yield self._clear(change)
            case Forget(log):
                yield traces({**self._of_log(log), "at": {"$gt": 0}}, self._now)

    def trace(self, id: str) -> Document:
        place = self._names.place(self.partition, id)
        return {**place, "rev": new_version(), "idle": self._now}

    def _clear(self, change: Clear) -> Statement:
        span = {"$gte": change.first, "$lte": change.last}
        # Another revision, so that nobody late writes over it what was there.
        change_to = {"$unset": {"payload": ""}, "$set": {"rev": new_version()}}
        return UpdateMany({**self._of_log(change.log), "at": span}, change_to)

    def _of_log(self, log: str) -> Document:
        return {"ns": self._names.namespace, "p": self.partition, "log": log}

    def _at(self, id: str) -> Document:
        return self._names.of(self.partition, id)


def traces(where: Document, now: datetime) -> Statement:
    """Leave of each document found nothing but a trace, as `Statements.trace`."""
    kept = {"_id": "$_id", "ns": "$ns", "p": "$p", "at": "$_id"}
    return UpdateMany(where, [{"$replaceWith": {**kept, "rev": new_version(), "idle": now}}])


# --- as they are kept in a document ---

_NAMES: dict[str, type[Change]] = {
    "write": Write, "remove": Remove, "touch": Touch, "clear": Clear, "forget": Forget
}  # fmt: skip


def to_list(changes: list[Change]) -> list[list[Any]]:
    return [[type(each).__name__.lower(), *each] for each in changes]


def from_list(kept: list[list[Any]]) -> list[Change]:
    return [_NAMES[name](*fields) for name, *fields in kept]
