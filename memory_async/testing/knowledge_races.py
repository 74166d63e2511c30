"""Adding that is interrupted, that fails, and that others do at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from threading import Event
from typing import Any

import pytest

from memory_async.errors import ModelError, StorageUnavailableError
from memory_async.knowledge import KnowledgeBase
from memory_async.records import Document
from memory_async.storage.protocol import Storage
from memory_async.testing.around import Around, Dying
from memory_async.testing.knowledge_suite import (
    KnowledgeSuite,
    Meaning,
    book,
    chunks,
    in_base,
    is_whole,
)
from memory_async.testing.material import unique
from memory_async.testing.suite import one_loop, promises

OLD, NEW = book("tea"), book("coffee")


class Gate(Meaning):
    """Embeds when it is opened; says when it is asked. In whatever event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.open = Event(), Event()

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked.set()
        await happens(self.open)
        return await super().__call__(texts)


async def happens(event: Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


class Meddling(Around):
    """Does something just before its ``number``-th call."""

    def __init__(self, storage: Storage, number: int, do: Callable[[], Awaitable[object]]) -> None:
        super().__init__(storage)
        self.calls = 0
        self._number, self._do = number, do

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls - 1 == self._number:
            await self._do()
        return await super().call(name, *args, **kwargs)


async def found(knowledge: KnowledgeBase) -> set[str]:
    """Which of the two is found, by a word both have."""
    return {hit.text.split()[0] for hit in await knowledge.search("paragraph", 20)}


async def the_one(knowledge: KnowledgeBase) -> Document:
    [document] = await knowledge.list()
    return document


class RaceConformance(KnowledgeSuite):
    """The old content is found until the new one is, each whole."""

    @promises("transactions")
    @pytest.mark.parametrize(
        ("old", "after"),
        [(None, True), (OLD, False), (OLD, True)],
        ids=["new", "replaced-before", "replaced-after"],
    )
    async def test_a_writer_may_die_at_any_call(
        self, storage: Storage, old: str | None, after: bool
    ) -> None:
        number = 0
        while True:
            id = unique("base")
            knowledge = self.knowledge(storage, id, passage_size=40)
            if old is not None:
                await knowledge.add(old, source="book")
            dying = Dying(storage, number, after=after)
            dead = self.knowledge(dying, id, passage_size=40, embed=Meaning())
            try:
                await dead.add(NEW, source="book")
            except StorageUnavailableError:
                if not (after and dying.landed == self.batches):
                    assert await found(knowledge) == (set() if old is None else {"tea"})
            else:
                break
            assert (await knowledge.add(NEW, source="book")).status == "ready"
            await is_whole(storage, id, await the_one(knowledge), NEW)
            assert await found(knowledge) == {"coffee"}
            number += 1
        assert dying.landed == self.batches
        assert number == self.batches + 1  # one read

    batches = 5  # pending, three of up to a hundred passages, ready

    @promises("compare-and-set", "transactions")
    async def test_writers_of_one_source_leave_one_document(self, storage: Storage) -> None:
        id = unique("base")
        given = [OLD, "short", NEW, OLD, "short", NEW]
        writers = [
            self.knowledge(storage, id, passage_size=40, embed=Meaning() if n % 2 else None)
            for n, _ in enumerate(given)
        ]
        for source in ("book", "pen"):
            added = await asyncio.gather(
                *(each.add(text, source=source) for each, text in zip(writers, given, strict=True))
            )
            assert {each.document_id for each in added} == {added[0].document_id}
            document = await the_one(writers[0])
            texts = {each.hash: text for each, text in zip(added, given, strict=True)}
            await is_whole(storage, id, document, texts[document.hash])
            await writers[0].clear()

    @promises("transactions")
    async def test_what_waits_is_pending_and_the_old_is_found(self, storage: Storage) -> None:
        id, gate = unique("base"), Gate()
        knowledge = self.knowledge(storage, id)
        slow = self.knowledge(storage, id, embed=gate)
        old = await knowledge.add("tea paragraph", source="a", metadata={"n": 1})
        adding = asyncio.create_task(slow.add("coffee paragraph", source="a", metadata={"n": 2}))
        await happens(gate.asked)
        pending = await the_one(knowledge)
        assert [pending] == await knowledge.list(status="pending", metadata={"n": 1})
        assert (pending.hash, pending.chunk_count) == (old.hash, old.chunk_count)
        assert await found(knowledge) == {"tea"}
        gate.open.set()
        new = await adding
        await is_whole(storage, id, new, "coffee paragraph")
        assert await found(knowledge) == {"coffee"}
        assert await knowledge.list(status="ready", metadata={"n": 2}) == [new]

    async def test_a_model_that_fails_is_told(self, storage: Storage) -> None:
        id = unique("base")

        async def fails(_: list[str]) -> list[list[float]]:
            raise RuntimeError("no more credit \ud800")

        knowledge = self.knowledge(storage, id)
        failing = self.knowledge(storage, id, embed=fails)
        with pytest.raises(RuntimeError, match="credit"):
            await failing.add("coffee paragraph", source="a")
        failed = await the_one(knowledge)
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.startswith("RuntimeError: no more credit")
        assert (failed.hash, failed.chunk_count) == (None, 0)
        old = await knowledge.add("tea paragraph", source="a")
        assert (old.status, old.error, old.created_at) == ("ready", None, failed.created_at)
        with pytest.raises(RuntimeError, match="credit"):
            await failing.add("coffee paragraph", source="a")
        assert await knowledge.list(status="failed") == await knowledge.list()
        assert await found(knowledge) == {"tea"}
        assert len(await chunks(storage, id)) == 1
        await is_whole(storage, id, await failing.add("tea paragraph", source="a"), "tea paragraph")

    @pytest.mark.parametrize(
        "answer",
        [[], [[1.0], [2.0]], [[]], ["x"], [[float("nan")]], [[float("inf")]], None, [[None]]],
        ids=str,
    )
    async def test_vectors_that_cannot_be(
        self, storage: Storage, answer: Sequence[Sequence[float]]
    ) -> None:
        async def wrong(_: list[str]) -> Sequence[Sequence[float]]:
            return answer

        knowledge = self.knowledge(storage, unique("base"), embed=wrong)
        with pytest.raises(ModelError, match="embed"):
            await knowledge.add("text")
        with pytest.raises(ModelError, match="embed"):
            await knowledge.search("text")

    @one_loop
    async def test_cancelled_it_leaves_nothing_behind(self, storage: Storage) -> None:
        id, gate = unique("base"), Gate()
        knowledge = self.knowledge(storage, id, embed=gate, passage_size=40)
        adding = asyncio.create_task(knowledge.add(NEW))
        await happens(gate.asked)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        [failed] = await knowledge.list(status="failed")
        assert (failed.staging, failed.error) == ([], "CancelledError: cancelled")
        gate.open.set()
        assert await chunks(storage, id) == []
        assert await storage.find("item", in_base(id)) == []
        await is_whole(storage, id, await knowledge.add(NEW), NEW)

    @promises("transactions")
    @pytest.mark.parametrize("clears", [False, True], ids=["delete", "clear"])
    async def test_deleted_meanwhile_it_begins_anew(self, storage: Storage, clears: bool) -> None:
        id, gate = unique("base"), Gate()
        knowledge = self.knowledge(storage, id, embed=gate)
        adding = asyncio.create_task(knowledge.add("coffee paragraph", source="a"))
        await happens(gate.asked)
        await (knowledge.clear() if clears else knowledge.delete(await the_one(knowledge)))
        gate.open.set()
        await is_whole(storage, id, await adding, "coffee paragraph")

    async def test_replaced_amid_a_search_it_is_found(self, storage: Storage) -> None:
        number = calls = 0
        while number <= calls:
            id = unique("base")
            knowledge = self.knowledge(storage, id)
            await knowledge.add("tea paragraph", source="a")
            replace = partial(knowledge.add, "coffee paragraph", source="a")
            meddling = Meddling(storage, number, replace)
            [hit] = await self.knowledge(meddling, id).search("paragraph")
            assert hit.text == ("coffee paragraph" if hit.document.size == 16 else "tea paragraph")
            number, calls = number + 1, meddling.calls
        assert number > 2
