"""Many workers in many processes race for the same paused runs."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from memory_async import Memory, Requirement, SqliteStorage
from memory_async.testing.run_suite import pause
from tests.runs.processes import started

RUNS, PROCESSES, WORKERS, SESSIONS = 200, 4, 50, 10

WORKER = f"""
import asyncio, random, sys
from memory_async import *

async def work(name, storage, inbox):
    waiting = True
    while waiting:
        waiting = await inbox.list(status="paused", limit={RUNS})
        random.shuffle(waiting)
        for found in waiting[:5]:
            memory = Memory(storage, found.session_id, found.user_id, full_session_memory=True)
            try:
                async with memory.resume(found.run_id) as run:
                    assert run.decisions["ok"].approved
                    run.add({{"role": "assistant", "content": name}})
            except (RunAlreadyClaimedError, RunAlreadyCompletedError):
                continue
            print(name, run.run_id, run.turn.seq, flush=True)

async def main(process):
    async with SqliteStorage(sys.argv[1], durability="normal") as storage:
        print("ready", flush=True)
        sys.stdin.readline()
        names = [f"{{process}}.{{number}}" for number in range({WORKERS} // {PROCESSES} + 1)]
        count = {WORKERS} // {PROCESSES} + (int(process) < {WORKERS} % {PROCESSES})
        await asyncio.gather(*[work(name, storage, Inbox(storage)) for name in names[:count]])

asyncio.run(main(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "race.db"


async def prepare(path: Path) -> list[str]:
    async with SqliteStorage(path, durability="normal") as storage:
        ids = []
        for number in range(RUNS):
            user = f"user {number % 3}"
            memory = Memory(storage, f"s{number % SESSIONS} of {user}", user)
            id = await pause(memory, Requirement("ok", "approval"), said=f"order {number}")
            await memory.decide(id, "ok", approved=True)
            ids.append(id)
        return ids


async def test_fifty_workers_complete_two_hundred_runs_once(path: Path) -> None:
    ids = await prepare(path)
    with (
        started(WORKER, path, 0) as a,
        started(WORKER, path, 1) as b,
        started(WORKER, path, 2) as c,
        started(WORKER, path, 3) as d,
    ):
        children = (a, b, c, d)
        assert [child.line() for child in children] == ["ready"] * PROCESSES
        for child in children:
            child.say("go")
        claims = []
        for child in children:
            claims += [line.split() for line in await asyncio.to_thread(child.lines)]
            assert (child.end(), child.errors()) == (0, "")
    assert Counter(run_id for _, run_id, _ in claims) == Counter(ids)
    by = {run_id: name for name, run_id, _ in claims}
    async with SqliteStorage(path) as storage:
        sessions = await storage.find("session", limit=1000)
        turns = [turn for each in sessions for turn in await storage.history(each.key.id)]
        assert Counter(turn.run_id for turn in turns) == Counter(ids)
        assert {turn.run_id: turn.messages[-1].text for turn in turns} == by
        for kind in ("checkpoint", "lease", "decision"):
            assert await storage.find(kind) == []
    assert len({name.split(".")[0] for name in by.values()}) > 1, "one process did it all"
