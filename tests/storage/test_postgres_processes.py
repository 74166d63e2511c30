"""One PostgreSQL and many processes: at once, and with the server killed in between."""

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

asyncpg = pytest.importorskip("asyncpg")

import memory_async  # noqa: E402
from memory_async.storage.postgres import PostgresStorage  # noqa: E402
from memory_async.testing.material import seqs, texts  # noqa: E402
from tests.servers.postgres import Postgres, pgbouncer, postgres  # noqa: E402

DEADLINE = 300
PROCESSES, SESSIONS, TURNS = 8, 8, 50

PRELUDE = """
import asyncio, sys
from memory_async import Memory, open_storage

url, name = sys.argv[1], sys.argv[2]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def port(server: Postgres) -> Iterator[int]:
    with pgbouncer(server) as port:
        yield port


@contextmanager
def started(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own; killed when it is still there in the end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(memory_async.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *map(str, args)],
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


def run_all(script: str, url: str, count: int) -> list[list[str]]:
    """What each of so many processes printed; they begin when all are ready, and must end well."""
    with ExitStack() as stack:
        processes = [stack.enter_context(started(script, url, n)) for n in range(count)]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = []
        for process in processes:
            output, errors = process.communicate(timeout=DEADLINE)
            assert (process.returncode, errors) == (0, "")
            outputs.append(output.splitlines())
        return outputs


WRITE = f"""
async def write(memory, session):
    bound = memory.bind(session_id=session)
    for number in range({TURNS}):
        text = f"{{name}}.{{number}}"
        await bound.save({{"role": "user", "content": text}}, run_id=f"run {{session}} {{text}}")

async def main():
    async with Memory(open_storage(url), full_session_memory=True) as memory:
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.gather(*[write(memory, session) for session in SESSIONS])

SESSIONS = [f"s{{n}}" for n in range({SESSIONS})]
"""


async def check(url: str, session_id: str, expected: set[str], namespace: str) -> None:
    async with PostgresStorage(url, namespace=namespace) as storage:
        turns = await storage.history(session_id)
    assert seqs(turns) == list(range(1, len(turns) + 1))
    assert Counter(texts(turns)) == Counter(expected)


async def test_eight_processes_write_eight_sessions_each(server: Postgres) -> None:
    script = WRITE + 'SESSIONS = [f"{name} {each}" for each in SESSIONS]\nasyncio.run(main())\n'
    run_all(script, server.url() + "?namespace=apart", PROCESSES)
    for name in range(PROCESSES):
        for number in range(SESSIONS):
            said = {f"{name}.{turn}" for turn in range(TURNS)}
            await check(server.url(), f"{name} s{number}", said, "apart")


@pytest.mark.parametrize("behind", ["directly", "pgbouncer"])
async def test_two_processes_write_the_same_sessions(
    server: Postgres, port: int, behind: str
) -> None:
    url = server.url() if behind == "directly" else server.url(port=port) + "?pgbouncer=true"
    option = "&" if "?" in url else "?"
    run_all(WRITE + "asyncio.run(main())\n", f"{url}{option}namespace={behind}", 2)
    said = {f"{name}.{turn}" for name in range(2) for turn in range(TURNS)}
    for number in range(SESSIONS):
        await check(server.url(), f"s{number}", said, behind)


async def test_twenty_processes_may_create_the_schema_at_once(server: Postgres) -> None:
    # Forked by one process, before any has opened: starting Python twenty times is slow.
    script = """
        import os
        from memory_async.storage.postgres import PostgresStorage
        from memory_async.testing.material import append

        async def main(number):
            async with PostgresStorage(url, schema="twenty", max_size=1) as storage:
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
    with started(script, server.url(), "forks") as process:
        output, errors = process.communicate(timeout=DEADLINE)
    assert (output.split(), errors) == (["0"] * 20, "")
    async with PostgresStorage(server.url(), schema="twenty") as storage:
        assert sorted(map(int, texts(await storage.history("s")))) == list(range(20))


async def test_what_save_returned_for_survives_a_killed_server() -> None:
    script = f"""
        from memory_async import StorageUnavailableError

        async def write(memory, session):
            bound = memory.bind(session_id=session)
            for number in range({TURNS}):
                text = f"{{name}}.{{number}}"
                saved = False
                while not saved:
                    try:
                        await bound.save(
                            {{"role": "user", "content": text}}, run_id=f"run {{text}}"
                        )
                        saved = True
                    except StorageUnavailableError:
                        await asyncio.sleep(0.05)  # until it is up again
                print(session, text, flush=True)

        async def main():
            async with Memory(open_storage(url), full_session_memory=True) as memory:
                print("ready", flush=True)
                sys.stdin.readline()
                await asyncio.gather(*[write(memory, f"s{{n}}") for n in range({SESSIONS})])

        asyncio.run(main())
    """
    with postgres(durable=True) as server, ExitStack() as stack:
        processes = [
            stack.enter_context(started(script, server.url() + "?namespace=killed", name))
            for name in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        returned = [processes[0].stdout.readline() for _ in range(100)]
        server.kill()
        server.start()
        for process in processes:
            assert process.stdout
            assert process.stderr
            returned += process.stdout.readlines()  # not communicate(), which forgets what was read
            assert (process.wait(DEADLINE), process.stderr.read()) == (0, "")
        assert len(returned) == PROCESSES * SESSIONS * TURNS
        said = {f"{name}.{turn}" for name in range(PROCESSES) for turn in range(TURNS)}
        for number in range(SESSIONS):
            await check(server.url(), f"s{number}", said, "killed")
