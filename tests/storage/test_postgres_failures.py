"""What can go wrong with a server, and what is said of it: clearly, soon, without the password."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async.errors import (  # noqa: E402
    ConfigurationError,
    MemoryAsyncError,
    PayloadError,
    SchemaTooNewError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Put  # noqa: E402
from memory_async.storage.url import open_storage  # noqa: E402
from memory_async.testing.material import append, fill, header, in_session, item, seqs, texts  # noqa: E402
from tests.servers.postgres import LOCKED, PASSWORD, QUOTED, Postgres, free_port, postgres  # noqa: E402
from tests.servers.wire import Wire, wire_to  # noqa: E402

DEADLINE = 10


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
async def locked(server: Postgres, admin: Any) -> AsyncIterator[str]:
    """The URL of a role that has a password, and no right to create anything."""
    await admin.execute(f"CREATE ROLE {LOCKED} LOGIN PASSWORD '{PASSWORD}'")
    yield server.url(user=f"{LOCKED}:{QUOTED}")
    await admin.execute(f"DROP OWNED BY {LOCKED}")
    await admin.execute(f"DROP ROLE {LOCKED}")


async def refused(storage: Any) -> MemoryAsyncError:
    """The one error that opening ends with, soon and without a secret."""
    with pytest.raises(MemoryAsyncError) as caught:
        async with asyncio.timeout(DEADLINE):
            await storage.open()
    await storage.close()
    told = "".join(traceback.format_exception(caught.value)) + repr(storage)
    assert PASSWORD not in told
    assert QUOTED not in told
    return caught.value


class TestOpening:
    async def test_a_server_that_is_down(self) -> None:
        url = f"postgresql://ann:{QUOTED}@127.0.0.1:{free_port()}/app"
        error = await refused(open_storage(url))
        assert isinstance(error, StorageUnavailableError)
        assert isinstance(error.__cause__, OSError)
        assert "cannot reach postgresql://ann@127.0.0.1" in str(error)

    async def test_a_server_that_never_answers(self) -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(silence, "127.0.0.1", 0) as mute:
            port = mute.sockets[0].getsockname()[1]
            url = f"postgresql://ann:{QUOTED}@127.0.0.1:{port}/app?connect_timeout=0.1"
            error = await refused(open_storage(url))
        assert isinstance(error, StorageUnavailableError)
        assert "did not answer in time" in str(error)

    async def test_a_wrong_password(self, server: Postgres, locked: str) -> None:
        wrong = locked.replace("word", "word-of-another")
        error = await refused(open_storage(wrong))
        assert isinstance(error, StorageUnavailableError)
        assert "refused the login" in str(error)
        assert "another" not in str(error)
        assert isinstance(error.__cause__, asyncpg.PostgresError)

    async def test_an_unknown_database(self, server: Postgres) -> None:
        error = await refused(PostgresStorage(server.url("nowhere")))
        assert isinstance(error, StorageUnavailableError)
        assert '"nowhere" does not exist' in str(error)

    async def test_no_right_to_create(self, locked: str) -> None:
        error = await refused(PostgresStorage(locked, schema="mine"))
        assert isinstance(error, StorageUnavailableError)
        assert "permission denied" in str(error)
        assert "rights" in str(error)
        assert isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError)

    async def test_no_right_to_create_is_needed_once_all_is_there(
        self, server: Postgres, admin: Any, locked: str
    ) -> None:
        async with PostgresStorage(server.url(), schema="ours") as storage:
            await fill(storage, "s", 1)
        error = await refused(PostgresStorage(locked, schema="ours"))
        assert "permission denied for schema ours" in str(error)
        await admin.execute(f"GRANT USAGE ON SCHEMA ours TO {LOCKED}")
        tables = "ALL TABLES IN SCHEMA ours"
        await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {LOCKED}")
        async with PostgresStorage(locked, schema="ours") as storage:
            await storage.apply(append("s"), Put(item(in_session("s"), "i"), ABSENT))
            assert seqs(await storage.history("s")) == [1, 2]

    async def test_a_database_in_another_encoding(self, server: Postgres, admin: Any) -> None:
        await admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
        error = await refused(PostgresStorage(server.url("latin")))
        assert isinstance(error, ConfigurationError)
        assert "LATIN1" in str(error)

    async def test_an_isolation_that_hides_what_others_commit(
        self, server: Postgres, admin: Any, locked: str
    ) -> None:
        await admin.execute(
            f"ALTER ROLE {LOCKED} SET default_transaction_isolation = 'repeatable read'"
        )
        error = await refused(PostgresStorage(locked))
        assert isinstance(error, ConfigurationError)
        assert "read committed" in str(error)

    @pytest.mark.parametrize(
        "rest",
        [
            "ann:p@ss/wo%rd@host/app", "ann:s3cret/word@host/app", "ann:s3cret#word@host/app",
            "ann:s3 cret@host/app", "host:s3cret/app",
        ],
    )  # fmt: skip
    def test_a_url_that_cannot_be_read_is_not_repeated(self, rest: str) -> None:
        for make in (open_storage, PostgresStorage):
            with pytest.raises(ConfigurationError, match="percent encoding") as caught:
                make(f"postgresql://{rest}")
            told = "".join(traceback.format_exception(caught.value))
            assert not any(part in told for part in ("s3", "cret", "wo%rd", "p@ss"))

    @pytest.mark.parametrize(
        ("query", "message"),
        [("min_size=9&max_size=3", "min_size"), ("max_size=0", "max_size"), ("max_size=x", "int"),
         ("schema=a-b", "schema"), ("pgbouncer=perhaps", "boolean"), ("ttl=3", "ttl"),
         ("statement_cache_size=-1", "statement_cache_size")],
    )  # fmt: skip
    async def test_impossible_options_are_refused(self, query: str, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            await open_storage(f"postgresql://host/app?{query}").open()

    def test_options_of_the_driver_are_not_for_a_bare_url(self) -> None:
        with pytest.raises(ConfigurationError, match="open_storage"):
            PostgresStorage("postgresql://host/app?namespace=a")
        with pytest.raises(ConfigurationError, match="int"):
            PostgresStorage(3)  # type: ignore[arg-type]

    async def test_what_libpq_knows_goes_through(self, server: Postgres) -> None:
        async with open_storage(server.url() + "?application_name=chat&schema=named") as storage:
            [[name]] = await storage._fetch("SHOW application_name")  # type: ignore[attr-defined]
        assert name == "chat"
        assert "memory@127.0.0.1" in repr(storage)


class TestSchema:
    async def test_a_newer_schema_is_left_alone(self, server: Postgres, admin: Any) -> None:
        async with PostgresStorage(server.url(), schema="newer"):
            await admin.execute("UPDATE newer.schema_version SET version = 99")
        error = await refused(PostgresStorage(server.url(), schema="newer"))
        assert isinstance(error, SchemaTooNewError)
        assert "99" in str(error)
        assert await admin.fetchval("SELECT version FROM newer.schema_version") == 99

    async def test_tables_that_vanish_are_an_error(self, server: Postgres, admin: Any) -> None:
        async with PostgresStorage(server.url(), schema="vanishing") as storage:
            await admin.execute("DROP SCHEMA vanishing CASCADE")
            with pytest.raises(StorageError, match="removed"):
                await storage.history("s")
            with pytest.raises(StorageError, match="removed"):
                await storage.apply(append("s"))

    async def test_too_large_is_refused_before_it_is_sent(
        self, server: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PostgresStorage, "max_payload_bytes", 1000)
        async with PostgresStorage(server.url(), schema="large") as storage:
            with pytest.raises(PayloadError, match="at most 1000"):
                await storage.apply(append("s", "x" * 1000))
            assert await storage.history("s") == []


class TestLost:
    @pytest.fixture
    async def wire(self, server: Postgres) -> AsyncIterator[Wire]:
        async with wire_to(server.port) as wire:
            yield wire

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


class TestUndone:
    async def test_serialization_failures_are_tried_again(
        self, server: Postgres, admin: Any, locked: str
    ) -> None:
        await admin.execute(f"ALTER ROLE {LOCKED} SET default_transaction_isolation = serializable")
        await admin.execute(f"GRANT CREATE ON DATABASE postgres TO {LOCKED}")
        async with PostgresStorage(locked, schema="serial", max_size=3) as storage:
            await asyncio.gather(*[storage.apply(append("s")) for _ in range(10)])
            assert seqs(await storage.history("s")) == list(range(1, 11))

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
