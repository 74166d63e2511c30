"""Ctrl-C at any moment, in async and in plain code: the run is kept, and nobody hangs."""

import signal
from pathlib import Path

import pytest

from memory_async import Memory, RunAlreadyCompletedError, RunNotFoundError, SqliteStorage
from memory_async.testing.around import Later
from memory_async.testing.run_suite import ANSWER, NOTHING, finish, kept
from tests.runs.processes import started

WAITING = {
    "async": """
        import asyncio, sys
        from memory_async import Memory

        async def main():
            async with Memory(f"sqlite:///{sys.argv[1]}", "s", full_session_memory=True) as memory:
                async with memory.run("Hi", run_id="r") as run:
                    await run.checkpoint(1)
                    run.add({"role": "assistant", "content": "Hello."})
                    print("working", flush=True)
                    await asyncio.Event().wait()

        asyncio.run(main())
    """,
    "sync": """
        import sys, time
        from memory_async.sync import Memory

        with Memory(f"sqlite:///{sys.argv[1]}", "s", full_session_memory=True) as memory:
            with memory.run("Hi", run_id="r") as run:
                run.checkpoint(1)
                run.add({"role": "assistant", "content": "Hello."})
                print("working", flush=True)
                time.sleep(600)
    """,
}


@pytest.mark.parametrize("kind", WAITING)
async def test_ctrl_c_keeps_the_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "runs.db"
    with started(WAITING[kind], path) as child:
        assert child.line() == "working"
        child.send(signal.SIGINT)
        assert child.lines() == []
        assert child.end() == -signal.SIGINT
        assert "KeyboardInterrupt" in child.errors()
    async with SqliteStorage(path) as storage:
        found = await kept(storage, "s", "r")
        assert found.checkpoint
        assert (found.status, found.checkpoint.state, found.lease) == ("cancelled", 1, None)
        assert [message.text for message in found.checkpoint.messages] == ["Hello."]
        await finish(Memory(storage, "s", full_session_memory=True), "r")
        assert await kept(storage, "s", "r") == NOTHING


# The signal comes from within the n-th batch of a run, before or after it is applied.
IN_BATCHES = """
    import asyncio, os, signal, sys, threading
    from memory_async import SqliteStorage, sync
    from memory_async.testing.around import Around

    class Interrupting(Around):
        when, left, stubborn, times = None, -1, False, 1

        async def apply(self, *writes):
            self.left -= 1
            now = self.left == 0
            if now and self.when == "before":
                await self.interrupt()
            done = await super().apply(*writes)
            if now and self.when == "after":
                await self.interrupt()
            return done

        async def interrupt(self):
            before = None
            for _ in range(self.times):
                before = await self.main_thread_waits(before)
                os.kill(os.getpid(), signal.SIGINT)
            await self.main_thread_waits(before)

        async def main_thread_waits(self, before):
            # Until it waits, and not where it did before: Python itself is not safe elsewhere.
            steady, last = 0, None
            for _ in range(10_000):
                frame = sys._current_frames()[threading.main_thread().ident]
                here = frame, frame.f_lasti
                steady = steady + 1 if here == last and frame is not before else 0
                last = here
                if steady == 20:
                    break
                try:
                    await asyncio.sleep(0.001)
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
            return frame

    driver = Interrupting(SqliteStorage(sys.argv[1], durability="normal"))
    with sync.Memory(sync.Storage(driver), "main", full_session_memory=True) as memory:
        for end in ("end", "pause"):
            for number in (1, 2, 3):
                for driver.when in ("before", "after"):
                    for driver.stubborn in (False, True):
                        for driver.times in (1, 2):
                            id = f"{end}-{number}-{driver.when}-{driver.stubborn}-{driver.times}"
                            run, status = None, "none"
                            driver.left = number
                            try:
                                with memory.bind(session_id=id).run("Hi", run_id=id) as run:
                                    run.checkpoint(1)
                                    run.add({"role": "assistant", "content": "Hello."})
                                    if end == "pause":
                                        run.pause(2)
                            except KeyboardInterrupt:
                                status = run.status if run else "not entered"
                            driver.left = -1
                            print(id, status.replace(" ", "_"), flush=True)
"""


async def test_ctrl_c_while_something_is_written_keeps_the_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with started(IN_BATCHES, path) as child:
        told = [line.split() for line in child.lines()]
        errors = child.errors()
        assert (child.end(), "Error" in errors) == (0, False), errors
    assert len(told) == 2 * 3 * 2 * 2 * 2
    async with SqliteStorage(path) as storage:
        for id, status in told:
            end, number = id.split("-")[:2]
            found = await kept(storage, id, id)
            if number == "1":
                expected = {"not_entered"}
            elif number == "2":
                expected = {"cancelled"}
            else:
                expected = {"completed" if end == "end" else "paused"}
            assert status in expected, id
            if status != "not_entered":
                assert found.status == (None if status == "completed" else status), id
                assert found.lease is None, id
            await is_resumable_or_done(storage, id)


async def is_resumable_or_done(storage: SqliteStorage, id: str) -> None:
    said = [ANSWER["content"]]
    try:
        await finish(Memory(Later(storage), id, full_session_memory=True), id)
    except RunAlreadyCompletedError:
        said = ["Hello."]
    except RunNotFoundError:
        said = []
    assert [turn.messages[-1].text for turn in await storage.history(id)] == said, id
    assert await kept(storage, id, id) == NOTHING, id


IMPATIENT = """
    import asyncio, sys
    from memory_async import Memory, SqliteStorage
    from memory_async.testing.around import Around

    class Hanging(Around):
        hangs = False

        async def apply(self, *writes):
            if self.hangs:
                print("leaving", flush=True)
                await asyncio.Event().wait()
            return await super().apply(*writes)

    async def main():
        async with SqliteStorage(sys.argv[1]) as driver:
            storage = Hanging(driver)
            async with Memory(storage, "s", full_session_memory=True).run("Hi", run_id="r") as run:
                await run.checkpoint(1)
                storage.hangs = True
                print("working", flush=True)
                await asyncio.Event().wait()

    asyncio.run(main())
"""


async def test_ctrl_c_again_does_not_wait_for_a_storage_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with started(IMPATIENT, path) as child:
        for expected in ("working", "leaving"):
            assert child.line() == expected
            child.send(signal.SIGINT)
        assert child.end() == -signal.SIGINT
    async with SqliteStorage(path) as storage:
        found = await kept(storage, "s", "r")
        assert found.checkpoint
        assert (found.status, found.checkpoint.state) == ("running", 1)
        await finish(Memory(Later(storage), "s", full_session_memory=True), "r")
        assert await kept(storage, "s", "r") == NOTHING
