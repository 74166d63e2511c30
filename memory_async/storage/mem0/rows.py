"""Rows as memories: the text is what was said, the metadata carries the row.

Mem0 takes 2,000 characters of metadata, and embeds a text as a whole. So a row that is longer is
compressed and cut, its text is cut too, and each piece is a memory of its own. The first is the
head: with it the row is there, without it the others are nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import PayloadError
from memory_async.keys import Key, Partition
from memory_async.storage.mem0.service import Found

__all__ = [
    "Entry",
    "JobRow",
    "Piece",
    "Place",
    "Row",
    "entries",
    "is_ours",
    "key_of",
    "log_of",
    "owned_by",
    "pieces",
    "place",
    "records_of",
    "scope_of",
    "where_of",
]

FORMAT = 1
MAX_METADATA = 2000  # characters, as JSON
MAX_TEXT = 2000  # characters a piece: some thousand tokens, which every embedder takes
MAX_PIECES = 1000
MAX_ENTITY = 255  # characters of a user's or an agent's id
LOG = frozenset({"session", "job", "turn"})


_FIELDS = {
    **dict.fromkeys(("kind", "where", "key", "token", "row"), str),
    **dict.fromkeys(("part", "parts", "packed", "seq"), int),
}


class JobRow(NamedTuple):
    """A background job's place in a session; ``value`` is JSON."""

    name: str
    through: int
    value: str | None


Row: TypeAlias = TurnRow | SessionRow | JobRow | RecordRow
_SESSION = 8  # the columns of a header that are its own; the others are of the log
_ROWS: dict[str, type[Row]] = {"turn": TurnRow, "session": SessionRow, "job": JobRow}


class Place(NamedTuple):
    """Where a row is kept: metadata its memories are found by. ``owner`` is the user's."""

    kind: str
    where: str
    key: str
    partition: str

    @property
    def metadata(self) -> dict[str, str]:
        return {"kind": self.kind, "where": self.where, "key": self.key}


class Piece(NamedTuple):
    """One memory to be written."""

    text: str
    metadata: dict[str, Any]


class Entry(NamedTuple):
    """One row as stored, in the memories ``head`` and ``others`` (all that have its key). ``row``
    is None when it cannot be read; ``whole`` is False when pieces of it are missing. ``head`` is
    None when a writer was stopped before it wrote that one: then there is no row, only remains."""

    kind: str
    key: str
    partition: str
    head: str | None
    others: tuple[str, ...]
    row: Row | None
    whole: bool = True


def scope_of(namespace: str, user_id: str | None = None) -> dict[str, str]:
    """The entity that owns all memories of a namespace, or those Mem0 extracts for a user. Spaces
    are not allowed in its id."""
    if user_id is None:
        return {"agent_id": _entity(f"memory_async/{quote(namespace, safe='')}")}
    return {"user_id": _entity(f"{quote(namespace, safe='')}/{quote(user_id, safe='@+')}")}


def place(kind: str, partition: Partition | str, id: str) -> Place:
    what = "log" if kind in LOG else "records"
    return Place(kind, _digest(what, partition), _digest(kind, partition, id), str(partition))


def records_of(partition: Partition | str) -> dict[str, str]:
    """The metadata that all records of a partition share."""
    return {"where": _digest("records", partition)}


def log_of(session_id: str) -> dict[str, str]:
    """The metadata that header, jobs and turns of a session share."""
    return {"where": _digest("log", Partition("session", session_id))}


def where_of(kind: str, partition: Partition) -> dict[str, str]:
    """The metadata of all of its kind, and of what is kept beside it."""
    return {"where": place(kind, partition, "").where}


def key_of(key: Key) -> str:
    return place(key.kind, key.partition, key.id).key


def owned_by(user_id: str) -> dict[str, str]:
    return {"owner": _digest("user", user_id)}


def pieces(
    at: Place, row: Row, text: str, owner: str | None = None, *, whole: bool = False
) -> list[Piece]:
    """The memories of a row, the head first. Of a ``whole`` text every word is found by searching,
    of another only its beginning. `PayloadError` when they would be too many."""
    token = uuid.uuid4().hex[:12]
    base = {
        "memory_async": FORMAT,
        **at.metadata,
        "owner": owned_by(owner)["owner"] if owner is not None else "",
        "seq": row.seq if isinstance(row, TurnRow) else 0,
        "token": token,
    }
    columns = row[:_SESSION] if isinstance(row, SessionRow) else row
    data = json.dumps([at.partition, *columns], ensure_ascii=False, separators=(",", ":"))
    frame = {**base, "part": MAX_PIECES, "parts": MAX_PIECES, "packed": 1, "row": ""}
    room = MAX_METADATA - len(json.dumps(frame))
    packed = len(json.dumps(data)) - 2 > room
    if packed:
        data = base64.b64encode(zlib.compress(data.encode())).decode()
    said = text.replace("\0", " ") if whole else text.replace("\0", " ")[:MAX_TEXT]
    count = max(-(-len(data) // room) if packed else 1, -(-len(said) // MAX_TEXT), 1)
    if count > MAX_PIECES:
        raise PayloadError(
            f"this {at.kind} would take {count} memories of Mem0, of {MAX_METADATA} characters of "
            f"metadata each; at most {MAX_PIECES} are written: keep large data elsewhere"
        )
    cut = room if packed else len(data)
    return [
        Piece(
            # The same text twice in one scope is kept once: so none is the same.
            f"{said[part * MAX_TEXT : (part + 1) * MAX_TEXT]}\n[{at.kind} {token}.{part}]".strip(),
            {
                **base,
                "part": part,
                "parts": count,
                "packed": int(packed),
                "row": data[part * cut : (part + 1) * cut],
            },
        )
        for part in range(count)
    ]


def entries(memories: Iterable[Found]) -> list[Entry]:
    """The rows that ``memories`` carry, and remains of rows. Of several under one key, as two
    writers at once may leave them, always the same one counts."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for memory in memories:
        if is_ours(memory.metadata):
            groups[memory.metadata["key"]].append(memory)
    return [_entry(group) for group in groups.values()]


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Not somebody else's memory, nor one whose metadata somebody has edited."""
    return metadata.get("memory_async") == FORMAT and all(
        isinstance(metadata.get(name), kind) for name, kind in _FIELDS.items()
    )


def _entry(group: list[Found]) -> Entry:
    by_token: dict[str, dict[int, Found]] = defaultdict(dict)
    for memory in group:
        by_token[memory.metadata["token"]].setdefault(memory.metadata["part"], memory)
    heads = [memory for memory in group if memory.metadata["part"] == 0]
    read = [_read(head, by_token[head.metadata["token"]]) for head in heads]
    if not read:
        kind, key = (group[0].metadata[name] for name in ("kind", "key"))
        return Entry(kind, key, "", None, tuple(memory.id for memory in group), None)
    head, partition, row, whole = max(read, key=_precedence)
    if row is None and whole and head.metadata["kind"] == "turn":
        row = TurnRow(head.metadata["seq"], "unreadable", 0, None, "unreadable")
    others = tuple(memory.id for memory in group if memory.id != head.id)
    return Entry(
        head.metadata["kind"], head.metadata["key"], partition, head.id, others, row, whole
    )


class _Read(NamedTuple):
    head: Found
    partition: str
    row: Row | None
    whole: bool


def _precedence(read: _Read) -> tuple[Any, ...]:
    """Which of several rows counts: one that can be read; the first turn of a run, the oldest
    header (its user owns the session), the job that is furthest, the record written last."""
    rank: tuple[Any, ...]
    match read.row:
        case TurnRow() as row:
            rank = (-row.seq, -row.created_at)
        case SessionRow() as row:
            rank = (-row.created_at,)
        case JobRow() as row:
            rank = (row.through,)
        case _:
            rank = (read.head.updated_at,)
    return read.row is not None, read.whole, rank, read.head.id


def _read(head: Found, parts: Mapping[int, Found]) -> _Read:
    count = head.metadata["parts"]
    if any(part not in parts for part in range(1, count)):
        return _Read(head, "", None, whole=False)
    pieces = [head, *(parts[part] for part in range(1, count))]
    try:
        data = "".join(piece.metadata["row"] for piece in pieces)
        if head.metadata["packed"]:
            data = zlib.decompress(base64.b64decode(data)).decode()
        partition, *columns = json.loads(data)
        if (kind := head.metadata["kind"]) not in LOG:
            columns[5] = tuple(columns[5])  # the tags
        return _Read(head, partition, _ROWS.get(kind, RecordRow)(*columns), whole=True)
    except (ValueError, TypeError, KeyError, IndexError, zlib.error):
        return _Read(head, "", None, whole=True)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def _entity(id: str) -> str:
    return id if len(id) <= MAX_ENTITY else f"memory_async:{_digest(id)}"
