"""Background jobs' cursors, and trimming what all of them have taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from memory_async.errors import ConfigurationError, ConflictError
from memory_async.records import JobState, Session
from memory_async.storage.protocol import (
    ALWAYS,
    Advance,
    Append,
    Put,
    Result,
    Storage,
    Trim,
)
from memory_async.testing.material import (
    append,
    at,
    contents,
    fill,
    header,
    ids,
    seqs,
    texts,
    unique,
)
from memory_async.testing.suite import Suite, promises
from memory_async.turns import Turn


class JobConformance(Suite):
    """`Append.due`, `Advance` and `Trim`."""

    async def test_a_due_job_is_registered_at_the_start(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("a", "b")))
        stored = await header(storage, s)
        assert stored.jobs == {"a": JobState(0, None), "b": JobState(0, None)}
        assert stored.lagging

    async def test_registering_again_keeps_the_cursor(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("a",)))
        await storage.apply(Advance(s, "a", 0, 1, "value"))
        await storage.apply(append(s, due=("a", "a")))
        assert (await header(storage, s)).jobs == {"a": JobState(1, "value")}

    async def test_a_job_registered_late_starts_at_zero(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3, due=("early",))
        await storage.apply(Advance(s, "early", 0, 3))
        await storage.apply(append(s, due=("late",)))
        assert (await header(storage, s)).jobs == {"early": JobState(3), "late": JobState(0)}
        await storage.apply(Advance(s, "early", 3, 4))
        assert seqs((await storage.snapshot(s, last=0, since="late")).turns) == [4]

    async def test_an_advance_moves_the_cursor_and_sets_the_value(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3, due=("a", "b"))
        version = (await header(storage, s)).version
        assert await storage.apply(Advance(s, "a", 0, 2, {"text": "so far"})) == [Result(True)]
        stored = await header(storage, s)
        assert stored.jobs == {"a": JobState(2, {"text": "so far"}), "b": JobState(0)}
        assert (stored.last_seq, stored.version) == (3, version)

    async def test_an_advance_without_a_value_keeps_the_old_one(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 2, due=("a",))
        await storage.apply(Advance(s, "a", 0, 1, "kept"))
        await storage.apply(Advance(s, "a", 1, 2, None))
        assert (await header(storage, s)).jobs == {"a": JobState(2, "kept")}

    @pytest.mark.parametrize("value", [0, "", [], {}, False, "text", [None]], ids=repr)
    async def test_every_value_but_none_is_set(self, storage: Storage, value: Any) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("a",)))
        await storage.apply(Advance(s, "a", 0, 1, value))
        [stored] = (await header(storage, s)).jobs.values()
        assert repr(stored.value) == repr(value)

    async def test_a_cursor_that_is_elsewhere_is_a_conflict(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3, due=("a",))
        await storage.apply(Advance(s, "a", 0, 2, "value"))
        before = await contents(storage, s)
        for advance in (
            Advance(s, "a", 0, 2, "value"),  # also a retry: the caller rereads
            Advance(s, "a", 1, 3),
            Advance(s, "a", 3, 3),
            Advance(s, "a", 2, 4),  # beyond the last turn
            Advance(s, "unregistered", 0, 1),
            Advance(s, "A", 2, 3),
            Advance(unique("session"), "a", 0, 0),
        ):
            with pytest.raises(ConflictError):
                await storage.apply(advance)
        assert await contents(storage, s) == before

    @pytest.mark.parametrize(("expected", "through"), [(2, 1), (-1, 1)])
    async def test_a_cursor_only_moves_on(
        self, storage: Storage, expected: int, through: int
    ) -> None:
        with pytest.raises(ConfigurationError):
            await storage.apply(Advance(unique("session"), "a", expected, through))

    async def test_an_advance_creates_no_session(self, storage: Storage) -> None:
        s = unique("session")
        with pytest.raises(ConflictError):
            await storage.apply(Advance(s, "a", 0, 0))
        assert await storage.find("session", id=s) == []

    async def test_an_advance_can_insist_on_the_same_session(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("a",)))
        born = (await header(storage, s)).created_at
        with pytest.raises(ConflictError):
            await storage.apply(Advance(s, "a", 0, 1, "old", created_at=at(0)))
        assert (await header(storage, s)).jobs == {"a": JobState(0)}
        await storage.apply(Advance(s, "a", 0, 1, "new", created_at=born))
        assert (await header(storage, s)).jobs == {"a": JobState(1, "new")}

    @promises("compare-and-set")
    async def test_of_racing_advances_one_wins(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3, due=("a",))
        answers = await asyncio.gather(
            *[storage.apply(Advance(s, "a", 0, 3, number)) for number in range(20)],
            return_exceptions=True,
        )
        won = [number for number, answer in enumerate(answers) if isinstance(answer, list)]
        assert len(won) == 1
        assert sum(isinstance(answer, ConflictError) for answer in answers) == 19
        assert (await header(storage, s)).jobs == {"a": JobState(3, won[0])}

    async def test_lagging_sessions_are_found_by_job(self, fresh: Storage) -> None:
        await fresh.apply(append("none"))
        await fresh.apply(append("a", due=("a",)))
        await fill(fresh, "both", 2, due=("a", "b"))

        async def lagging(job: str) -> set[str]:
            return set(ids(await fresh.find("session", lagging=job)))

        assert (await lagging("a"), await lagging("b")) == ({"a", "both"}, {"both"})
        await fresh.apply(Advance("both", "a", 0, 1))
        assert (await lagging("a"), await lagging("b")) == ({"a", "both"}, {"both"})
        await fresh.apply(Advance("both", "a", 1, 2))
        assert (await lagging("a"), await lagging("b")) == ({"a"}, {"both"})
        assert (await header(fresh, "both")).lagging
        await fresh.apply(Advance("both", "b", 0, 2))
        await fresh.apply(Advance("a", "a", 0, 1))
        assert (await lagging("a"), await lagging("b")) == (set(), set())
        assert not (await header(fresh, "both")).lagging
        await fresh.apply(append("both"))  # by a writer without jobs
        assert (await lagging("a"), await lagging("b")) == ({"both"}, {"both"})
        assert await lagging("unknown") == set()

    # --- trimming ---

    async def test_an_advance_trims_what_every_job_has_taken(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 5, due=("a", "b"), usage={"tokens": 1})
        await storage.apply(Advance(s, "a", 0, 4))
        assert seqs(await storage.history(s)) == [1, 2, 3, 4, 5]
        await storage.apply(Advance(s, "b", 0, 2))
        stored = await header(storage, s)
        assert (stored.trimmed, stored.last_seq) == (2, 5)
        assert texts(await storage.history(s)) == ["3", "4", "5"]

    async def test_a_trimmed_turn_keeps_its_frame(self, storage: Storage) -> None:
        s = unique("session")
        [turn, _] = await fill(storage, s, 2, usage={"tokens": 7})
        assert await storage.apply(Trim(s, 1)) == [Result(True)]
        [trimmed, kept] = await storage.history(s, trimmed=True)
        found = await storage.get(turn.key)
        assert isinstance(found, Turn)
        for each in (trimmed, found):
            assert each.messages == []
            assert (each.seq, each.run_id, each.session_id) == (1, turn.run_id, s)
            assert (each.usage, each.created_at) == ({"tokens": 7}, turn.created_at)
        assert texts([kept]) == ["2"]

    async def test_a_trim_never_goes_past_the_smallest_cursor(self, storage: Storage) -> None:
        s = unique("session")

        async def trim() -> None:
            for through in (None, 0, 2, 3, 4, 5, 99):
                assert await storage.apply(Trim(s, through)) == [Result(False)], through

        await fill(storage, s, 5, due=("a", "b"))
        await storage.apply(Advance(s, "a", 0, 5))
        await trim()
        await storage.apply(Advance(s, "b", 0, 3))  # which trims as far as it may
        await trim()
        assert (await header(storage, s)).trimmed == 3
        assert seqs(await storage.history(s)) == [4, 5]
        await storage.apply(append(s, due=("late",)))
        await trim()
        assert seqs(await storage.history(s)) == [4, 5, 6]

    @pytest.mark.parametrize(("through", "trimmed"), [(None, 4), (2, 2), (4, 4), (99, 4), (0, 0)])
    async def test_without_jobs_a_trim_goes_as_far_as_it_says(
        self, storage: Storage, through: int | None, trimmed: int
    ) -> None:
        s = unique("session")
        await fill(storage, s, 4)
        assert await storage.apply(Trim(s, through)) == [Result(trimmed > 0)]
        assert (await header(storage, s)).trimmed == trimmed
        assert seqs(await storage.history(s)) == list(range(trimmed + 1, 5))
        assert await storage.apply(Trim(s, through)) == [Result(False)]
        assert await storage.apply(Trim(s, 1)) == [Result(trimmed == 0)]
        assert (await header(storage, s)).trimmed == max(trimmed, 1)

    async def test_trimming_a_missing_session_creates_nothing(self, storage: Storage) -> None:
        s = unique("session")
        assert await storage.apply(Trim(s)) == [Result(False)]
        assert await storage.find("session", id=s) == []

    async def test_a_seq_is_not_reused_after_trimming(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3)
        await storage.apply(Trim(s))
        [result] = await storage.apply(append(s, "next"))
        assert result.turn is not None
        assert result.turn.seq == 4
        assert texts(await storage.history(s)) == ["next"]

    async def test_a_turn_may_be_trimmed_as_it_is_appended(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        added, trimmed = await storage.apply(append(s, run_id=run), Trim(s))
        assert added.turn is not None
        assert (added.created, added.turn.seq, trimmed) == (True, 1, Result(True))
        assert await storage.history(s) == []
        again, _ = await storage.apply(append(s, run_id=run), Trim(s))
        assert again.turn is not None
        assert (again.created, again.turn.messages) == (False, [])
        _, added = await storage.apply(Trim(s), append(s))  # in this order the new turn stays
        assert seqs(await storage.history(s)) == [2]

    async def test_a_session_that_keeps_its_turns_loses_none(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("a",)))
        await storage.apply(append(s, keep_turns=True))  # any writer may ask for it
        await storage.apply(append(s))  # and none takes it back
        metadata = Session(session_id=s, keep_turns=False, metadata={"a": 1})
        await storage.apply(Put(metadata, ALWAYS))
        assert (await header(storage, s)).keep_turns
        assert await storage.apply(Trim(s)) == [Result(False)]
        await storage.apply(Advance(s, "a", 0, 3))
        assert await storage.apply(Trim(s)) == [Result(False)]
        assert seqs(await storage.history(s)) == [1, 2, 3]
        assert (await header(storage, s)).trimmed == 0

    async def test_what_was_trimmed_before_stays_trimmed(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 2)
        await storage.apply(Trim(s))
        await storage.apply(append(s, keep_turns=True), Trim(s))
        stored = await header(storage, s)
        assert (stored.trimmed, stored.keep_turns) == (2, True)
        assert seqs(await storage.history(s)) == [3]

    async def test_a_job_is_given_the_turns_after_the_first_append(self, storage: Storage) -> None:
        s = unique("session")
        empty = Session(session_id=s, jobs={"forged": JobState(9)}, last_seq=9, trimmed=3)
        await storage.apply(Put(empty, ALWAYS))
        stored = await header(storage, s)
        assert (stored.last_seq, stored.trimmed, stored.jobs) == (0, 0, {})
        turn = Turn(session_id=s, seq=77)
        [result] = await storage.apply(Append(turn, empty, due=("a",)))
        assert result.turn is not None
        assert result.turn.seq == 1
        assert (await header(storage, s)).jobs == {"a": JobState(0)}
