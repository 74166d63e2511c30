"""SQLite files: what is made of them, what is refused, and what happens when they fail."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    PayloadError,
    SchemaTooNewError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.storage.protocol import ABSENT, Put
from memory_async.storage.sqlite import SqliteStorage, writes
from memory_async.testing.material import append, at, fill, item, put, seqs, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    async with SqliteStorage(path, busy_timeout=0.05) as storage:
        yield storage


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


def writer_of(storage: SqliteStorage) -> Any:
    """The connection that writes, to be used between two calls."""
    return storage._connections[0]._conn


class TestOpening:
    async def test_the_file_is_in_wal_mode(self, storage: SqliteStorage, path: Path) -> None:
        assert query(path, "PRAGMA journal_mode") == [("wal",)]

    @pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
    async def test_durability_is_what_sqlite_calls_synchronous(
        self, path: Path, durability: Any, synchronous: int
    ) -> None:
        async with SqliteStorage(path, durability=durability) as storage:
            [(found,)] = writer_of(storage).execute("PRAGMA synchronous")
            assert found == synchronous

    async def test_nothing_is_made_before_the_first_use(self, path: Path) -> None:
        storage = SqliteStorage(path)
        assert not path.exists()
        await storage.history("s")
        assert path.exists()
        await storage.close()

    async def test_closing_leaves_one_file(self, path: Path) -> None:
        async with SqliteStorage(path) as storage:
            await fill(storage, "s", 3)
        assert [each.name for each in path.parent.iterdir()] == [path.name]

    async def test_expired_items_are_gone_from_the_file_after_opening(self, path: Path) -> None:
        async with SqliteStorage(path) as storage:
            await put(storage, item("shelf", "old", expires_at=at(0)), item("shelf", "kept"))
        async with SqliteStorage(path):
            assert query(path, "SELECT record_id FROM memory_records") == [("kept",)]

    @pytest.mark.parametrize("durability", ["FULL", "off", "", None])
    def test_an_unknown_durability_is_refused(self, path: Path, durability: Any) -> None:
        with pytest.raises(ConfigurationError, match="durability"):
            SqliteStorage(path, durability=durability)

    @pytest.mark.parametrize("bad", ["", "a\0b"])
    def test_what_is_no_path_is_refused(self, bad: str) -> None:
        with pytest.raises(ConfigurationError, match="path"):
            SqliteStorage(bad)

    async def test_it_is_called_by_its_path(self, path: Path) -> None:
        assert repr(SqliteStorage(path)) == f"SqliteStorage({str(path)!r}, namespace='default')"


class TestOtherFiles:
    async def test_a_newer_schema_is_refused_and_left_alone(self, path: Path) -> None:
        async with SqliteStorage(path) as storage:
            await fill(storage, "s", 1)
        [(version,)] = query(path, "SELECT version FROM memory_schema")
        query(path, "UPDATE memory_schema SET version = 99")
        before = path.read_bytes()
        newer = SqliteStorage(path)
        with pytest.raises(SchemaTooNewError, match=f"{path}.*99.*upgrade"):
            await newer.history("s")
        await newer.close()
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        query(path, f"UPDATE memory_schema SET version = {version}")
        async with SqliteStorage(path) as again:
            assert seqs(await again.history("s")) == [1]

    async def test_a_file_that_is_no_database_is_left_alone(self, path: Path) -> None:
        path.write_bytes(b"Dear diary, " * 1000)
        storage = SqliteStorage(path)
        with pytest.raises(StorageError, match=f"{path} is a file, but no SQLite database"):
            await storage.open()
        assert path.read_bytes() == b"Dear diary, " * 1000
        path.unlink()
        assert seqs(await fill(storage, "s", 1)) == [1]  # once it is out of the way
        await storage.close()

    async def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "none" / "memory.db"
        with pytest.raises(StorageUnavailableError, match=f"{path}.*folder"):
            await SqliteStorage(path).open()
        assert not path.parent.exists()

    async def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StorageUnavailableError, match=str(tmp_path)):
            await SqliteStorage(tmp_path).open()

    async def test_a_file_that_cannot_be_written_is_named(self, path: Path) -> None:
        async with SqliteStorage(path) as storage:
            await fill(storage, "s", 1)
        # To SQLite a file whose format is too new to write is read-only, whoever the user is.
        content = bytearray(path.read_bytes())
        content[18] = 3
        path.write_bytes(content)
        with pytest.raises(StorageUnavailableError, match=f"{path}.*readonly"):
            await SqliteStorage(path).open()
        assert path.read_bytes() == content

    async def test_another_applications_tables_stay_as_they_are(self, path: Path) -> None:
        query(path, "CREATE TABLE sessions (a)")
        query(path, "INSERT INTO sessions VALUES (42)")
        query(path, "PRAGMA user_version = 7")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            async with SqliteStorage(path) as storage:
                await fill(storage, "s", 2)
                other.execute("INSERT INTO sessions VALUES (43)")
                assert seqs(await storage.history("s")) == [1, 2]
            assert other.execute("SELECT a FROM sessions").fetchall() == [(42,), (43,)]
            assert other.execute("PRAGMA user_version").fetchall() == [(7,)]

    async def test_a_file_whose_tables_vanish_is_an_error(
        self, storage: SqliteStorage, path: Path
    ) -> None:
        query(path, "DROP TABLE memory_turns")
        with pytest.raises(StorageError, match=f"{path}: no such table") as caught:
            await storage.history("s")
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        with pytest.raises(StorageError, match="no such table"):
            await storage.apply(append("s"))


class TestLocks:
    async def test_a_write_lock_held_too_long_is_an_error_and_no_more(
        self, storage: SqliteStorage, path: Path
    ) -> None:
        await fill(storage, "s", 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageUnavailableError, match=r"locked for 0\.05 s"):
                await storage.apply(append("s", "never"))
            assert seqs(await storage.history("s")) == [1]  # reading goes on
            other.execute("ROLLBACK")
        await storage.apply(append("s", "2"))
        assert texts(await storage.history("s")) == ["1", "2"]

    async def test_a_lock_held_while_opening_is_an_error_and_no_more(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TABLE mine (a)")
            other.execute("BEGIN EXCLUSIVE")
            storage = SqliteStorage(path, busy_timeout=0.05)
            with pytest.raises(StorageUnavailableError, match="locked"):
                await storage.apply(append("s"))
            other.execute("ROLLBACK")
        assert seqs(await fill(storage, "s", 1)) == [1]
        await storage.close()

    async def test_a_reader_in_the_way_of_wal_mode_is_an_error_and_no_more(
        self, path: Path
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TABLE mine (a)")
            other.execute("BEGIN")
            other.execute("SELECT * FROM mine").fetchall()
            storage = SqliteStorage(path, busy_timeout=0.05)
            with pytest.raises(StorageUnavailableError, match="stayed locked while opening"):
                await storage.open()
            other.execute("ROLLBACK")
        await storage.open()
        await storage.close()


class TestLimits:
    async def test_a_payload_over_the_limit_is_refused_before_anything_is_written(
        self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SqliteStorage, "max_payload_bytes", 1000)
        with pytest.raises(PayloadError, match=r"item is \d+ bytes.*at most 1000"):
            await storage.apply(Put(item("c", "a"), ABSENT), Put(item("c", "b", "é" * 500), ABSENT))
        assert await storage.find("item") == []
        await storage.apply(Put(item("c", "a", "e" * 500), ABSENT))

    async def test_a_row_sqlite_finds_too_large_is_refused(self, storage: SqliteStorage) -> None:
        writer_of(storage).setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        with pytest.raises(PayloadError, match="too large"):
            await storage.apply(append("s", "first"), Put(item_in("s", "x" * 20_000), ABSENT))
        assert await storage.history("s") == []
        await storage.apply(append("s"))

    async def test_a_full_disk_is_an_error_and_no_more(self, storage: SqliteStorage) -> None:
        await fill(storage, "s", 1)
        writer = writer_of(storage)
        [(pages,)] = writer.execute("PRAGMA page_count").fetchall()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageUnavailableError, match="full"):
            await storage.apply(append("s", "x" * 100_000))
        writer.execute("PRAGMA max_page_count = 1000000")
        await storage.apply(append("s", "2"))
        assert texts(await storage.history("s")) == ["1", "2"]

    async def test_a_number_beyond_sqlites_is_refused(self, storage: SqliteStorage) -> None:
        with pytest.raises(PayloadError, match="SQLite cannot take"):
            await storage.history("s", after=2**63)


class TestGroups:
    async def test_a_failure_of_the_transaction_fails_its_group_and_no_more(
        self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(storage, "s", 1)
        good = writes.apply

        def fail(db: sqlite3.Connection, namespace: str, batch: Any) -> Any:
            applied = good(db, namespace, batch)
            db.execute("ROLLBACK")  # as SQLite does by itself when memory runs out
            raise sqlite3.OperationalError("out of memory", applied)

        monkeypatch.setattr(writes, "apply", fail)
        with pytest.raises(StorageError, match="out of memory"):
            await storage.apply(append("s", "never"))
        monkeypatch.undo()
        await storage.apply(append("s", "2"))
        assert texts(await storage.history("s")) == ["1", "2"]

    async def test_a_commit_that_fails_fails_its_group_and_no_more(
        self, storage: SqliteStorage, path: Path
    ) -> None:
        await fill(storage, "s", 1)
        writer = writer_of(storage)
        writer.execute(
            "CREATE TABLE other (a REFERENCES other (b) DEFERRABLE INITIALLY DEFERRED, b UNIQUE)"
        )
        writer.execute(
            "CREATE TRIGGER breaks AFTER INSERT ON memory_turns BEGIN "
            "INSERT INTO other (a) VALUES (1); END"
        )
        with pytest.raises(StorageError, match="FOREIGN KEY"):
            await storage.apply(append("s", "never"))
        writer.execute("DROP TRIGGER breaks")
        await storage.apply(append("s", "2"))
        assert texts(await storage.history("s")) == ["1", "2"]

    async def test_a_failure_of_one_batch_is_its_own(
        self, storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await put(storage, item_in("s", 1))
        with pytest.raises(ConflictError):
            await storage.apply(append("s"), Put(item_in("s", 2), ABSENT))
        assert await storage.history("s") == []


def item_in(session_id: str, value: Any) -> Any:
    from memory_async.keys import Partition

    return item(Partition("session", session_id), "a", value)


async def test_a_reader_that_cannot_be_opened_leaves_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise sqlite3.OperationalError("too many open files")

    storage = SqliteStorage(path)
    with monkeypatch.context() as broken:
        broken.setattr("memory_async.storage.sqlite.driver.Reader", fail)
        with pytest.raises(StorageError, match="too many open files"):
            await storage.open()
    assert storage._connections == []
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert seqs(await fill(storage, "s", 1)) == [1]
    await storage.close()
