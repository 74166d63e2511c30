"""Every read and write is served by an index, and touches few rows of many: asked of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async.keys import Key, Partition, from_micros  # noqa: E402
from memory_async.records import Session  # noqa: E402
from memory_async.storage.batch import prepare  # noqa: E402
from memory_async.storage.driver import Query, Span  # noqa: E402
from memory_async.storage.postgres import PostgresStorage, reads, writes  # noqa: E402
from memory_async.storage.postgres.migrations import within  # noqa: E402
from memory_async.storage.protocol import (  # noqa: E402
    ABSENT,
    ALWAYS,
    Advance,
    Delete,
    Drop,
    Expect,
    Put,
    Trim,
    Write,
)
from memory_async.testing.material import append, in_session, item, session_key  # noqa: E402
from tests.servers.postgres import Postgres, postgres  # noqa: E402

MANY, LIMIT, SCHEMA = 5000, 10, "plans"
FEW = 6 * LIMIT
"""Rows a call may read that returns `LIMIT` of them; a header and its jobs are three or four."""

FILL = f"""
INSERT INTO memory_async.headers (namespace, session_id, user_id, keep_turns, lagging, last_seq,
                                  created_at, updated_at, version, payload)
SELECT CASE WHEN n <= 20 THEN 'small' ELSE 'default' END, 's' || n,
       CASE WHEN n <= 120 THEN 'rare' WHEN n % 5 = 0 THEN 'ann' END, n % 2 = 0, n % 50 = 0, 9,
       n, n, 'v', '{{"v":1,"metadata":{{}}}}'
FROM generate_series(1, {MANY}) n;
INSERT INTO memory_async.jobs SELECT id, job, CASE WHEN lagging THEN 8 ELSE 9 END, '"x"'
FROM memory_async.headers, unnest(ARRAY['summary', 'profile:default']) job;
INSERT INTO memory_async.turns SELECT id, n, 'r' || n, n, NULL, '{{"v":1,"messages":[]}}'
FROM memory_async.headers, generate_series(1, 9) n WHERE session_id <> 's4000';
INSERT INTO memory_async.turns SELECT id, n, 'r' || n, n, NULL, '{{"v":1,"messages":[]}}'
FROM memory_async.headers, generate_series(1, {MANY}) n WHERE session_id = 's4000';
UPDATE memory_async.headers SET last_seq = {MANY} WHERE session_id = 's4000';
UPDATE memory_async.jobs SET through = {MANY} - 5 FROM memory_async.headers
WHERE session = id AND session_id = 's4000';
INSERT INTO memory_async.records
SELECT 'default', kind, CASE WHEN n % 4 = 0 THEN 'collection/shelf' ELSE 'session/s' || n END,
       kind || n, CASE WHEN n <= 20 THEN 'rare' WHEN n % 5 = 0 THEN 'ann' END,
       CASE WHEN n <= 20 THEN 'paused' ELSE 'done' END,
       CASE WHEN n <= 20 THEN ARRAY['rare', 'odd'] WHEN n % 2 = 0 THEN ARRAY['common'] END,
       n, n, CASE n % 100 WHEN 98 THEN n WHEN 99 THEN 1::bigint << 60 END, 'v', '{{}}'
FROM generate_series(1, {MANY}) n, unnest(ARRAY['item', 'checkpoint']) kind;
INSERT INTO memory_async.records (namespace, kind, partition, record_id, user_id, created_at,
                                  updated_at, version, payload)
SELECT 'default', 'profile', 'user/u' || n, 'default', 'u' || n, n, n, 'v', '{{}}'
FROM generate_series(1, {MANY}) n;
ANALYZE;
"""

ANY: dict[str, Any] = {
    "partition": None, "id": None, "prefix": None, "tags": (), "user_id": None, "status": None,
    "lagging": None, "before": None, "limit": LIMIT,
}  # fmt: skip
PAGE = {"before": (MANY // 2, "s", "session/s")}
SHELF, IN_SESSION = {"partition": "collection/shelf"}, {"partition": "session/s4000"}
IN = Partition("session", "s4000")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["custom", "generic"])
def plans(request: pytest.FixtureRequest) -> str:
    """PostgreSQL plans for the values given, or once for all of them."""
    return str(request.param)


@pytest.fixture
async def db(server: Postgres, plans: str) -> AsyncIterator[Any]:
    """A connection in a transaction of its own, which counts what it reads."""
    connection = await asyncpg.connect(server.url())
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", SCHEMA
    ):
        async with PostgresStorage(server.url(), schema=SCHEMA):
            await connection.execute(within(SCHEMA, FILL))
    await connection.execute(f"SET plan_cache_mode = force_{plans}_plan")
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


async def rows_read(db: Any) -> tuple[int, int]:
    """How many rows were read one table after the other, and how many by index."""
    [row] = await db.fetch(
        "SELECT sum(seq_tup_read)::int, sum(idx_tup_fetch)::int"
        " FROM pg_catalog.pg_stat_xact_user_tables WHERE schemaname = $1",
        SCHEMA,
    )
    return row[0], row[1]


async def explained(db: Any, sql: str, given: tuple[Any, ...]) -> tuple[list[Any], str]:
    """What a statement returns, and its plan: its own, and that of the one in a function."""
    said: list[str] = []
    db.add_log_listener(lambda _, message: said.append(message.message))
    prepared = await db.prepare(sql)
    await db.execute(
        "LOAD 'auto_explain'; SET client_min_messages = log;"
        "SET auto_explain.log_nested_statements = on; SET auto_explain.log_min_duration = 0"
    )
    rows = await prepared.fetch(*given)
    await db.execute("SET auto_explain.log_min_duration = -1")
    return rows, "\n".join(each for each in said if SCHEMA in each)


async def check(db: Any, statement: reads.Statement | None, *indexes: str, returns: int) -> None:
    """It reads by these indexes, among others, and few rows more than it returns."""
    assert statement is not None
    scanned, fetched = await rows_read(db)
    rows, plan = await explained(db, within(SCHEMA, statement.sql), statement.given)
    assert len(rows) == returns
    assert "Seq Scan" not in plan, plan
    for index in indexes:
        assert index in plan, plan
    now_scanned, now_fetched = await rows_read(db)
    assert now_scanned == scanned, plan
    assert now_fetched - fetched <= FEW, plan


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ({}, "headers_by_time"),
        (PAGE, "headers_by_time"),
        ({"user_id": "ann"}, "headers_by_user"),
        ({"user_id": "ann", **PAGE}, "headers_by_user"),
        ({"user_id": "rare"}, "headers_by_user"),
        ({"lagging": "summary"}, "headers_lagging"),
        ({"lagging": "summary", **PAGE}, "headers_lagging"),
        (IN_SESSION, "headers_namespace_session_id_key"),
        ({"id": "s4000"}, "headers_namespace_session_id_key"),
        ({"prefix": "s400"}, "headers_namespace_session_id_key"),
    ],
    ids=str,
)
async def test_sessions_are_found_by_index(db: Any, conditions: dict[str, Any], index: str) -> None:
    statement = reads.find("default", Query(kind="session", **{**ANY, **conditions}))
    await check(db, statement, index, returns=1 if "s4000" in str(conditions) else LIMIT)


async def test_a_small_namespace_beside_a_large_one(db: Any) -> None:
    statement = reads.find("small", Query(kind="session", **ANY))
    await check(db, statement, "headers_by_time", returns=LIMIT)


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ({}, "records_by_time"),
        (PAGE, "records_by_time"),
        (SHELF, "records_by_partition"),
        ({**SHELF, **PAGE}, "records_by_partition"),
        ({**SHELF, "tags": ("common",)}, "records_"),
        ({**SHELF, "prefix": "item400"}, "records_"),
        ({"id": "item4000"}, "records_pkey"),
        ({"prefix": "item400"}, "records_pkey"),
        ({"user_id": "ann"}, "records_by_user"),
        ({"user_id": "ann", **PAGE}, "records_by_user"),
        ({"user_id": "rare"}, "records_by_user"),
        ({"status": "paused"}, "records_by_status"),
        ({"status": "done"}, "records_by_"),
        ({"status": "done", **PAGE}, "records_by_"),
        ({"user_id": "rare", "status": "paused"}, "records_by_"),
        ({"tags": ("rare",)}, "records_by_"),
        ({"tags": ("odd", "rare")}, "records_by_"),
        ({"tags": ("common",)}, "records_by_"),
    ],
    ids=str,
)
async def test_records_are_found_by_index(db: Any, conditions: dict[str, Any], index: str) -> None:
    statement = reads.find("default", Query(kind="item", **{**ANY, **conditions}))
    returns = (
        1 if "id" in conditions else 4 if {"partition", "prefix"} <= set(conditions) else LIMIT
    )
    await check(db, statement, index, returns=returns)


@pytest.mark.parametrize(
    "span",
    [
        Span(0, None, LIMIT, newest=True, trimmed=False),
        Span(0, None, LIMIT, newest=False, trimmed=True),
        Span(2000, None, LIMIT, newest=False, trimmed=False),
        Span(0, 2000, LIMIT, newest=True, trimmed=False),
        Span(2000, 2000 + LIMIT + 1, None, newest=False, trimmed=False),
        Span(MANY - LIMIT, None, None, newest=False, trimmed=False),
    ],
)
async def test_history_is_bounded_by_index(db: Any, span: Span) -> None:
    statement = reads.history("default", "s4000", span)
    indexes = "headers_namespace_session_id_key", "turns_pkey"
    await check(db, statement, *indexes, returns=LIMIT)


@pytest.mark.parametrize(
    ("last", "since", "turns"), [(7, None, 7), (0, "summary", 5), (0, None, 0)]
)
async def test_a_snapshot_reads_what_it_returns(
    db: Any, last: int, since: str | None, turns: int
) -> None:
    profile = Key("profile", Partition("user", "u4000"), "default")
    statement = reads.snapshot("default", "s4000", profile, last, since)
    await check(
        db, statement, "headers_namespace_session_id_key", "turns_pkey", "records_",
        returns=turns + 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "index"),
    [
        (Key("session", IN, "s4000"), "headers_namespace_session_id_key"),
        (Key("turn", IN, "r4000"), "turns_session_run_id_key"),
        (Key("item", Partition("collection", "shelf"), "item4000"), "records_"),
    ],
    ids=["session", "turn", "item"],
)
async def test_one_thing_is_got_by_index(db: Any, key: Key, index: str) -> None:
    await check(db, reads.get("default", key), index, returns=1)


SHELF_KEY = Key("item", Partition("collection", "shelf"), "item4000")
BORN = from_micros(4000)


@pytest.mark.parametrize(
    "batch",
    [
        (
            append("s4000", user_id="ann", due=("summary", "new")),
            Expect(Key("checkpoint", IN, "new"), ABSENT),
        ),
        (append("s4000", user_id="ann", run_id="r17"),),
        (append("never seen", due=("summary",)),),
        (Put(Session(session_id="s4000", user_id="ann"), ALWAYS), Put(item(IN, "i"), ABSENT)),
        (Put(item("shelf", "item4000", tags=("a", "b"), expires_at=BORN), ALWAYS),),
        (Advance("s4000", "summary", MANY - 5, MANY, "text", BORN),),
        (Trim("s4000"),),
        (Delete(SHELF_KEY),),
        (Delete(session_key("s3999")),),
        (Drop(in_session("s3999")),),
        (Drop(Partition("collection", "shelf"), "item", "item400"),),
    ],
    ids=lambda batch: " ".join(type(write).__name__ for write in batch),
)
async def test_a_write_touches_its_rows_only(db: Any, batch: tuple[Write, ...]) -> None:
    arguments = writes.arguments("default", prepare(batch, 1 << 29))
    before = await rows_read(db)
    [row] = await db.fetch(within(SCHEMA, writes.APPLY), *arguments)
    assert row["failed"] is None
    after = await rows_read(db)
    assert after[0] == before[0]
    assert after[1] - before[1] <= FEW
