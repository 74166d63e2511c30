"""Full text in SQLite: what `memory_words` holds of each text, and how it is searched."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from math import log
from operator import attrgetter, itemgetter
from typing import Any

from memory_async.codec import RecordRow
from memory_async.keys import Key, Kind, Partition, to_micros, utc_now
from memory_async.storage.batch import IndexOp
from memory_async.storage.protocol import Match
from memory_async.storage.searching import Wanted, distinct_terms

MOST = 300
"""Of an owner's texts that have a word, so many of the newest are looked at: one that more have
tells little."""

TURN = """
SELECT t.id, s.user_id FROM memory_turns t JOIN memory_sessions s ON s.id = t.session
WHERE s.namespace = ? AND s.session_id = ? AND t.run_id = ? AND t.payload IS NOT NULL
  AND t.created_at = coalesce(?, t.created_at)"""

RECORD = """
SELECT id FROM memory_records
WHERE namespace = ? AND kind = ? AND record_id = ? AND partition = ?
  AND (expires_at IS NULL OR expires_at > ?) AND created_at = coalesce(?, created_at)"""

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

# Travels as one value: a row each would cost more than the look-up itself.
WITH_WORD = """
SELECT json_group_array(rowid) FROM (
    SELECT rowid FROM memory_words WHERE memory_words MATCH ?1
    AND (?3 IS NULL OR +rowid IN (SELECT value FROM json_each(?3))) ORDER BY rowid DESC LIMIT ?2)"""

FOUND_RECORDS = """
SELECT x.id, r.kind, r.partition, r.record_id, x.part, x.text, x.label
FROM json_each(?) hit CROSS JOIN memory_texts x ON x.id = hit.value
CROSS JOIN memory_records r ON r.id = x.record
WHERE r.expires_at IS NULL OR r.expires_at > ?"""

# A turn's id is its session's, and its seq: those of a session follow one another.
NEAR = """
SELECT x.turn, x.part, x.id
FROM json_each(?1) CROSS JOIN memory_texts hit ON hit.id = value
CROSS JOIN memory_texts x ON x.turn BETWEEN hit.turn - ?2 AND hit.turn + ?2
"""

TEXTS = """
SELECT x.id, x.turn, x.part, x.text, x.label
FROM json_each(?) CROSS JOIN memory_texts x ON x.id = value"""

TURNS = """
SELECT t.id, t.id & 0xffffffff, t.run_id, s.session_id
FROM json_each(?) CROSS JOIN memory_turns t ON t.id = value
CROSS JOIN memory_sessions s ON s.id = t.session"""


def index(db: sqlite3.Connection, namespace: str, op: IndexOp) -> bool:
    """Index what is stored at the key by the texts; False when there is nothing."""
    key = op.key
    if key.kind == "turn":
        turn = (namespace, key.partition.id, key.id, op.created_at)
        found = db.execute(TURN, turn).fetchone()
        if found is None:
            return False
        owner = str(key.partition) if found[1] is None else _user(found[1])
        _replace(db, _Place(namespace, "turn", owner, turn=found[0]), op.texts, op.labels)
        return True
    now = to_micros(utc_now())
    place = (namespace, key.kind, key.id, str(key.partition), now, op.created_at)
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
        words = " ".join(f"{scope}_{term}" for term in distinct_terms(text))
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
            [(with_word,)] = db.execute(WITH_WORD, (f'"{scope}_{term}"', MOST, only)).fetchall()
            ids = json.loads(with_word)
            rarity = log(1 + (texts - len(ids) + 0.5) / (len(ids) + 0.5))
            for id in ids:
                score[id] = score.get(id, 0.0) + rarity
    ranked = sorted(score.items(), key=itemgetter(1), reverse=True)
    best = [id for id, _ in ranked[: wanted.limit]]
    found = _turns(db, best, wanted.around) if wanted.kind == "turn" else _records(db, best)
    matches = {
        id: Match(key, part, seq, text, score.get(id, 0.0), label)
        for id, key, part, seq, text, label in found
    }
    first = [matches.pop(id) for id in best if id in matches]
    return first + sorted(matches.values(), key=attrgetter("score"), reverse=True)


def _records(db: sqlite3.Connection, best: list[int]) -> Iterator[tuple[Any, ...]]:
    rows = db.execute(FOUND_RECORDS, (json.dumps(best), to_micros(utc_now()))).fetchall()
    for id, kind, partition, key, part, text, label in rows:
        yield id, Key(kind, Partition.parse(partition), key), part, 0, text, label


def _turns(db: sqlite3.Connection, best: list[int], around: int) -> Iterator[tuple[Any, ...]]:
    wanted = best
    if around:
        near = sorted({*db.execute(NEAR, (json.dumps(best), around)).fetchall()})
        wanted = list(_around(set(best), near, around))
    rows = db.execute(TEXTS, (json.dumps(wanted),)).fetchall()
    of = json.dumps([*{row[1] for row in rows}])
    keys = {
        turn: (Key("turn", Partition("session", session_id), run_id), seq)
        for turn, seq, run_id, session_id in db.execute(TURNS, (of,)).fetchall()
    }
    for id, turn, part, text, label in rows:
        key, seq = keys[turn]
        yield id, key, part, seq, text, label


def _around(best: set[int], near: list[tuple[int, int, int]], around: int) -> set[int]:
    """Those of ``near`` (turn, part, id; in order) that stand by one of the ``best``."""
    found: set[int] = set()
    for at, (turn, _, id) in enumerate(near):
        if id in best:
            by = near[max(at - around, 0) : at + around + 1]
            found.update(each for other, _, each in by if other >> 32 == turn >> 32)
    return found


def _scope(db: sqlite3.Connection, namespace: str, wanted: Wanted) -> tuple[str | None, str | None]:
    """Whose texts are wanted (None: everybody's), and which of them, as JSON (None: all)."""
    user, partition = wanted.user_id, wanted.partition
    if wanted.kind != "turn":
        only = None
        if user is not None:
            only = _list(db.execute(OF_USER, (namespace, wanted.kind, user)))
        return None if partition is None else str(partition), only
    if partition is None:
        return None if user is None else _user(user), None
    id, owner = db.execute(SESSION, (namespace, partition.id)).fetchone() or (0, None)
    if partition.space != "session" or not id or user not in (None, owner):
        return "nobody", None
    if owner is None:
        return str(partition), None
    return _user(owner), _list(db.execute(IN_SESSION, (id, id)))


def _list(rows: Iterable[tuple[int]]) -> str:
    return json.dumps([id for (id,) in rows])


def _user(user_id: str) -> str:
    return f"user/{user_id}"
