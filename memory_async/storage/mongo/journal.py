"""Committing where the server has no transactions: by way of a journal.

The journal of a partition is one document, its guard, which every batch changes. A batch is
committed by one compare-and-set on it that says what changes are promised; then they are made, and
then it is said that they are. All of that travels in one command, in this order, and ends where the
compare-and-set fails. Whoever finds changes promised but not made, because somebody was stopped in
between, makes them before anything else. So a run that ends is in the log or still a checkpoint for
every reader, never both and never neither, and the log has no gaps.

The one thing that may be too early or too late is a listing of several partitions (`find`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from memory_async.keys import new_version
from memory_async.storage.mongo.changes import Change, Statement, Touch, from_list, to_list
from memory_async.storage.mongo.commit import DUPLICATE, Commit, LostError, check_size
from memory_async.storage.mongo.documents import Document


class ByJournal(Commit):
    """A guard has a ``rev``; ``open`` and ``promised`` while changes are to be made, and ``idle``
    otherwise: without a write for a while it goes, and nobody needs it any more."""

    async def read(
        self, partition: str, ids: list[str], ways: list[Document]
    ) -> tuple[list[Document], str]:
        of, guard = self.of(partition), self._names.guard(partition)
        while True:
            # In this order, the guard first: so nothing else is older than the guard's revision.
            # By nothing but the ids, which no other index has: with one of those it would be
            # sorted only after it was read.
            found = await self._collection.find(
                {"_id": {"$in": [guard, *ids]}}, {"payload": 0}, sort=[("_id", 1)]
            )
            if not await self.settled(found):
                continue
            if ways:
                more = await self._collection.find({**of, "$or": ways}, {"payload": 0})
                seen = {each["_id"] for each in found}
                found += [each for each in more if each["_id"] not in seen]
            if found and found[0]["_id"] == guard:
                return found[1:], found[0]["rev"]
            return found, ""

    async def make(self, partition: str, changes: list[Change], token: str) -> None:
        changes = [each for each in changes if not isinstance(each, Touch)]  # the guard moves
        if not changes:
            return
        guard, rev = self._guard(partition), new_version()
        promise = {"rev": rev, "promised": to_list(changes), "open": True, "at": guard["_id"]}
        check_size(promise, "this batch", ", and without transactions in all")
        # Inserted where there is none; where there is another, that is an error, which ends it all.
        commit = UpdateOne(
            {**guard, "rev": token}, {"$set": promise, "$unset": {"idle": ""}}, upsert=True
        )
        try:
            await self._send([commit, *self._made(partition, changes), self._done(guard, rev)])
        except BulkWriteError as error:
            [failed] = error.details["writeErrors"] or [None]
            if failed is None:
                raise
            if failed["index"] == 0:
                if failed["code"] == DUPLICATE:
                    raise LostError from error
                raise
            # Promised it is; somebody else has been making it at the same time.
            await self.settled(await self._collection.find(guard))

    async def _send(self, statements: Sequence[Statement]) -> None:
        """In one command, as far as they are of one kind."""
        await self._collection.write(statements)

    def guards(self, *partitions: str) -> list[str]:
        return [self._names.guard(each) for each in partitions]

    async def settled(self, found: Sequence[Document]) -> bool:
        unfinished = [each for each in found if each.get("open")]
        for guard in unfinished:
            await self._settle(guard)
        return not unfinished

    async def settle(self, partition: str | None = None) -> None:
        where = {} if partition is None else self._guard(partition)
        unfinished = {"ns": self._names.namespace, "open": True}
        await self.settled(await self._collection.find({**where, **unfinished}))

    async def _settle(self, guard: Document) -> None:
        """Make what is promised. Others may be at it, or long done: then this changes nothing."""
        partition, place = guard["p"], self._guard(guard["p"])
        made = self._made(partition, from_list(guard["promised"]))
        try:
            await self._collection.write(made, ordered=False)
        except BulkWriteError as error:
            if any(each["code"] != DUPLICATE for each in error.details["writeErrors"]):
                raise
        await self._collection.write([self._done(place, guard["rev"])])

    def _made(self, partition: str, changes: list[Change]) -> list[Statement]:
        statements = self.statements(partition)
        return [each for change in changes for each in statements.rolling(change)]

    def _done(self, guard: Document, rev: str) -> Statement:
        leave: dict[str, Any] = {"open": "", "promised": ""}
        return UpdateOne({**guard, "rev": rev}, {"$unset": leave, "$currentDate": {"idle": True}})

    def _guard(self, partition: str) -> Document:
        return self._names.of(partition, self._names.guard(partition))
