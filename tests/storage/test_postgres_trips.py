"""How many round trips a call takes, counted on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

asyncpg = pytest.importorskip("asyncpg")

from memory_async.keys import Partition  # noqa: E402
from memory_async.records import Session, UserProfile  # noqa: E402
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Put  # noqa: E402
from memory_async.storage.url import open_storage  # noqa: E402
from memory_async.testing.material import append, in_session, item, session_key  # noqa: E402
from tests.servers.postgres import Postgres, pgbouncer, postgres  # noqa: E402
from tests.servers.wire import Wire, wire_to  # noqa: E402

Call = Callable[[Any, int], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "append": lambda storage, n: storage.apply(append("s", due=("job",))),
    "batch": lambda storage, n: storage.apply(
        append("s", user_id=None),
        Put(item(in_session("s"), f"{n}"), ABSENT),
        Put(Session(session_id="s", metadata={"n": n}), ALWAYS),
        Advance("s", "job", n, n + 1, f"{n}"),
    ),
    "put": lambda storage, n: storage.apply(Put(UserProfile(user_id="ann"), ALWAYS)),
    "get": lambda storage, n: storage.get(session_key("s")),
    "find": lambda storage, n: storage.find("session", user_id="ann"),
    "history": lambda storage, n: storage.history("s", last=2),
    "snapshot": lambda storage, n: storage.snapshot("s", "ann", last=2, since="job"),
    "now": lambda storage, n: storage.now(Partition("session", "s")),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module")
def port(server: Postgres) -> Iterator[int]:
    with pgbouncer(server) as port:
        yield port


async def count(wire: Wire, storage: PostgresStorage, call: str) -> list[int]:
    """The round trips of the call, three times over, warm; in a session with a job and turns."""
    namespace_made = append("s", due=("job",))
    await storage.apply(namespace_made)
    await CALLS[call](storage, 0)
    trips = []
    for number in (1, 2, 3):
        wire.trips = 0
        await CALLS[call](storage, number)
        trips.append(wire.trips)
    return trips


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_is_one_round_trip(server: Postgres, call: str) -> None:
    async with wire_to(server.port) as wire:
        url = server.url(port=wire.port)
        async with PostgresStorage(url, namespace=f"one {call}") as storage:
            assert await count(wire, storage, call) == [1, 1, 1]
        assert wire.connections == 1


@pytest.mark.parametrize("call", CALLS)
async def test_the_first_on_a_connection_is_one_more(server: Postgres, call: str) -> None:
    async with (
        wire_to(server.port) as wire,
        PostgresStorage(server.url(port=wire.port), namespace=f"first {call}") as storage,
        PostgresStorage(server.url(), namespace=f"first {call}") as other,
    ):
        await other.apply(append("s", due=("job",)))
        wire.trips = 0
        await CALLS[call](storage, 0)
        assert wire.trips == 2  # the statement is prepared, and nothing asked about its types


@pytest.mark.parametrize("call", CALLS)
async def test_behind_pgbouncer_it_is_two(server: Postgres, port: int, call: str) -> None:
    async with wire_to(port) as wire:
        url = server.url(port=wire.port) + f"?pgbouncer=true&namespace=two-{call}"
        async with open_storage(url) as storage:
            assert isinstance(storage, PostgresStorage)
            assert await count(wire, storage, call) == [2, 2, 2]


async def test_a_pool_of_the_callers_adds_its_own_reset_only(server: Postgres) -> None:
    async with (
        wire_to(server.port) as wire,
        asyncpg.create_pool(server.url(port=wire.port), min_size=1) as pool,
        PostgresStorage(pool, namespace="own") as storage,
    ):
        assert await count(wire, storage, "append") == [2, 2, 2]
