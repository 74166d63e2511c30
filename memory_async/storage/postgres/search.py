"""Full text in PostgreSQL: the arguments of ``index_texts()`` and ``search()`` in schema/0005."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from memory_async.keys import Key, Kind, Partition
from memory_async.storage.batch import IndexOp
from memory_async.storage.protocol import Match
from memory_async.storage.searching import Wanted, distinct_terms

MOST = 300
"""Of an owner's texts that have a word, so many of the newest are looked at."""

INDEX = "SELECT memory_async.index_texts($1, $2, $3, $4, $5::text::jsonb, $6)"

SEARCH = """
SELECT out_partition, out_id, out_part, out_seq, out_body, out_label, out_score
FROM memory_async.search($1, $2, $3, $4, $5, $6, $7, $8)"""


def texts(said: Iterable[str], labels: Iterable[str]) -> list[dict[str, Any]]:
    """What of each text is stored; NUL is escaped, which PostgreSQL's text has not."""
    return [
        {
            "part": part,
            "label": json.dumps(label),
            "body": json.dumps(text),
            "words": distinct_terms(text),
        }
        for part, (text, label) in enumerate(zip(said, labels, strict=True))
        if text
    ]


def index_arguments(namespace: str, op: IndexOp) -> tuple[Any, ...]:
    place = (namespace, op.key.kind, str(op.key.partition), op.key.id)
    return (*place, json.dumps(texts(op.texts, op.labels)), op.created_at)


def search_arguments(namespace: str, wanted: Wanted) -> tuple[Any, ...]:
    partition = None if wanted.partition is None else str(wanted.partition)
    limits = (min(wanted.limit, 1 << 30), min(wanted.around, 1 << 30), MOST)
    return (namespace, wanted.kind, partition, wanted.user_id, list(wanted.terms), *limits)


def match(kind: Kind, row: Mapping[str, Any]) -> Match:
    key = Key(kind, Partition.parse(row["out_partition"]), row["out_id"])
    text, label = json.loads(row["out_body"]), json.loads(row["out_label"])
    return Match(key, row["out_part"], row["out_seq"], text, row["out_score"], label)
