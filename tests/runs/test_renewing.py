"""Renewing a lease in bad company; the rest is in the conformance suite."""

import asyncio
import logging

import pytest

from memory_async import Append, LeaseLostError, Memory, StorageUnavailableError
from memory_async.testing.around import Around, Later
from memory_async.testing.run_leases import renews
from memory_async.testing.run_suite import kept

SECONDS = 0.06


class Rough(Around):
    """Renewals land without an answer; looking what became of them fails, too, so many times."""

    def __init__(self, storage, error, times):
        super().__init__(storage)
        self._error, self.left, self.renewed = error, times, 0

    async def call(self, name, *args, **kwargs):
        if name == "get" and args[0].kind == "lease" and self.left:
            self.left -= 1
            raise self._error
        done = await super().call(name, *args, **kwargs)
        if name == "apply" and renews(args):
            self.renewed += 1
            if self.left:
                raise StorageUnavailableError("the answer is lost")
        return done


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("gone"), ConnectionResetError("gone"), RuntimeError("?")]
)
async def test_an_error_of_any_kind_does_not_end_the_renewing(storage, error):
    rough = Rough(storage, error, times=3)
    async with Memory(rough, "s", lease_seconds=SECONDS).run("Hi") as run:
        await until(lambda: rough.left == 0)
        renewed = rough.renewed
        await until(lambda: rough.renewed > renewed + 2)
        await run.checkpoint(1)
    assert run.status == "completed"


async def test_a_worker_that_was_robbed_stops_renewing(storage, caplog):
    caplog.set_level(logging.WARNING, "memory_async.run")
    mine = Memory(storage, "s", full_session_memory=True, lease_seconds=SECONDS)
    theirs = Memory(Later(storage), "s", full_session_memory=True)
    with pytest.raises(LeaseLostError):
        async with mine.run("Hi") as run, theirs.resume(run.run_id) as other:
            taken = (await kept(storage, "s", run.run_id)).lease
            await until(lambda: "no longer this worker's" in caplog.text)
            assert (await kept(storage, "s", run.run_id)).lease == taken
    assert (run.status, other.status) == ("error", "completed")
    assert [turn.seq for turn in await storage.history("s")] == [1]


@pytest.mark.parametrize("seconds", [0.03, 60, 3600])
async def test_a_lease_is_renewed_three_times_over(storage, monkeypatch, seconds):
    waits, sleep = [], asyncio.sleep

    async def sleep_less(delay):
        if asyncio.current_task().get_name() == "lease of r":
            waits.append(delay)
        await sleep(0.001)

    monkeypatch.setattr(asyncio, "sleep", sleep_less)
    async with Memory(storage, "s", lease_seconds=seconds).run("Hi", run_id="r"):
        await until(lambda: len(waits) > 3)
    assert set(waits) == {seconds / 3}


class Slow(Around):
    """The answer to a run's end comes after its lease was looked for in vain."""

    def __init__(self, storage):
        super().__init__(storage)
        self.ended, self.looked = False, asyncio.Event()

    async def call(self, name, *args, **kwargs):
        done = await super().call(name, *args, **kwargs)
        if name == "apply" and isinstance(args[0], Append):
            self.ended = True
            await self.looked.wait()
        elif name == "get" and args[0].kind == "lease" and self.ended:
            assert done is None
            self.looked.set()
        return done


async def test_a_renewal_that_comes_with_the_end_says_nothing(storage, caplog):
    memory = Memory(Slow(storage), "s", full_session_memory=True, lease_seconds=SECONDS)
    async with asyncio.timeout(20), memory.run("Hi") as run:
        await run.checkpoint(1)
    assert run.status == "completed"
    assert caplog.text == ""
