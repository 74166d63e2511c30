"""A storage of each kind, what it holds, and a model that never answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from memory_async import InMemoryStorage, Record, Session, SqliteStorage, Storage, Turn
from memory_async.records import RECORDS

Contents = dict[str, list[Record | Turn]]


@pytest.fixture(params=["in_memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage = (
        InMemoryStorage()
        if request.param == "in_memory"
        else SqliteStorage(tmp_path / "chat.db", durability="normal")
    )
    async with made:
        yield made


@pytest.fixture
def contents(storage: Storage) -> Callable[[], Awaitable[Contents]]:
    """Everything the storage holds, to compare before and after."""

    async def read() -> Contents:
        found: Contents = {}
        for kind in RECORDS:
            found[kind] = list(await storage.find(kind, limit=10_000))
        found["turn"] = [
            turn
            for session in found["session"]
            if isinstance(session, Session)
            for turn in await storage.history(session.session_id, trimmed=True)
        ]
        return {kind: records for kind, records in found.items() if records}

    return read


@pytest.fixture
def model() -> Callable[..., Awaitable[str]]:
    """A model that never answers: what the tests put into storage is not overtaken by a job."""

    async def complete(messages: list[dict[str, object]], *, schema: object = None) -> str:
        await asyncio.Event().wait()
        return ""

    return complete
