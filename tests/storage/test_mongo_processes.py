"""One MongoDB and many processes: at once, and with the server killed in between."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("motor")

import memory_async
from memory_async.storage.mongo import MongoStorage
from memory_async.testing.material import seqs, texts, unique
from tests.servers import mongo

DEADLINE = 300
PROCESSES, SESSIONS, TURNS = 8, 8, 50
FEW = 15  # the test server takes its time for each

WRITE = """
    import asyncio, sys
    from memory_async import Memory, StorageUnavailableError, open_storage

    url, name, turns, *sessions = sys.argv[1:]

    async def write(memory, session):
        bound = memory.bind(session_id=session)
        for number in range(int(turns)):
            text = f"{name}.{number}"
            turn = {"role": "user", "content": text}
            saved = False
            while not saved:
                try:
                    await bound.save(turn, run_id=f"run {text}")
                    saved = True
                except StorageUnavailableError:
                    await asyncio.sleep(0.05)  # until it is up again
            print(session, text, flush=True)

    async def main():
        async with Memory(open_storage(url), full_session_memory=True) as memory:
            await memory.sessions()
            print("ready", flush=True)
            sys.stdin.readline()
            await asyncio.gather(*[write(memory, session) for session in sessions])

    asyncio.run(main())
"""


@contextmanager
def started(
    url: str, name: object, sessions: list[str], turns: int = TURNS
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to write; killed when it is still there in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITE), url, str(name), str(turns), *sessions],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(memory_async.__file__).parent.parent)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()


def rest(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they print until they end, which must be well."""
    said = []
    for process in processes:
        assert process.stdout
        assert process.stderr
        said += process.stdout.readlines()
        assert (process.wait(DEADLINE), process.stderr.read()) == (0, "")
    return said


async def check(storage: MongoStorage, session_id: str, names: range, each: int = TURNS) -> None:
    turns = await storage.history(session_id)
    assert seqs(turns) == list(range(1, len(turns) + 1))
    assert Counter(texts(turns)) == Counter(f"{name}.{n}" for name in names for n in range(each))


@pytest.mark.slow
@pytest.mark.parametrize("turns", [4, TURNS])
@pytest.mark.parametrize("transactions", [True, False], ids=["transactions", "journal"])
async def test_eight_processes_write_eight_sessions_each(transactions: bool, turns: int) -> None:
    base = f"{mongo.url_of(transactions=transactions)}/{unique('many')}"
    url = base if transactions else f"{base}?transactions=false"
    mine = [[f"{name} s{number}" for number in range(SESSIONS)] for name in range(PROCESSES)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(url, name, sessions, turns))
            for name, sessions in enumerate(mine)
        ]
        go(processes)
        assert len(rest(processes)) == PROCESSES * SESSIONS * turns
    async with MongoStorage(base, transactions=transactions) as storage:
        for name, sessions in enumerate(mine):
            for session_id in sessions:
                await check(storage, session_id, range(name, name + 1), turns)


@pytest.mark.parametrize("transactions", [True, False], ids=["transactions", "journal"])
async def test_two_processes_write_one_session(transactions: bool) -> None:
    base = f"{mongo.url_of(transactions=transactions)}/{unique('two')}"
    url = base if transactions else f"{base}?transactions=false"
    with ExitStack() as stack:
        processes = [stack.enter_context(started(url, name, ["s"], FEW)) for name in range(2)]
        go(processes)
        assert len(rest(processes)) == 2 * FEW
    async with MongoStorage(base, transactions=transactions) as storage:
        await check(storage, "s", range(2), FEW)


@pytest.mark.skipif("MONGODB_URL" in os.environ, reason="kills the server, which is not ours")
@pytest.mark.parametrize("options", [(), ("--standalone",)], ids=["transactions", "journal"])
async def test_what_save_returned_for_survives_a_killed_server(options: tuple[str, ...]) -> None:
    # Without this the test server loses what it said to be in its journal.
    server = mongo.Server("--sync-on-commit", *options)
    sessions = [f"s{number}" for number in range(4)]
    with ExitStack() as stack:
        stack.callback(server.close)
        processes = [
            stack.enter_context(started(server.url, name, sessions, FEW)) for name in range(2)
        ]
        go(processes)
        assert processes[0].stdout
        returned = [processes[0].stdout.readline() for _ in range(40)]
        server.kill()
        server.start()
        returned += rest(processes)
        assert len(returned) == 2 * len(sessions) * FEW
        async with MongoStorage(server.url) as storage:
            for session_id in sessions:
                await check(storage, session_id, range(2), FEW)
