"""One SQLite file and many processes: at once, forked, killed, or gone without a goodbye."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import memory_async
from memory_async.storage.sqlite import SqliteStorage
from memory_async.testing.material import seqs, texts

DEADLINE = 60  # seconds; nothing here takes two
TURNS = 500

PRELUDE = """
import asyncio, os, sys, time
from memory_async.storage.sqlite import SqliteStorage
from memory_async.testing.material import append

path = sys.argv[1]
"""

# To be there when the others are: each says so, then waits for a line.
READY = """
print("ready", flush=True)
sys.stdin.readline()
"""


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@contextmanager
def started(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own; killed when it is still there in the end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(memory_async.__file__).parent.parent)}
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            PRELUDE + textwrap.dedent(script),
            *map(str, args),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(script: str, *args: object) -> str:
    """What the process printed; it must end well, in time."""
    with started(script, *args) as process:
        return finished(process)


def finished(process: subprocess.Popen[str], say: str = "") -> str:
    output, errors = process.communicate(say, timeout=DEADLINE)
    assert (process.returncode, errors) == (0, "")
    return output


def together(*processes: subprocess.Popen[str]) -> list[str]:
    """Let all begin when all are ready."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [finished(process) for process in processes]


async def said(path: Path, session_id: str = "s") -> list[str]:
    """The texts of a session's turns, which must be numbered without a gap."""
    async with SqliteStorage(path) as storage:
        turns = await storage.history(session_id)
        assert storage.corrupt_rows == 0
    assert seqs(turns) == list(range(1, len(turns) + 1))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return texts(turns)


class TestAtOnce:
    async def test_two_processes_write_one_session(self, path: Path) -> None:
        script = f"""
            name = sys.argv[2]

            async def write(storage, first):
                for number in range(first, {TURNS}, 5):
                    [result] = await storage.apply(append("s", f"{{name}} {{number}}"))
                    assert result.created

            async def main():
                async with SqliteStorage(path) as storage:
                    {READY.strip().replace(chr(10), "; ")}
                    await asyncio.gather(*[write(storage, first) for first in range(5)])

            asyncio.run(main())
        """
        with started(script, path, "one") as one, started(script, path, "other") as other:
            together(one, other)
        texts = await said(path)
        assert len(texts) == 2 * TURNS
        assert set(texts) == {f"{name} {n}" for name in ("one", "other") for n in range(TURNS)}

    @needs_fork
    async def test_twenty_processes_open_a_new_file(self, path: Path) -> None:
        # Forked before any has opened it, by one process: starting Python twenty times is slow.
        script = """
            async def main(number):
                async with SqliteStorage(path) as storage:
                    await storage.apply(append("s", str(number)))

            barrier, start = os.pipe()
            children = []
            for number in range(20):
                if (child := os.fork()) == 0:
                    os.close(start)
                    os.read(barrier, 1)
                    asyncio.run(main(number))
                    os._exit(0)
                children.append(child)
            os.close(start)
            print(*[os.waitpid(child, 0)[1] for child in children])
        """
        assert run(script, path).split() == ["0"] * 20
        assert sorted(map(int, await said(path))) == list(range(20))


class TestKilled:
    @pytest.mark.parametrize("writers", [1, 4])
    async def test_what_apply_returned_for_survives_a_kill(self, path: Path, writers: int) -> None:
        script = f"""
            name = sys.argv[2]

            async def write(storage, writer):
                for number in range(100_000):
                    text = f"{{name}}.{{writer}}.{{number}}"
                    await storage.apply(append("s", text), append_metadata(text))
                    print(text, flush=True)

            from memory_async.records import Session
            from memory_async.storage.protocol import ALWAYS, Put

            def append_metadata(text):
                return Put(Session(session_id="s", metadata={{"last": text}}), ALWAYS)

            async def main():
                storage = SqliteStorage(path)
                await asyncio.gather(*[write(storage, each) for each in range({writers})])

            asyncio.run(main())
        """
        returned: list[str] = []
        for moment in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
            with started(script, path, moment) as process:
                assert process.stdout is not None
                lines = [process.stdout.readline().strip() for _ in range(moment + 1)]
                process.kill()
                rest = process.communicate(timeout=DEADLINE)[0]
            returned += [*lines, *rest.splitlines()]
            stored = await said(path)
            assert set(returned) <= set(stored)
            assert len(set(stored)) == len(stored)
            async with SqliteStorage(path) as storage:
                header = (await storage.snapshot("s", last=0)).session
                assert header is not None
                assert header.metadata == {"last": stored[-1]}


class TestExit:
    @pytest.mark.parametrize("place", ["path", "None"])
    async def test_forgetting_to_close_neither_hangs_nor_loses(
        self, path: Path, place: str
    ) -> None:
        script = f"""
            async def main():
                storage = SqliteStorage({place})
                await asyncio.gather(*[storage.apply(append("s", str(n))) for n in range(50)])

            asyncio.run(main())
            print("end")
        """
        with started(script, path) as process:
            output, _ = process.communicate(timeout=DEADLINE)  # aiosqlite may complain
        assert (process.returncode, output) == (0, "end\n")
        if place == "path":
            assert {str(n) for n in range(50)} == set(await said(path))

    async def test_leaving_in_the_middle_of_it_neither_hangs_nor_loses(self, path: Path) -> None:
        script = """
            async def write(storage, writer):
                for number in range(100_000):
                    await storage.apply(append("s", f"{writer}.{number}"))
                    print(f"{writer}.{number}", flush=True)
                    if number == 20:
                        sys.stdout.flush()
                        raise SystemExit

            async def main():
                storage = SqliteStorage(path)
                await asyncio.gather(*[write(storage, each) for each in range(3)])

            asyncio.run(main())
        """
        with started(script, path) as process:
            output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
        returned = output.split()
        assert len(returned) > 20
        assert set(returned) <= set(await said(path))


@needs_fork
class TestForked:
    """Made while its parent had the file open: SQLite takes the parent's locks for the child's."""

    SCRIPT = """
        storage = SqliteStorage(path)
        loop = asyncio.new_event_loop()

        def write(*texts):
            for text in texts:
                loop.run_until_complete(storage.apply(append("s", text)))

        write("parent 1")
        (child_waits, to_child), (parent_waits, to_parent) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            loop = asyncio.new_event_loop()
            {child}
            os._exit(0)
        {parent}
        assert os.waitpid(child, 0)[1] == 0
    """

    async def test_both_go_on(self, path: Path) -> None:
        child = "write('child 1', 'child 2'); loop.run_until_complete(storage.close())"
        parent = "write('parent 2', 'parent 3'); loop.run_until_complete(storage.close())"
        assert run(self.SCRIPT.format(child=child, parent=parent), path) == ""
        texts = await said(path)
        assert texts[0] == "parent 1"
        assert [text for text in texts if "child" in text] == ["child 1", "child 2"]
        assert [text for text in texts if "parent" in text] == [f"parent {n}" for n in (1, 2, 3)]

    @pytest.mark.parametrize("new", [False, True], ids=["same object", "new object"])
    async def test_the_parent_may_go_first(self, path: Path, new: bool) -> None:
        child = f"""
            if {new}:
                storage = SqliteStorage(path)
            write("child 1")
            os.write(to_parent, b".")
            os.read(child_waits, 1)
            write("child 2", "child 3")
            assert len(loop.run_until_complete(storage.history("s"))) == 5
        """
        parent = """
            os.read(parent_waits, 1)
            write("parent 2")
            loop.run_until_complete(storage.close())

            async def another():
                async with SqliteStorage(path) as storage:
                    assert len(await storage.history("s")) == 3

            asyncio.run(another())
            os.write(to_child, b".")
        """
        script = self.SCRIPT.format(
            child=textwrap.indent(textwrap.dedent(child), " " * 12),
            parent=textwrap.indent(textwrap.dedent(parent), " " * 8),
        )
        assert run(script, path) == ""
        assert await said(path) == ["parent 1", "child 1", "parent 2", "child 2", "child 3"]

    async def test_the_parent_may_be_gone_when_the_child_begins(self, path: Path) -> None:
        child = "os.read(child_waits, 1); write('child 1', 'child 2')"
        parent = "loop.run_until_complete(storage.close()); os.write(to_child, b'.')"
        assert run(self.SCRIPT.format(child=child, parent=parent), path) == ""
        assert await said(path) == ["parent 1", "child 1", "child 2"]

    async def test_a_child_closes_nothing_of_its_parents(self, path: Path) -> None:
        child = "loop.run_until_complete(storage.close()); os.write(to_parent, b'.')"
        parent = "os.read(parent_waits, 1); write('parent 2', 'parent 3')"
        assert run(self.SCRIPT.format(child=child, parent=parent), path) == ""
        assert await said(path) == ["parent 1", "parent 2", "parent 3"]
