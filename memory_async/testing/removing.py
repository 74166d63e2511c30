"""`Delete` and `Drop`: exactly what they name, and nothing beside it."""

from __future__ import annotations

import pytest

from memory_async.errors import ConfigurationError, ConflictError
from memory_async.keys import Key, Kind, Partition, Space
from memory_async.records import Checkpoint, Decision, Record, UserProfile
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Delete,
    Drop,
    Expect,
    Put,
    Result,
    Storage,
    Write,
)
from memory_async.testing.material import (
    append,
    changed,
    contents,
    fill,
    header,
    ids,
    in_session,
    item,
    put,
    seqs,
    session_key,
    unique,
)
from memory_async.testing.records import KINDS, of_kind
from memory_async.testing.suite import Suite

SPACES: tuple[Space, ...] = ("session", "user", "knowledge", "collection")
TRICKY = [
    "",
    "a",
    "a%",
    "a%b",
    "ab",
    "a_",
    "a_b",
    "a*",
    "a?",
    "a.",
    "A",
    "a\\",
    "a[b]",
    "%",
    "_",
    "*",
]


class RemovalConformance(Suite):
    """Taking records and whole partitions away."""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_delete_is_conditional_on_the_version(
        self, storage: Storage, kind: str
    ) -> None:
        record = of_kind(kind, unique())
        key = record.key
        assert await storage.apply(Delete(key)) == [Result(False)]
        with pytest.raises(ConflictError):
            await storage.apply(Delete(key, record.version))
        await put(storage, record)
        with pytest.raises(ConflictError):
            await storage.apply(Delete(key, "a version nobody wrote"))
        assert await storage.get(key) == record
        assert await storage.apply(Delete(key, record.version)) == [Result(True)]
        assert await storage.get(key) is None
        assert await storage.find(record.kind, key.partition) == []
        with pytest.raises(ConflictError):
            await storage.apply(Delete(key, record.version))
        await put(storage, record)
        assert await storage.apply(Delete(key, ALWAYS)) == [Result(True)]
        assert await storage.get(key) is None

    async def test_a_session_header_takes_its_log_along(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        [first] = await storage.apply(append(s, "first", run_id=run, due=("job",)))
        assert first.turn is not None
        await fill(storage, s, 2)
        await storage.apply(Delete(session_key(s), (await header(storage, s)).version))
        assert await storage.history(s, trimmed=True) == []
        assert await storage.snapshot(s) == (None, [], None)
        assert await storage.get(first.turn.key) is None
        [again] = await storage.apply(append(s, "again", run_id=run))
        assert again.turn is not None
        assert (again.created, again.turn.seq) == (True, 1)
        assert (await header(storage, s)).jobs == {}

    async def test_dropping_a_session_takes_everything_of_it(self, storage: Storage) -> None:
        s, other = unique("session"), unique("session")
        for session_id in (s, other):
            where = in_session(session_id)
            await fill(storage, session_id, 2, due=("job",))
            await put(
                storage,
                Checkpoint(session_id=session_id, run_id="r"),
                Decision(session_id=session_id, run_id="r", requirement_id="q"),
                item(where, "a", tags=("t",)),
            )
        before = await contents(storage, other)
        assert await storage.apply(Drop(in_session(s))) == [Result(True)]
        assert await contents(storage, s) == [(None, [], None), [], [], [], [], []]
        assert await storage.find("session", id=s) == []
        assert await storage.find("item", in_session(s), tags=["t"]) == []
        assert await contents(storage, other) == before
        assert await storage.apply(Drop(in_session(s))) == [Result(False)]

    async def test_partitions_of_one_id_are_apart(self, storage: Storage) -> None:
        id = unique()
        records: dict[Space, list[Record]] = {
            space: [item(Partition(space, id), "a", space)] for space in SPACES
        }
        for kind in KINDS:
            record = of_kind(kind, id)
            records[record.key.partition.space].append(record)
        for each in records.values():
            await put(storage, *each)
        await storage.apply(append(id, user_id="ann"))
        for space in SPACES:
            for record in records[space]:
                await self._sees(storage, record)
        for space in SPACES:
            await storage.apply(Drop(Partition(space, id)))
            for record in records.pop(space):
                assert await storage.get(record.key) is None
            for rest in records.values():
                for record in rest:
                    await self._sees(storage, record)
            assert seqs(await storage.history(id)) == []  # the session is the first to go

    async def _sees(self, storage: Storage, record: Record) -> None:
        stored = await storage.get(record.key)
        assert isinstance(stored, Record)
        assert stored.version == record.version
        found = await storage.find(record.kind, record.key.partition, id=record.key.id)
        assert found == [stored]

    async def test_dropping_a_kind_leaves_the_others(self, storage: Storage) -> None:
        s = unique("session")
        where = in_session(s)
        await fill(storage, s, 2)
        checkpoint = Checkpoint(session_id=s, run_id="r")
        await put(storage, checkpoint, item(where, "r"), item(where, "other"))
        assert await storage.apply(Drop(where, "item")) == [Result(True)]
        assert await storage.find("item", where) == []
        assert await storage.get(checkpoint.key) == checkpoint
        assert seqs(await storage.history(s)) == [1, 2]
        assert await storage.apply(Drop(where, "item")) == [Result(False)]

    async def test_dropping_by_prefix_takes_the_text_literally(self, storage: Storage) -> None:
        stored = [each for each in TRICKY if each]
        for prefix in [*stored[:: 1 if self.thorough else 4], "zzz"]:
            name = unique()
            where = Partition("collection", name)
            other = item(Partition("user", name), prefix)
            await put(storage, *[item(where, each) for each in stored], other)
            gone = [each for each in stored if each.startswith(prefix)]
            assert await storage.apply(Drop(where, "item", prefix)) == [Result(bool(gone))]
            rest = set(ids(await storage.find("item", where)))
            assert rest == set(stored) - set(gone)
            assert await storage.get(other.key) == other

    async def test_an_empty_prefix_takes_all_of_a_kind(self, storage: Storage) -> None:
        where = Partition("collection", unique())
        await put(storage, *[item(where, each) for each in TRICKY if each])
        await storage.apply(Drop(where, "item", ""))
        assert await storage.find("item", where) == []

    @pytest.mark.parametrize("kind", ["turn", "session"])
    async def test_a_log_is_only_dropped_as_a_whole(self, storage: Storage, kind: Kind) -> None:
        s = unique("session")
        [turn] = await fill(storage, s, 1)
        refused: list[Write] = [Drop(in_session(s), kind), Drop(in_session(s), None, "prefix")]
        for write in [*refused, Delete(turn.key)]:
            with pytest.raises(ConfigurationError):
                await storage.apply(write)
        assert seqs(await storage.history(s)) == [1]

    # --- in a batch ---

    async def test_a_batch_may_put_beside_what_it_drops(self, storage: Storage) -> None:
        ann = unique("user")
        where = Partition("user", ann)
        old = UserProfile(user_id=ann, traits={"likes": "tea"})
        await put(storage, old, item(where, "a1"), item(where, "a2"), item(where, "b"))
        tombstone = changed(old, traits={}, forgotten_at=old.updated_at)
        batch = (Put(tombstone, old.version), Drop(where, "item", "a"), Drop(where, "lease"))
        assert await storage.apply(*batch) == [Result(True), Result(True), Result(False)]
        assert await storage.get(old.key) == tombstone
        assert ids(await storage.find("item", where)) == ["b"]
        # Again, as after a lost answer.
        assert await storage.apply(*batch) == [Result(False)] * 3
        assert await storage.get(old.key) == tombstone

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_batch_can_expect_a_record_or_its_absence(
        self, storage: Storage, kind: str
    ) -> None:
        record = of_kind(kind, unique())
        key = record.key
        beside = item(key.partition, "beside")
        assert await storage.apply(Expect(key, ABSENT)) == [Result(False)]
        with pytest.raises(ConflictError):
            await storage.apply(Expect(key, record.version), Put(beside, ABSENT))
        await put(storage, record)
        for when in (ABSENT, "a version nobody wrote"):
            with pytest.raises(ConflictError):
                await storage.apply(Put(beside, ABSENT), Expect(key, when))
        assert await storage.get(beside.key) is None
        batch = (Expect(key, record.version), Put(beside, ABSENT))
        assert await storage.apply(*batch) == [Result(False), Result(True)]
        assert await storage.get(key) == record
        assert await storage.get(beside.key) == beside

    async def test_what_is_expected_may_be_dropped(self, storage: Storage) -> None:
        s = unique("session")
        checkpoint = Checkpoint(session_id=s, run_id="r")
        await put(storage, checkpoint)
        batch = (Expect(checkpoint.key, checkpoint.version), Drop(in_session(s)))
        assert await storage.apply(*batch) == [Result(False), Result(True)]
        with pytest.raises(ConflictError):
            await storage.apply(*batch)

    async def test_a_write_that_could_do_nothing_is_refused(self, storage: Storage) -> None:
        key = item(unique(), "a").key
        turn = Key("turn", in_session(unique("session")), "r")
        for write in (Delete(key, ABSENT), Expect(key, ALWAYS), Expect(turn, ABSENT)):
            with pytest.raises(ConfigurationError):
                await storage.apply(write)
