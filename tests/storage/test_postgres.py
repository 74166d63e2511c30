"""`PostgresStorage`: the conformance suite, directly and through pgbouncer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async import ABSENT, Memory, Put, UserProfile  # noqa: E402
from memory_async.keys import Key  # noqa: E402
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.storage.protocol import Storage  # noqa: E402
from memory_async.testing import MakeStorage, StorageConformance  # noqa: E402
from memory_async.testing.material import append, texts, unique  # noqa: E402
from memory_async.testing.runs import RunConformance  # noqa: E402
from tests.servers.postgres import Postgres, pgbouncer, postgres  # noqa: E402
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade  # noqa: E402

README = Path(__file__).parents[2] / "README.md"
DAMAGE = {
    "turn": """
        UPDATE memory_async.turns SET payload = '[]' WHERE run_id = $1 AND $3 = 'session'
        AND session = (SELECT id FROM memory_async.headers WHERE session_id = $2)""",
    "session": """
        UPDATE memory_async.headers SET payload = '{}' WHERE session_id = $1
        AND $2 = session_id AND $3 = 'session'""",
    "record": """
        UPDATE memory_async.records SET payload = '[]'
        WHERE record_id = $1 AND partition = $3 || '/' || $2""",
}


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def port(server: Postgres) -> Iterator[int]:
    with pgbouncer(server) as port:
        yield port


async def damage(url: str, key: Key) -> None:
    connection = await asyncpg.connect(url)
    sql = DAMAGE.get(key.kind, DAMAGE["record"])
    done = await connection.execute(sql, key.id, key.partition.id, key.partition.space)
    assert done == "UPDATE 1"
    await connection.close()


def through_pgbouncer(server: Postgres, port: int) -> MakeStorage:
    def make(namespace: str = "default") -> Storage:
        url = server.url(port=port)
        return PostgresStorage(url, namespace=namespace, statement_cache_size=0)

    return make


class TestPostgres(StorageConformance):
    @pytest.fixture
    def storages(self, server: Postgres) -> MakeStorage:
        self.url = server.url()

        def make(namespace: str = "default") -> Storage:
            return PostgresStorage(server.url(), namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        await damage(self.url, key)


@pytest.mark.no_cover
class TestPgbouncer(TestPostgres):
    @pytest.fixture
    def storages(self, server: Postgres, port: int) -> MakeStorage:
        self.url = server.url()
        return through_pgbouncer(server, port)

    async def test_ten_megabytes(self, storage: Storage) -> None:
        s, text = unique("session"), "é\0" * 3_500_000
        await storage.apply(append(s, text))
        assert texts(await storage.history(s)) == [text]


@pytest.mark.no_cover
class TestRunsOnPostgres(RunConformance):
    """Runs that wait for a human."""

    @pytest.fixture
    def storages(self, server: Postgres) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return PostgresStorage(server.url(), namespace=namespace)

        return make


class TestRunsOnPgbouncer(TestRunsOnPostgres):
    @pytest.fixture
    def storages(self, server: Postgres, port: int) -> MakeStorage:
        return through_pgbouncer(server, port)


class TestPostgresThroughTheFacade(ThroughTheFacade, TestPostgres): ...


class TestRunsOnPostgresThroughTheFacade(RunsThroughTheFacade, TestRunsOnPostgres): ...


class TestPgbouncerThroughTheFacade(ThroughTheFacade, TestPgbouncer): ...


class TestRunsOnPgbouncerThroughTheFacade(RunsThroughTheFacade, TestRunsOnPgbouncer): ...


async def test_the_views_of_the_readme_read_well(server: Postgres) -> None:
    async with PostgresStorage(server.url(), namespace="views") as storage:
        memory = Memory(storage, "chat-1", "ada", full_session_memory=True)
        question = {"role": "user", "content": "NUL \0 and all?"}
        await memory.save([question, {"role": "assistant", "content": "Yes."}])
        await memory.set_metadata({"title": "a chat"})
        await storage.apply(Put(UserProfile(user_id="ada", traits={"likes": ["tea"]}), ABSENT))
    [shown] = re.findall(
        r"^```sql\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    said, known = shown.replace("'default'", "'views'").split(";")[:2]
    connection = await asyncpg.connect(server.url())
    lines, users = await connection.fetch(said), await connection.fetch(known)
    more = await connection.fetchrow(
        "SELECT turns, metadata, summary FROM memory_async.sessions WHERE namespace = 'views'"
    )
    await connection.close()
    assert [tuple(line)[1:] for line in lines] == [
        ("user", "NUL \ufffd and all?"),
        ("assistant", "Yes."),
    ]
    assert abs(lines[0]["saved_at"] - datetime.now(UTC)) < timedelta(minutes=5)
    assert [tuple(user) for user in users] == [("ada", '{"likes": ["tea"]}', 1)]
    assert tuple(more) == (1, '{"title": "a chat"}', None)
