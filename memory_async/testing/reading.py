"""Reading the log: `history` and `snapshot`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from memory_async.errors import ConfigurationError
from memory_async.keys import Partition
from memory_async.records import Session, UserProfile
from memory_async.storage.protocol import ALWAYS, Advance, Put, Snapshot, Storage, Trim
from memory_async.testing.material import append, fill, header, put, seqs, unique
from memory_async.testing.suite import Suite, promises

TEN = list(range(1, 11))

# Bounds, and the turns within: of ten; of five of which two are trimmed, and these as well; of ten
# that some jobs have taken.
WITHIN: list[tuple[dict[str, Any], list[int]]] = [
    ({}, TEN),
    ({"last": 3}, [8, 9, 10]),
    ({"last": 0}, []),
    ({"last": 99}, TEN),
    ({"limit": 3}, [1, 2, 3]),
    ({"limit": 0}, []),
    ({"limit": 99}, TEN),
    ({"after": 7}, [8, 9, 10]),
    ({"after": 0}, TEN),
    ({"after": 10}, []),
    ({"after": 99}, []),
    ({"before": 4}, [1, 2, 3]),
    ({"before": 1}, []),
    ({"before": 0}, []),
    ({"before": 99}, TEN),
    ({"after": 2, "before": 6}, [3, 4, 5]),
    ({"after": 5, "before": 6}, []),
    ({"after": 6, "before": 2}, []),
    ({"after": 2, "before": 6, "last": 2}, [4, 5]),
    ({"after": 2, "before": 6, "limit": 2}, [3, 4]),
    ({"after": 2, "limit": 2}, [3, 4]),
    ({"after": 2, "last": 2}, [9, 10]),
    ({"before": 6, "last": 2}, [4, 5]),
    ({"before": 6, "limit": 2}, [1, 2]),
    ({"before": 99, "last": 2}, [9, 10]),
    ({"after": 4, "last": 0}, []),
]
AFTER_A_TRIM: list[tuple[dict[str, Any], list[int], list[int]]] = [
    ({}, [3, 4, 5], [1, 2, 3, 4, 5]),
    ({"last": 4}, [3, 4, 5], [2, 3, 4, 5]),
    ({"limit": 2}, [3, 4], [1, 2]),
    ({"after": 1, "limit": 2}, [3, 4], [2, 3]),
    ({"before": 3}, [], [1, 2]),
    ({"before": 4, "last": 2}, [3], [2, 3]),
]
VIEWS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, TEN),
    ({"last": None, "since": "at 4"}, TEN),
    ({"last": 0}, []),
    ({"last": 2}, [9, 10]),
    ({"last": 99}, TEN),
    ({"last": 0, "since": "at 4"}, [5, 6, 7, 8, 9, 10]),
    ({"last": 2, "since": "at 4"}, [5, 6, 7, 8, 9, 10]),
    ({"last": 8, "since": "at 4"}, [3, 4, 5, 6, 7, 8, 9, 10]),
    ({"last": 0, "since": "at 0"}, TEN),
    ({"last": 0, "since": "at 10"}, []),
    ({"last": 1, "since": "at 10"}, [10]),
    ({"last": 0, "since": "unregistered"}, []),
    ({"last": 3, "since": "unregistered"}, [8, 9, 10]),
    ({"since": "unregistered"}, TEN),
]


class ReadingConformance(Suite):
    """What readers see of a session's log, and that they see one moment."""

    async def test_history_gives_the_turns_within_its_bounds(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 10)
        await fill(storage, unique("session"), 2)
        for bounds, expected in WITHIN:
            assert seqs(await storage.history(s, **bounds)) == expected, bounds
            assert seqs(await storage.history(s, trimmed=True, **bounds)) == expected, bounds

    async def test_history_starts_after_what_was_trimmed(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 5)
        await storage.apply(Trim(s, 2))
        for bounds, expected, with_trimmed in AFTER_A_TRIM:
            assert seqs(await storage.history(s, **bounds)) == expected, bounds
            assert seqs(await storage.history(s, trimmed=True, **bounds)) == with_trimmed, bounds

    @pytest.mark.parametrize(
        "bounds",
        [
            {"last": 1, "limit": 1},
            {"last": -1},
            {"limit": -1},
            {"after": -1},
            {"before": -1},
            {"last": 1.0},
            {"limit": "1"},
            {"last": True},
        ],
        ids=str,
    )
    async def test_bounds_that_mean_nothing_are_refused(
        self, storage: Storage, bounds: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError):
            await storage.history(unique("session"), **bounds)

    async def test_a_missing_session_reads_as_empty_and_is_not_created(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        assert await storage.history(s) == []
        assert await storage.history(s, last=3, trimmed=True) == []
        assert await storage.snapshot(s) == Snapshot(None, [], None)
        assert await storage.snapshot(s, unique("user"), last=2, since="job") == (None, [], None)
        assert await storage.find("session", id=s) == []

    # --- snapshot ---

    async def test_a_snapshot_has_the_last_turns_and_all_a_job_has_not_taken(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        await fill(storage, s, 10, due=("at 0", "at 4", "at 10"), keep_turns=True)
        await storage.apply(Advance(s, "at 4", 0, 4))
        await storage.apply(Advance(s, "at 10", 0, 10))
        turns = await storage.history(s)
        for bounds, expected in VIEWS:
            view = await storage.snapshot(s, **bounds)
            assert seqs(view.turns) == expected, bounds
            assert view.turns == turns[len(turns) - len(expected) :]
            assert view.session == await header(storage, s)
            assert view.profile is None

    async def test_a_snapshot_starts_after_what_was_trimmed(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 5)
        await storage.apply(Trim(s, 3))
        await storage.apply(append(s, due=("late",)))
        given: list[dict[str, Any]] = [{}, {"last": 4}, {"last": 0, "since": "late"}]
        for bounds in given:
            assert seqs((await storage.snapshot(s, **bounds)).turns) == [4, 5, 6]

    async def test_a_snapshot_has_the_profile_of_that_user_and_name(self, storage: Storage) -> None:
        s, ann = unique("session"), unique("user")
        plain = UserProfile(user_id=ann, traits={"likes": "tea"})
        work = UserProfile(user_id=ann, name="work", traits={"job": "cook"})
        await put(storage, plain, work, UserProfile(user_id=unique("user")))
        await storage.apply(append(s, user_id=ann))
        stored = await header(storage, s)
        assert await storage.snapshot(s, ann, last=0) == (stored, [], plain)
        assert await storage.snapshot(s, ann, last=0, profile="work") == (stored, [], work)
        assert await storage.snapshot(s, ann, last=0, profile="none") == (stored, [], None)
        assert await storage.snapshot(s, last=0) == (stored, [], None)
        assert await storage.snapshot(s, unique("user"), last=0) == (stored, [], None)
        assert await storage.snapshot(unique("session"), ann) == (None, [], plain)

    @pytest.mark.parametrize("last", [-1, 1.5, "1", False])
    async def test_a_snapshot_refuses_a_number_that_means_nothing(
        self, storage: Storage, last: Any
    ) -> None:
        with pytest.raises(ConfigurationError):
            await storage.snapshot(unique("session"), last=last)

    @promises("transactions")
    async def test_a_snapshot_is_of_one_moment(self, storage: Storage) -> None:
        s = unique("session")

        async def write() -> None:
            for number in range(1, 31):
                metadata = Session(session_id=s, metadata={"turns": number})
                await storage.apply(append(s, due=("job",)), Put(metadata, ALWAYS))
                if number % 5 == 0:
                    await storage.apply(Advance(s, "job", number - 5, number, number))
                await asyncio.sleep(0)  # engines in memory would not let the reader in

        writer, moments = asyncio.ensure_future(write()), []
        while not writer.done():
            moments.append(await storage.snapshot(s, since="job"))
            await asyncio.sleep(0)
        await writer
        moments.append(await storage.snapshot(s, since="job"))
        for session, turns, _ in moments:
            if session is None:
                assert turns == []
                continue
            assert seqs(turns) == list(range(session.trimmed + 1, session.last_seq + 1))
            assert session.metadata == {"turns": session.last_seq}
            through, value = session.jobs["job"]
            assert (through, value) == (session.trimmed, through or None)
        assert moments[-1].session is not None
        assert moments[-1].session.last_seq == 30

    async def test_now_is_an_aware_time_that_moves_on(self, storage: Storage) -> None:
        where = Partition("session", unique("session"))
        moments = [await storage.now(where) for _ in range(3)]
        assert all(moment.tzinfo is not None for moment in moments)
        assert moments == sorted(moments)
