"""`PostgresStorage`: one database, on asyncpg; safe for many tasks, processes and machines."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, Self

import asyncpg

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.errors import ConfigurationError, MemoryAsyncError, StorageUnavailableError
from memory_async.forked import keep
from memory_async.keys import Key, Partition, from_micros
from memory_async.storage.batch import Batch, IndexOp
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.postgres import reads, search, writes
from memory_async.storage.postgres.address import LIBPQ, Address
from memory_async.storage.postgres.failures import THEIRS, UNDONE, is_lost, mapped
from memory_async.storage.postgres.migrations import bring_up_to_date, check_name, within
from memory_async.storage.protocol import Match
from memory_async.storage.searching import SearchDriver, Wanted
from memory_async.storage.url import boolean

TRIES = 5
"""How often a call is made that the server undoes, for a deadlock or a failed serialization."""


class PostgresStorage(SearchDriver):
    """A schema in a PostgreSQL database, which is created at first use.

    ``storage`` is a URL, or an `asyncpg.Pool` of the caller's, which is never closed. Of a URL are
    made up to ``max_size`` connections; ``connect_timeout`` and ``command_timeout`` are seconds.
    Behind pgbouncer in transaction mode, ``statement_cache_size=0`` (in a URL ``pgbouncer=true``).

    A role that may not create a schema works in one that another has opened before, given USAGE on
    it and SELECT, INSERT, UPDATE and DELETE on its tables.
    """

    # 1 GB bounds a field, and the message a whole batch travels in.
    max_payload_bytes = 1 << 29

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "schema": str,
        "min_size": int,
        "max_size": int,
        "connect_timeout": float,
        "command_timeout": float,
        "statement_cache_size": int,
        "pgbouncer": boolean,
        **dict.fromkeys(LIBPQ, str),
    }

    def __init__(
        self,
        storage: str | asyncpg.Pool[Any],
        *,
        schema: str = "memory_async",
        namespace: str = "default",
        min_size: int = 0,
        max_size: int = 10,
        connect_timeout: float = 10.0,
        command_timeout: float = 60.0,
        statement_cache_size: int = 100,
    ) -> None:
        super().__init__(namespace=namespace)
        if not isinstance(storage, (str, asyncpg.Pool)):
            raise ConfigurationError(
                f"PostgresStorage takes a URL or an asyncpg.Pool, not {type(storage).__name__}"
            )
        if not 0 <= min_size <= max_size or max_size < 1:
            raise ConfigurationError("0 <= min_size <= max_size, and max_size at least 1")
        self._schema = check_name(schema)
        self._given = None if isinstance(storage, str) else storage
        self._address = Address.of(storage) if isinstance(storage, str) else None
        self._where = "the given pool's server" if self._address is None else self._address.shown
        self._made_in = os.getpid()
        self._settings: dict[str, Any] = {
            "min_size": min_size,
            "max_size": max_size,
            "timeout": connect_timeout,
            "command_timeout": command_timeout,
            "statement_cache_size": statement_cache_size,
        }
        self._pool: asyncpg.Pool[Any] | None = None

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        theirs = {name: options.pop(name) for name in LIBPQ if name in options}
        if options.pop("pgbouncer", False):
            options["statement_cache_size"] = 0
        return cls(Address.parse(f"{scheme}://{rest}", theirs).dsn, **options)

    def __repr__(self) -> str:
        return (
            f"PostgresStorage({self._where!r}, schema={self._schema!r}, "
            f"namespace={self.namespace!r})"
        )

    # --- connections ---

    async def _open(self) -> None:
        self._pool = pool = self._check_given() if self._given else self._new_pool()
        try:
            async with self._errors():
                if pool is not self._given:
                    _ = await pool
                async with pool.acquire() as connection:
                    await bring_up_to_date(connection, self._schema, self._where)
        except BaseException:
            self._pool = None
            if pool is not self._given:
                pool.terminate()
            raise

    def _new_pool(self) -> asyncpg.Pool[Any]:
        assert self._address is not None  # noqa: S101 - for the type
        return asyncpg.create_pool(
            self._address.dsn,
            max_cached_statement_lifetime=0,  # they are few, and stay the same
            reset=_nothing_to_reset,
            **self._settings,
        )

    def _check_given(self) -> asyncpg.Pool[Any]:
        pool = self._given
        assert pool is not None  # noqa: S101 - for the type
        private: Any = pool  # there is no public way to ask
        if self._made_in != os.getpid() or private._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "the given asyncpg.Pool belongs to another event loop or process, where alone it "
                "works: make one here, or give a URL instead"
            )
        if not private._initialized:
            raise ConfigurationError("the given asyncpg.Pool is not connected: await it first")
        return pool

    async def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None or pool is self._given:
            return
        try:
            async with asyncio.timeout(self._settings["command_timeout"]):
                await pool.close()
        except (TimeoutError, *THEIRS):
            pool.terminate()

    def _abandon(self) -> None:
        keep(self._pool, self._given)
        self._pool = None

    # --- calls ---

    async def _fetch(self, sql: str, *given: Any, again: bool = True) -> list[Any]:
        """Rows of one statement. ``again``: it may be sent once more when the answer is lost."""
        sql = within(self._schema, sql)
        tries = 0
        while True:
            pool = self._pool
            if pool is None:
                raise StorageUnavailableError(f"{self!r} was closed meanwhile")
            tries += 1
            async with self._errors(), pool.acquire() as connection:
                try:
                    return await connection.fetch(sql, *given)
                except UNDONE:
                    if tries == TRIES:
                        raise
                except THEIRS as error:
                    if not again or not (is_lost(error) or connection.is_closed()):
                        raise
                    again = False
                    if pool is not self._given:
                        await pool.expire_connections()  # of a server that restarted all are stale
            await asyncio.sleep(random.uniform(0, 0.01 * 2**tries))  # noqa: S311 - jitter

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Exceptions of asyncpg as ours."""
        try:
            yield
        except (ValueError, TypeError) as error:
            if isinstance(error, MemoryAsyncError):
                raise
            raise ConfigurationError(f"{self._where}: {error}") from error
        except THEIRS as error:
            raise mapped(error, self._where) from error

    async def _apply(self, batch: Batch) -> Applied:
        [row] = await self._fetch(
            writes.APPLY,
            *writes.arguments(self.namespace, batch),
            again=writes.is_repeatable(batch),
        )
        return writes.answer(batch, row)

    async def _index(self, op: IndexOp) -> None:
        await self._fetch(search.INDEX, *search.index_arguments(self.namespace, op))

    async def _search(self, wanted: Wanted) -> list[Match]:
        rows = await self._fetch(search.SEARCH, *search.search_arguments(self.namespace, wanted))
        return [search.match(wanted.kind, row) for row in rows]

    async def _get(self, key: Key) -> SessionRow | RecordRow | StoredTurn | None:
        statement = reads.get(self.namespace, key)
        rows = await self._fetch(statement.sql, *statement.given)
        if not rows:
            return None
        if key.kind == "turn":
            return reads.turn_row(rows[0])
        return reads.session_row(rows[0]) if key.kind == "session" else reads.record_row(rows[0])

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        statement = reads.find(self.namespace, query)
        if statement is None:
            return []
        rows = await self._fetch(statement.sql, *statement.given)
        if query.kind == "session":
            return [reads.session_row(row) for row in rows]
        return [reads.record_row(row) for row in rows]

    async def _history(self, session_id: str, span: Span) -> Sequence[StoredTurn]:
        statement = reads.history(self.namespace, session_id, span)
        rows = await self._fetch(statement.sql, *statement.given)
        return [reads.turn_row(row) for row in (reversed(rows) if span.newest else rows)]

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        statement = reads.snapshot(self.namespace, session_id, profile, last, since)
        return reads.view(await self._fetch(statement.sql, *statement.given))

    async def now(self, partition: Partition) -> datetime:
        """The server's clock."""
        await self.open()
        [[micros]] = await self._fetch(reads.NOW)
        return from_micros(micros)


async def _nothing_to_reset(_: Any) -> None:
    """Nothing is ever SET or locked for a session, so releasing costs no round trip."""
