"""Searching by Mem0's own search. It finds memories, so whole turns; here they become messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from memory_async import codec
from memory_async.codec import RecordRow
from memory_async.errors import CorruptRecordError
from memory_async.keys import Kind, Partition
from memory_async.searchable import said
from memory_async.storage.mem0.log import Log
from memory_async.storage.mem0.rows import entries, owned_by, where_of
from memory_async.storage.mem0.service import Found
from memory_async.storage.mem0.shelf import Shelf
from memory_async.storage.protocol import Match
from memory_async.turns import Turn, decode_turn

__all__ = ["search"]

LEAST = 1e-9  # 0 would say that it does not fit


async def search(
    shelf: Shelf,
    query: str,
    kind: Kind,
    partition: Partition | None,
    *,
    user_id: str | None,
    limit: int,
    around: int,
) -> list[Match]:
    asked = " ".join(query.replace("\0", " ").encode("utf-8", "replace").decode().split())
    if not asked or not limit:
        return []
    wanted: dict[str, str] = {"kind": kind}
    if partition is not None:
        wanted |= where_of(kind, partition)
    if user_id is not None:
        wanted |= owned_by(user_id)
    found = await shelf.search(asked, wanted, 2 * limit)
    if kind == "turn":
        return await _messages(shelf, asked, found, limit, around)
    return await _records(shelf, found, limit)


async def _records(shelf: Shelf, found: list[Found], limit: int) -> list[Match]:
    scores = _scores(found)
    parted = {each.metadata["key"] for each in found if each.metadata["parts"] > 1}
    rows = entries(each for each in found if each.metadata["key"] not in parted)
    for read in await shelf.gather(shelf.read({"key": key}) for key in parted):
        rows += read
    matches = []
    for entry in rows:
        try:
            record = codec.decode_record(entry.row) if isinstance(entry.row, RecordRow) else None
        except CorruptRecordError:
            continue
        if record is not None and record.index_text:
            matches.append(Match(record.key, 0, 0, record.index_text, scores[entry.key]))
    return sorted(matches, key=lambda match: -match.score)[:limit]


class _Said(NamedTuple):
    turn: Turn
    part: int
    text: str
    label: str
    score: float


async def _messages(
    shelf: Shelf, query: str, found: list[Found], limit: int, around: int
) -> list[Match]:
    """Read where they were said: what was deleted or trimmed meanwhile is not found, and what
    stands around them is at hand."""
    sessions = dict.fromkeys(str(each.metadata["where"]) for each in found)
    logs = await shelf.gather(shelf.read({"where": each, "kind": "turn"}) for each in sessions)
    scores, words = _scores(found), _words(query)
    lines = [list(_line(Log(log), scores, words)) for log in logs]
    fitting = [(n, place) for n, line in enumerate(lines) for place in _fitting(line)]
    best = sorted(fitting, key=lambda at: -lines[at[0]][at[1]].score)[:limit]
    near = {
        (n, beside)
        for n, place in best
        for beside in range(max(place - around, 0), min(place + around + 1, len(lines[n])))
    }
    chosen = [lines[n][place] for n, place in [*best, *sorted(near - set(best))]]
    return [
        Match(each.turn.key, each.part, each.turn.seq, each.text, each.score, each.label)
        for each in chosen
    ]


def _fitting(line: list[_Said]) -> list[int]:
    return [place for place, each in enumerate(line) if each.score > 0]


def _scores(found: list[Found]) -> dict[str, float]:
    """Of each row the best of its pieces."""
    scores: dict[str, float] = {}
    for each in found:
        scores.setdefault(str(each.metadata["key"]), max(each.score, LEAST))
    return scores


def _line(log: Log, scores: dict[str, float], words: set[str]) -> Iterator[_Said]:
    """The messages of a session in order. In a turn that was found, those that share a word with
    the query are what fits; all of them, where none does: then it is the sense that fits."""
    for row, entry in log.turns:
        if row.seq <= log.trimmed or row.payload is None:
            continue
        try:
            turn = decode_turn(Partition.parse(entry.partition).id, row)
        except CorruptRecordError:
            continue
        texts = [(part, text, str(label)) for part, (text, label) in enumerate(said(turn)) if text]
        fitting = {part for part, text, _ in texts if words & _words(text)}
        for part, text, label in texts:
            fits = part in fitting or not fitting
            score = scores.get(entry.key, 0.0) if fits else 0.0
            yield _Said(turn, part, text, label, score)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
