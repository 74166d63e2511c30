"""`Mem0Storage`: the conformance suites, on the Platform's calls and on an ``AsyncMemory``."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx")

from memory_async.keys import Key
from memory_async.storage.mem0.rows import key_of
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage, RunConformance, StorageConformance
from memory_async.testing.log import LogConformance
from memory_async.testing.removing import RemovalConformance
from memory_async.testing.suite import Suite
from tests.servers import mem0
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


class OnPlatform(Suite):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        return mem0.storage

    async def damage(self, storage: Storage, key: Key) -> None:
        mem0.damage(key_of(key))


class TestMem0(OnPlatform, StorageConformance):
    """Over HTTP."""

    thorough = False


class OnOwnMemory(Suite):
    @pytest.fixture
    def storages(self) -> MakeStorage:
        return mem0.own_storage

    async def damage(self, storage: Storage, key: Key) -> None:
        mem0.damage(key_of(key), "own")


class TestOwnMemory(OnOwnMemory, LogConformance, RemovalConformance):
    """A caller's own ``AsyncMemory``: what asks for other calls of Mem0's."""

    thorough = False


@pytest.mark.slow
class TestAllOnMem0(OnPlatform, StorageConformance): ...


@pytest.mark.slow
class TestAllOnOwnMemory(OnOwnMemory, StorageConformance): ...


@pytest.mark.slow
class TestRunsOnMem0(OnPlatform, RunConformance):
    """Runs that wait for a human."""


@pytest.mark.slow
class TestMem0ThroughTheFacade(ThroughTheFacade, TestMem0): ...


@pytest.mark.slow
class TestRunsOnMem0ThroughTheFacade(RunsThroughTheFacade, TestRunsOnMem0): ...
