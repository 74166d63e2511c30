"""The suites through the sync facade: put one of these before a driver's own test class::

class TestMineThroughTheFacade(ThroughTheFacade, TestMine): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from memory_async import Key, Storage, sync
from memory_async.testing import MakeStorage
from memory_async.testing.run_suite import RunSuite
from memory_async.testing.suite import Suite
from tests.sync import dressed
from tests.sync.threaded import Threaded

__all__ = ["RunsThroughTheFacade", "ThroughTheFacade"]


@pytest.mark.no_cover  # the drivers' own tests show what of them is reached
class ThroughTheFacade(Suite):
    """`sync.Storage` over the driver, each call from a thread."""

    one_loop = False

    within: ClassVar[bool | None] = None
    """Whether a storage is used in a ``with``, or bare; None: each in turn."""

    @pytest_asyncio.fixture
    async def make(self, storages: MakeStorage) -> AsyncIterator[MakeStorage]:
        made: list[Threaded] = []

        def make(namespace: str = "default") -> Storage:
            within = len(made) % 2 == 0 if self.within is None else self.within
            made.append(Threaded(sync.Storage(storages(namespace=namespace)), within=within))
            return made[-1]

        yield make
        for storage in made:
            await storage.close()

    async def damage(self, storage: Storage, key: Key) -> None:
        assert isinstance(storage, Threaded)
        await super().damage(storage.storage._driver, key)


class RunsThroughTheFacade(ThroughTheFacade, RunSuite):
    """`sync.Memory` and `sync.Inbox` over that."""

    @pytest.fixture(autouse=True)
    def _facades(self) -> Iterator[None]:
        self.facades = dressed.Facades()
        yield
        self.facades.close()

    def memory(self, storage: Storage, *args: Any, **kwargs: Any) -> Any:
        return self.facades.make(dressed.Memory, sync.Memory, storage, *args, **kwargs)

    def inbox(self, storage: Storage) -> Any:
        return self.facades.make(dressed.Inbox, sync.Inbox, storage)
