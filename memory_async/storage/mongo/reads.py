"""The reading side: `find` as a query, and the turns of a history."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from memory_async.storage.driver import Query, Span
from memory_async.storage.mongo import documents
from memory_async.storage.mongo.documents import Document
from memory_async.storage.mongo.plan import with_prefix

NEWEST_FIRST = [("created", -1), ("id", -1), ("p", -1)]


def find(namespace: str, query: Query, now: datetime) -> Document:
    """The documents that meet a query."""
    where: Document = {"ns": namespace, "kind": query.kind, "expires": {"$not": {"$lte": now}}}
    if query.partition is not None:
        where["p"] = query.partition
    where |= with_prefix(query.prefix)
    if query.id is not None:
        where["id"] = {**where.get("id", {}), "$eq": query.id}
    lagging = [] if query.lagging is None else [query.lagging]
    if words := documents.words(query.user_id, query.status, query.tags, lagging):
        where["words"] = {"$all": words}
    if query.before is not None:
        created, id, partition = query.before
        where["created"] = {"$lte": created}
        where["$or"] = [
            {"created": {"$lt": created}},
            {"created": created, "id": {"$lt": id}},
            {"created": created, "id": id, "p": {"$lt": partition}},
        ]
    return where


def after(query: Query, last: Document, count: int) -> Query:
    """The rest of a listing that has come to ``last``, when ``count`` of it were wanted."""
    place = last["created"], last["id"], last["p"]
    return query._replace(before=place, limit=query.limit - count)


class Turns(NamedTuple):
    """The turns of one log after ``first`` and up to ``last``; they are all there."""

    log: str
    first: int
    last: int

    @classmethod
    def within(cls, header: Document, span: Span) -> Turns:
        first = min(span.after, header["last"])
        first = first if span.trimmed else max(first, header["trimmed"])
        last = header["last"] if span.before is None else min(header["last"], span.before - 1)
        if span.limit is not None and span.newest:
            first = max(first, last - span.limit)
        elif span.limit is not None:
            last = min(last, first + span.limit)
        return cls(header["log"], first, last)

    def query(self, namespace: str, partition: str) -> dict[str, Any]:
        return {
            "ns": namespace,
            "p": partition,
            "log": self.log,
            "at": {"$gt": self.first, "$lte": self.last},
        }
