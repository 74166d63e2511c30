"""The end of a process: close, drain and cancellation while jobs wait."""

import asyncio
import logging
import time
import warnings
from typing import Any

import pytest

from memory_async import InMemoryStorage, Memory, Storage, StorageUnavailableError
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Errors, Script, header, says, until
from tests.llm import ScriptedLLM


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_close_ends_within_its_bound(
    make: Make,
    script: Script,
    storage: Storage,
    errors: Errors,
    caplog: pytest.LogCaptureFixture,
    timeout: float,
) -> None:
    script.hold()
    memory = make(None, **JOBS, on_job_error=errors)
    for number in range(10):  # four run, sixteen wait for a slot
        await memory.bind(session_id=f"s{number}").save(says("hello"))
    await script.wait_for_calls(4)
    start = time.monotonic()
    await memory.close(timeout=timeout)
    assert time.monotonic() - start < timeout + 5
    assert (memory.jobs.running, memory.jobs.queued) == (0, 0)
    assert [task for task in asyncio.all_tasks() if " of s" in task.get_name()] == []
    assert errors == []  # nothing has failed: the next process does them
    logged = [each for each in caplog.records if each.name == "memory_async.jobs"]
    assert [each.levelno for each in logged] == [logging.WARNING]
    assert "recover()" in logged[0].message
    script.release()
    assert await make(None, **JOBS).recover() == 20


async def test_close_waits_for_the_answer(make: Make, script: Script, storage: Storage) -> None:
    script.hold()
    memory = make(**JOBS)
    await memory.save(says("hello"))
    await script.wait_for_calls(2)
    closing = asyncio.create_task(memory.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    script.release()
    await closing
    assert {state.through for state in (await header(storage)).jobs.values()} == {1}


async def test_close_with_a_server_that_holds_its_answer(llm: ScriptedLLM, tmp_path: Any) -> None:
    """Its connections and those of the storage are closed, though they were in use."""
    llm.hold()
    memory = Memory(f"sqlite:///{tmp_path}/chat.db", "s1", "ada", **JOBS, model="openai/scripted")
    await memory.save(says("hello"))
    await asyncio.to_thread(llm.wait_for_calls, 2)
    async with asyncio.timeout(2):
        await memory.close(timeout=0.01)
    llm.release()
    await asyncio.to_thread(llm.wait_until_left)


async def test_a_model_that_will_not_be_cancelled(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.jobs.CANCEL_GRACE", 0.05)
    stop = asyncio.Event()

    async def stubborn(messages: object, *, schema: object = None) -> str:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue
        return "At last."

    memory = Memory(storage, "s1", summary_memory=True, model=stubborn)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.running == 1)
    async with asyncio.timeout(2):
        await memory.close(timeout=0.01)
    stop.set()
    await until(lambda: memory.jobs.running == 0)


async def test_after_close_no_job_begins(make: Make, script: Script, storage: Storage) -> None:
    other = make(**JOBS, summary_every=5)
    memory = make(**JOBS, summary_every=5)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
    await memory.close()
    calls = len(script.calls)
    for after in (memory.save(says("late")), memory.recover(), memory.load()):
        with pytest.raises(StorageUnavailableError):
            await after
    assert await memory.drain()
    memory.jobs.wake("s1", ["summary"], 1)
    assert await memory.jobs.recover() == 1
    assert (memory.jobs.queued, memory.jobs.running) == (0, 0)
    assert len(script.calls) == calls
    await memory.close()  # again
    assert await other.recover() == 1


async def test_views_close_nothing(make: Make, script: Script) -> None:
    memory = make(None, **JOBS)
    async with memory.bind(session_id="s1") as view:
        await view.save(says("hello"))
    assert await memory.bind(session_id="s1").turns() != []
    assert await memory.drain(10)
    assert len(script.calls) == 2


async def test_drain_says_whether_it_got_through(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(**JOBS)
    assert await memory.drain() is True
    script.hold()
    await memory.save(says("hello"))
    assert await memory.drain(timeout=0) is False
    assert await memory.drain(timeout=0.02) is False
    assert memory.jobs.running == 2  # they go on
    script.release()
    assert await memory.drain(timeout=10) is True
    assert {state.through for state in (await header(storage)).jobs.values()} == {1}
    assert len(script.calls) == 2


async def test_a_cancelled_drain_cancels_no_job(make: Make, script: Script) -> None:
    memory = make(**JOBS)
    script.hold()
    await memory.save(says("hello"))
    await script.wait_for_calls(2)
    draining = asyncio.create_task(memory.drain())
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert memory.jobs.running == 2
    script.release()
    assert await memory.drain(10)
    assert memory.jobs.done == 2


async def test_a_cancelled_close_leaves_nothing_behind(make: Make, script: Script) -> None:
    storage = InMemoryStorage()
    memory = Memory(storage, "s1", "ada", **JOBS, model=script)
    script.hold()
    await memory.save(says("hello"))
    await script.wait_for_calls(2)
    closing = asyncio.create_task(memory.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (memory.jobs.queued, memory.jobs.running) == (0, 0)
    await storage.close()


async def test_a_turn_whose_save_was_cancelled_is_taken_with_the_next(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(full_session_memory=True, summary_memory=True)
    for steps in range(6):
        saving = asyncio.create_task(memory.save(says(f"<cancelled {steps}>")))
        for _ in range(steps):
            await asyncio.sleep(0)
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
    await memory.save(says("<the last>"))
    assert await memory.drain(10)
    said = "".join(call.said for call in script.calls)
    for turn in await memory.turns():
        assert said.count(turn.messages[0].text) == 1
    found = await header(storage)
    assert found.jobs["summary"].through == found.last_seq >= 1


def test_the_loop_ends_without_close() -> None:
    """In memory, so that nothing but the job is left open."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        async def main() -> None:
            script = Script()
            script.hold()
            memory = Memory("memory://", "s1", "ada", **JOBS, model=script)
            await memory.save(says("hello"))
            await script.wait_for_calls(2)

        start = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - start < 5
