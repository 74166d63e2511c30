"""Names of keys, and members of the indexes.

Everything of a partition lives in seven keys with one hash tag, ``{namespace/space/id}``, in which
characters with a meaning are escaped. An index is a sorted set in which order is the members' own:
a member is kind, family, NUL, created_at, id, NUL, partition. No id holds NUL: nothing collides.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memory_async.codec import RecordRow, SessionRow
from memory_async.keys import Key, Kind, Partition

# header, turns, heads of turns, runs; metas and payloads of records; their index
PARTS = (b"s", b"t", b"h", b"r", b"m", b"p", b"i")
BUCKETS = 16
EPOCH = 10**17  # added, so that times before 1970 order too

_ESCAPED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def stamp(micros: int) -> str:
    """A time as 18 digits that order as times do."""
    return f"{micros + EPOCH:018d}"


def from_stamp(text: bytes | str) -> int:
    return int(text) - EPOCH


def micros(time: Sequence[bytes]) -> int:
    """The answer to ``TIME``."""
    return int(time[0]) * 1_000_000 + int(time[1])


class Entry(NamedTuple):
    """A member of an index, taken apart; ``family`` is a letter and what it is an index of."""

    kind: Kind
    family: str
    created: str
    id: str
    partition: str

    @classmethod
    def parse(cls, member: bytes) -> Entry:
        head, place, partition = member.decode().split("\0")
        kind, _, family = head.partition(":")
        return cls(kind, family, place[:18], place[18:], partition)  # type: ignore[arg-type]

    @property
    def key(self) -> Key:
        return Key(self.kind, Partition.parse(self.partition), self.id)

    def __bytes__(self) -> bytes:
        return f"{self.kind}:{self.family}{place(self.created, self.id, self.partition)}".encode()


def place(created: str, id: str, partition: str) -> str:
    return f"\0{created}{id}\0{partition}"


def families(row: SessionRow | RecordRow) -> Iterator[str]:
    """What a row is found by: ``a`` (all), ``i`` id, ``u`` user, ``s`` status, ``t`` tags, and
    ``l`` each job that lags."""
    yield "a"
    if isinstance(row, SessionRow):
        yield f"i{row.session_id}"
        for job, (through, _) in row.jobs.items():
            if through < row.last_seq:
                yield f"l{job}"
    else:
        yield f"i{row.id}"
        if row.status is not None:
            yield f"s{row.status}"
        for tag in row.tags:
            yield f"t{tag}"
    if row.user_id is not None:
        yield f"u{row.user_id}"


def all_entries(row: SessionRow | RecordRow) -> Iterator[Entry]:
    """The members that stand for ``row``."""
    created = stamp(row.created_at)
    for family in families(row):
        if isinstance(row, SessionRow):
            yield Entry("session", family, created, row.session_id, f"session/{row.session_id}")
        else:
            yield Entry(row.kind, family, created, row.id, row.partition)


class Keys:
    """The keys of one namespace."""

    def __init__(self, prefix: str, namespace: str, *, cluster: bool) -> None:
        self._prefix = prefix
        self._namespace = namespace.translate(_ESCAPED).replace("/", "%2F")
        self._cluster = cluster

    def partition(self, partition: str) -> list[bytes]:
        """The seven keys of a partition, in the order of `PARTS`."""
        tag = f"{self._prefix}:{{{self._namespace}/{partition.translate(_ESCAPED)}}}:".encode()
        return [tag + part for part in PARTS]

    def index(self, kind: Kind, family: str) -> bytes:
        """The index of the namespace: one key, on a cluster spread over slots."""
        if not self._cluster:
            return f"{self._prefix}:{{{self._namespace}}}:index".encode()
        # Of ids, users and tags there are many; they share a few keys.
        bucket = zlib.crc32(family.encode()) % BUCKETS
        tag = f"{self._namespace}.{kind}.{family[0]}{bucket}"
        return f"{self._prefix}:{{{tag}}}:index".encode()

    def probe(self) -> bytes:
        """A key where nothing is stored."""
        return f"{self._prefix}:{{{self._namespace}}}:probe".encode()
