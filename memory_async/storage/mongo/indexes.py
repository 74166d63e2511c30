"""The indexes of the collection; creating them again changes nothing."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, IndexModel

GRACE = 3600
"""For so many seconds a trace remains of what was deleted: for whoever is late, see `journal`."""

_PLACE = [("created", DESCENDING), ("id", DESCENDING), ("p", DESCENDING)]


def _index(
    name: str, *fields: str | tuple[str, int], unique: bool = False, **has: str
) -> IndexModel:
    keys = [each if isinstance(each, tuple) else (each, ASCENDING) for each in fields]
    only = {has["has"]: {"$exists": True}}
    # A shard key {ns, p} leads the unique ones, as it must.
    return IndexModel(keys, name=name, unique=unique, partialFilterExpression=only)


INDEXES = [
    _index("turn_by_seq", "ns", "p", "log", "seq", has="seq", unique=True),
    _index("turn_by_run", "ns", "p", "run", "log", has="run", unique=True),
    _index("record_of_partition", "ns", "p", "kind", "id", has="kind"),
    _index("record_by_age", "ns", "kind", *_PLACE, has="kind"),
    _index("record_by_word", "ns", "kind", "words", *_PLACE, has="kind"),
    _index("record_by_id", "ns", "kind", "id", has="kind"),
    _index("unfinished", "ns", "open", has="open"),
    _index("of_header", "ns", "head", has="head"),
    IndexModel([("expires", ASCENDING)], name="expiry", expireAfterSeconds=0),
    IndexModel([("idle", ASCENDING)], name="traces", expireAfterSeconds=GRACE),
]
