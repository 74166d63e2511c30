"""SIGSTOP past the lease: another worker finishes the run, and the stopped one can do nothing."""

import asyncio
import signal
from pathlib import Path

import pytest

from memory_async import Memory, RunAlreadyClaimedError, SqliteStorage
from memory_async.testing.run_suite import ANSWER, HI, NOTHING, kept
from tests.runs.processes import DEADLINE, started

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")

STOPPED = """
    import asyncio, sys
    from memory_async import LeaseLostError, Memory, SqliteStorage

    async def main(path, end):
        async with SqliteStorage(path, durability="normal") as storage:
            memory = Memory(storage, "s", "ada", full_session_memory=True, lease_seconds=0.5)
            try:
                async with memory.run("Refund order 7", run_id="r") as run:
                    await run.checkpoint("first")
                    print("working", flush=True)
                    sys.stdin.readline()  # the loop stands still, too: nothing is renewed
                    run.add({"role": "assistant", "content": "of the stopped one"})
                    if end == "checkpoint":
                        await run.checkpoint("second")
                    elif end == "pause":
                        run.pause("second")
            except LeaseLostError as error:
                print("lost", run.status, flush=True)
            else:
                print(run.status, flush=True)

    asyncio.run(main(*sys.argv[1:]))
"""


async def complete(memory: Memory) -> None:
    """As soon as the stopped one's lease has run out."""
    while True:
        try:
            async with memory.resume("r") as run:
                assert run.state == "first"
                run.add(ANSWER)
        except RunAlreadyClaimedError:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.mark.parametrize("end", ["end", "pause", "checkpoint"])
async def test_a_worker_stopped_past_its_lease_has_lost_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "stopped.db"
    async with SqliteStorage(path, durability="normal") as storage:
        with started(STOPPED, path, end) as child:
            assert child.line() == "working"
            child.send(signal.SIGSTOP)
            memory = Memory(storage, "s", "ada", full_session_memory=True)
            async with asyncio.timeout(DEADLINE):
                await complete(memory)
            child.send(signal.SIGCONT)
            child.say("go on")
            assert child.lines() == ["lost error"]
            assert child.end() == 0
            assert "Traceback" not in child.errors()
        assert [each.text for each in (await storage.history("s"))[0].messages] == [
            HI,
            ANSWER["content"],
        ]
        assert await kept(storage, "s", "r") == NOTHING
        assert len(await storage.history("s")) == 1
