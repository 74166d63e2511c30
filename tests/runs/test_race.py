"""Many workers in many processes race for the same paused runs."""

import os
from collections import Counter
from pathlib import Path

import pytest

from memory_async import Memory, Requirement, SqliteStorage
from memory_async.testing.run_suite import pause
from tests.runs.processes import started

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

RUNS, PROCESSES, WORKERS, SESSIONS = 200, 4, 50, 10

# Forked before anything is opened: starting Python four times would be slow.
WORK = f"""
    import asyncio, os, random, sys
    from memory_async import *

    async def work(name, storage):
        inbox = Inbox(storage)
        while waiting := await inbox.list(limit=30):
            random.shuffle(waiting)
            for found in waiting:
                memory = Memory(storage, found.session_id, found.user_id, full_session_memory=True)
                try:
                    async with memory.resume(found.run_id) as run:
                        assert run.decisions["ok"].approved
                        run.add({{"role": "assistant", "content": name}})
                except (RunAlreadyClaimedError, RunAlreadyCompletedError):
                    continue
                os.write(1, f"{{name}} {{run.run_id}}\\n".encode())

    async def main(process, barrier):
        async with SqliteStorage(sys.argv[1], durability="normal") as storage:
            os.write(ready[1], b".")
            os.read(barrier, 1)
            names = [f"{{process}}.{{number}}" for number in range(process, {WORKERS}, {PROCESSES})]
            await asyncio.gather(*[work(name, storage) for name in names])

    ready, (barrier, start) = os.pipe(), os.pipe()
    children = []
    for process in range({PROCESSES}):
        if (child := os.fork()) == 0:
            os.close(start)
            asyncio.run(main(process, barrier))
            os._exit(0)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    os.close(start)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * {PROCESSES}
"""


async def prepare(storage: SqliteStorage) -> list[str]:
    ids = []
    for number in range(RUNS):
        memory = Memory(storage, f"s{number % SESSIONS}", f"user {number % SESSIONS}")
        id = await pause(memory, Requirement("ok", "approval"), said=f"order {number}")
        await memory.decide(id, "ok", approved=True)
        ids.append(id)
    return ids


async def test_fifty_workers_complete_two_hundred_runs_once(tmp_path: Path) -> None:
    path = tmp_path / "race.db"
    async with SqliteStorage(path, durability="normal") as storage:
        ids = await prepare(storage)
        with started(WORK, path) as workers:
            claims = [line.split() for line in workers.lines()]
            assert (workers.end(), workers.errors()) == (0, "")
        assert Counter(run_id for _, run_id in claims) == Counter(ids)
        by = {run_id: name for name, run_id in claims}
        assert len({name.split(".")[0] for name in by.values()}) > 1
        turns = [
            turn
            for session in await storage.find("session")
            for turn in await storage.history(session.key.id)
        ]
        assert Counter(turn.run_id for turn in turns) == Counter(ids)
        assert {turn.run_id: turn.messages[-1].text for turn in turns} == by
        for kind in ("checkpoint", "lease", "decision"):
            assert await storage.find(kind) == []
