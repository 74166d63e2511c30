"""`PostgresStorage`: the conformance suite, directly and through pgbouncer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async import ABSENT, Memory, Put, UserProfile  # noqa: E402
from memory_async.keys import Key  # noqa: E402
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.storage.protocol import Storage  # noqa: E402
from memory_async.testing import MakeStorage, StorageConformance  # noqa: E402
from memory_async.testing.runs import RunConformance  # noqa: E402
from tests.servers.postgres import Postgres, pgbouncer, postgres  # noqa: E402
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade  # noqa: E402

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


class TestPostgres(StorageConformance):
    @pytest.fixture
    def storages(self, server: Postgres) -> MakeStorage:
        self.url = server.url()

        def make(namespace: str = "default") -> Storage:
            return PostgresStorage(server.url(), namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        await damage(self.url, key)


class TestPgbouncer(TestPostgres):
    @pytest.fixture
    def storages(self, server: Postgres, port: int) -> MakeStorage:
        self.url = server.url()

        def make(namespace: str = "default") -> Storage:
            url = server.url(port=port)
            return PostgresStorage(url, namespace=namespace, statement_cache_size=0)

        return make


class TestRunsOnPostgres(RunConformance):
    """Runs that wait for a human."""

    @pytest.fixture
    def storages(self, server: Postgres) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return PostgresStorage(server.url(), namespace=namespace)

        return make


class TestPostgresThroughTheFacade(ThroughTheFacade, TestPostgres): ...


class TestRunsOnPostgresThroughTheFacade(RunsThroughTheFacade, TestRunsOnPostgres): ...


async def test_the_views_of_the_readme_read_well(server: Postgres) -> None:
    async with PostgresStorage(server.url(), namespace="views") as storage:
        memory = Memory(storage, "chat-1", "ada", full_session_memory=True)
        question = {"role": "user", "content": "NUL \0 and all?"}
        await memory.save([question, {"role": "assistant", "content": "Yes."}])
        await memory.set_metadata({"title": "a chat"})
        await storage.apply(Put(UserProfile(user_id="ada", traits={"likes": ["tea"]}), ABSENT))
    connection = await asyncpg.connect(server.url())
    lines = await connection.fetch(
        "SELECT saved_at, role, content FROM memory_async.conversations"
        " WHERE namespace = 'views' AND session_id = 'chat-1' ORDER BY turn, line"
    )
    users = await connection.fetch(
        "SELECT user_id, traits, sessions FROM memory_async.users WHERE namespace = 'views'"
    )
    await connection.close()
    assert [(line["role"], line["content"]) for line in lines] == [
        ("user", "NUL \ufffd and all?"),
        ("assistant", "Yes."),
    ]
    assert [(u["user_id"], u["sessions"]) for u in users] == [("ada", 1)]
    assert "tea" in users[0]["traits"]
