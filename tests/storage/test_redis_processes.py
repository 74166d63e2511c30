"""One Redis and many processes: at once, forked, and while the server is killed under them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("redis", exc_type=ImportError)

import memory_async
from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.storage.redis import RedisStorage
from memory_async.testing.material import append, seqs, texts, unique
from tests.servers.redis import Cluster, Server, shared, shared_cluster

PROCESSES, SESSIONS, TURNS = 8, 8, 50
DEADLINE = 60
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

# Prints what has been saved, as soon as the save has returned; goes on when the server is away.
WRITER = """
import asyncio, sys
from memory_async import StorageUnavailableError
from memory_async.storage.redis import RedisStorage
from memory_async.testing.material import append

url, cluster, namespace, name, shared, sessions, turns = sys.argv[1:]

async def talk(storage, session):
    for number in range(int(turns)):
        text = f"{session} {name}.{number}"
        write = append(session, text, run_id=text)
        while True:
            try:
                await storage.apply(write)
            except StorageUnavailableError:
                await asyncio.sleep(0.01)
            else:
                break
        print(text, flush=True)

async def main():
    async with RedisStorage(url, cluster=cluster == "1", namespace=namespace) as storage:
        print("ready", flush=True)
        sys.stdin.readline()
        names = [f"s{n}" if shared == "1" else f"{name}-s{n}" for n in range(int(sessions))]
        await asyncio.gather(*[talk(storage, each) for each in names])

asyncio.run(main())
"""


@contextmanager
def writers(
    url: str, namespace: str, count: int, *, sessions: int, turns: int, cluster: bool, same: bool
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that start together."""
    environment = {**os.environ, "PYTHONPATH": str(Path(memory_async.__file__).parent.parent)}
    made = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WRITER, url, str(int(cluster)), namespace, f"p{number}"),
                *(str(int(same)), str(sessions), str(turns)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(count)
    ]
    try:
        for each in made:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in made:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        yield made
    finally:
        for each in made:
            each.kill()
            each.wait()
            for pipe in (each.stdin, each.stdout):
                if pipe is not None:
                    pipe.close()


def finished(made: list[subprocess.Popen[str]]) -> list[str]:
    """What the processes have saved, once they have ended."""
    said = []
    for each in made:
        assert each.stdout is not None
        said += each.stdout.read().splitlines()  # to its end; communicate() skips what is buffered
        assert each.wait(timeout=DEADLINE) == 0
    return said


async def holds(storage: RedisStorage, said: list[str]) -> None:
    """Every turn is there once, and seqs are contiguous."""
    sessions: dict[str, set[str]] = {}
    for text in said:
        sessions.setdefault(text.partition(" ")[0], set()).add(text)
    for session, expected in sessions.items():
        turns = await storage.history(session)
        assert seqs(turns) == list(range(1, len(turns) + 1))
        found = texts(turns)
        assert len(found) == len(set(found))
        assert set(found) == expected


async def test_eight_processes_with_eight_sessions_each_on_a_cluster() -> None:
    url, namespace = shared_cluster().nodes[0].url, unique()
    options = {"sessions": SESSIONS, "turns": TURNS, "cluster": True, "same": False}
    with writers(url, namespace, PROCESSES, **options) as made:  # type: ignore[arg-type]
        said = finished(made)
    assert len(said) == PROCESSES * SESSIONS * TURNS
    async with RedisStorage(url, namespace=namespace, cluster=True) as storage:
        await holds(storage, said)


@pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
async def test_two_processes_with_one_session(cluster: bool) -> None:
    url, namespace = (shared_cluster().nodes[0] if cluster else shared()).url, unique()
    options = {"sessions": 1, "turns": 200, "cluster": cluster, "same": True}
    with writers(url, namespace, 2, **options) as made:  # type: ignore[arg-type]
        said = finished(made)
    assert len(said) == 400
    async with RedisStorage(url, namespace=namespace, cluster=cluster) as storage:
        await holds(storage, said)


async def test_eight_processes_with_eight_sessions_each_and_the_server_is_killed() -> None:
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    namespace = unique()
    try:
        options = {"sessions": SESSIONS, "turns": TURNS, "cluster": False, "same": False}
        with writers(server.url, namespace, PROCESSES, **options) as made:  # type: ignore[arg-type]
            early = []
            for _ in range(40):  # somewhere in the middle of 400 turns of the first
                assert made[0].stdout is not None
                early.append(made[0].stdout.readline().rstrip("\n"))
            server.kill()
            server.start()
            said = early + finished(made)
        assert len(said) == PROCESSES * SESSIONS * TURNS
        async with RedisStorage(server.url, namespace=namespace) as storage:
            await holds(storage, said)
    finally:
        server.close()


async def test_what_was_saved_outlives_a_killed_server() -> None:
    """Killed for good while one process writes: exactly what was saved, and perhaps one more."""
    server = Server("--appendonly", "yes", "--appendfsync", "always")
    try:
        said: list[str] = []

        async def talk(storage: RedisStorage, session: str) -> None:
            with pytest.raises(StorageUnavailableError):
                for number in range(100_000):
                    await storage.apply(append(session, f"{number}"))
                    said.append(f"{session} {number}")
                    if len(said) == 500:
                        server.kill()

        async with RedisStorage(server.url) as storage:
            await asyncio.gather(*[talk(storage, f"s{n}") for n in range(8)])
        server.start()
        async with RedisStorage(server.url) as storage:
            for n in range(8):
                found = texts(await storage.history(f"s{n}"))
                saved = [text.partition(" ")[2] for text in said if text.startswith(f"s{n} ")]
                assert found[: len(saved)] == saved
                assert found == [f"{number}" for number in range(len(found))]
                assert len(found) <= len(saved) + 1
    finally:
        server.close()


async def test_a_node_of_the_cluster_dies() -> None:
    """What the others hold goes on; what it held is back when it is."""
    cluster = Cluster("--appendonly", "yes", "--appendfsync", "always")
    sessions = [f"s{n}" for n in range(30)]
    try:
        async with RedisStorage(cluster.nodes[0].url, cluster=True) as storage:
            for each in sessions:
                await storage.apply(append(each, "before"))
            cluster.nodes[1].kill()
            answers = await asyncio.gather(
                *[storage.history(each) for each in sessions], return_exceptions=True
            )
            lost = [each for each in answers if isinstance(each, BaseException)]
            assert 0 < len(lost) < len(sessions)
            assert all(isinstance(each, StorageUnavailableError) for each in lost)
            cluster.nodes[1].start()
            cluster.wait()
            for each in sessions:
                await storage.apply(append(each, "after"))
                assert texts(await storage.history(each)) == ["before", "after"]
    finally:
        cluster.close()


@needs_fork
@pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(cluster: bool) -> None:
    url = (shared_cluster().nodes[0] if cluster else shared()).url
    script = f"""
import asyncio, os, redis.asyncio, sys
from memory_async import ConfigurationError
from memory_async.storage.redis import RedisStorage
from memory_async.testing.material import append, seqs

storage = RedisStorage({url!r}, cluster={cluster}, namespace={unique()!r})

async def child():
    await storage.apply(append("s", "child"))
    assert len(await storage.history("s")) == 2
    await storage.close()

async def main():
    await storage.apply(append("s", "parent"))
    pid = os.fork()
    if not pid:
        asyncio._set_running_loop(None)
        try:
            asyncio.run(child())
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    await storage.apply(append("s", "parent again"))
    assert seqs(await storage.history("s")) == [1, 2, 3]
    await storage.close()

asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(memory_async.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


async def test_a_given_client_is_refused_in_a_forked_child() -> None:
    import redis.asyncio

    client = redis.asyncio.Redis(port=shared().port)
    storage = RedisStorage(client)
    storage._made_in = -1
    with pytest.raises(ConfigurationError, match="fork"):
        await storage.open()
    await client.aclose()
