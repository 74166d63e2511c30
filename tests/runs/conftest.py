"""A storage of each kind that needs no server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memory_async import InMemoryStorage, SqliteStorage, Storage


@pytest.fixture(params=["in_memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage = (
        InMemoryStorage()
        if request.param == "in_memory"
        else SqliteStorage(tmp_path / "runs.db", durability="normal")
    )
    async with made:
        yield made
