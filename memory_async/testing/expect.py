"""`Expect` beside other writes: a condition that writes nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from memory_async.errors import ConfigurationError, ConflictError
from memory_async.keys import new_version, utc_now
from memory_async.records import Session
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Condition,
    Delete,
    Drop,
    Expect,
    Put,
    Result,
    Storage,
    Trim,
    Write,
)
from memory_async.testing.material import (
    append,
    changed,
    contents,
    fill,
    header,
    in_session,
    item,
    put,
    seqs,
    session_key,
    unique,
)
from memory_async.testing.suite import Suite, promises


class ExpectConformance(Suite):
    """`Expect`, as runs and decisions use it."""

    @pytest.mark.parametrize("first", [True, False])
    async def test_a_turn_may_expect_a_record_or_its_absence(
        self, storage: Storage, first: bool
    ) -> None:
        s = unique("session")
        guard = item(in_session(s), "guard")

        async def add(when: Condition) -> Any:
            batch: list[Write] = [Expect(guard.key, when), append(s)]
            return await storage.apply(*(batch if first else batch[::-1]))

        results = await add(ABSENT)
        assert sorted(result.created for result in results) == [False, True]
        for version in (guard.version, new_version()):
            with pytest.raises(ConflictError):
                await add(version)
        await put(storage, guard)
        before = await contents(storage, s)
        for when in (ABSENT, new_version(), guard.version + "x", guard.version[:-1]):
            with pytest.raises(ConflictError):
                await add(when)
        assert await contents(storage, s) == before
        await add(guard.version)
        await put(storage, changed(guard), when=guard.version)
        with pytest.raises(ConflictError):
            await add(guard.version)
        assert seqs(await storage.history(s)) == [1, 2]

    async def test_a_turn_that_is_known_expects_nothing(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        guard = item(in_session(s), "guard")
        await storage.apply(append(s, run_id=run))
        results = await storage.apply(append(s, run_id=run), Expect(guard.key, guard.version))
        assert [result.created for result in results] == [False, False]
        assert results[0].turn == (await storage.history(s))[0]

    async def test_the_header_of_a_session_may_be_expected(self, storage: Storage) -> None:
        s = unique("session")
        key, beside = session_key(s), item(in_session(s), "beside")
        await storage.apply(Expect(key, ABSENT), Put(beside, ABSENT))
        await storage.apply(Put(Session(session_id=s), ABSENT))
        version = (await header(storage, s)).version
        await fill(storage, s, 2)  # turns do not move it
        await storage.apply(Expect(key, version), append(s))
        await put(storage, Session(session_id=s, metadata={"a": 1}), when=version)
        for when in (ABSENT, version):
            with pytest.raises(ConflictError):
                await storage.apply(Expect(key, when), append(s))
        await storage.apply(Delete(key))
        await storage.apply(Expect(key, ABSENT), Put(beside, ALWAYS))
        assert await storage.history(s) == []

    async def test_it_goes_with_every_other_write(self, storage: Storage) -> None:
        s = unique("session")
        where, guard = in_session(s), item(in_session(s), "guard")
        await fill(storage, s, 2, due=("job",))
        await put(storage, guard, item(where, "doomed"), item(where, "many"))
        before = await contents(storage, s)
        batch: list[Write] = [
            Advance(s, "job", 0, 1),
            Trim(s, 1),
            Delete(item(where, "doomed").key),
            Drop(where, "item", "many"),
            Put(Session(session_id=s, metadata={"a": 1}), ALWAYS),
        ]
        with pytest.raises(ConflictError):
            await storage.apply(*batch, Expect(guard.key, ABSENT))
        assert await contents(storage, s) == before
        results = await storage.apply(*batch, Expect(guard.key, guard.version))
        assert results[-1] == Result(False)
        assert await storage.find("item", where) == [guard]
        assert await storage.get(guard.key) == guard

    async def test_what_has_expired_is_absent(self, storage: Storage) -> None:
        s = unique("session")
        past = item(in_session(s), "past", expires_at=utc_now() - timedelta(seconds=1))
        await put(storage, past)
        with pytest.raises(ConflictError):
            await storage.apply(Expect(past.key, past.version), append(s))
        await storage.apply(Expect(past.key, ABSENT), append(s))

    async def test_what_it_cannot_be_is_refused(self, storage: Storage) -> None:
        s = unique("session")
        guard = item(in_session(s), "guard")
        await put(storage, guard)
        elsewhere = item(in_session(unique("session")), "guard")
        batches: list[list[Write]] = [
            [Expect(guard.key, ALWAYS)],
            [Expect(guard.key, ALWAYS), append(s)],
            [Expect(guard.key._replace(kind="turn"), ABSENT), append(s)],
            [Expect(elsewhere.key, ABSENT), append(s)],
            [Expect(guard.key, guard.version), Put(changed(guard), ALWAYS)],
        ]
        for batch in batches:
            with pytest.raises(ConfigurationError):
                await storage.apply(*batch)
        assert await storage.history(s) == []

    @promises("compare-and-set")
    async def test_of_many_that_expect_what_one_changes_none_is_late(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        guard, where = item(in_session(s), "guard"), in_session(s)
        await put(storage, guard)
        writers = [
            storage.apply(Expect(guard.key, guard.version), Put(item(where, f"{n}"), ABSENT))
            for n in range(10)
        ]
        gone = storage.apply(Delete(guard.key, guard.version), Put(item(where, "end"), ABSENT))
        answers = await asyncio.gather(*writers[:5], gone, *writers[5:], return_exceptions=True)
        assert isinstance(answers.pop(5), list)
        written = {each.key.id for each in await storage.find("item", where)} - {"end"}
        assert written == {f"{n}" for n, answer in enumerate(answers) if isinstance(answer, list)}
        assert all(isinstance(answer, list | ConflictError) for answer in answers)
