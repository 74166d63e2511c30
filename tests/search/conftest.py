"""A storage of each way to search: by the engine's full text, and by looking at what is there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memory_async import InMemoryStorage, SqliteStorage, Storage


@pytest.fixture(params=["in_memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage = (
        InMemoryStorage()
        if request.param == "in_memory"
        else SqliteStorage(tmp_path / "chat.db", durability="normal")
    )
    async with made:
        yield made
