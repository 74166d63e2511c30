"""Keeping a run while it lives: renewing its lease, and answers that never come."""

# What is named in a block that may swallow is "possibly unbound" after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from memory_async.errors import (
    RunAlreadyClaimedError,
    RunAlreadyCompletedError,
    RunNotFoundError,
    StorageUnavailableError,
)
from memory_async.memory import Memory
from memory_async.records import Checkpoint, Lease
from memory_async.storage.protocol import Append, Delete, Put, Storage, Write
from memory_async.testing.around import Clock, Failing, Later, Recording
from memory_async.testing.material import in_session, seqs, texts, unique
from memory_async.testing.run_suite import (
    ANSWER,
    ASK,
    HI,
    NOTHING,
    RunSuite,
    finish,
    kept,
)

DEADLINE = 20


def _puts(writes: tuple[Write, ...]) -> dict[type, Any]:
    return {type(write.record): write.record for write in writes if isinstance(write, Put)}


def renews(writes: tuple[Write, ...]) -> bool:
    return set(_puts(writes)) == {Lease}


WRITES = {
    "open": lambda writes: {Checkpoint, Lease} <= set(_puts(writes)) and len(writes) > 2,
    "checkpoint": lambda writes: len(writes) == 1 and Checkpoint in _puts(writes),
    "pause": lambda writes: Checkpoint in _puts(writes) and isinstance(writes[-1], Delete),
    "claim": lambda writes: {Checkpoint, Lease} <= set(_puts(writes)) and len(writes) == 2,
    "finish": lambda writes: isinstance(writes[0], Append),
}
"""The writes of a run, told apart."""


class LeaseConformance(RunSuite):
    """A worker that is alive keeps its run."""

    # --- renewing ---

    async def test_a_long_run_stays_owned_and_renewing_writes_the_lease_only(
        self, storage: Storage
    ) -> None:
        s, recording = unique("session"), Recording(storage)
        clock = Clock(recording, await storage.now(in_session(s)))
        memory = self.memory(clock, s, full_session_memory=True, lease_seconds=0.15)
        async with memory.run(HI) as run:
            await run.checkpoint(["x" * 1_000_000] * 10)
            before = (await kept(storage, s, run.run_id)).checkpoint
            written = len(recording.applied)
            for _ in range(10):  # more than three leases
                clock.time += timedelta(seconds=0.05)
                await self._renewed(storage, s, run.run_id, clock.time)
                with pytest.raises(RunAlreadyClaimedError):
                    async with memory.resume(run.run_id):
                        pytest.fail("entered")
            assert all(map(renews, recording.applied[written:]))
            assert (await kept(storage, s, run.run_id)).checkpoint == before
            run.add(ANSWER)
        assert run.status == "completed"

    async def _renewed(self, storage: Storage, s: str, run_id: str, now: datetime) -> None:
        """Until the lease was renewed at that time, or later."""
        async with asyncio.timeout(DEADLINE):
            while True:
                lease = (await kept(storage, s, run_id)).lease
                assert lease
                if lease.until >= now + timedelta(seconds=0.15):
                    return
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize("lost", [False, True])
    async def test_renewing_survives_a_storage_that_fails(
        self, storage: Storage, lost: bool
    ) -> None:
        s, recording = unique("session"), Recording(storage)
        clock = Clock(recording, await storage.now(in_session(s)))
        failing = Failing(clock, renews, times=3, lost=lost)
        memory = self.memory(failing, s, full_session_memory=True, lease_seconds=0.15)
        async with memory.run(HI) as run:
            async with asyncio.timeout(DEADLINE):
                while failing.left:  # noqa: ASYNC110 - as anybody else would find out
                    await asyncio.sleep(0.01)
            clock.time += timedelta(seconds=0.05)
            await self._renewed(storage, s, run.run_id, clock.time)
            await run.checkpoint(1)
            run.add(ANSWER)
        assert run.status == "completed"
        assert seqs(await storage.history(s)) == [1]

    # --- answers that are lost ---

    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("write", WRITES)
    async def test_a_lost_answer_loses_nothing(
        self, storage: Storage, write: str, times: int
    ) -> None:
        s, id = unique("session"), unique("run")
        failing = Failing(storage, WRITES[write], times=times, lost=True)
        memory = self.memory(failing, s, full_session_memory=True)
        errors = await self._live(memory, id)
        assert failing.left == 0
        # A second try knows better. Without an answer to that one too, the caller is told so.
        assert [type(each) for each in errors] == [StorageUnavailableError] * (times - 1)
        later = self.memory(Later(storage), s, full_session_memory=True)
        try:
            await finish(later, id)
        except RunAlreadyCompletedError as error:
            assert error.turn.seq == 1  # noqa: PT017
        assert await kept(storage, s, id) == NOTHING
        [turn] = await storage.history(s)
        assert turn.run_id == id
        assert texts([turn])[0] == HI

    @pytest.mark.parametrize("times", [1, 2])
    @pytest.mark.parametrize("write", WRITES)
    async def test_a_write_that_failed_is_tried_again(
        self, storage: Storage, write: str, times: int
    ) -> None:
        s, id = unique("session"), unique("run")
        failing = Failing(storage, WRITES[write], times=times)
        memory = self.memory(failing, s, full_session_memory=True)
        errors = await self._live(memory, id)
        assert [type(each) for each in errors] == [StorageUnavailableError] * (times - 1)
        later = self.memory(Later(storage), s, full_session_memory=True)
        if write == "open" and times == 2:
            with pytest.raises(RunNotFoundError):
                await finish(later, id)
            assert await storage.history(s) == []
            return
        try:
            await finish(later, id)
        except RunAlreadyCompletedError as error:
            assert error.turn.seq == 1  # noqa: PT017
        assert await kept(storage, s, id) == NOTHING
        assert seqs(await storage.history(s)) == [1]

    async def _live(self, memory: Memory[Any], id: str) -> list[Exception]:
        """A run's whole life, going on after the first error where there is a way."""
        errors: list[Exception] = []
        try:
            async with memory.run(HI, run_id=id) as run:
                run.add(ASK)
                try:
                    await run.checkpoint(1)
                except StorageUnavailableError as error:
                    errors.append(error)
                await run.checkpoint(2)
                run.pause(3)
            async with memory.resume(id) as run:
                assert run.state == 3
                run.add(ANSWER)
        except StorageUnavailableError as error:
            errors.append(error)
        return errors

    async def test_checkpoints_of_two_tasks_do_not_take_the_run_from_each_other(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run(HI) as run:
            await asyncio.gather(*[run.checkpoint(number) for number in range(20)])
            found = (await kept(storage, s, run.run_id)).checkpoint
            assert found
            assert found.state in range(20)
            last = asyncio.ensure_future(run.checkpoint("last"))
            await asyncio.sleep(0)
            run.add(ANSWER)
        await asyncio.gather(last, return_exceptions=True)
        assert run.status == "completed"
        assert await kept(storage, s, run.run_id) == NOTHING

    @pytest.mark.parametrize("steps", [*range(8), 12, 20])
    async def test_a_cancelled_checkpoint_does_not_cost_the_run(
        self, storage: Storage, steps: int
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run(HI) as run:
            task = asyncio.ensure_future(run.checkpoint("cancelled"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await run.checkpoint("next")
            run.add(ANSWER)
        assert run.status == "completed"
        assert await kept(storage, s, run.run_id) == NOTHING
