"""What all parts of the suite share: the fixtures a driver's author fills in, and what to skip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar, Protocol, TypeVar

import pytest
import pytest_asyncio

from memory_async.keys import Key
from memory_async.storage.protocol import Storage
from memory_async.testing.material import unique

Test = TypeVar("Test", bound=Callable[..., Any])

PROMISES = {
    "compare-and-set": "of several writers racing for one record or cursor, exactly one wins",
    "transactions": "a batch is whole or absent at every moment and after every failure",
    "unique seq": "turns appended at once get different seq, the same run only one",
}
"""What a driver may name in `Storage.unpromised`; everything else is asked of every driver."""


class MakeStorage(Protocol):
    """What the fixture ``storages`` returns: a new storage object over the same data."""

    def __call__(self, namespace: str = "default") -> Storage: ...


def promises(*names: str) -> Callable[[Test], Test]:
    """Skip a test on storages whose ``unpromised`` holds one of ``names`` (see `PROMISES`)."""
    assert set(names) <= set(PROMISES)
    return lambda test: _require(test, *names)


def two_objects(test: Test) -> Test:
    """Skip a test on storages of which a second object sees nothing of the first."""
    return _require(test, "shared")


def one_loop(test: Test) -> Test:
    """Skip a test on storages that serve several event loops."""
    return _require(test, "one_loop")


def _require(test: Test, *names: str) -> Test:
    test.__dict__["requires"] = {*test.__dict__.get("requires", ()), *names}
    return test


class Suite:
    """The fixtures of `memory_async.testing.StorageConformance`."""

    pytestmark = pytest.mark.asyncio

    shared: ClassVar[bool] = True
    """False: each storage object has data of its own, so tests with two objects are skipped."""

    one_loop: ClassVar[bool] = True
    """False: the storage may be used from several event loops (as a synchronous facade may)."""

    thorough: ClassVar[bool] = True
    """False, for a slow server: of what is tested with many values of a kind, with a few only."""

    @pytest.fixture
    def storages(self) -> MakeStorage:
        """To be overridden: a function ``make(namespace="default")`` that returns a new storage."""
        raise NotImplementedError(
            "override the fixture `storages`: return a function make(namespace='default') "
            "that gives a new storage object over the same data"
        )

    async def damage(self, storage: Storage, key: Key) -> None:
        """To be overridden: overwrite the stored payload at ``key`` (a turn, a session header or
        another record) with rubbish, behind the back of ``storage``."""
        pytest.skip("override damage(storage, key) to test how corrupt rows are read")

    @pytest_asyncio.fixture
    async def make(self, storages: MakeStorage) -> AsyncIterator[MakeStorage]:
        """``storages``, with everything made closed at the end of the test."""
        made: list[Storage] = []

        def make(namespace: str = "default") -> Storage:
            made.append(storages(namespace=namespace))
            return made[-1]

        yield make
        for storage in made:
            await storage.close()

    @pytest_asyncio.fixture
    async def storage(self, make: MakeStorage) -> Storage:
        """A storage which may hold what other tests left."""
        return make()

    @pytest_asyncio.fixture
    async def fresh(self, make: MakeStorage) -> Storage:
        """A storage in a namespace nobody has written to."""
        return make(namespace=unique("namespace"))

    @pytest_asyncio.fixture(autouse=True)
    async def _skip_what_is_not_promised(
        self, request: pytest.FixtureRequest, make: MakeStorage
    ) -> None:
        required: set[str] = getattr(request.function, "requires", set())
        if "shared" in required and not self.shared:
            pytest.skip("needs two objects over the same data; here each has its own")
        if "one_loop" in required and not self.one_loop:
            pytest.skip("this storage serves several event loops")
        names = required & PROMISES.keys()
        if names and (missing := sorted(names & make().unpromised)):
            pytest.skip(f"not promised by this storage: {', '.join(missing)}")
