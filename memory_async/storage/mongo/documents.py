"""What is stored, as documents of one collection: headers, turns and records.

All have ``ns`` (the namespace), ``p`` (the partition) and ``rev``, a token new with every write. A
header or record has a ``kind`` and an ``id``; of a turn, ``log`` names the life of the session it
belongs to: of a header that came back after it had expired, been dropped or deleted it is another.

An ``_id`` is a hash of what it names: ids may be long and have any characters, and whoever knows a
name reads it directly, on one shard. A turn goes by its run, so no run is in a log twice. ``at`` is
the seq of a turn, and of everything else its ``_id``: so one unique index fits all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.keys import Key, Partition, from_micros

Document: TypeAlias = dict[str, Any]


class Names:
    """The ``_id`` of everything in one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def record(self, key: Key) -> str:
        return self._hash(str(key.partition), key.kind, key.id)

    def header(self, session_id: str) -> str:
        return self.record(Key("session", Partition("session", session_id), session_id))

    def turn(self, partition: str, run_id: str) -> str:
        return self._hash(partition, "turn", run_id)

    def guard(self, partition: str) -> str:
        return "!" + self._hash(partition, "guard")  # before all others: see `journal`

    def _hash(self, *parts: str) -> str:
        # No id holds a NUL, so what differs is hashed differently.
        return hashlib.sha256("\0".join((self.namespace, *parts)).encode()).hexdigest()[:40]

    def of(self, partition: str, id: str) -> Document:
        """What finds one document, given to whichever shard has the partition."""
        return {"_id": id, "ns": self.namespace, "p": partition}

    def place(self, partition: str, id: str) -> Document:
        """What a document begins with that is no turn."""
        return {**self.of(partition, id), "at": id}


def is_live(document: Document | None, now: datetime) -> bool:
    """Whether there is anything a reader may see: neither a tombstone nor past its time."""
    if document is None or "kind" not in document:
        return False
    return "expires" not in document or bool(document["expires"] > now)


def belongs(document: Document, header: Document | None) -> bool:
    """Whether a document that goes with its session, if it is one, still has it: ``header`` is the
    live one, if any."""
    return "head" not in document or (header is not None and header["log"] == document["log"])


# --- from rows ---


def header(
    place: Document, rev: str, log: str, row: SessionRow, expires: datetime | None
) -> Document:
    lagging = [job for job, (through, _) in row.jobs.items() if through < row.last_seq]
    return _present(
        **place,
        rev=rev,
        kind="session",
        id=row.session_id,
        log=log,
        user=row.user_id,
        agent=row.agent_id,
        keep=row.keep_turns,
        created=row.created_at,
        updated=row.updated_at,
        version=row.version,
        metadata=row.payload,
        last=row.last_seq,
        trimmed=row.trimmed,
        # A list, as names of fields cannot be any text.
        jobs=[[job, through, value] for job, (through, value) in row.jobs.items()],
        words=words(user_id=row.user_id, lagging=lagging),
        expires=expires,
    )


def turn(place: Document, rev: str, log: str, row: TurnRow) -> Document:
    return _present(
        **place,
        rev=rev,
        log=log,
        at=row.seq,
        run=row.run_id,
        created=row.created_at,
        usage=row.usage,
        payload=row.payload,
    )


def record(place: Document, rev: str, row: RecordRow) -> Document:
    return _present(
        **place,
        rev=rev,
        kind=row.kind,
        id=row.id,
        user=row.user_id,
        status=row.status,
        tags=list(row.tags),
        created=row.created_at,
        updated=row.updated_at,
        # A date for the index that removes it, which knows no microseconds.
        until=row.expires_at,
        expires=None if row.expires_at is None else from_micros(row.expires_at),
        version=row.version,
        payload=row.payload,
        words=words(user_id=row.user_id, status=row.status, tags=row.tags),
    )


def words(
    user_id: str | None = None,
    status: str | None = None,
    tags: tuple[str, ...] = (),
    lagging: list[str] | None = None,
) -> list[str]:
    """What one index finds a document by, whichever of these conditions are given."""
    return [
        *([] if user_id is None else [f"user:{user_id}"]),
        *([] if status is None else [f"status:{status}"]),
        *[f"tag:{tag}" for tag in tags],
        *[f"lagging:{job}" for job in lagging or ()],
    ]


def _present(**fields: Any) -> Document:
    return {name: value for name, value in fields.items() if value is not None}


# --- to rows ---


def session_row(found: Mapping[str, Any]) -> SessionRow:
    return SessionRow(
        found["id"],
        found.get("user"),
        found.get("agent"),
        found["keep"],
        found["created"],
        found["updated"],
        found["version"],
        found["metadata"],
        found["last"],
        found["trimmed"],
        {job: (through, value) for job, through, value in found["jobs"]},
    )


def turn_row(found: Mapping[str, Any], trimmed: int) -> TurnRow:
    """What the header says to be trimmed is, also where a trimmed turn is not cleared yet."""
    payload = None if found["at"] <= trimmed else found.get("payload")
    return TurnRow(found["at"], found["run"], found["created"], found.get("usage"), payload)


def record_row(found: Mapping[str, Any]) -> RecordRow:
    return RecordRow(
        found["kind"],
        found["p"],
        found["id"],
        found.get("user"),
        found.get("status"),
        tuple(found["tags"]),
        found["created"],
        found["updated"],
        found.get("until"),
        found["version"],
        found["payload"],
    )


def row(found: Mapping[str, Any]) -> SessionRow | RecordRow:
    return session_row(found) if found["kind"] == "session" else record_row(found)
