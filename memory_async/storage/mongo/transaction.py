"""Committing in a transaction: for deployments that have them, replica sets and shards."""

from __future__ import annotations

from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from memory_async.storage.mongo.changes import Change, Statements, Touch, Write
from memory_async.storage.mongo.commit import Commit, LostError, check_size, is_lost
from memory_async.storage.mongo.documents import Document

UNKNOWN = "UnknownTransactionCommitResult"
COMMITS = 3


class ByTransaction(Commit):
    """Read first, outside the transaction; then everything that was read is written or touched
    inside, if it is still of the same revision. So no two batches can have read the same."""

    async def read(
        self, partition: str, ids: list[str], ways: list[Document]
    ) -> tuple[list[Document], str]:
        where: Document = {"_id": {"$in": ids}}
        if ways:
            where = {"$or": [where, *ways]}
        return await self._collection.find({**where, **self.of(partition)}, {"payload": 0}), ""

    async def make(self, partition: str, changes: list[Change], token: str) -> None:
        if all(isinstance(change, Touch) for change in changes):
            return
        for change in changes:
            if isinstance(change, Write):
                check_size(change.document, change.document.get("kind", "turn"))
        statements = self.statements(partition)
        try:
            if len(changes) == 1 and isinstance(changes[0], Write):
                await self._make_one(statements, changes[0])
            else:
                await self._make_all(statements, changes)
        except (BulkWriteError, OperationFailure) as error:
            if is_lost(error) and not error.has_error_label(UNKNOWN):
                raise LostError from error
            raise

    async def _make_one(self, statements: Statements, change: Write) -> None:
        """One document is atomic by itself."""
        done = await self._collection.write([statements.alone(change)])
        if not done.matched_count + done.upserted_count:
            raise LostError

    async def _make_all(self, statements: Statements, changes: list[Change]) -> None:
        async with self._collection.transaction() as session:
            done = await self._collection.write(list(statements.in_transaction(changes)), session)
            if not set(done.upserted_ids.values()) <= statements.foreseen(changes):
                raise LostError  # what was there when it was read is gone
            await _commit(session)


async def _commit(session: Any) -> None:
    for more in range(COMMITS - 1, -1, -1):
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if not more or not error.has_error_label(UNKNOWN):
                raise
        else:
            return
