"""`find`: every condition alone and together, and paging while others write."""

from __future__ import annotations

from typing import Any

import pytest

from memory_async.errors import ConfigurationError, PayloadError
from memory_async.keys import Partition
from memory_async.records import Checkpoint, Document, Record, Session
from memory_async.storage.protocol import ABSENT, ALWAYS, Delete, Put, Storage
from memory_async.testing.material import (
    append,
    at,
    changed,
    ids,
    in_session,
    item,
    pages,
    put,
    unique,
)
from memory_async.testing.suite import Suite

SHELF, BOX = Partition("collection", "shelf"), Partition("collection", "box")

# Conditions, and the ids of what meets them.
ITEMS: list[tuple[dict[str, Any], str]] = [
    ({}, "f e d c b a"),
    ({"partition": SHELF}, "e d c b a"),
    ({"partition": BOX}, "f"),
    ({"partition": Partition("collection", "none")}, ""),
    ({"partition": Partition("user", "shelf")}, ""),
    ({"id": "c"}, "c"),
    ({"id": "C"}, ""),
    ({"id": "c", "partition": BOX}, ""),
    ({"prefix": ""}, "f e d c b a"),
    ({"prefix": "c"}, "c"),
    ({"prefix": "cc"}, ""),
    ({"prefix": "f", "partition": SHELF}, ""),
    ({"tags": ["red"]}, "f d b a"),
    ({"tags": ["red", "big"]}, "b a"),
    ({"tags": ["big", "red"]}, "b a"),
    ({"tags": ["red", "red"]}, "f d b a"),
    ({"tags": ["red", "big", "old", "1"]}, "a"),
    ({"tags": ["red", "big", "old", "2"]}, ""),
    ({"tags": ["Red"]}, ""),
    ({"tags": ["re"]}, ""),
    ({"tags": ["red"], "partition": SHELF}, "d b a"),
    ({"tags": ["red"], "partition": SHELF, "prefix": "d"}, "d"),
    ({"tags": ("red",), "partition": SHELF, "id": "f"}, ""),
    ({"limit": 2}, "f e"),
    ({"limit": 0}, ""),
    ({"limit": 1, "tags": ["big"]}, "c"),
    ({"user_id": "ann"}, ""),
    ({"status": "paused"}, ""),
    ({"lagging": "job"}, ""),
]
CHECKPOINTS: list[tuple[dict[str, Any], str]] = [
    ({}, "r5 r4 r3 r2 r1"),
    ({"status": "paused"}, "r4 r1"),
    ({"status": "done"}, ""),
    ({"user_id": "ann"}, "r4 r2 r1"),
    ({"user_id": "Ann"}, ""),
    ({"user_id": "ann", "status": "paused"}, "r4 r1"),
    ({"user_id": "bob", "status": "paused"}, ""),
    ({"tags": ["agent:x"]}, "r4 r3 r1"),
    ({"tags": ["agent:x"], "user_id": "ann"}, "r4 r1"),
    ({"tags": ["agent:x"], "user_id": "ann", "status": "paused", "limit": 1}, "r4"),
    ({"partition": Partition("session", "s1")}, "r3 r2 r1"),
    ({"partition": Partition("session", "s1"), "status": "paused"}, "r1"),
    ({"partition": Partition("session", "s1"), "user_id": "ann"}, "r2 r1"),
    ({"prefix": "r", "status": "error"}, "r3"),
    ({"lagging": "job"}, ""),
]
SESSIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "s4 s3 s2 s1"),
    ({"user_id": "ann"}, "s3 s1"),
    ({"id": "s2"}, "s2"),
    ({"prefix": "s"}, "s4 s3 s2 s1"),
    ({"prefix": "s1"}, "s1"),
    ({"partition": Partition("session", "s2")}, "s2"),
    ({"partition": Partition("session", "s2"), "user_id": "ann"}, ""),
    ({"partition": Partition("user", "s2")}, ""),
    ({"lagging": "job"}, "s2 s1"),
    ({"lagging": "job", "user_id": "ann"}, "s1"),
    ({"lagging": "job", "partition": Partition("session", "s2")}, "s2"),
    ({"lagging": "job", "limit": 1}, "s2"),
    ({"lagging": "other"}, ""),
    ({"status": "paused"}, ""),
    ({"tags": ["agent:x"]}, ""),
]


async def _all(storage: Storage, kind: Any, size: int, **conditions: Any) -> list[Record]:
    return [each async for page in pages(storage, kind, size, **conditions) for each in page]


async def _finds(storage: Storage, kind: Any, cases: list[tuple[dict[str, Any], str]]) -> None:
    for conditions, expected in cases:
        assert ids(await storage.find(kind, **conditions)) == expected.split(), conditions


class FindConformance(Suite):
    """Listing records."""

    async def test_items_that_meet_every_condition(self, fresh: Storage) -> None:
        await put(
            fresh,
            item(SHELF, "a", tags=("red", "big", "old", "1"), created_at=at(1)),
            item(SHELF, "b", tags=("big", "red"), created_at=at(2)),
            item(SHELF, "c", tags=("big",), created_at=at(3)),
            item(SHELF, "d", tags=("red",), created_at=at(4)),
            item(SHELF, "e", created_at=at(5)),
            item(BOX, "f", tags=("red",), created_at=at(6)),
            Document(knowledge_base_id="shelf", document_id="a", created_at=at(7)),
        )
        await _finds(fresh, "item", ITEMS)

    async def test_checkpoints_that_meet_every_condition(self, fresh: Storage) -> None:
        for id, session_id, user_id, status, agent_id in (
            ("r1", "s1", "ann", "paused", "x"),
            ("r2", "s1", "ann", "running", None),
            ("r3", "s1", "bob", "error", "x"),
            ("r4", "s2", "ann", "paused", "x"),
            ("r5", "s3", None, "cancelled", "y"),
        ):
            checkpoint = Checkpoint(
                session_id=session_id, run_id=id, user_id=user_id, agent_id=agent_id,
                status=status, created_at=at(int(id[1:])),  # type: ignore[arg-type]
            )  # fmt: skip
            await put(fresh, checkpoint)
        await _finds(fresh, "checkpoint", CHECKPOINTS)

    async def test_sessions_that_meet_every_condition(self, fresh: Storage) -> None:
        for number, user_id in enumerate(("ann", None, "ann", "bob"), 1):
            s = f"s{number}"
            made = Session(session_id=s, user_id=user_id, agent_id="x", created_at=at(number))
            await fresh.apply(Put(made, ABSENT))
            await fresh.apply(append(s, user_id=user_id, due=("job",) if number < 3 else ()))
        await _finds(fresh, "session", SESSIONS)

    async def test_a_partition_of_another_space_holds_no_session(self, fresh: Storage) -> None:
        await fresh.apply(append("user/ann"))
        assert await fresh.find("session", Partition("user", "ann")) == []
        assert ids(await fresh.find("session", in_session("user/ann"))) == ["user/ann"]

    async def test_a_fifth_tag_is_refused(self, storage: Storage) -> None:
        record = item(unique(), "a", tags=("1", "2", "3", "4", "5"))
        with pytest.raises(PayloadError):
            await storage.apply(Put(record, ABSENT))
        assert await storage.get(record.key) is None

    async def test_turns_are_not_found(self, storage: Storage) -> None:
        with pytest.raises(ConfigurationError):
            await storage.find("turn")

    @pytest.mark.parametrize("limit", [-1, 1.0, "1", True])
    async def test_a_limit_that_means_nothing_is_refused(
        self, storage: Storage, limit: Any
    ) -> None:
        with pytest.raises(ConfigurationError):
            await storage.find("item", limit=limit)

    async def test_a_hundred_are_found_unless_told_otherwise(self, storage: Storage) -> None:
        where = Partition("collection", unique())
        await storage.apply(*[Put(item(where, f"{n:03}"), ABSENT) for n in range(103)])
        assert len(await storage.find("item", where)) == 100
        assert len(await storage.find("item", where, limit=1000)) == 103

    # --- paging ---

    async def test_ties_in_time_are_told_apart(self, fresh: Storage) -> None:
        records = [
            item(Partition(space, name), id, created_at=at(int(id == "x")))
            for space in ("collection", "session")
            for name in ("p", "q")
            for id in ("x", "y", "é", "z\U0001f600", "z\uffee")
        ]
        await put(fresh, *records)
        for size in (1, 2, 3, 7, 100):
            found = await _all(fresh, "item", size)
            assert {each.key for each in found} == {each.key for each in records}
            assert len(found) == len(records)
            places = [(each.created_at, each.key.id) for each in found]
            assert places == sorted(places, reverse=True)
            assert await fresh.find("item", before=found[4].cursor, limit=3) == found[5:8]

    async def test_paging_items_misses_and_repeats_nothing_under_load(self, fresh: Storage) -> None:
        count = 23 if self.thorough else 11
        lasting = [
            item(SHELF, f"k{n:02}", n, tags=("t",), created_at=at(n // 3)) for n in range(count)
        ]
        passing = [
            item(SHELF, f"p{n:02}", tags=("t",), created_at=at(n // 3)) for n in range(count)
        ]
        await put(fresh, *lasting, *passing)
        seen, number = [], 0
        async for page in pages(fresh, "item", 5, partition=SHELF, tags=["t"]):
            seen += ids(page)
            for _ in range(3):  # newer ones come, old ones change or go
                number += 1
                await put(fresh, item(SHELF, f"new{number}", tags=("t",)))
                await put(fresh, changed(lasting[number % count], value="new", updated_at=at(999)))
                await fresh.apply(Delete(passing[-number % count].key))
        assert len(seen) == len(set(seen))
        assert {id for id in seen if id.startswith("k")} == {each.key.id for each in lasting}

    async def test_paging_sessions_misses_and_repeats_nothing_under_load(
        self, fresh: Storage
    ) -> None:
        for number in range(14):
            made = Session(session_id=f"s{number:02}", user_id="ann", created_at=at(number // 4))
            first = append(made.session_id, user_id="ann", due=("job",))
            await fresh.apply(Put(made, ABSENT), first)
        every: list[dict[str, Any]] = [
            {"lagging": "job"}, {}, {"user_id": "ann"}, {"prefix": "s"}
        ]  # fmt: skip
        for conditions in every if self.thorough else every[:1]:
            seen = []
            async for page in pages(fresh, "session", 3, **conditions):
                seen += ids(page)
                for number in (2, 7):  # which moves updated_at, but no session
                    await fresh.apply(append(f"s{number:02}", user_id="ann"))
                renamed = Session(session_id="s13", user_id="ann", metadata={"seen": len(seen)})
                await fresh.apply(Put(renamed, ALWAYS))
                await fresh.apply(append(unique("t"), user_id="ann", due=("job",)))
            assert [id for id in seen if id.startswith("s")] == [
                f"s{number:02}" for number in range(13, -1, -1)
            ]

    async def test_a_cursor_outlives_its_record(self, fresh: Storage) -> None:
        records = [item(SHELF, f"{n}", created_at=at(0)) for n in range(4)]
        await put(fresh, *records)
        first = await fresh.find("item", limit=2)
        assert ids(first) == ["3", "2"]
        await fresh.apply(Delete(first[-1].key))
        assert ids(await fresh.find("item", before=first[-1].cursor)) == ["1", "0"]
