"""`MongoStorage`: the conformance suite with either client, with transactions and without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("motor")

from pymongo import AsyncMongoClient

from memory_async.keys import Key
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage, StorageConformance
from memory_async.testing.runs import RunConformance
from tests.servers import mongo
from tests.sync.conformance import RunsThroughTheFacade, ThroughTheFacade


class Mongo:
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


class TestMotor(Mongo, StorageConformance): ...


class TestPyMongoWithoutTransactions(PyMongo, StorageConformance):
    transactions = False


@pytest.mark.slow
class TestRunsOnMotor(Mongo, RunConformance): ...


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
