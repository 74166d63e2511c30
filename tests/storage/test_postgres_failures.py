"""What is wrong with a server or a URL, and what is said of it: clearly, soon, no password."""

from __future__ import annotations

import asyncio
import subprocess
import sys
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
from memory_async.storage.postgres import PostgresStorage, migrations  # noqa: E402
from memory_async.storage.protocol import ABSENT, Put  # noqa: E402
from memory_async.storage.url import open_storage  # noqa: E402
from memory_async.testing.material import append, fill, in_session, item, seqs  # noqa: E402
from tests.servers.postgres import (  # noqa: E402
    LOCKED,
    PASSWORD,
    QUOTED,
    Postgres,
    free_port,
    pgbouncer,
    postgres,
)

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

    def test_without_the_package(self) -> None:
        script = (
            "import sys; sys.modules['asyncpg'] = None\n"
            "from memory_async import open_storage\n"
            f"open_storage('postgresql://ann:{QUOTED}@localhost/app')"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        last = done.stderr.strip().splitlines()[-1]
        assert "ConfigurationError" in last
        assert "memory-async[postgres]" in last

    async def test_a_pgbouncer_that_was_not_mentioned(self, server: Postgres) -> None:
        with pgbouncer(server) as port:
            other = await asyncpg.connect(server.url(port=port), statement_cache_size=0)
            async with PostgresStorage(server.url(port=port), namespace="mixed") as storage:
                await storage.apply(append("s"))
                async with other.transaction():  # has the connection that knows our statements
                    with pytest.raises(ConfigurationError, match="pgbouncer=true"):
                        await storage.apply(append("s"))
            await other.close()


class TestSchema:
    async def test_an_older_schema_is_brought_up_to_date(
        self, server: Postgres, admin: Any, locked: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, *rest = migrations.migrations()
        script = "CREATE VIEW memory_async.newest AS SELECT max(seq) FROM memory_async.turns"
        async with PostgresStorage(server.url(), schema="older") as storage:
            await storage.apply(append("s"))
        newest = rest[-1][0] + 1
        monkeypatch.setattr(migrations, "migrations", lambda: [first, *rest, (newest, script)])
        tables = "ALL TABLES IN SCHEMA older"
        await admin.execute(f"GRANT USAGE ON SCHEMA older TO {LOCKED}")
        await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {LOCKED}")
        error = await refused(PostgresStorage(locked, schema="older"))
        assert "the role needs rights" in str(error)
        async with PostgresStorage(server.url(), schema="older") as storage:
            await storage.apply(append("s"))
        assert await admin.fetchval("SELECT max FROM older.newest") == 2
        assert await admin.fetch("SELECT version FROM older.schema_version") == [(newest,)]
        async with PostgresStorage(locked, schema="older") as storage:
            assert seqs(await storage.history("s")) == [1, 2]

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
