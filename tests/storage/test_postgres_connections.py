"""Connections that are lost, cancelled, forked or short, and calls that the server undoes."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async import Memory  # noqa: E402
from memory_async.errors import ConfigurationError, StorageUnavailableError  # noqa: E402
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Put  # noqa: E402
from memory_async.testing.material import append, fill, header, in_session, item, seqs, texts  # noqa: E402
from tests.servers.postgres import Postgres, pgbouncer, postgres  # noqa: E402
from tests.servers.wire import Wire, wire_to  # noqa: E402

DEADLINE = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
async def admin(server: Postgres) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(server.url())
    yield connection
    await connection.close()


@pytest.fixture
async def wire(server: Postgres) -> AsyncIterator[Wire]:
    async with wire_to(server.port) as wire:
        yield wire


class TestLost:
    async def test_stale_connections_are_replaced(self, server: Postgres, wire: Wire) -> None:
        async with PostgresStorage(server.url(port=wire.port), namespace="stale") as storage:
            await asyncio.gather(*[storage.apply(append("s")) for _ in range(10)])
            for _ in range(3):
                wire.cut()
                await storage.apply(append("s"))
                wire.cut()
                assert len(await storage.history("s")) == (await header(storage, "s")).last_seq
            assert seqs(await storage.history("s")) == list(range(1, 14))

    async def test_a_lost_answer_is_asked_for_again(self, server: Postgres, wire: Wire) -> None:
        async with PostgresStorage(server.url(port=wire.port), namespace="lost") as storage:
            await storage.apply(append("s", "1", due=("job",)))
            wire.lose_next_answer()
            await storage.apply(append("s", "2"), Put(item(in_session("s"), "i", 1), ABSENT))
            assert texts(await storage.history("s")) == ["1", "2"]
            wire.lose_next_answer()
            await storage.apply(Put(item(in_session("s"), "i", 2), ALWAYS))
            wire.lose_next_answer()
            assert len(await storage.history("s")) == 2

    async def test_what_cannot_be_asked_twice_is_left_to_the_caller(
        self, server: Postgres, wire: Wire
    ) -> None:
        async with PostgresStorage(server.url(port=wire.port), namespace="unsure") as storage:
            await storage.apply(append("s", due=("job",)))
            wire.lose_next_answer()
            with pytest.raises(StorageUnavailableError):
                await storage.apply(Advance("s", "job", 0, 1, "value"))
            assert (await header(storage, "s")).jobs["job"] == (1, "value")

    async def test_a_restart_between_two_calls(self) -> None:
        with postgres() as server:
            async with PostgresStorage(server.url()) as storage:
                await asyncio.gather(*[storage.apply(append("s")) for _ in range(5)])
                server.stop()
                server.start()
                await storage.apply(append("s"))
                assert seqs(await storage.history("s")) == list(range(1, 7))
                server.stop()
                with pytest.raises(StorageUnavailableError):
                    await storage.apply(append("s"))
                server.start()
                await storage.apply(append("s"))
                assert seqs(await storage.history("s")) == list(range(1, 8))

    async def test_a_pgbouncer_that_restarts(self, server: Postgres) -> None:
        with pgbouncer(server) as port:
            storage = PostgresStorage(
                server.url(port=port), namespace="bounced", statement_cache_size=0
            )
            await asyncio.gather(*[storage.apply(append("s")) for _ in range(5)])
        with pytest.raises(StorageUnavailableError):
            await storage.apply(append("s"))
        with pgbouncer(server, listen_port=port):
            await storage.apply(append("s"))
            assert seqs(await storage.history("s")) == list(range(1, 7))
            await storage.close()

    @pytest.mark.parametrize("behind", ["directly", "pgbouncer"])
    async def test_cancelled_calls_leave_the_only_connection_usable(
        self, server: Postgres, behind: str
    ) -> None:
        with pgbouncer(server, default_pool_size=1) as port:
            url = server.url(port=port if behind == "pgbouncer" else None)
            async with PostgresStorage(
                url, namespace=f"one {behind}", max_size=1, statement_cache_size=0
            ) as storage:
                kept = [(await fill(storage, "s", 1))[0].run_id]
                for moment in range(40):
                    call = asyncio.ensure_future(storage.apply(append("s", "x" * 10_000)))
                    await asyncio.sleep(moment / 20_000)
                    call.cancel()
                    # Nobody waits until it has ended: the next one comes at once.
                    [result] = await asyncio.wait_for(storage.apply(append("s")), DEADLINE)
                    kept.append(result.turn.run_id)
                    await asyncio.wait([call])
                turns = await storage.history("s")
        assert seqs(turns) == list(range(1, len(turns) + 1))
        assert [turn.run_id for turn in turns if turn.run_id in kept] == kept


async def until_it_waits(admin: Any, count: int = 1) -> None:
    """Until so many calls wait for a lock."""
    async with asyncio.timeout(DEADLINE):
        while (
            await admin.fetchval(
                "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
            < count
        ):
            await asyncio.sleep(0.005)


class TestUndone:
    """By the server, for the sake of another transaction."""

    async def test_a_deadlock(self, server: Postgres, admin: Any) -> None:
        await admin.execute("CREATE DATABASE dead")
        # Who has waited so long looks for a circle, and gives up: we, who close it.
        await admin.execute("ALTER DATABASE dead SET deadlock_timeout = '50ms'")
        third, other = [await asyncpg.connect(server.url("dead")) for _ in "ab"]
        await other.execute("SET deadlock_timeout = '10min'")
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('default/session/s', 0))"
        async with PostgresStorage(server.url("dead")) as storage:
            await storage.apply(append("s", "1"))
            async with other.transaction():
                await other.execute("UPDATE memory_async.headers SET keep_turns = true")
                async with third.transaction():
                    await third.execute("LOCK TABLE memory_async.turns")
                    call = asyncio.ensure_future(storage.apply(append("s", "2")))
                    await until_it_waits(admin)  # with the lock of its partition
                    waiting = asyncio.ensure_future(other.execute(lock))
                    await until_it_waits(admin, 2)
                await waiting
            await call
            assert texts(await storage.history("s")) == ["1", "2"]
        deadlocks = "SELECT deadlocks FROM pg_catalog.pg_stat_database WHERE datname = 'dead'"
        assert await other.fetchval(deadlocks) == 1
        await third.close()
        await other.close()

    async def test_a_failed_serialization(self, server: Postgres, admin: Any) -> None:
        await admin.execute("CREATE DATABASE serial")
        await admin.execute(
            "ALTER DATABASE serial SET default_transaction_isolation = 'serializable'"
        )
        other = await asyncpg.connect(server.url("serial"))
        async with PostgresStorage(server.url("serial")) as storage:
            await storage.apply(append("s", "1"))
            async with other.transaction():
                await other.execute("UPDATE memory_async.headers SET keep_turns = true")
                call = asyncio.ensure_future(storage.apply(append("s", "2")))
                await until_it_waits(admin)
            await call  # it could not write over what was committed while it waited
            assert texts(await storage.history("s")) == ["1", "2"]
            assert (await header(storage, "s")).keep_turns
        await other.close()

    async def test_they_are_not_tried_for_ever(self, server: Postgres, admin: Any) -> None:
        async with PostgresStorage(server.url(), schema="dead") as storage:
            await admin.execute(
                "CREATE SEQUENCE dead.tries; CREATE FUNCTION dead.fail() RETURNS trigger "
                "LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('dead.tries'); "
                "RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END$$; "
                "CREATE TRIGGER fail BEFORE INSERT ON dead.turns EXECUTE FUNCTION dead.fail()"
            )
            with pytest.raises(StorageUnavailableError) as caught:
                await storage.apply(append("s"))
            assert isinstance(caught.value.__cause__, asyncpg.DeadlockDetectedError)
            assert await admin.fetchval("SELECT last_value FROM dead.tries") == 5
            assert await storage.history("s") == []


class TestPools:
    async def test_the_callers_pool_is_not_closed(self, server: Postgres) -> None:
        async with asyncpg.create_pool(server.url(), min_size=1) as pool:
            async with PostgresStorage(pool, namespace="own") as storage:
                await fill(storage, "s", 2)
            assert await pool.fetchval("SELECT 1") == 1
            async with PostgresStorage(pool, namespace="own") as storage:
                assert seqs(await storage.history("s")) == [1, 2]

    async def test_codecs_of_the_callers_pool_do_not_matter(self, server: Postgres) -> None:
        async def init(connection: Any) -> None:
            for name in ("json", "jsonb"):
                await connection.set_type_codec(
                    name, encoder=repr, decoder=len, schema="pg_catalog"
                )

        async with (
            asyncpg.create_pool(server.url(), min_size=1, init=init) as pool,
            PostgresStorage(pool, namespace="codecs") as storage,
        ):
            await storage.apply(append("s", "hello", usage={"n": 1}))
            assert texts((await storage.snapshot("s")).turns) == ["hello"]

    async def test_64_sessions_share_few_connections(self, server: Postgres, wire: Wire) -> None:
        url = server.url(port=wire.port)
        async with PostgresStorage(url, namespace="64", min_size=1, max_size=3) as storage:
            assert wire.connections == 1
            memory = Memory(storage, full_session_memory=True)

            async def talk(session_id: str) -> list[str]:
                view = memory.bind(session_id=session_id)
                for number in range(5):
                    await view.save({"role": "user", "content": f"{session_id} {number}"})
                return [message.text for message in await view.messages()]

            names = [f"s{number}" for number in range(64)]
            assert await asyncio.gather(*map(talk, names)) == [
                [f"{name} {number}" for number in range(5)] for name in names
            ]
            await memory.close()
        assert wire.connections == 3

    async def test_a_pool_of_another_loop_is_told_so(self, server: Postgres) -> None:
        async with asyncpg.create_pool(server.url(), min_size=1) as pool:
            storage = PostgresStorage(pool)

            def elsewhere() -> None:
                with pytest.raises(ConfigurationError, match=r"asyncpg\.Pool.*another event loop"):
                    asyncio.run(storage.open())

            await asyncio.to_thread(elsewhere)

    async def test_a_pool_that_is_not_connected_is_told_so(self, server: Postgres) -> None:
        pool = asyncpg.create_pool(server.url(), min_size=1)
        with pytest.raises(ConfigurationError, match="await it first"):
            await PostgresStorage(pool).open()

    async def test_a_pool_closed_by_its_owner_is_told_so(self, server: Postgres) -> None:
        pool = await asyncpg.create_pool(server.url(), min_size=1)
        storage = PostgresStorage(pool)
        await storage.open()
        await pool.close()
        with pytest.raises(StorageUnavailableError, match="pool is clos"):
            await storage.history("s")

    async def test_a_forked_child_makes_its_own_connections(self, server: Postgres) -> None:
        url = server.url()
        async with (
            asyncpg.create_pool(url, min_size=1) as pool,
            PostgresStorage(url, namespace="fork") as storage,
            PostgresStorage(pool, namespace="fork") as given,
        ):
            await storage.apply(append("s", "parent"))
            if (child := os.fork()) == 0:
                code = 1
                try:
                    code = in_child(storage, given)
                except BaseException:  # noqa: BLE001 - shown: this process has no report of its own
                    traceback.print_exc()
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await storage.apply(append("s", "parent again"))
            assert texts(await given.history("s")) == ["parent", "child", "parent again"]


def in_child(storage: PostgresStorage, given: PostgresStorage) -> int:
    asyncio._set_running_loop(None)  # it was forked within one

    async def work() -> int:
        await storage.apply(append("s", "child"))
        await storage.close()
        try:
            await given.history("s")
        except ConfigurationError:
            return 0
        return 2

    loop = asyncio.new_event_loop()
    return loop.run_until_complete(work())
