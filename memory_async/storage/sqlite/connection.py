"""The `sqlite3.Connection` subclasses aiosqlite is given, which run in its threads.

Opening happens in the constructor, and a whole group of batches in `commit()`: so each costs one
hop through aiosqlite's public API. Batches that wait while a commit is under way share the next
transaction and its fsync, each in a savepoint of its own.
"""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from typing import Any, TypeAlias

from memory_async.errors import SchemaTooNewError, StorageUnavailableError
from memory_async.forked import Whole, keep, watch
from memory_async.keys import to_micros, utc_now
from memory_async.storage.batch import Batch, IndexOp
from memory_async.storage.driver import Applied
from memory_async.storage.sqlite import search, writes

GROUP = 128


Statements: TypeAlias = Callable[[sqlite3.Connection], Iterable[Any]]
"""Several statements that travel as one."""


class Waiting:
    """A write on its way: its result, or its error, is here once `Writer.commit` has returned."""

    __slots__ = ("done", "error", "work")

    def __init__(self, work: Batch | IndexOp) -> None:
        self.work = work
        self.done: Applied | None = None
        self.error: Exception | None = None


class Connection:
    """What aiosqlite's worker calls instead of a `sqlite3.Connection`: each call is whole, so that
    no fork leaves a child with a lock or a mutex of SQLite's that nobody will ever release.

    SQLite counts the connections a child inherits as its own, and their locks as held, which a fork
    does not inherit: others would take the write-ahead log away from under the child. So it closes
    them, at rest as they are. The file is left to the parent, whose own locks say that it is there.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._call = Whole()
        with self._call:
            self._connection = connect()
        watch(self)

    def execute(self, statement: Statements | str, parameters: Any = ()) -> Rows:
        with self._call:
            if not isinstance(statement, str):
                return Rows(statement(self._connection))
            return Rows(self._connection.execute(statement, parameters).fetchall())

    def commit(self) -> None:
        with self._call:
            self._connection.commit()

    def close(self) -> None:
        with self._call:
            self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def _forked(self) -> None:
        if self._call.cut:
            keep(self._connection)
        else:
            self._connection.close()


class Rows(list[Any]):
    """An answer that has been fetched already."""

    def fetchall(self) -> list[Any]:
        return self


class Reader(sqlite3.Connection):
    """A connection for single statements."""

    def __init__(self, path: str, *, busy_timeout: float, **_: Any) -> None:
        super().__init__(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        self.execute("PRAGMA query_only = ON")


class Writer(sqlite3.Connection):
    """The one connection that writes; opens the file, and brings its schema up to date."""

    def __init__(
        self,
        path: str,
        *,
        namespace: str,
        durability: str,
        busy_timeout: float,
        waiting: deque[Waiting],
        **_: Any,
    ) -> None:
        # check_same_thread: a thread that stops with the interpreter cannot close its connection.
        super().__init__(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        self._namespace = namespace
        self._waiting = waiting
        try:
            self._use_wal(time.monotonic() + busy_timeout)
            self.execute(f"PRAGMA synchronous = {durability}")
            self.execute("PRAGMA foreign_keys = ON")
            self._migrate(path)
            self.execute(writes.DROP_EXPIRED, (to_micros(utc_now()),))
        except BaseException:
            self.close()
            raise

    def _use_wal(self, deadline: float) -> None:
        # This pragma ignores the busy timeout while another process opens the same new file.
        while self.execute("PRAGMA journal_mode").fetchone()[0] not in (
            "wal",
            "memory",
        ):
            try:
                self.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise StorageUnavailableError(
                        "the database stayed locked while opening"
                    ) from error
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - jitter

    def _migrate(self, path: str) -> None:
        known = list(_migrations())
        self.execute("BEGIN IMMEDIATE" if self._version() < known[-1][0] else "BEGIN")
        try:
            version = self._version()
            if version > known[-1][0]:
                raise SchemaTooNewError(
                    f"{path} has schema {version}, this memory_async knows {known[-1][0]}: "
                    "upgrade memory_async"
                )
            for number, script in known:
                if number > version:
                    for statement in _statements(script):
                        self.execute(statement)
                    self.execute("DELETE FROM memory_schema")
                    self.execute("INSERT INTO memory_schema VALUES (?)", (number,))
            self.execute("COMMIT")
        except BaseException:
            self.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        # A table of our own: user_version may be another application's, whose file this is too.
        found = self.execute("SELECT 1 FROM sqlite_schema WHERE name = 'memory_schema'").fetchone()
        return int(self.execute("SELECT version FROM memory_schema").fetchone()[0]) if found else 0

    def commit(self) -> None:
        """Apply and commit every batch that waits, whoever called."""
        while self._waiting:
            group: list[Waiting] = []
            while self._waiting and len(group) < GROUP:
                group.append(self._waiting.popleft())
            try:
                self._commit_group(group)
            except Exception as error:  # noqa: BLE001 - given to those who wait
                for waiting in group:
                    waiting.done, waiting.error = None, waiting.error or error
            finally:
                if self.in_transaction:
                    self.execute("ROLLBACK")

    def _commit_group(self, group: list[Waiting]) -> None:
        self.execute("BEGIN IMMEDIATE")
        if len(group) == 1:  # needs no savepoint: without it there is nothing to commit
            group[0].done = self._do(group[0].work)
        else:
            for waiting in group:
                self._apply_apart(waiting)
        self.execute("COMMIT")

    def _apply_apart(self, waiting: Waiting) -> None:
        self.execute("SAVEPOINT batch")
        try:
            waiting.done = self._do(waiting.work)
        except Exception as error:
            waiting.error = error
            if not self.in_transaction:  # a failure that took the whole transaction along
                raise
            self.execute("ROLLBACK TO batch")
        self.execute("RELEASE batch")

    def _do(self, work: Batch | IndexOp) -> Applied:
        if isinstance(work, IndexOp):
            return Applied([search.index(self, self._namespace, work)])
        return writes.apply(self, self._namespace, work)


def _migrations() -> Iterator[tuple[int, str]]:
    folder = files("memory_async.storage.sqlite") / "schema"
    scripts = sorted((each for each in folder.iterdir()), key=lambda each: each.name)
    for script in scripts:
        if match := re.match(r"(\d{4})_\w+\.sql$", script.name):
            yield int(match[1]), script.read_text(encoding="utf-8")


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction we are in.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
