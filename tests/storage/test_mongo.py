"""`MongoStorage`: the conformance suite with either client, with transactions and without.

The test server takes its time, so of what does not differ only one of the ways is tested here, with
few values of a kind; all of them, with all values, are ``slow``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("motor")

from pymongo import AsyncMongoClient

from memory_async.keys import Key
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage, RunConformance, StorageConformance
from memory_async.testing.batches import BatchConformance
from memory_async.testing.corruption import CorruptionConformance
from memory_async.testing.expect import ExpectConformance
from memory_async.testing.jobs import JobConformance
from memory_async.testing.log import LogConformance
from memory_async.testing.removing import RemovalConformance
from memory_async.testing.run_claims import ClaimConformance
from memory_async.testing.run_crashes import CrashConformance
from memory_async.testing.sharing import SharingConformance
from memory_async.testing.suite import Suite
from tests.servers import mongo
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


class Mongo(Suite):
    transactions: ClassVar[bool] = True

    @pytest.fixture
    def client(self) -> Any:
        """None: the storage opens Motor."""
        return None

    @pytest.fixture
    def storages(self, client: Any) -> MakeStorage:
        return mongo.storages(transactions=self.transactions, client=client)

    async def damage(self, storage: Storage, key: Key) -> None:
        mongo.damage(storage, key, transactions=self.transactions)


class PyMongo(Mongo):
    """With a client of the caller's, PyMongo's own."""

    @pytest.fixture
    async def client(self) -> AsyncIterator[Any]:
        client: Any = AsyncMongoClient(mongo.url_of(transactions=self.transactions))
        yield client
        await client.close()


class TestMotor(Mongo, StorageConformance):
    thorough = False


class TestPyMongoWithoutTransactions(
    PyMongo,
    LogConformance,
    JobConformance,
    RemovalConformance,
    BatchConformance,
    ExpectConformance,
    SharingConformance,
    CorruptionConformance,
):
    """What is written and read in another way there."""

    thorough = transactions = False


class TestRunsWithoutTransactions(PyMongo, ClaimConformance, CrashConformance):
    thorough = transactions = False


# --- everything ---


@pytest.mark.slow
class TestAllOnMotor(Mongo, StorageConformance): ...


@pytest.mark.slow
class TestAllOnMotorWithoutTransactions(Mongo, StorageConformance):
    transactions = False


@pytest.mark.slow
class TestAllOnPyMongo(PyMongo, StorageConformance): ...


@pytest.mark.slow
class TestAllOnPyMongoWithoutTransactions(PyMongo, StorageConformance):
    transactions = False


@pytest.mark.slow
class TestRunsOnMotor(Mongo, RunConformance): ...


@pytest.mark.slow
class TestRunsOnMotorWithoutTransactions(Mongo, RunConformance):
    transactions = False


@pytest.mark.slow
class TestRunsOnPyMongo(PyMongo, RunConformance): ...


@pytest.mark.slow
class TestRunsOnPyMongoWithoutTransactions(PyMongo, RunConformance):
    transactions = False


@pytest.mark.slow
class TestMotorThroughTheFacade(ThroughTheFacade, TestMotor): ...


@pytest.mark.slow
class TestRunsOnMotorThroughTheFacade(RunsThroughTheFacade, TestRunsOnMotor): ...
