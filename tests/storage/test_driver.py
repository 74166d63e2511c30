"""What `Driver` does for every driver, seen through two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.keys import utc_now
from memory_async.storage.driver import Driver
from memory_async.storage.in_memory import InMemoryStorage
from memory_async.storage.protocol import Storage, SupportsTTL
from memory_async.storage.sqlite import SqliteStorage
from memory_async.testing.material import append, fill, in_session

Make = Callable[[], Driver]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return InMemoryStorage
    return lambda: SqliteStorage(tmp_path / "memory.db")


def test_the_drivers_meet_the_protocol(make: Make) -> None:
    storage = make()
    assert isinstance(storage, Storage)
    assert not isinstance(storage, SupportsTTL)
    assert storage.unpromised == frozenset()
    assert type(storage).__name__ in repr(storage)


async def test_now_is_the_hosts_clock(make: Make) -> None:
    async with make() as storage:
        before = utc_now()
        assert before <= await storage.now(in_session("s")) <= utc_now()


async def test_what_is_no_write_is_refused(make: Make) -> None:
    async with make() as storage:
        nonsense: Any = "nonsense"
        with pytest.raises(ConfigurationError, match="'nonsense' is no write"):
            await storage.apply(nonsense)


async def test_a_loop_that_is_gone_is_no_obstacle_to_closing(make: Make) -> None:
    storage = make()

    def elsewhere() -> None:
        asyncio.run(_fill(storage))

    await asyncio.to_thread(elsewhere)
    with pytest.raises(ConfigurationError, match="another event loop"):
        await storage.history("s")
    await storage.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        await storage.history("s")


async def _fill(storage: Driver) -> None:
    await fill(storage, "s", 1)


@pytest.mark.parametrize("steps", range(8))
async def test_closing_while_it_opens_leaves_nothing_open(make: Make, steps: int) -> None:
    storage = make()
    calls: list[Any] = [storage.open(), storage.open(), storage.history("s")]
    calls.append(storage.apply(append("s")))
    tasks = [asyncio.ensure_future(call) for call in calls]
    for _ in range(steps):
        await asyncio.sleep(0)
    await storage.close()
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert not isinstance(answer, BaseException) or isinstance(answer, StorageUnavailableError)
    if isinstance(storage, SqliteStorage):
        assert storage._connections == []
