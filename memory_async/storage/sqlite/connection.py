"""The `sqlite3.Connection` subclasses aiosqlite is given, which run in its threads.

Opening happens in the constructor, and a whole group of batches in `commit()`: so each costs one
hop through aiosqlite's public API. Batches that wait while a commit is under way share the next
transaction and its fsync, each in a savepoint of its own.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from memory_async.errors import SchemaTooNewError, StorageUnavailableError
from memory_async.keys import to_micros, utc_now
from memory_async.storage.batch import Batch
from memory_async.storage.driver import Applied
from memory_async.storage.sqlite import writes

GROUP = 128


class Waiting:
    """A batch on its way: its result, or its error, is here once `Writer.commit` has returned."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.done: Applied | None = None
        self.error: Exception | None = None


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
            if path != ":memory:":
                _take_inherited_locks(path)
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
        for waiting in group:
            self.execute("SAVEPOINT batch")
            try:
                waiting.done = writes.apply(self, self._namespace, waiting.batch)
            except Exception as error:
                waiting.error = error
                if not self.in_transaction:  # a failure that took the whole transaction along
                    raise
                self.execute("ROLLBACK TO batch")
            self.execute("RELEASE batch")
        self.execute("COMMIT")


_opened_by: dict[tuple[int, int], int] = {}  # the process that opened a file, by its inode


def _take_inherited_locks(path: str) -> None:
    # SQLite counts the connections of a parent process as this one's, and their locks as held,
    # which a fork does not inherit: once the parent is gone, the next process to open or close the
    # file would take WAL and shared memory away. So these locks are taken, until the process ends:
    # closing a descriptor would drop the locks of all others on its file.
    stat, pid = Path(path).stat(), os.getpid()
    inode = stat.st_dev, stat.st_ino
    if _opened_by.get(inode, pid) != pid:
        import fcntl

        try:
            for name, start, length in ((path, 0x40000002, 510), (f"{path}-shm", 128, 1)):
                descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
        except OSError as error:
            raise StorageUnavailableError(
                f"{path} was open when this process was forked, and closed by its parent since: "
                "open it only after forking, or start processes by spawn"
            ) from error
    _opened_by[inode] = pid


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
