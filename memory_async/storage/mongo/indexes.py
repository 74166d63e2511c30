"""The indexes of the collection; creating them again changes nothing."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, IndexModel

GRACE = 3600
"""For so many seconds a trace remains of what was deleted: for whoever is late, see `journal`."""

_PLACE = [("created", DESCENDING), ("id", DESCENDING), ("p", DESCENDING)]


def _of_those_with(field: str, name: str, *fields: str | tuple[str, int]) -> IndexModel:
    keys = [each if isinstance(each, tuple) else (each, ASCENDING) for each in fields]
    return IndexModel(keys, name=name, partialFilterExpression={field: {"$exists": True}})


INDEXES = [
    # Begins with the shard key, as a unique one must.
    IndexModel([(each, ASCENDING) for each in ("ns", "p", "log", "at")], name="turns", unique=True),
    _of_those_with("kind", "partition", "ns", "p", "kind", "id"),
    _of_those_with("kind", "age", "ns", "kind", *_PLACE),
    _of_those_with("kind", "words", "ns", "kind", "words", *_PLACE),
    _of_those_with("kind", "id", "ns", "kind", "id"),
    _of_those_with("open", "unfinished", "ns", "open"),
    _of_those_with("head", "of_header", "ns", "head"),
    IndexModel([("expires", ASCENDING)], name="expiry", expireAfterSeconds=0),
    IndexModel([("idle", ASCENDING)], name="traces", expireAfterSeconds=GRACE),
]
