"""Two storage objects over the same data, as in two workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from memory_async.errors import ConflictError, SessionOwnershipError
from memory_async.records import Checkpoint, JobState, Session
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Delete,
    Put,
    Result,
    Storage,
    Trim,
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
from memory_async.testing.suite import MakeStorage, Suite, promises, two_objects


class Two(NamedTuple):
    one: Storage
    other: Storage


def winners(answers: Sequence[Any]) -> list[int]:
    """Which calls succeeded; the others must have failed with a conflict."""
    won = [number for number, answer in enumerate(answers) if isinstance(answer, list)]
    assert sum(isinstance(answer, ConflictError) for answer in answers) == len(answers) - len(won)
    return won


class SharingConformance(Suite):
    """What two objects promise one another; skipped where ``shared`` is false."""

    @pytest_asyncio.fixture
    async def two(self, make: MakeStorage) -> AsyncIterator[Two]:
        yield Two(make(), make())

    @two_objects
    async def test_each_sees_what_the_other_wrote(self, two: Two) -> None:
        s, run = unique("session"), unique("run")
        for number, (writer, reader) in enumerate([two, two[::-1]] * 3, 1):
            await writer.apply(
                append(s, run_id=f"{run}{number}", due=("job",)),
                Put(item(in_session(s), f"{number}"), ABSENT),
            )
            await writer.apply(Put(Session(session_id=s, metadata={"n": number}), ALWAYS))
            assert await contents(reader, s) == await contents(writer, s)
            stored = await header(reader, s)
            assert (stored.last_seq, stored.metadata) == (number, {"n": number})
        [again] = await two.other.apply(append(s, run_id=f"{run}1"))
        assert again.created is False
        await two.one.apply(Delete(session_key(s)))
        assert await two.other.snapshot(s) == (None, [], None)

    @two_objects
    async def test_the_owner_is_the_same_for_both(self, two: Two) -> None:
        s = unique("session")
        await two.one.apply(append(s, user_id="ann"))
        with pytest.raises(SessionOwnershipError):
            await two.other.apply(append(s, user_id="bob"))

    @two_objects
    async def test_what_one_trims_is_trimmed_for_the_other(self, two: Two) -> None:
        s = unique("session")
        await fill(two.one, s, 3)
        assert seqs(await two.other.history(s)) == [1, 2, 3]
        await two.one.apply(Trim(s, 2))
        assert seqs(await two.other.history(s)) == [3]
        [result] = await two.other.apply(append(s))
        assert result.turn is not None
        assert result.turn.seq == 4

    @two_objects
    @promises("unique seq")
    async def test_appending_from_both_loses_and_doubles_nothing(self, two: Two) -> None:
        s = unique("session")
        writes = [append(s, str(number)) for number in range(60)]
        answers = await asyncio.gather(
            *[two[number % 2].apply(write) for number, write in enumerate(writes)]
        )
        turns = await two.one.history(s)
        assert seqs(turns) == list(range(1, 61))
        assert {turn.run_id for turn in turns} == {write.turn.run_id for write in writes}
        given = {result.turn.run_id: result.turn for [result] in answers if result.turn}
        assert [given[turn.run_id] for turn in turns] == turns

    @two_objects
    @promises("unique seq")
    async def test_the_same_run_from_both_is_one_turn(self, two: Two) -> None:
        for _ in range(5):
            s, run = unique("session"), unique("run")
            answers = await asyncio.gather(
                *[two[number % 2].apply(append(s, run_id=run)) for number in range(10)]
            )
            assert seqs(await two.one.history(s)) == [1]
            assert sum(result.created for [result] in answers) == 1

    @two_objects
    @promises("compare-and-set")
    async def test_of_both_putting_one_wins(self, two: Two) -> None:
        for _ in range(10 if self.thorough else 3):
            record = item(unique(), "a")
            for when in (ABSENT, record.version):
                rivals = [changed(record, version=f"{n} of {when}") for n in range(6)]
                answers = await asyncio.gather(
                    *[two[n % 2].apply(Put(rival, when)) for n, rival in enumerate(rivals)],
                    return_exceptions=True,
                )
                [won] = winners(answers)
                assert await two.one.get(record.key) == rivals[won]
                assert await two.other.get(record.key) == rivals[won]
                await put(two.one, record)

    @two_objects
    @promises("compare-and-set")
    async def test_of_both_claiming_a_run_one_wins(self, two: Two) -> None:
        for _ in range(10 if self.thorough else 3):
            s, run = unique("session"), unique("run")
            paused = Checkpoint(session_id=s, run_id=run, status="paused")
            await put(two.one, paused)
            answers = await asyncio.gather(
                *[
                    two[n % 2].apply(
                        Put(changed(paused, status="running", error=f"{n}"), paused.version),
                        Put(item(in_session(s), f"claim {n}"), ABSENT),
                    )
                    for n in range(4)
                ],
                return_exceptions=True,
            )
            [won] = winners(answers)
            [claim] = await two.other.find("item", in_session(s))
            assert claim.key.id == f"claim {won}"

    @two_objects
    @promises("compare-and-set")
    async def test_of_both_advancing_one_wins(self, two: Two) -> None:
        for _ in range(10 if self.thorough else 3):
            s = unique("session")
            await fill(two.one, s, 2, due=("job",))
            answers = await asyncio.gather(
                *[two[n % 2].apply(Advance(s, "job", 0, 2, n)) for n in range(6)],
                return_exceptions=True,
            )
            [won] = winners(answers)
            assert (await header(two.other, s)).jobs == {"job": JobState(2, won)}

    @two_objects
    @promises("compare-and-set", "transactions")
    async def test_finishing_and_deciding_at_once_is_never_both(self, two: Two) -> None:
        for number in range(10 if self.thorough else 4):
            s, run = unique("session"), unique("run")
            running = Checkpoint(session_id=s, run_id=run)
            await put(two.one, running)
            finish = two.one.apply(append(s, run_id=run), Delete(running.key, running.version))
            pause = two.other.apply(Put(changed(running, status="paused"), running.version))
            calls = [finish, pause] if number % 2 else [pause, finish]
            winners(await asyncio.gather(*calls, return_exceptions=True))
            stored = await two.one.get(running.key)
            turns = await two.other.history(s)
            assert (stored is None) == (len(turns) == 1)

    @two_objects
    async def test_reopening_finds_everything(self, make: MakeStorage) -> None:
        s, run = unique("session"), unique("run")
        first = make()
        await fill(first, s, 3, due=("job",))
        await first.apply(Advance(s, "job", 0, 2, "value"))
        await first.apply(append(s, run_id=run), Put(item(in_session(s), "a", b"\0"), ABSENT))
        before = await contents(first, s)
        await first.close()
        second = make()
        assert await contents(second, s) == before
        [again] = await second.apply(append(s, run_id=run))
        assert again == Result(False, (await second.history(s))[-1])
        assert seqs(await fill(second, s, 1)) == [5]

    @two_objects
    async def test_closing_one_leaves_the_other_open(self, two: Two) -> None:
        s = unique("session")
        await fill(two.one, s, 1)
        await fill(two.other, s, 1)
        await two.one.close()
        assert seqs(await two.other.history(s)) == [1, 2]
        assert seqs(await fill(two.other, s, 1)) == [3]
