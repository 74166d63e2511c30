"""Cancelled while entering or leaving: the end of a block is stored whole, whoever is impatient."""

import asyncio
from typing import Any

import anyio
import pytest

from memory_async import (
    ALWAYS,
    Item,
    LeaseLostError,
    Memory,
    Partition,
    Put,
    Requirement,
    RunAlreadyCompletedError,
    RunNotFoundError,
)
from memory_async.testing.around import Around, Later
from memory_async.testing.run_suite import ANSWER, NOTHING, finish, kept

ENDS = {"end": "completed", "pause": "paused", "error": "error", "cancelled": "cancelled"}


class Held(Around):
    """Holds one batch back, before or after it is applied, until `let_go` is set."""

    def __init__(self, storage, moment):
        super().__init__(storage)
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()
        self.moment = moment
        self.holding = False

    async def apply(self, *writes):
        holding, self.holding = self.holding, False
        if holding and self.moment == "before":
            await self._hold()
        done = await super().apply(*writes)
        if holding and self.moment == "after":
            await self._hold()
        return done

    async def _hold(self):
        self.reached.set()
        await self.let_go.wait()


def leases():
    """The tasks that renew leases."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("lease of")]


async def leave(memory, end, runs):
    async with memory.run("Hi", run_id="r") as run:
        runs.append(run)
        run.add(ANSWER)
        memory._shared.storage.holding = True
        if end == "pause":
            run.pause({"step": 1}, [Requirement("ok", "approval")])
        elif end == "error":
            raise ValueError("mine")
        elif end == "cancelled":
            raise asyncio.CancelledError("mine")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", ["once", "often", "scope", "timeout"])
async def test_the_end_is_stored_before_the_cancellation_is_raised(storage, moment, end, how):
    held = Held(storage, moment)
    memory = Memory(held, "s", full_session_memory=True)
    runs: list[Any] = []

    async def work():
        if how == "scope":
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await leave(memory, end, runs)
            raise asyncio.CancelledError
        if how == "timeout":
            async with asyncio.timeout(None) as timeout:
                scopes.append(timeout)
                await leave(memory, end, runs)
        await leave(memory, end, runs)

    scopes: list[Any] = []
    task = asyncio.create_task(work())
    await held.reached.wait()
    if how == "scope":
        scopes[0].cancel()
    elif how == "timeout":
        scopes[0].reschedule(0)
    else:
        for _ in range(1 if how == "once" else 5):
            task.cancel()
            await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
        assert not task.done()
    held.let_go.set()
    with pytest.raises(TimeoutError if how == "timeout" else asyncio.CancelledError) as info:
        await task
    assert runs[0].status == ENDS[end]
    found = await kept(storage, "s", "r")
    assert len(await storage.history("s")) == (end == "end")
    if end == "end":
        assert found == NOTHING
    else:
        assert (found.status, found.lease) == (ENDS[end], None)
    if end == "error" and how in ("once", "often"):
        assert isinstance(info.value.__context__, ValueError)
    assert leases() == []


@pytest.mark.parametrize("steps", [*range(12), 15, 20, 30, 50])
async def test_a_cancelled_entry_leaves_a_run_or_none(storage, steps):
    memory = Memory(storage, "s", "ada", full_session_memory=True)
    entered = []

    async def work():
        async with memory.run("Hi", run_id="r") as run:
            entered.append(run)

    task = asyncio.create_task(work())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert leases() == []
    # Behind whatever is still on its way to the storage.
    await storage.apply(Put(Item(partition=Partition("session", "s"), id="i"), ALWAYS))
    turns = 1
    try:
        await finish(Memory(Later(storage), "s", "ada", full_session_memory=True), "r")
    except RunNotFoundError:
        turns = 0
    except RunAlreadyCompletedError:
        assert entered[0].status == "completed"
    assert await kept(storage, "s", "r") == NOTHING
    assert len(await storage.history("s")) == turns


@pytest.mark.parametrize("end", ENDS)
async def test_nobody_renews_a_run_that_was_left(storage, end):
    held = Held(storage, "never")
    runs: list[Any] = []
    memory = Memory(held, "s", full_session_memory=True)
    try:
        await leave(memory, end, runs)
    except (ValueError, asyncio.CancelledError):
        assert end in ("error", "cancelled")
    assert leases() == []
    with pytest.raises(LeaseLostError):
        async with memory.run("Hi"):
            assert len(leases()) == 1
            await memory.delete_session()
    assert leases() == []
