"""Full text in SQLite: what `memory_words` holds of each text, and how it is searched."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from heapq import nlargest
from math import log
from operator import attrgetter, itemgetter
from typing import Any

from memory_async.codec import RecordRow
from memory_async.keys import Key, Kind, Partition, to_micros, utc_now
from memory_async.storage.batch import IndexOp
from memory_async.storage.protocol import Match
from memory_async.storage.searching import Wanted
from memory_async.words import index_terms

MOST = 2000
"""Of the texts of one owner that have a word, so many of the newest are looked at."""

TURN = """
SELECT t.id, s.user_id FROM memory_turns t JOIN memory_sessions s ON s.id = t.session
WHERE s.namespace = ? AND s.session_id = ? AND t.run_id = ? AND t.payload IS NOT NULL"""

RECORD = """
SELECT id FROM memory_records
WHERE namespace = ? AND kind = ? AND record_id = ? AND partition = ?
  AND (expires_at IS NULL OR expires_at > ?)"""

SCOPE = """
INSERT INTO memory_scopes (namespace, kind, owner) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET texts = texts RETURNING id"""

NEW_TEXT = """
INSERT INTO memory_texts (scope, turn, record, part, label, text, words)
VALUES (:scope, :turn, :record, :part, :label, :text, :words)"""

SCOPES = """
SELECT id, texts FROM memory_scopes
WHERE namespace = :namespace AND kind = :kind AND (:owner IS NULL OR owner = :owner)"""

SESSION = "SELECT id, user_id FROM memory_sessions WHERE namespace = ? AND session_id = ?"

IN_SESSION = "SELECT id FROM memory_texts WHERE turn > ? << 32 AND turn < (? + 1) << 32"

OF_USER = """
SELECT x.id FROM memory_records r JOIN memory_texts x ON x.record = r.id
WHERE r.namespace = ? AND r.kind = ? AND r.user_id = ?"""

WITH_WORD = "SELECT rowid FROM memory_words WHERE memory_words MATCH ? ORDER BY rowid DESC LIMIT ?"

FOUND_RECORDS = """
SELECT x.id, r.kind, r.partition, r.record_id, x.part, 0, x.text, x.label
FROM json_each(:ids) hit JOIN memory_texts x ON x.id = hit.value
JOIN memory_records r ON r.id = x.record
WHERE r.expires_at IS NULL OR r.expires_at > :now"""

# A turn's id is its session's and its seq.
FOUND_TURNS = """
WITH hit AS MATERIALIZED (
    SELECT x.id, x.turn, x.part FROM json_each(:ids) JOIN memory_texts x ON x.id = value
), wanted AS (
    SELECT id FROM hit
    UNION SELECT x.id FROM hit CROSS JOIN memory_texts x ON x.id IN (
        SELECT before.id FROM memory_texts before
        WHERE before.turn > (hit.turn >> 32) << 32
          AND (before.turn, before.part) < (hit.turn, hit.part)
        ORDER BY before.turn DESC, before.part DESC LIMIT :around)
    UNION SELECT x.id FROM hit CROSS JOIN memory_texts x ON x.id IN (
        SELECT after.id FROM memory_texts after
        WHERE after.turn < ((hit.turn >> 32) + 1) << 32
          AND (after.turn, after.part) > (hit.turn, hit.part)
        ORDER BY after.turn, after.part LIMIT :around)
)
SELECT x.id, 'turn', 'session/' || s.session_id, t.run_id, x.part, t.seq, x.text, x.label
FROM wanted CROSS JOIN memory_texts x ON x.id = wanted.id
CROSS JOIN memory_turns t ON t.id = x.turn CROSS JOIN memory_sessions s ON s.id = t.session"""


def index(db: sqlite3.Connection, namespace: str, op: IndexOp) -> bool:
    """Index what is stored at the key by the texts; False when there is nothing."""
    key = op.key
    if key.kind == "turn":
        found = db.execute(TURN, (namespace, key.partition.id, key.id)).fetchone()
        if found is None:
            return False
        owner = str(key.partition) if found[1] is None else _user(found[1])
        _replace(db, _Place(namespace, "turn", owner, turn=found[0]), op.texts, op.labels)
        return True
    now = to_micros(utc_now())
    place = (namespace, key.kind, key.id, str(key.partition), now)
    found = db.execute(RECORD, place).fetchone()
    if found is not None:
        at = _Place(namespace, key.kind, str(key.partition), record=found[0])
        _replace(db, at, op.texts, op.labels)
    return found is not None


def index_record(
    db: sqlite3.Connection, namespace: str, id: int, row: RecordRow, text: str | None
) -> None:
    """Index a record that was just put, or no longer when it has no text."""
    at = _Place(namespace, row.kind, row.partition, record=id)
    _replace(db, at, () if text is None else (text,), ("",))


class _Place:
    """Whose a text is, and what it is of."""

    def __init__(
        self,
        namespace: str,
        kind: Kind,
        owner: str,
        *,
        turn: int | None = None,
        record: int | None = None,
    ) -> None:
        self.scope = (namespace, kind, owner)
        self.column = "turn" if record is None else "record"
        self.turn, self.record = turn, record


def _replace(
    db: sqlite3.Connection, at: _Place, texts: Iterable[str], labels: Iterable[str]
) -> None:
    id = at.turn if at.record is None else at.record
    db.execute(f"DELETE FROM memory_texts WHERE {at.column} = ?", (id,))
    said = [each for each in enumerate(zip(texts, labels, strict=False)) if each[1][0]]
    if not said:
        return
    [(scope,)] = db.execute(SCOPE, at.scope).fetchall()
    for part, (text, label) in said:
        words = " ".join(f"{scope}_{term}" for term in dict.fromkeys(index_terms(text)))
        given = {"scope": scope, "turn": at.turn, "record": at.record, "part": part}
        db.execute(NEW_TEXT, {**given, "label": label, "text": text, "words": words})


def search(db: sqlite3.Connection, namespace: str, wanted: Wanted) -> list[Match]:
    """What fits best, of one moment."""
    db.execute("BEGIN")
    try:
        return _search(db, namespace, wanted)
    finally:
        db.execute("COMMIT")


def _search(db: sqlite3.Connection, namespace: str, wanted: Wanted) -> list[Match]:
    owner, only = _scope(db, namespace, wanted)
    given: dict[str, Any] = {"namespace": namespace, "kind": wanted.kind, "owner": owner}
    score: dict[int, float] = {}
    for scope, texts in db.execute(SCOPES, given).fetchall():
        for term in wanted.terms:
            rows = db.execute(WITH_WORD, (f'"{scope}_{term}"', MOST)).fetchall()
            rarity = log(1 + (texts - len(rows) + 0.5) / (len(rows) + 0.5))
            for (id,) in rows:
                score[id] = score.get(id, 0.0) + rarity
    if only is not None:
        score = {id: value for id, value in score.items() if id in only}
    best = [id for id, _ in nlargest(wanted.limit, score.items(), key=itemgetter(1, 0))]
    rows = db.execute(
        FOUND_TURNS if wanted.kind == "turn" else FOUND_RECORDS,
        {"ids": json.dumps(best), "around": wanted.around, "now": to_micros(utc_now())},
    ).fetchall()
    places = {name: Partition.parse(name) for name in {row[2] for row in rows}}
    found = {
        id: Match(Key(kind, places[place], key), part, seq, text, score.get(id, 0.0), label)
        for id, kind, place, key, part, seq, text, label in rows
    }
    first = [found.pop(id) for id in best if id in found]
    return first + sorted(found.values(), key=attrgetter("score"), reverse=True)


def _scope(
    db: sqlite3.Connection, namespace: str, wanted: Wanted
) -> tuple[str | None, set[int] | None]:
    """Whose texts are wanted (None: everybody's), and which of them (None: all)."""
    user, partition = wanted.user_id, wanted.partition
    if wanted.kind != "turn":
        only = None
        if user is not None:
            only = {id for (id,) in db.execute(OF_USER, (namespace, wanted.kind, user))}
        return None if partition is None else str(partition), only
    if partition is None:
        return None if user is None else _user(user), None
    id, owner = db.execute(SESSION, (namespace, partition.id)).fetchone() or (0, None)
    if partition.space != "session" or not id or user not in (None, owner):
        return "nobody", None
    if owner is None:
        return str(partition), None
    return _user(owner), {text for (text,) in db.execute(IN_SESSION, (id, id))}


def _user(user_id: str) -> str:
    return f"user/{user_id}"
