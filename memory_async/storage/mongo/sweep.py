"""What is left of sessions whose header has expired: found, and taken away."""

from __future__ import annotations

from datetime import datetime

from memory_async.storage.mongo.changes import traces
from memory_async.storage.mongo.client import Collection

AT_ONCE = 1000


async def sweep(collection: Collection, namespace: str, now: datetime) -> int:
    """Takes away what belonged to headers that are gone; how many sessions that were. It leaves
    traces, so that who is late with what was promised before (`journal`) brings nothing back."""
    gone = 0
    while found := await _orphans(collection, namespace):
        for each in found:
            where = {"ns": namespace, "p": each["p"], "log": each["log"]}
            await collection.write([traces(where, now)])
        gone += len(found)
    return gone


async def _orphans(collection: Collection, namespace: str) -> list[dict[str, str]]:
    """Of the first turns and the records that name a header: those of which it is not there."""
    found = await collection.aggregate(
        {"$match": {"ns": namespace, "head": {"$exists": True}}},
        {"$group": {"_id": {"head": "$head", "p": "$p", "log": "$log"}}},
        {
            "$lookup": {
                "from": collection.name,
                "localField": "_id.head",
                "foreignField": "_id",
                "as": "header",
            }
        },
        {"$unwind": {"path": "$header", "preserveNullAndEmptyArrays": True}},
        {"$match": {"$expr": {"$ne": ["$_id.log", "$header.log"]}}},
        {"$limit": AT_ONCE},
    )
    return [each["_id"] for each in found]
