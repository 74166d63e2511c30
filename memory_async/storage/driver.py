"""What every driver shares: opening once, the guard against forks and foreign loops, and the way
from records to rows and back. A driver itself sees only rows (`memory_async.codec`)."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from memory_async import codec
from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.errors import (
    ConfigurationError,
    CorruptRecordError,
    StorageUnavailableError,
)
from memory_async.forked import keep, watch
from memory_async.keys import (
    MAX_KEY_BYTES,
    Cursor,
    Key,
    Kind,
    Partition,
    check_id,
    to_micros,
    utc_now,
)
from memory_async.records import Record, Session, UserProfile
from memory_async.shield import to_the_end
from memory_async.storage.batch import AppendOp, Batch, prepare
from memory_async.storage.protocol import Result, Snapshot, Write
from memory_async.turns import Turn, Turns, decode_turn

logger = logging.getLogger("memory_async.storage")

R = TypeVar("R")
D = TypeVar("D")


class Applied(NamedTuple):
    """What a driver did with a batch: for each write whether it changed anything, the seq given to
    the appended turn; or, when the run was in the log already, its turn as ``known``."""

    did: Sequence[bool]
    seq: int = 0
    known: StoredTurn | None = None


class Query(NamedTuple):
    """The conditions of one `find`. ``before`` is (created_at, id, partition)."""

    kind: Kind
    partition: str | None
    id: str | None
    prefix: str | None
    tags: tuple[str, ...]
    user_id: str | None
    status: str | None
    lagging: str | None
    before: tuple[int, str, str] | None
    limit: int


class Span(NamedTuple):
    """The bounds of one `history`: seq > after, seq < before, at most limit, from which end."""

    after: int
    before: int | None
    limit: int | None
    newest: bool
    trimmed: bool


class View(NamedTuple):
    """The rows of one `snapshot`."""

    session: SessionRow | None
    turns: Iterable[StoredTurn]
    profile: RecordRow | None


class Driver(ABC):
    """Base of the drivers in this package; a driver elsewhere only has to meet the protocol."""

    unpromised: frozenset[str] = frozenset()
    max_payload_bytes = 1 << 30
    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {"namespace": str}

    def __init__(self, *, namespace: str = "default") -> None:
        self.namespace = check_id("namespace", namespace)
        self.corrupt_rows = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._opening = asyncio.Lock()
        watch(self)

    @classmethod
    @abstractmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        """The storage for ``scheme://`` + ``rest``; ``options`` are those of `url_options`."""

    # --- for the driver to fill in; all but `_open` run when it is open ---

    @abstractmethod
    async def _open(self) -> None:
        """Connect; on failure leave nothing open."""

    @abstractmethod
    async def _close(self) -> None:
        """Give back what `_open` took."""

    @abstractmethod
    def _abandon(self) -> None:
        """Forget inherited connections without closing them: they are another process's."""

    @abstractmethod
    async def _apply(self, batch: Batch) -> Applied: ...

    @abstractmethod
    async def _get(self, key: Key) -> SessionRow | RecordRow | StoredTurn | None: ...

    @abstractmethod
    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]: ...

    @abstractmethod
    async def _history(self, session_id: str, span: Span) -> Iterable[StoredTurn]:
        """Rows in order of seq."""

    @abstractmethod
    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View: ...

    # --- the protocol ---

    async def apply(self, *writes: Write) -> list[Result]:
        batch = prepare(writes, self.max_payload_bytes)
        await self.open()
        done = await self._apply(batch)
        if batch.turn is None:
            return [Result(did) for did in done.did]
        if done.known is not None:
            known = decode_turn(batch.turn.session_id, done.known)
            turn = replace(known, user_id=batch.turn.user_id)  # trimming took it, with the rest
            return [Result(False, turn if op is batch.append else None) for op in batch.ops]
        turn = batch.turn.numbered(done.seq)
        return [
            Result(did, turn if isinstance(op, AppendOp) else None)
            for did, op in zip(done.did, batch.ops, strict=True)
        ]

    async def get(self, key: Key) -> Record | Turn | None:
        key.check()
        await self.open()
        row = await self._get(key)
        if row is None:
            return None
        if isinstance(row, SessionRow):
            return self._decode_session(row)
        if isinstance(row, RecordRow):
            return codec.decode_record(row)
        return decode_turn(key.partition.id, row)

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
        if kind == "turn":
            raise ConfigurationError("turns are read with history(), not with find()")
        check_counts(limit=limit)
        query = Query(
            kind,
            None if partition is None else str(partition),
            id,
            prefix,
            tuple(tags),
            user_id,
            status,
            lagging,
            before and (to_micros(before.created_at), before.id, str(before.partition)),
            limit,
        )
        for text in (partition and partition.id, id, prefix, user_id, status, lagging, *query.tags):
            if text:
                check_id("a condition of find()", text, MAX_KEY_BYTES)
        await self.open()
        found: list[Record] = []
        while True:
            rows = await self._find(query)
            good = self._decode_all(rows, self._decode_record)
            found += good
            if len(rows) < query.limit or len(good) == len(rows):
                return found
            # Whoever pages must not take a page of corrupt rows for the end.
            query = query._replace(before=place_of(rows[-1]), limit=query.limit - len(good))

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
        check_id("session_id", session_id)
        check_counts(last=last, after=after, before=before, limit=limit)
        if last is not None and limit is not None:
            raise ConfigurationError(
                "history() takes last= (the newest) or limit= (the first), not both"
            )
        await self.open()
        count = limit if last is None else last
        rows = await self._history(
            session_id, Span(after or 0, before, count, last is not None, trimmed)
        )
        return [*Turns(session_id, rows, self._count_corrupt)]

    async def snapshot(
        self,
        session_id: str,
        user_id: str | None = None,
        *,
        last: int | None = None,
        since: str | None = None,
        profile: str = "default",
    ) -> Snapshot:
        check_id("session_id", session_id)
        check_counts(last=last)
        if since is not None:
            check_id("a job's name", since)
        key = None if user_id is None else Key("profile", Partition("user", user_id), profile)
        if key is not None:
            key.check()
        await self.open()
        view = await self._snapshot(session_id, key, last, since)
        found: list[Record] = []
        if view.profile is not None:
            found = self._decode_all([view.profile], codec.decode_record)
        return Snapshot(
            None if view.session is None else self._decode_session(view.session),
            Turns(session_id, view.turns, self._count_corrupt),
            found[0] if found and isinstance(found[0], UserProfile) else None,
        )

    async def now(self, partition: Partition) -> datetime:
        """The host's clock; drivers of a shared engine ask the engine."""
        await self.open()
        return utc_now()

    # --- lifecycle ---

    async def open(self) -> None:
        """Connect now instead of at first use. Safe to repeat."""
        if self._closed:
            raise StorageUnavailableError(f"{self!r} is closed: make a new storage")
        if self._loop is asyncio.get_running_loop():
            return
        if self._loop is not None:
            raise ConfigurationError(
                f"{self!r} was opened in another event loop: make one storage per loop, "
                "or use memory_async.sync in code that runs several loops"
            )
        async with self._opening:
            if self._closed:
                raise StorageUnavailableError(f"{self!r} was closed meanwhile")
            if self._loop is None:
                await to_the_end(self._open_here())

    async def _open_here(self) -> None:
        await self._open()
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Give back every connection this storage opened itself. Final, idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._loop in (None, asyncio.get_running_loop()):
            await to_the_end(self._close_here())
        else:
            self._abandon()

    async def _close_here(self) -> None:
        async with self._opening:  # what is just being opened is closed too
            if self._loop is not None:
                await self._close()

    def _forked(self) -> None:
        """In a child: opened anew by whoever uses it there, also when it was just being opened."""
        keep(self._loop, self._opening)
        self._abandon()
        self._loop, self._opening = None, asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(namespace={self.namespace!r})"

    # --- reading rows: one that is corrupt never hides the others ---

    def _decode_record(self, row: SessionRow | RecordRow) -> Record:
        return (
            self._decode_session(row) if isinstance(row, SessionRow) else codec.decode_record(row)
        )

    def _decode_session(self, row: SessionRow) -> Session:
        try:
            return codec.decode_session(row)
        except CorruptRecordError as error:
            self._count_corrupt(error)
            return codec.salvage_session(row)

    def _decode_all(self, rows: Iterable[R], decode: Callable[[R], D]) -> list[D]:
        good = []
        for row in rows:
            try:
                good.append(decode(row))
            except CorruptRecordError as error:
                self._count_corrupt(error)
        return good

    def _count_corrupt(self, error: CorruptRecordError) -> None:
        self.corrupt_rows += 1
        logger.error("skipped a corrupt row: %s", error)


def place_of(row: SessionRow | RecordRow) -> tuple[int, str, str]:
    """Where a row stands in a listing."""
    if isinstance(row, SessionRow):
        return row.created_at, row.session_id, str(Partition("session", row.session_id))
    return row.created_at, row.id, row.partition


def check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and (
            isinstance(count, bool) or not isinstance(count, int) or count < 0
        ):
            raise ConfigurationError(f"{name} must be a whole number from 0 on, not {count!r}")
