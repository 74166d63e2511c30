"""`InMemoryStorage`: the conformance suite, and ``max_sessions``."""

from __future__ import annotations

import pytest

from memory_async.errors import ConfigurationError
from memory_async.keys import Key
from memory_async.records import Session
from memory_async.storage.in_memory import InMemoryStorage
from memory_async.storage.protocol import ABSENT, ALWAYS, Put, Storage
from memory_async.testing import MakeStorage, StorageConformance
from memory_async.testing.material import append, ids, in_session, item, put, seqs


class TestInMemoryStorage(StorageConformance):
    shared = False

    @pytest.fixture
    def storages(self) -> MakeStorage:
        def make(namespace: str = "default") -> Storage:
            return InMemoryStorage(namespace=namespace)

        return make

    async def damage(self, storage: Storage, key: Key) -> None:
        assert isinstance(storage, InMemoryStorage)
        log = storage._logs.get(key.partition.id)
        if key.kind == "session":
            assert log
            log.header = log.header._replace(payload="rubbish")
        elif key.kind == "turn":
            assert log
            seq = log.runs[key.id]
            log.turns[seq - 1] = log.turns[seq - 1]._replace(payload="rubbish")
        else:
            rows = storage._records[str(key.partition)]
            rows[key.kind, key.id] = rows[key.kind, key.id]._replace(payload="rubbish")


class TestMaxSessions:
    async def test_the_session_written_longest_ago_goes_first(self) -> None:
        async with InMemoryStorage(max_sessions=2) as storage:
            await storage.apply(append("a"))
            await storage.apply(append("b"), Put(item(in_session("b"), "i"), ABSENT))
            await storage.apply(append("a"))
            await storage.apply(append("c"))
            assert set(ids(await storage.find("session"))) == {"a", "c"}
            assert await storage.history("b") == []
            assert await storage.find("item", in_session("b")) == []
            assert seqs(await storage.history("a")) == [1, 2]

    async def test_writing_metadata_counts_as_writing(self) -> None:
        async with InMemoryStorage(max_sessions=2) as storage:
            await storage.apply(append("a"))
            await storage.apply(append("b"))
            await put(storage, Session(session_id="a", metadata={"x": 1}))
            await put(storage, Session(session_id="c"))
            assert set(ids(await storage.find("session"))) == {"a", "c"}

    async def test_a_failing_batch_evicts_nothing(self) -> None:
        async with InMemoryStorage(max_sessions=1) as storage:
            await storage.apply(append("a"))
            guard = item(in_session("b"), "guard")
            await put(storage, guard)
            with pytest.raises(Exception, match="exists already"):
                await storage.apply(append("b"), Put(item(in_session("b"), "guard"), ABSENT))
            assert ids(await storage.find("session")) == ["a"]

    async def test_records_without_a_session_do_not_count(self) -> None:
        async with InMemoryStorage(max_sessions=1) as storage:
            await storage.apply(append("a"))
            await storage.apply(Put(item("shelf", "i"), ALWAYS))
            assert ids(await storage.find("session")) == ["a"]

    @pytest.mark.parametrize("number", [0, -1])
    def test_less_than_one_is_refused(self, number: int) -> None:
        with pytest.raises(ConfigurationError, match="max_sessions"):
            InMemoryStorage(max_sessions=number)
