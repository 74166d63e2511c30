"""SIGKILL before and after every storage call of a run: open with its last checkpoint, or completed
with its turn; never both, never neither."""

import os
from pathlib import Path

import pytest

from memory_async import Memory, RunAlreadyCompletedError, RunNotFoundError, SqliteStorage
from memory_async.testing.around import Later
from memory_async.testing.run_crashes import COMPLETED, DECIDED, LIFE
from memory_async.testing.run_suite import ANSWER, ASK, HI, NOTHING, kept
from tests.runs.processes import started

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

# Forked before anything is opened: starting Python for each failpoint would be slow.
CHILDREN = """
    import asyncio, os, signal, sys
    from memory_async import Memory, SqliteStorage
    from memory_async.testing.around import Around
    from memory_async.testing.run_crashes import live

    path, moment = sys.argv[1:]

    class Failpoint(Around):
        def __init__(self, storage, number):
            super().__init__(storage)
            self.left, self.landed = number, 0

        async def call(self, name, *args, **kwargs):
            self.left -= 1
            if self.left < 0 and moment == "before":
                self.die(name)
            answer = await super().call(name, *args, **kwargs)
            self.landed += name == "apply"
            if self.left < 0:
                self.die(name)
            return answer

        def die(self, name):
            os.write(1, f"{name} {self.landed}\\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    async def main(number):
        storage = Failpoint(SqliteStorage(path, durability="normal"), number)
        memory = Memory(storage, f"s{number}", "ada", full_session_memory=True)
        await live(memory, f"r{number}")
        os.write(1, f"end {storage.landed}\\n".encode())

    number, status = 0, -1
    while status:
        if (child := os.fork()) == 0:
            try:
                asyncio.run(main(number))
            except BaseException as error:
                os.write(1, f"{error!r} 0\\n".encode())
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        number += 1
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_worker_killed_at_any_call_leaves_a_run_or_its_turn(
    tmp_path: Path, moment: str
) -> None:
    path = tmp_path / "killed.db"
    with started(CHILDREN, path, moment) as child:
        points = [line.rsplit(" ", 1) for line in child.lines()]
        assert (child.end(), child.errors()) == (0, "")
    assert points.pop() == ["end", f"{COMPLETED}"]
    assert {int(landed) for _, landed in points} == set(range(COMPLETED + (moment == "after")))
    assert {name for name, _ in points} == {"apply", "get", "find", "snapshot", "now"}
    async with SqliteStorage(path) as storage:
        for number, (name, landed) in enumerate(points):
            where = f"{moment} {name}, call {number}"
            await is_whole(storage, f"s{number}", f"r{number}", int(landed), where)


async def is_whole(
    storage: SqliteStorage, session_id: str, run_id: str, landed: int, where: str
) -> None:
    found, turns = await kept(storage, session_id, run_id), await storage.history(session_id)
    state = found.checkpoint and found.checkpoint.state
    assert (found.status, state) == LIFE[landed], where
    assert len(turns) == (landed == COMPLETED), where
    assert len(found.decisions) == (DECIDED <= landed < COMPLETED), where
    memory = Memory(Later(storage), session_id, "ada", full_session_memory=True)
    resuming = memory.resume(run_id, require_decisions=landed >= DECIDED)
    if landed == 0:
        with pytest.raises(RunNotFoundError):
            await resuming.begin()
    elif landed < COMPLETED:
        async with resuming as run:
            assert run.state == state, where
            said = [HI, *[message.text for message in run.messages], ANSWER["content"]]
            run.add(ANSWER)
        [turn] = await storage.history(session_id)
        assert [message.text for message in turn.messages] == said, where
        assert said in ([HI, ANSWER["content"]], [HI, ASK["content"], ANSWER["content"]]), where
    else:
        with pytest.raises(RunAlreadyCompletedError):
            await resuming.begin()
        assert turns[0].messages[-1].text == ANSWER["content"], where
    assert await kept(storage, session_id, run_id) == NOTHING, where
