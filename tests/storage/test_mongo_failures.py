"""What can go wrong with MongoDB: one clear error each, soon, and no password in it; and what goes
away by itself."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("motor")

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from memory_async import Memory, SupportsSweep, SupportsTTL
from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    MemoryAsyncError,
    PayloadError,
    StorageUnavailableError,
)
from memory_async.keys import Partition, utc_now
from memory_async.records import Checkpoint
from memory_async.storage.mongo import MongoStorage
from memory_async.storage.protocol import ABSENT, ALWAYS, Put, Storage
from memory_async.storage.url import open_storage
from memory_async.testing.material import (
    append,
    at,
    changed,
    contents,
    fill,
    in_session,
    item,
    put,
    seqs,
    session_key,
    texts,
)
from tests.servers import mongo

PASSWORD, QUOTED = "s3cret-p@ss/word", "s3cret-p%40ss%2Fword"

both_ways = pytest.mark.parametrize("transactions", [True, False])


async def refused(storage: Any, error: type[MemoryAsyncError], *words: str) -> None:
    """One error, soon, with these words and without the password."""
    started = time.monotonic()
    with pytest.raises(error) as caught:
        await storage.apply(append("s"))
    assert time.monotonic() - started < 9
    await storage.close()
    shown = "".join(traceback.format_exception(caught.value)) + repr(storage)
    assert "s3cret" not in shown
    for word in words:
        assert word in str(caught.value)


class TestOpening:
    async def test_a_server_that_is_down(self) -> None:
        url = f"mongodb://ann:{QUOTED}@127.0.0.1:{mongo.free_port()}/app?connect_timeout=0.3"
        await refused(
            open_storage(url), StorageUnavailableError, "cannot reach mongodb://ann@127.0.0.1"
        )

    async def test_a_server_that_never_answers(self) -> None:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(silence, "127.0.0.1", 0) as mute:
            port = mute.sockets[0].getsockname()[1]
            storage = MongoStorage(f"mongodb://127.0.0.1:{port}", connect_timeout=0.3)
            await refused(storage, StorageUnavailableError, "cannot reach")

    @pytest.mark.skipif("MONGODB_URL" in os.environ, reason="needs a server with users of its own")
    async def test_a_login(self) -> None:
        server = mongo.Server()
        with server.client() as client:
            role = [{"role": "readWriteAnyDatabase", "db": "admin"}]
            client.admin.command("createUser", "ann", pwd=PASSWORD, roles=role)
        server.stop()
        server.start("--auth")
        try:
            at = f"127.0.0.1:{server.port}/app?authSource=admin"
            async with open_storage(f"mongodb://ann:{QUOTED}@{at}") as storage:
                await storage.apply(append("s"))
            await refused(
                open_storage(f"mongodb://ann:{QUOTED}-no@{at}"), StorageUnavailableError, "login"
            )
            await refused(open_storage(f"mongodb://{at}"), StorageUnavailableError)
        finally:
            server.close()

    @pytest.mark.parametrize(
        "url",
        [
            "mongodb://", "mongodb://ann:s3cret@word@host/db", "mongodb://ann:s3cret/w@host",
            "mongodb://host:s3cret", "mongodb://host:99999999", "mongodb://host/a.b",
            "mongodb://host/db?database=%2Fapp", "mongodb://host/?nonsense=s3cret",
            "mongodb://host/?ttl=0", "mongodb://host/?ttl=x", "mongodb://host/?collection=system.x",
            "mongodb://host/?transactions=perhaps", "mongodb://host/?maxPoolSize=none",
        ],
    )  # fmt: skip
    async def test_a_url_that_cannot_be(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            async with open_storage(url):
                pass
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    def test_options_of_the_driver_are_for_open_storage(self) -> None:
        with pytest.raises(ConfigurationError, match="open_storage"):
            MongoStorage("mongodb://host/?namespace=a")
        assert "replicaSet=rs0" in MongoStorage("mongodb://h/?replicaSet=rs0")._address.url

    async def test_twenty_open_at_once(self) -> None:
        make = mongo.storages()
        storages = [make() for _ in range(20)]
        await asyncio.gather(*[each.open() for each in storages])
        await storages[0].apply(append("s"))
        assert seqs(await storages[-1].history("s")) == [1]
        for each in storages:
            await each.close()


class TestClients:
    @pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient])
    async def test_a_client_of_the_callers_stays_open(self, make: Any) -> None:
        client = make(mongo.url_of(), readPreference="secondaryPreferred")
        async with MongoStorage(client, database="given") as storage:
            await storage.apply(Put(item("c", "a"), ALWAYS))
        assert (await client.admin.command("ping"))["ok"] == 1
        if (closing := client.close()) is not None:
            await closing

    @pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient])
    async def test_of_another_loop_it_is_refused(self, make: Any) -> None:
        client: list[Any] = []

        async def elsewhere() -> None:
            client.append(make(mongo.url_of()))
            await client[0].admin.command("ping")
            if (closing := client[0].close()) is not None:
                await closing

        await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(ConfigurationError, match="loop"):
            await MongoStorage(client[0]).open()

    @pytest.mark.parametrize("wrong", [None, 1, object(), b"mongodb://host"])
    def test_what_is_neither_url_nor_client(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="AsyncMongoClient"):
            MongoStorage(wrong)

    def test_a_client_that_blocks(self) -> None:
        with (
            pymongo.MongoClient[dict[str, Any]](mongo.url_of(), connect=False) as client,
            pytest.raises(ConfigurationError, match=r"pymongo.*MongoClient"),
        ):
            MongoStorage(client)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
    async def test_a_forked_child_makes_its_own_connections(self) -> None:
        client: Any = AsyncMongoClient(mongo.url_of())
        make, given = mongo.storages(database="forked"), MongoStorage(client, database="forked")
        async with make(namespace="fork") as storage, given:
            await storage.apply(append("s", "parent"))
            if (child := os.fork()) == 0:
                code = 1
                try:
                    code = in_child(storage, given)
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await storage.apply(append("s", "parent again"))
            assert texts(await storage.history("s")) == ["parent", "child", "parent again"]
            assert await given.get(session_key("s")) is None  # of the other namespace
        await client.close()


def in_child(storage: Storage, given: Storage) -> int:
    asyncio._set_running_loop(None)  # it was forked within one

    async def work() -> int:
        await storage.apply(append("s", "child"))
        await storage.close()
        try:
            await given.history("s")
        except ConfigurationError:
            return 0
        return 2

    return asyncio.new_event_loop().run_until_complete(work())


class TestSizes:
    @both_ways
    async def test_what_is_larger_than_a_document_is_refused_before_anything_is_written(
        self, transactions: bool
    ) -> None:
        async with mongo.storages(transactions=transactions)() as storage:
            await storage.apply(append("s", user_id=None, due=("job",)))
            before = await contents(storage, "s")
            large, where = "x" * (16 << 20), in_session("s")
            usage = {"tokens": "x" * (9 << 20)}  # beside a message it is too much
            for batch in (
                [append("s", large)],
                [append("s", "y" * (9 << 20), usage=usage)],
                [Put(item(where, "small"), ABSENT), Put(item(where, "large", large), ABSENT)],
            ):
                with pytest.raises(PayloadError, match="16"):
                    await storage.apply(*batch)
                assert await contents(storage, "s") == before
            fits = item(where, "fits", "x" * (15 << 20))
            await storage.apply(Put(fits, ABSENT), append("s"))
            assert await storage.get(fits.key) == fits

    async def test_without_transactions_a_whole_batch_must_fit(self) -> None:
        parts = [Put(item("c", f"{n}", "x" * (9 << 20)), ABSENT) for n in range(2)]
        async with mongo.storages()() as storage:
            await storage.apply(*parts)
        async with mongo.storages(transactions=False)() as storage:
            with pytest.raises(PayloadError, match="without transactions"):
                await storage.apply(*parts)
            assert await storage.find("item") == []


class TestExpiry:
    @pytest.fixture(params=[True, False], ids=["transactions", "journal"])
    async def storage(self, request: pytest.FixtureRequest) -> AsyncIterator[MongoStorage]:
        storage = mongo.storages(transactions=request.param, ttl=3600)()
        assert isinstance(storage, MongoStorage)
        async with storage:
            yield storage

    @pytest.fixture
    def collection(self, storage: MongoStorage) -> Iterator[Any]:
        with pymongo.MongoClient[dict[str, Any]](str(storage._where)) as client:
            yield client[str(storage._database)]["memory_async"]

    async def test_every_write_puts_the_end_off(
        self, storage: MongoStorage, collection: Any
    ) -> None:
        ends = []
        for write in (append("s"), Put(item(in_session("s"), "a"), ABSENT), append("s")):
            await storage.apply(write)
            [header] = collection.find({"kind": "session"})
            ends.append(header["expires"])
        assert ends == sorted(ends)
        left = ends[0].replace(tzinfo=utc_now().tzinfo) - utc_now()
        assert timedelta(seconds=3590) < left < timedelta(seconds=3610)
        indexes = collection.index_information()
        assert indexes["expiry"]["expireAfterSeconds"] == 0

    @pytest.mark.parametrize("removed", [True, False], ids=["removed", "not yet removed"])
    async def test_of_an_expired_session_nothing_is_read_and_recover_sweeps_it(
        self, storage: MongoStorage, collection: Any, removed: bool
    ) -> None:
        memory = Memory(storage, "s", "ann", full_session_memory=True)
        runs = [
            Checkpoint(session_id=s, run_id=f"{n} of {s}", user_id="ann", created_at=at(n))
            for n in range(3)
            for s in ("s", "other")
        ]
        for session_id in ("s", "other"):
            await fill(storage, session_id, 3, user_id="ann")
        await put(storage, *runs)
        header = {"kind": "session", "id": "s"}
        if removed:  # as MongoDB itself does once a minute
            collection.delete_one(header)
        else:
            collection.update_one(header, {"$set": {"expires": utc_now() - timedelta(seconds=1)}})
        assert await storage.get(session_key("s")) is None
        assert await storage.history("s") == (await storage.snapshot("s")).turns == []
        assert [each.key.id for each in await storage.find("session")] == ["other"]
        assert await storage.get(runs[0].key) is None
        found = await storage.find("checkpoint", user_id="ann", limit=2)
        assert [each.key.id for each in found] == ["2 of other", "1 of other"]
        with pytest.raises(ConflictError):
            await storage.apply(Put(changed(runs[0]), runs[0].version))
        if not removed:
            collection.delete_one(header)
        assert await memory.recover() == 1
        for each in collection.find({"p": "session/s", "_id": {"$not": {"$regex": "^!"}}}):
            assert {*each} == {"_id", "ns", "p", "at", "rev", "idle"}  # no more than a trace
        assert await storage.get(runs[1].key) == runs[1]
        assert seqs(await storage.history("other")) == [1, 2, 3]
        assert await memory.recover() == 0
        await memory.close()

    async def test_a_session_that_comes_back_begins_anew(
        self, storage: MongoStorage, collection: Any
    ) -> None:
        await fill(storage, "s", 2)
        await storage.apply(append("s", "once", run_id="run"))
        collection.delete_one({"kind": "session"})
        [result] = await storage.apply(append("s", "again", run_id="run"))
        assert (result.created, result.turn.seq) == (True, 1)
        assert await storage.sweep() == 1
        assert texts(await storage.history("s")) == ["again"]

    async def test_what_it_is_found_by(self, storage: MongoStorage) -> None:
        assert isinstance(storage, SupportsTTL)
        assert isinstance(storage, SupportsSweep)
        assert storage.ttl == 3600


class TestCalls:
    @both_ways
    async def test_a_cancelled_batch_is_whole_or_absent(self, transactions: bool) -> None:
        async with mongo.storages(transactions=transactions)() as storage:
            await storage.apply(append("s"))
            for number in range(25):
                record = item(in_session("s"), f"{number}")
                work = asyncio.ensure_future(storage.apply(append("s"), Put(record, ABSENT)))
                await asyncio.sleep(number / 2000)
                work.cancel()
                await asyncio.wait([work])
            found = len(await storage.find("item", in_session("s")))
            turns = await storage.history("s")
            assert seqs(turns) == list(range(1, found + 2))

    @both_ways
    async def test_others_that_always_are_faster(
        self, transactions: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("memory_async.storage.mongo.driver.TRIES", 3)
        make = mongo.storages(transactions=transactions)
        async with make() as storage, make() as other:
            assert isinstance(storage, MongoStorage)
            assert storage._commit is not None
            read, record = storage._commit.read, item("c", "a")

            async def late(*args: Any) -> Any:
                found = await read(*args)
                await other.apply(Put(changed(record), ALWAYS))
                return found

            monkeypatch.setattr(storage._commit, "read", late)
            with pytest.raises(StorageUnavailableError, match="others kept writing"):
                await storage.apply(Put(record, ALWAYS))

    async def test_the_clock_is_the_servers(self) -> None:
        async with mongo.storages()() as storage:
            now = await storage.now(Partition("session", "s"))
        assert abs(now - utc_now()) < timedelta(seconds=30)
