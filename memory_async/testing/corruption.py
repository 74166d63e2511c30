"""Rows that cannot be read: skipped, logged, counted, and never in the way of the others."""

from __future__ import annotations

import logging

import pytest

from memory_async.errors import CorruptRecordError
from memory_async.keys import Partition
from memory_async.records import Checkpoint, UserProfile
from memory_async.storage.protocol import ALWAYS, Advance, Put, Storage
from memory_async.testing.material import (
    append,
    at,
    changed,
    fill,
    header,
    ids,
    in_session,
    item,
    pages,
    put,
    seqs,
    session_key,
    unique,
)
from memory_async.testing.suite import Suite


class CorruptionConformance(Suite):
    """Needs `damage` to be overridden."""

    async def test_a_corrupt_turn_hides_no_other(
        self, storage: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        s = unique("session")
        turns = await fill(storage, s, 4)
        await self.damage(storage, turns[1].key)
        caplog.set_level(logging.ERROR)
        for number, read in enumerate(("history", "snapshot"), 1):
            caplog.clear()
            found = (
                await storage.history(s) if read == "history" else (await storage.snapshot(s)).turns
            )
            assert seqs(found) == [1, 3, 4]
            assert storage.corrupt_rows == number
            assert any(s in record.getMessage() for record in caplog.records)
        assert seqs(await storage.history(s, last=2)) == [3, 4]
        assert storage.corrupt_rows == 2
        assert (await header(storage, s)).last_seq == 4
        await storage.apply(append(s))
        assert seqs(await storage.history(s)) == [1, 3, 4, 5]

    async def test_a_corrupt_turn_cannot_be_got(self, storage: Storage) -> None:
        s = unique("session")
        [turn] = await fill(storage, s, 1)
        await self.damage(storage, turn.key)
        with pytest.raises(CorruptRecordError, match=s):
            await storage.get(turn.key)

    async def test_a_corrupt_turn_can_be_trimmed(self, storage: Storage) -> None:
        s = unique("session")
        turns = await fill(storage, s, 3, due=("job",))
        await self.damage(storage, turns[1].key)
        await storage.apply(Advance(s, "job", 0, 2))
        assert seqs(await storage.history(s)) == [3]
        assert seqs(await storage.history(s, trimmed=True)) == [1, 2, 3]
        assert storage.corrupt_rows == 0

    async def test_a_corrupt_record_hides_no_other(
        self, storage: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        where = Partition("collection", unique())
        records = [item(where, f"{n}", n, created_at=at(n)) for n in range(9)]
        await put(storage, *records)
        broken = (0, 3, 4, 5, 8)
        for number in broken:
            await self.damage(storage, records[number].key)
        caplog.set_level(logging.ERROR)
        assert ids(await storage.find("item", where)) == ["7", "6", "2", "1"]
        assert storage.corrupt_rows == len(broken)
        assert any(where.id in record.getMessage() for record in caplog.records)
        # Also where a whole page of them is corrupt.
        for size in (1, 2, 3):
            paged = [ids(page) async for page in pages(storage, "item", size, partition=where)]
            assert [id for page in paged for id in page] == ["7", "6", "2", "1"]

    async def test_a_corrupt_record_cannot_be_got_but_replaced(self, storage: Storage) -> None:
        run = Checkpoint(session_id=unique("session"), run_id=unique("run"), status="paused")
        await put(storage, run)
        await self.damage(storage, run.key)
        with pytest.raises(CorruptRecordError, match=run.run_id):
            await storage.get(run.key)
        mended = changed(run)
        await storage.apply(Put(mended, run.version))
        assert await storage.get(run.key) == mended

    async def test_a_corrupt_profile_hides_no_session(self, storage: Storage) -> None:
        s, ann = unique("session"), unique("user")
        profile = UserProfile(user_id=ann)
        await put(storage, profile)
        await storage.apply(append(s, user_id=ann))
        await self.damage(storage, profile.key)
        view = await storage.snapshot(s, ann)
        assert view.session is not None
        assert (seqs(view.turns), view.profile) == ([1], None)
        assert storage.corrupt_rows == 1

    async def test_a_corrupt_header_hides_no_history(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, user_id="ann", due=("job",)))
        before = await header(storage, s)
        await self.damage(storage, session_key(s))
        view = await storage.snapshot(s)
        assert storage.corrupt_rows == 1
        found = await storage.find("session", in_session(s))
        assert found == [view.session]
        assert storage.corrupt_rows == 2
        assert view.session is not None
        assert (view.session.user_id, view.session.metadata) == ("ann", {})
        assert (view.session.last_seq, view.session.jobs) == (1, before.jobs)
        assert seqs(view.turns) == seqs(await storage.history(s)) == [1]
        await storage.apply(append(s, user_id="ann"))
        mended = changed(before, metadata={"a": 1})
        await storage.apply(Put(mended, ALWAYS))
        assert (await header(storage, s)).metadata == {"a": 1}
