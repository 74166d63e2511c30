"""Every read and write is served by an index: asked of SQLite itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memory_async.keys import Key, Partition
from memory_async.storage.driver import Query, Span
from memory_async.storage.sqlite import SqliteStorage, reads, writes

ANY: dict[str, Any] = {
    "partition": None, "id": None, "prefix": None, "tags": (), "user_id": None, "status": None,
    "lagging": None, "before": None, "limit": 10,
}  # fmt: skip
PAGE = {"before": (1, "a", "session/a")}
IN_SESSION, SHELF = {"partition": "session/s"}, {"partition": "collection/shelf"}
BY_ID = "sqlite_autoindex_memory_sessions_1"
BY_KEY = "sqlite_autoindex_memory_records_1"


@pytest.fixture
async def db(tmp_path: Path) -> Any:
    path = tmp_path / "memory.db"
    async with SqliteStorage(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        yield db


def plan(db: sqlite3.Connection, sql: str, given: Any) -> list[str]:
    rows = db.execute("EXPLAIN QUERY PLAN " + sql, given)
    return [row[3] for row in rows]


def check(steps: list[str], *indexes: str) -> None:
    """All is searched, by these indexes among others; only what was computed just now is walked."""
    tables = [step for step in steps if step.startswith(("SEARCH", "SCAN"))]
    assert all(
        step.startswith("SEARCH") or step in ("SCAN s", "SCAN start", "SCAN reach")
        for step in tables
    )
    for index in indexes:
        assert any(index in step for step in tables), (index, steps)


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ({}, "memory_sessions_by_time (namespace=?)"),
        (PAGE, "memory_sessions_by_time (namespace=? AND (created_at,session_id)<"),
        ({"user_id": "ann"}, "memory_sessions_by_user (namespace=? AND user_id=?"),
        ({"user_id": "ann", **PAGE}, "user_id=? AND (created_at,session_id)<"),
        ({"lagging": "summary"}, "memory_sessions_lagging (namespace=?)"),
        ({"lagging": "summary", **PAGE}, "memory_sessions_lagging (namespace=? AND (created_at"),
        (IN_SESSION, f"{BY_ID} (namespace=? AND session_id=?)"),
        ({"id": "s"}, f"{BY_ID} (namespace=? AND session_id=?)"),
        ({"prefix": "s"}, f"{BY_ID} (namespace=? AND session_id>? AND session_id<?)"),
    ],
    ids=str,
)
def test_sessions_are_found_by_index(
    db: sqlite3.Connection, conditions: dict[str, Any], index: str
) -> None:
    steps = plan(db, *reads.find("default", Query(kind="session", **{**ANY, **conditions}), 0))
    assert "SCAN s" not in steps
    check(steps, index)
    # Only ties of (created_at, session_id) may have to be sorted.
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps or "prefix" in conditions


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        (SHELF, "memory_records_by_partition (namespace=? AND partition=? AND kind=?)"),
        ({**SHELF, **PAGE}, "kind=? AND (created_at,record_id)<"),
        ({**SHELF, "tags": ("a",)}, "memory_records_by_partition"),
        (
            {**SHELF, "id": "a"},
            f"{BY_KEY} (namespace=? AND kind=? AND record_id=? AND partition=?)",
        ),
        ({"id": "a"}, f"{BY_KEY} (namespace=? AND kind=? AND record_id=?)"),
        ({"prefix": "a"}, f"{BY_KEY} (namespace=? AND kind=? AND record_id>? AND record_id<?)"),
        ({**SHELF, "prefix": "a"}, "record_id>? AND record_id<?"),
        ({"user_id": "ann"}, "memory_records_by_user (namespace=? AND kind=? AND user_id=?)"),
        ({"user_id": "ann", **PAGE}, "user_id=? AND created_at<?"),
        ({"status": "paused"}, "memory_records_by_status (namespace=? AND kind=? AND status=?)"),
        ({"status": "paused", **PAGE}, "status=? AND created_at<?"),
        ({"tags": ("a",)}, "memory_tags USING PRIMARY KEY (tag=?)"),
        ({"tags": ("a", "b"), **PAGE}, "r USING INTEGER PRIMARY KEY (rowid=?)"),
        ({}, f"{BY_KEY} (namespace=? AND kind=?)"),
    ],
    ids=str,
)
def test_records_are_found_by_index(
    db: sqlite3.Connection, conditions: dict[str, Any], index: str
) -> None:
    check(plan(db, *reads.find("default", Query(kind="item", **{**ANY, **conditions}), 0)), index)


@pytest.mark.parametrize("newest", [True, False])
def test_history_is_bounded_by_index(db: sqlite3.Connection, newest: bool) -> None:
    steps = plan(db, *reads.history("default", "s", Span(3, 9, 2, newest, False)))
    check(steps, BY_ID, "t USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)")
    assert not any("TEMP B-TREE" in step for step in steps)


def test_a_snapshot_searches_only(db: sqlite3.Connection) -> None:
    given = dict.fromkeys(
        ("namespace", "session_id", "last", "since", "partition", "profile", "now"), 1
    )
    steps = plan(db, reads.SNAPSHOT, given)
    check(steps, BY_ID, "t USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", BY_KEY)
    assert not any("TEMP B-TREE" in step or "MATERIALIZE" in step for step in steps)


IN = Partition("session", "s")


@pytest.mark.parametrize(
    ("key", "index"),
    [
        (Key("session", IN, "s"), BY_ID),
        (Key("turn", IN, "r"), "sqlite_autoindex_memory_turns_1 (session=? AND run_id=?)"),
        (Key("item", IN, "i"), "kind=? AND record_id=? AND partition=?)"),
    ],
    ids=["session", "turn", "item"],
)
def test_one_thing_is_got_by_index(db: sqlite3.Connection, key: Key, index: str) -> None:
    steps = plan(db, *reads.get("default", key, 0))
    assert "SCAN s" not in steps
    check(steps, index)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("HEADER", BY_ID),
        ("HEADER", "t USING INDEX sqlite_autoindex_memory_turns_1 (session=? AND run_id=?)"),
        ("CURSOR", "PRIMARY KEY (session=? AND job=?)"),
        ("COUNT_TURN", "INTEGER PRIMARY KEY"),
        ("ADVANCE", "PRIMARY KEY (session=? AND job=?)"),
        ("CAUGHT_UP", "INTEGER PRIMARY KEY"),
        ("MOVE_TRIMMED", "INTEGER PRIMARY KEY"),
        ("TRIM", "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ("RECORD_VERSION", BY_KEY),
        ("UNTAG", "memory_tags_by_record"),
        ("DELETE_RECORD", BY_KEY),
        ("DELETE_SESSION", BY_ID),
        ("DROP_RECORDS", "memory_records_by_partition (namespace=? AND partition=?)"),
        ("DROP_EXPIRED", "memory_records_expiring (expires_at<?)"),
    ],
)
def test_a_write_touches_its_rows_only(db: sqlite3.Connection, name: str, index: str) -> None:
    sql = getattr(writes, name)
    given: Any = (1,) * sql.count("?")
    if not given:
        named = "id keep_turns at through value job expected namespace partition kind prefix"
        given = dict.fromkeys(named.split(), 1)
    steps = plan(db, sql, given)
    assert "SCAN s" not in steps
    check(steps, index)
