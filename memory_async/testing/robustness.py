"""Cancellation, closing, event loops, and many writers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.keys import Partition
from memory_async.records import Session
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Put, Result, Storage
from memory_async.testing.material import (
    append,
    fill,
    header,
    in_session,
    item,
    put,
    seqs,
    texts,
    unique,
)
from memory_async.testing.suite import MakeStorage, Suite, one_loop, promises

MOMENTS = [*range(30), 40, 60, 100, 200]
"""After how many steps of the event loop a call is cancelled."""

CALLS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "apply": lambda storage: storage.apply(append("s")),
    "get": lambda storage: storage.get(item("c", "i").key),
    "find": lambda storage: storage.find("item"),
    "history": lambda storage: storage.history("s"),
    "snapshot": lambda storage: storage.snapshot("s"),
    "now": lambda storage: storage.now(Partition("session", "s")),
    "open": lambda storage: storage.open(),
}


async def cancel_after(steps: int, call: Awaitable[Any]) -> bool:
    """Whether the call was cancelled; False when it ended before."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


class RobustnessConformance(Suite):
    """What a storage survives."""

    # --- cancellation ---

    @promises("transactions")
    async def test_a_cancelled_batch_is_whole_or_absent(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, "first", due=("job",), keep_turns=True))
        await storage.apply(Put(Session(session_id=s, metadata={"text": "first"}), ALWAYS))
        returned = ["first"]
        for steps in MOMENTS:
            text = f"after {steps}"
            batch = (append(s, text), Put(Session(session_id=s, metadata={"text": text}), ALWAYS))
            if not await cancel_after(steps, storage.apply(*batch)):
                returned.append(text)
            await self._is_consistent(storage, s)
        await storage.apply(
            append(s, "last"), Put(Session(session_id=s, metadata={"text": "last"}), ALWAYS)
        )
        said = await self._is_consistent(storage, s)
        assert set(returned) <= set(said)
        assert len(set(said)) == len(said)
        assert said[-1] == "last"

    async def _is_consistent(self, storage: Storage, s: str) -> list[str]:
        """One snapshot, so that a batch still on its way cannot come in between."""
        view = await storage.snapshot(s)
        assert view.session is not None
        assert seqs(view.turns) == list(range(1, view.session.last_seq + 1))
        said = texts(view.turns)
        assert view.session.metadata == {"text": said[-1]}
        return said

    @promises("transactions")
    async def test_a_batch_that_times_out_is_whole_or_absent(self, storage: Storage) -> None:
        s = unique("session")
        for number in range(10):
            text = f"{number}"
            metadata = Session(session_id=s, metadata={"text": text})
            try:
                async with asyncio.timeout(0):
                    await storage.apply(append(s, text), Put(metadata, ALWAYS))
            except TimeoutError:
                pass
        await storage.apply(
            append(s, "last"), Put(Session(session_id=s, metadata={"text": "last"}), ALWAYS)
        )
        assert (await self._is_consistent(storage, s))[-1] == "last"

    @promises("transactions", "unique seq")
    async def test_cancelling_one_writer_takes_no_other_along(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, "first"))
        for steps in range(0, 16, 3):
            tasks = [asyncio.ensure_future(storage.apply(append(s))) for _ in range(12)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(answer, list) for answer in answers[1::2])
        await storage.apply(append(s, "last"))
        turns = await storage.history(s)
        assert seqs(turns) == list(range(1, len(turns) + 1))
        assert len({turn.run_id for turn in turns}) == len(turns)
        assert len(turns) >= 2 + 6 * 6

    async def test_a_cancelled_read_harms_nothing(self, storage: Storage) -> None:
        s = unique("session")
        await fill(storage, s, 3)
        for steps in (0, 1, 2, 3, 5, 8, 13, 21, 34):
            for call in (
                storage.history(s), storage.snapshot(s), storage.find("session", in_session(s))
            ):  # fmt: skip
                await cancel_after(steps, call)
            assert seqs((await storage.snapshot(s)).turns) == [1, 2, 3]
        assert seqs(await fill(storage, s, 1)) == [4]

    async def test_a_storage_cancelled_while_it_opens_opens_again(self, make: MakeStorage) -> None:
        for steps in (*range(12), 20, 50, 100):
            storage, s = make(namespace=unique("namespace")), unique("session")
            await cancel_after(steps, storage.apply(append(s)))
            await storage.apply(append(s, "second"))
            turns = await storage.history(s)
            assert texts(turns)[-1] == "second"
            assert seqs(turns) == list(range(1, len(turns) + 1))
            await storage.close()

    # --- many at once ---

    async def test_the_first_calls_may_come_together(self, make: MakeStorage) -> None:
        storage, s = make(namespace=unique("namespace")), unique("session")
        where = in_session(s)
        await asyncio.gather(*[storage.apply(Put(item(where, f"{n}"), ABSENT)) for n in range(20)])
        assert len(await storage.find("item", where)) == 20

    @promises("unique seq", "compare-and-set")
    async def test_writers_of_all_kinds_work_side_by_side(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("job",), keep_turns=True))
        count = item(in_session(s), "count", 0)
        await put(storage, count)

        async def talk(writer: int) -> None:
            for number in range(5):
                await storage.apply(append(s, f"{writer}.{number}"))

        async def work() -> None:
            for through in range(1, 6):
                await storage.apply(Advance(s, "job", through - 1, through, through))

        async def rename() -> None:
            for number in range(5):
                metadata = Session(session_id=s, metadata={"number": number})
                await storage.apply(Put(metadata, ALWAYS))

        await fill(storage, s, 5)
        await asyncio.gather(work(), rename(), *map(talk, range(6)))
        stored = await header(storage, s)
        assert stored.last_seq == 36
        assert (stored.jobs["job"], stored.metadata) == ((5, 5), {"number": 4})
        assert seqs(await storage.history(s)) == list(range(1, 37))
        assert await storage.get(count.key) == count

    # --- opening and closing ---

    async def test_it_works_with_and_without_async_with(self, make: MakeStorage) -> None:
        async with make() as storage:
            assert isinstance(storage, Storage)
            s = unique("session")
            await fill(storage, s, 2)
            assert seqs(await storage.history(s)) == [1, 2]
        with pytest.raises(StorageUnavailableError):
            await storage.history(s)
        plain = make()
        await fill(plain, s + "2", 1)
        await plain.close()

    async def test_opening_again_changes_nothing(self, storage: Storage) -> None:
        s = unique("session")
        await storage.open()
        await fill(storage, s, 1)
        await asyncio.gather(storage.open(), storage.open())
        assert seqs(await fill(storage, s, 1)) == [2]

    async def test_an_error_within_async_with_passes_through(self, make: MakeStorage) -> None:
        with pytest.raises(LookupError, match="mine"):
            async with make():
                raise LookupError("mine")

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_closed_storage_says_so(self, make: MakeStorage, call: str) -> None:
        used, unused = make(), make()
        await used.open()
        for storage in (used, unused):
            await storage.close()
            await storage.close()
            with pytest.raises(StorageUnavailableError, match="closed"):
                await CALLS[call](storage)

    async def test_closing_amid_calls_is_an_error_to_them_at_most(self, make: MakeStorage) -> None:
        storage = make(namespace=unique("namespace"))
        s = unique("session")
        await storage.apply(append(s))
        calls: list[Awaitable[Any]] = [storage.apply(append(s)) for _ in range(5)]
        calls += [storage.history(s), storage.snapshot(s), storage.close(), storage.close()]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(answer, BaseException) or isinstance(
                answer, StorageUnavailableError
            )

    async def test_a_cancelled_close_can_be_repeated(self, make: MakeStorage) -> None:
        for steps in (0, 1, 2, 3, 5, 8):
            storage = make(namespace=unique("namespace"))
            await storage.apply(append("s"))
            await cancel_after(steps, storage.close())
            await storage.close()
            with pytest.raises(StorageUnavailableError):
                await storage.history("s")

    @one_loop
    async def test_a_second_event_loop_is_told_so(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s))

        def elsewhere(call: str) -> None:
            with pytest.raises(ConfigurationError, match="loop"):
                asyncio.run(_as_coroutine(CALLS[call](storage)))

        for call in CALLS:
            await asyncio.to_thread(elsewhere, call)
        assert await storage.apply(append(s)) != [Result(False)]
        assert seqs(await storage.history(s)) == [1, 2]


async def _as_coroutine(call: Awaitable[Any]) -> Any:
    return await call
