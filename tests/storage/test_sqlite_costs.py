"""What saving and reading cost in SQLite: statements, and pages of the write-ahead log."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from memory_async import Memory, SqliteStorage

WORDS = "a word or two of what was said, and then some more of it. " * 6
TURN = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": WORDS * 2}]
PAGE, FRAME = 4096, 4096 + 24


@pytest.fixture
async def storage(tmp_path: Path) -> Any:
    async with SqliteStorage(tmp_path / "memory.db", durability="normal") as storage:
        yield storage


def connection_of(storage: SqliteStorage, number: int) -> sqlite3.Connection:
    found: sqlite3.Connection = storage._connections[number]._conn._connection  # type: ignore[attr-defined]
    return found


async def test_a_save_is_five_statements_and_a_load_is_one(storage: SqliteStorage) -> None:
    memory = Memory(storage, "s", "ann", full_session_memory=True)
    await memory.save(TURN)
    writer, reader = connection_of(storage, 0), connection_of(storage, -1)
    written: list[str] = []
    read: list[str] = []
    writer.set_trace_callback(written.append)
    reader.set_trace_callback(read.append)
    await memory.save(TURN)
    await memory.load(last=20)
    assert [each.split()[0] for each in written] == [
        "BEGIN",
        "SELECT",
        "UPDATE",
        "INSERT",
        "COMMIT",
    ]
    assert [each.split()[0] for each in read] == ["SELECT"]


async def test_a_save_writes_few_pages_also_to_a_long_session(
    storage: SqliteStorage, tmp_path: Path
) -> None:
    """Its turn, the header and one index: each on the page that the save before wrote to."""
    memory = Memory(storage, "s", "ann", full_session_memory=True)
    writer = connection_of(storage, 0)
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    assert writer.execute("PRAGMA page_size").fetchone() == (PAGE,)
    pages = []
    for turns in (100, 900):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(turns):
            await memory.save(TURN)
        pages.append((tmp_path / "memory.db-wal").stat().st_size / FRAME / turns)
    assert max(pages) < 4.3
    assert pages[1] < pages[0] * 1.1


async def test_turns_of_sessions_that_take_turns_lie_side_by_side(storage: SqliteStorage) -> None:
    sessions = [Memory(storage, f"s{n}", "ann", full_session_memory=True) for n in range(3)]
    for number in range(4):
        for memory in sessions:
            await memory.save({"role": "user", "content": f"{memory.session_id} {number}"})
    reader = connection_of(storage, -1)
    rows = reader.execute(
        "SELECT session, id & 0xffffffff FROM memory_turns ORDER BY id"
    ).fetchall()
    assert rows == [(session, seq) for session in (1, 2, 3) for seq in (1, 2, 3, 4)]
    assert await sessions[1].delete_session()
    assert reader.execute("SELECT count(*) FROM memory_turns").fetchone() == (8,)
    await sessions[1].save({"role": "user", "content": "anew"})
    assert [(await each.turns())[-1].seq for each in sessions] == [4, 1, 4]
