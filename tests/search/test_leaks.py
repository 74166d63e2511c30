"""Whoever searches finds their own words only, on every storage."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("Stemmer")

from memory_async import (
    ConflictError,
    InMemoryStorage,
    JSONStorage,
    Memory,
    SqliteStorage,
    Storage,
)
from memory_async.indexing import SearchJob
from memory_async.testing.material import unique
from tests.servers.postgres import postgres

Make = Callable[[str], Storage]

WORDS = ("sailing", "boat", "harbour", "the", "café", "山登り", "u0", "user/u1", '"', "OR", "_")
USERS = (None, "u0", "u1", "user/u1", "u0 ")


class Said(NamedTuple):
    namespace: int
    user: str | None
    session: int
    words: list[str]
    indexed: bool


saids = st.builds(
    Said,
    st.integers(0, 1),
    st.sampled_from(USERS),
    st.integers(0, 1),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    st.booleans(),
)
queries = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    pytest.importorskip("asyncpg")
    with postgres() as server:
        yield server.url()


@pytest.fixture(params=["memory", "sqlite", "json", "postgres", "redis", "mongo", "mem0"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    made: dict[str, Storage] = {}
    mongo_database = unique("leaks")

    def new(namespace: str) -> Storage:
        match request.param:
            case "memory":
                return InMemoryStorage(namespace=namespace)
            case "sqlite":
                return SqliteStorage(tmp_path / "a.db", namespace=namespace, durability="normal")
            case "json":
                return JSONStorage(tmp_path / "json", namespace=namespace)
            case "postgres":
                from memory_async import PostgresStorage

                url = request.getfixturevalue("postgres_url")
                return PostgresStorage(url, namespace=namespace)
            case "mongo":
                pytest.importorskip("motor")
                from tests.servers import mongo

                return mongo.storages(database=mongo_database)(namespace)
            case "mem0":
                pytest.importorskip("httpx")
                from tests.servers import mem0

                return mem0.storage(namespace)
            case _:
                pytest.importorskip("redis")
                from memory_async import RedisStorage
                from tests.servers.redis import shared

                return RedisStorage(shared().url, namespace=namespace)

    def storage(namespace: str) -> Storage:
        if namespace not in made:
            made[namespace] = new(namespace)
        return made[namespace]

    yield storage
    for each in made.values():
        await each.close()


async def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0 + len(text) % 3, 1.0 + text.count("a"), 1.0] for text in texts]


@given(st.lists(saids, min_size=2, max_size=8), queries)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_nobody_finds_what_others_said(make: Make, world: list[Said], query: str) -> None:
    run = uuid.uuid4().hex[:8]

    def view(namespace: int, user: str | None, session: int, *, indexed: bool = True) -> Memory:
        owner = None if user is None else f"{user}{run}"
        return Memory(
            make(f"n{namespace}"),
            f"{USERS.index(user)} {session} {run}",
            owner,
            search_memory=indexed,
            full_session_memory=True,
            embed=embed if session else None,
        )

    own: dict[tuple[int, str | None], set[str]] = {}
    by_session: dict[tuple[int, str | None, int], set[str]] = {}
    for number, each in enumerate(world):
        text = f"{' '.join(each.words)} secret{number}x"
        memory = view(*each[:3], indexed=each.indexed)
        await memory.save({"role": "user", "content": text})
        if each.indexed:
            await memory.drain()
        await memory.close()
        own.setdefault(each[:2], set()).add(text)
        by_session.setdefault(each[:3], set()).add(text)

    for namespace, user, session in {each[:3] for each in world} | {(1, "u0", 0)}:
        memory = view(namespace, user, session)
        here = by_session.get((namespace, user, session), set())
        reach = own.get((namespace, user), set()) if user is not None else here
        found = {hit.text for hit in await memory.search(query, limit=50)}
        assert found <= reach
        narrow = await memory.search(query, limit=50, session_id=memory.session_id)
        assert {hit.text for hit in narrow} <= here
        instructions = (await memory.load(query=query)).instructions
        for number, each in enumerate(world):
            mine = f"{' '.join(each.words)} secret{number}x" in reach
            assert mine or f"secret{number}x" not in instructions
        await memory.close()


async def test_a_late_step_tells_nothing_to_who_began_anew(make: Make) -> None:
    session_id, ann, bob = unique("session"), unique("user"), unique("user")
    was = Memory(make("n0"), session_id, ann, search_memory=True)
    await was.save({"role": "user", "content": "the secret harbour"}, run_id="first")
    session, turns = await was.session(), await was.turns()
    assert session is not None
    assert await was.delete_session()
    memory = Memory(make("n0"), session_id, bob, search_memory=True)
    await memory.save({"role": "user", "content": "the boat"}, run_id="first")
    assert await memory.drain()
    with suppress(ConflictError):  # it was about to move on in a session that is gone
        await SearchJob().step(make("n0"), session, turns)
    assert {hit.text for hit in await memory.search("boat secret harbour")} <= {"the boat"}
    await memory.close()
    await was.close()
