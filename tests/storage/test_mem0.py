"""`Mem0Storage`: the conformance suites, on the Platform's calls and on an ``AsyncMemory``."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx")

from memory_async.keys import Key
from memory_async.storage.mem0.rows import key_of
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage, RunConformance, StorageConformance
from memory_async.testing.corruption import CorruptionConformance
from memory_async.testing.expect import ExpectConformance
from memory_async.testing.jobs import JobConformance
from memory_async.testing.log import LogConformance
from memory_async.testing.records import RecordConformance
from memory_async.testing.removing import RemovalConformance
from memory_async.testing.sharing import SharingConformance
from memory_async.testing.suite import Suite
from tests.servers import mem0
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


class OnPlatform(Suite):
    thorough = False

    @pytest.fixture
    def storages(self) -> MakeStorage:
        return mem0.storage

    async def damage(self, storage: Storage, key: Key) -> None:
        mem0.damage(key_of(key))


class TestMem0(OnPlatform, StorageConformance):
    """Over HTTP."""


class TestOwnMemory(
    LogConformance,
    JobConformance,
    RecordConformance,
    RemovalConformance,
    ExpectConformance,
    SharingConformance,
    CorruptionConformance,
):
    """A caller's own ``AsyncMemory``: what asks for other calls of Mem0's."""

    @pytest.fixture
    def storages(self) -> MakeStorage:
        return mem0.own_storage

    async def damage(self, storage: Storage, key: Key) -> None:
        mem0.damage(key_of(key), "own")


@pytest.mark.slow
class TestRunsOnMem0(OnPlatform, RunConformance):
    """Runs that wait for a human."""


@pytest.mark.slow
class TestMem0ThroughTheFacade(ThroughTheFacade, TestMem0): ...


@pytest.mark.slow
class TestRunsOnMem0ThroughTheFacade(RunsThroughTheFacade, TestRunsOnMem0): ...
