"""`SqliteStorage`: one file, on aiosqlite; safe for many tasks and many processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

import aiosqlite

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.errors import (
    ConfigurationError,
    MemoryAsyncError,
    PayloadError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.forked import keep
from memory_async.keys import Key, to_micros, utc_now
from memory_async.storage.batch import Batch, IndexOp
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.protocol import Match
from memory_async.storage.searching import SearchDriver, Wanted
from memory_async.storage.sqlite import reads, search
from memory_async.storage.sqlite.connection import Connection, Reader, Waiting, Writer
from memory_async.storage.url import file_path


class SqliteStorage(SearchDriver):
    """A SQLite file in WAL mode, or a private database in memory without a ``path``.

    ``durability="full"`` (the default) syncs every commit to the disk: what `apply` returned for
    survives a power cut. ``"normal"`` syncs at checkpoints: it survives the death of the process,
    but the last commits may go with the power. ``busy_timeout`` (seconds) is how long a write waits
    for another process's before it gives up with `StorageUnavailableError`.
    """

    max_payload_bytes = 1_000_000_000 - (1 << 16)  # SQLITE_MAX_LENGTH bounds the whole row

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "durability": str,
        "busy_timeout": float,
    }

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: Literal["full", "normal"] = "full",
        namespace: str = "default",
        busy_timeout: float = 30.0,
    ) -> None:
        super().__init__(namespace=namespace)
        if durability not in ("full", "normal"):
            raise ConfigurationError(f'durability is "full" or "normal", not {durability!r}')
        self._path = ":memory:" if path is None else os.fspath(path)
        if not self._path or "\0" in self._path:
            raise ConfigurationError(f"{self._path!r} is no path of a file")
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._waiting: deque[Waiting] = deque()
        self._connections: list[aiosqlite.Connection] = []

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        return cls(file_path(scheme, rest) or None, **options)

    def __repr__(self) -> str:
        return f"SqliteStorage({self._path!r}, namespace={self.namespace!r})"

    async def _open(self) -> None:
        writer = partial(
            Writer,
            namespace=self.namespace,
            durability=self._durability,
            busy_timeout=self._busy_timeout,
            waiting=self._waiting,
        )
        reader = partial(Reader, busy_timeout=self._busy_timeout)
        with _Errors(self._mapped):
            self._connections.append(await _connect(self._path, writer))
            if self._path != ":memory:":  # there, a second connection would be a second database
                try:
                    self._connections.append(await _connect(self._path, reader))
                except BaseException:
                    await self._close()
                    raise

    async def _close(self) -> None:
        while self._connections:
            await self._connections.pop().close()

    def _abandon(self) -> None:
        keep(*self._connections)
        self._connections, self._waiting = [], deque()

    def _forked(self) -> None:
        for connection in self._connections:
            connection._connection = None  # or it warns, at the end, of having been left open
        super()._forked()

    async def _apply(self, batch: Batch) -> Applied:
        return await self._commit(batch)

    async def _index(self, op: IndexOp) -> None:
        await self._commit(op)

    async def _commit(self, work: Batch | IndexOp) -> Applied:
        waiting = Waiting(work)
        self._waiting.append(waiting)
        with _Errors(self._mapped):
            await self._connections[0].commit()
            if waiting.done is None:
                raise waiting.error or StorageUnavailableError(f"{self!r} was closed meanwhile")
        return waiting.done

    async def _search(self, wanted: Wanted) -> list[Match]:
        look: Any = partial(search.search, namespace=self.namespace, wanted=wanted)
        with _Errors(self._mapped):
            found: Any = await self._connections[-1].execute_fetchall(look)
        return list(found)

    async def _read(self, statement: reads.Statement) -> list[Any]:
        with _Errors(self._mapped):
            return list(await self._connections[-1].execute_fetchall(*statement))

    async def _get(self, key: Key) -> SessionRow | RecordRow | StoredTurn | None:
        rows = await self._read(reads.get(self.namespace, key, to_micros(utc_now())))
        if not rows:
            return None
        if key.kind == "turn":
            turn: StoredTurn = rows[0]
            return turn
        return reads.session_row(rows[0]) if key.kind == "session" else reads.record_row(rows[0])

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        rows = await self._read(reads.find(self.namespace, query, to_micros(utc_now())))
        if query.kind == "session":
            return [reads.session_row(row) for row in rows]
        return [reads.record_row(row) for row in rows]

    async def _history(self, session_id: str, span: Span) -> Sequence[StoredTurn]:
        rows = await self._read(reads.history(self.namespace, session_id, span))
        return rows[::-1] if span.newest else rows

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        given = {
            "namespace": self.namespace,
            "session_id": session_id,
            "last": last,
            "since": since,
            "partition": profile and str(profile.partition),
            "profile": profile and profile.id,
            "now": to_micros(utc_now()),
        }
        return reads.view(await self._read((reads.SNAPSHOT, given)))

    def _mapped(self, error: BaseException) -> MemoryAsyncError | None:
        """What sqlite3 and aiosqlite raise, as ours; None for anything else."""
        if isinstance(error, MemoryAsyncError):
            return None
        if isinstance(error, (OverflowError, UnicodeEncodeError)):
            return PayloadError(f"SQLite cannot take this value: {error}")
        if isinstance(error, (ValueError, IndexError)):  # aiosqlite's word for a closed connection
            return StorageUnavailableError(f"{self!r} was closed meanwhile: {error}")
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return StorageError(f"{self._path} is a file, but no SQLite database: use another path")
        if code == sqlite3.SQLITE_CANTOPEN:
            return StorageUnavailableError(
                f"cannot open {self._path}: its folder must exist and be writable"
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StorageUnavailableError(
                f"{self._path} stayed locked for {self._busy_timeout:g} s by another writer"
            )
        if code == sqlite3.SQLITE_TOOBIG:
            return PayloadError(f"too large for SQLite: {error}")
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
            return StorageUnavailableError(f"{self._path}: {error}")
        return StorageError(f"{self._path}: {error}")


class _Errors:
    """``with`` it, what an engine raises comes out as ``mapped`` has it."""

    __slots__ = ("_mapped",)

    def __init__(self, mapped: Callable[[BaseException], MemoryAsyncError | None]) -> None:
        self._mapped = mapped

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and (mapped := self._mapped(exc)) is not None:
            raise mapped from exc


async def _connect(path: str, factory: Any) -> aiosqlite.Connection:
    # aiosqlite's worker inherits whether it is a daemon. Started from an ordinary thread it would
    # keep an interpreter alive whose user forgot close(); nothing that returned is lost this way.
    made: list[aiosqlite.Connection] = []
    failed: list[Exception] = []

    def connect(*args: Any, **kwargs: Any) -> Any:
        try:
            return Connection(partial(factory, *args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised below
            # aiosqlite does not wait for the worker of a connection that failed; of this it does.
            failed.append(error)
            return sqlite3.Connection(":memory:", check_same_thread=False)

    thread = threading.Thread(
        target=lambda: made.append(aiosqlite.connect(path, factory=connect)),
        daemon=True,
    )
    thread.start()
    thread.join()
    connection = await made[0]
    if failed:
        await connection.close()
        raise failed[0]
    return connection
