"""One folder of JSON files and many processes at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("filelock")

from memory_async.storage.json import JSONStorage
from memory_async.testing.material import seqs, texts
from tests.storage.test_sqlite_processes import started, together

PROCESSES, SESSIONS, TURNS = 8, 8, 50

WRITER = """
from memory_async.storage.json import JSONStorage

name, sessions, turns = sys.argv[2], sys.argv[3].split(), int(sys.argv[4])

async def write(storage, session):
    for number in range(turns):
        [result] = await storage.apply(append(session, f"{name} {number}"))
        assert result.created
        if number % 10 == 0:
            assert len(await storage.history(session, last=5)) >= min(result.turn.seq, 5)

async def main():
    async with JSONStorage(path) as storage:
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.gather(*[write(storage, session) for session in sessions])

asyncio.run(main())
"""


async def written(path: Path, session: str, writers: set[str], turns: int = TURNS) -> None:
    async with JSONStorage(path) as storage:
        found = await storage.history(session)
    assert seqs(found) == list(range(1, len(writers) * turns + 1))
    for writer in writers:
        own = [text for text in texts(found) if text.split()[0] == writer]
        assert own == [f"{writer} {number}" for number in range(turns)]


async def test_eight_processes_with_eight_sessions_each(tmp_path: Path) -> None:
    """Each has its eight; the first of them is all processes' own."""
    path = tmp_path / "memory"
    names = [str(number) for number in range(PROCESSES)]
    own = {name: [f"{name}.{number}" for number in range(1, SESSIONS)] for name in names}
    with ExitStack() as stack:
        together(
            *[
                stack.enter_context(
                    started(WRITER, path, name, " ".join(["shared", *own[name]]), TURNS)
                )
                for name in names
            ]
        )
    await written(path, "shared", set(names))
    for name in names:
        for session in own[name]:
            await written(path, session, {name})


async def test_two_processes_write_one_session(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    with ExitStack() as stack:
        together(
            *[stack.enter_context(started(WRITER, path, name, "s", 300)) for name in ("a", "b")]
        )
    await written(path, "s", {"a", "b"}, 300)
