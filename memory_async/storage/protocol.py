"""The storage protocol: the page to read first.

Everything above (`Memory`, jobs, knowledge base) speaks these eight methods and nothing else. A
driver promises what is written here; `memory_async.testing.StorageConformance` holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self, TypeAlias, runtime_checkable

from memory_async.keys import Cursor, Key, Kind, Partition
from memory_async.records import Record, Session, UserProfile
from memory_async.turns import Turn

__all__ = [
    "ABSENT",
    "ALWAYS",
    "Advance",
    "Append",
    "Condition",
    "Delete",
    "Drop",
    "Expect",
    "Match",
    "Put",
    "Result",
    "Snapshot",
    "Storage",
    "SupportsAnalysis",
    "SupportsSearch",
    "SupportsSweep",
    "SupportsTTL",
    "Trim",
    "When",
    "Write",
]


class When(Enum):
    """Conditions of a write that need no version token."""

    ABSENT = "absent"
    ALWAYS = "always"


ABSENT: Final = When.ABSENT
ALWAYS: Final = When.ALWAYS
Condition: TypeAlias = When | str
"""`ABSENT`, `ALWAYS`, or the version token the stored record must have."""


@dataclass(frozen=True, slots=True)
class Append:
    """Add ``turn`` to the log of ``session``, under the next ``seq``.

    The header is created if it is missing; else its owner must be ``session.user_id``
    (`SessionOwnershipError`), and nothing of it changes but that ``keep_turns`` may become true and
    the jobs named in ``due`` are registered (at 0). If ``turn.run_id`` is in the log already, also
    as a trimmed turn, the whole batch counts as applied and the stored turn comes back.
    """

    turn: Turn
    session: Session
    due: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record. ``when`` a version: stored as expected, or `ConflictError`; a stored version
    equal to the record's own means this very write was applied before: success.

    Of a `Session` only ``metadata`` is written (and its owner checked, as for `Append`); the log's
    own fields stay.
    """

    record: Record
    when: Condition


@dataclass(frozen=True, slots=True)
class Advance:
    """Move a job's cursor from ``expected`` to ``through`` (at most ``last_seq``), and set its
    ``value`` unless that is None. Another cursor than expected, a missing session, a job that is
    not registered, or a session whose ``created_at`` is not the one given (it was deleted and began
    anew): `ConflictError`. Trims up to the smallest cursor unless ``keep_turns``."""

    session_id: str
    job: str
    expected: int
    through: int
    value: Any = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one record, if it is there. With a version as ``when``, a record that is missing or
    has another version is a `ConflictError`. A session header takes its log along."""

    key: Key
    when: Condition = ALWAYS


@dataclass(frozen=True, slots=True)
class Expect:
    """Write nothing, but let the batch be a `ConflictError` unless the record at ``key`` has the
    version ``when``, or is not there (`ABSENT`)."""

    key: Key
    when: Condition


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete everything of a partition (log and header too), or only the records of one ``kind``
    whose id starts with ``prefix``."""

    partition: Partition
    kind: Kind | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Trim:
    """Take the messages out of turns up to ``through`` (None: as far as allowed): never past the
    smallest job cursor, and not at all in a session that keeps its turns. What stays of a turn is
    ``seq``, ``run_id``, ``usage`` and ``created_at``."""

    session_id: str
    through: int | None = None


Write: TypeAlias = Append | Put | Advance | Delete | Expect | Drop | Trim


class Result(NamedTuple):
    """What became of one write. ``created`` is False when it had been applied before, or had
    nothing to do; ``turn`` is what the log holds, for an `Append`."""

    created: bool
    turn: Turn | None = None


class Snapshot(NamedTuple):
    """What a run starts from, read at one moment."""

    session: Session | None
    turns: Sequence[Turn]
    profile: UserProfile | None


@runtime_checkable
class Storage(Protocol):
    """One storage engine. Opens itself at first use; `close` is final.

    ``namespace`` leads every key: storages of different namespaces on one engine never see each
    other. ``unpromised`` names what the engine cannot promise (empty for most); conformance skips
    exactly those. ``corrupt_rows`` counts rows that could not be read and were skipped.
    """

    @property
    def namespace(self) -> str: ...

    @property
    def unpromised(self) -> frozenset[str]: ...

    @property
    def corrupt_rows(self) -> int: ...

    async def open(self) -> None:
        """Connect and create what is missing. Called by every other method; safe to repeat."""

    async def close(self) -> None:
        """Give back every connection this storage opened itself; never a caller's. Idempotent."""

    async def apply(self, *writes: Write) -> list[Result]:
        """Apply all writes, which are of one partition, or none; a result each, in order.

        Conditions are checked against the state before the batch (an owner first of all, then
        whether the run is known), then the writes take place in the order given. A batch holds at
        most one `Append`, no two `Put` or `Delete` of one key or `Advance` of one job, and puts
        nothing that it drops. Cancelling the call leaves the batch whole or absent.
        """
        ...

    async def get(self, key: Key) -> Record | Turn | None:
        """The record at ``key`` (of a turn the id is its ``run_id``), or None. Raises
        `CorruptRecordError` when it cannot be read; of a session whose metadata cannot be read the
        rest comes back, here and in every listing, logged and counted."""
        ...

    async def find(
        self,
        kind: Kind,
        partition: Partition | None = None,
        *,
        id: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        user_id: str | None = None,
        status: str | None = None,
        lagging: str | None = None,
        before: Cursor | None = None,
        limit: int = 100,
    ) -> list[Record]:
        """Records of ``kind`` that meet every condition given, newest first by (created_at, id).

        ``before`` is the `Record.cursor` of the last record of the previous page: nothing present
        throughout is missed or repeated while others write. ``tags``: has all of them. ``lagging``
        (sessions only): this job has not taken all turns. Turns are read with `history`.
        """
        ...

    async def history(
        self,
        session_id: str,
        *,
        last: int | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
        trimmed: bool = False,
    ) -> list[Turn]:
        """Turns in order of ``seq``: those ``after`` and ``before`` the given ones (exclusive), of
        these the ``last`` so many or the first ``limit``. Turns that cannot be read are skipped,
        logged and counted. ``trimmed`` includes the trimmed ones, which have no messages."""
        ...

    async def snapshot(
        self,
        session_id: str,
        user_id: str | None = None,
        *,
        last: int | None = None,
        since: str | None = None,
        profile: str = "default",
    ) -> Snapshot:
        """Header, turns and profile of one moment. Turns: the ``last`` so many by ``seq`` (None:
        all, 0: none), and whatever comes after the cursor of the job ``since``, if registered.
        The profile is read when there is a ``user_id``."""
        ...

    async def now(self, partition: Partition) -> datetime:
        """The clock of the engine that holds the partition, so that two workers on two machines
        compare one clock."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Match(NamedTuple):
    """One text that `SupportsSearch.search` found.

    ``key`` is the turn or record it was indexed for, ``part`` its place among the texts given to
    `index` (of a turn: the message's place), ``seq`` the turn's (0 for a record). ``score`` says
    how well it fits, higher is better; it compares within one answer only. ``label`` is what
    `index` was given with it.
    """

    key: Key
    part: int
    seq: int
    text: str
    score: float
    label: str = ""


@runtime_checkable
class SupportsSearch(Protocol):
    """A storage that finds texts by its engine's own full text.

    Records that have an `Record.index_text` (a chunk's text) are indexed by the `Put` itself, in
    the same batch; turns by `index`. What is deleted, dropped, trimmed or replaced is no longer
    found from that very write on.
    """

    async def index(
        self,
        key: Key,
        text: str | Sequence[str],
        labels: Sequence[str] = (),
        *,
        created_at: datetime | None = None,
    ) -> None:
        """Make what is stored at ``key`` findable by ``text``, or by each of several (an empty one
        only keeps its place); they replace what it was indexed by before. ``labels``, one for each,
        come back with them and are not searched. Nothing happens when it is not (or no longer)
        there, or is another than the one of ``created_at`` (its session was deleted and began
        anew). An owner is not given: it is the stored one. Safe to repeat."""

    async def search(
        self,
        query: str,
        *,
        kind: Kind,
        partition: Partition | None = None,
        user_id: str | None = None,
        limit: int = 10,
        around: int = 0,
    ) -> list[Match]:
        """The texts of things of ``kind`` that fit the words of ``query`` best, best first; only
        those in ``partition``, and only those owned by ``user_id``, where given. Every character of
        a query is text: no operators. After them the other texts that stand up to ``around`` places
        before and after one of them in its session (of records, none): those that have no word of
        the query with score 0."""
        ...


@runtime_checkable
class SupportsAnalysis(Protocol):
    """A storage that may learn about users by itself: where ``analyses_users`` is true, it is given
    their turns by the job that else asks a model, and no model is needed. What it knows comes back
    in the user's profile, of every name, as the trait ``facts`` (texts, the oldest first)."""

    @property
    def analyses_users(self) -> bool: ...

    async def analyse(self, user_id: str, turns: Sequence[Turn]) -> None:
        """Learn from what was said; it is in the profile when this returns. Safe to repeat."""

    async def unlearn(self, user_id: str) -> None:
        """Forget all that was learned of the user."""


@runtime_checkable
class SupportsTTL(Protocol):
    """A storage that lets sessions expire ``ttl`` seconds after their last write (None: never)."""

    ttl: float | None


@runtime_checkable
class SupportsSweep(Protocol):
    """A storage where something of an expired session stays behind, out of every reader's sight,
    until somebody takes it away. `Memory.recover` does."""

    async def sweep(self) -> int:
        """Take it away; the number of sessions it was of. Safe while others write."""
        ...
