"""What saving and loading a turn costs on MongoDB: Motor beside PyMongo's own client, and the
commands that each call sends, beside a peer.

    python benchmarks/mongo.py [--markdown] [--quick] [--url URL]

Starts SecantusDB, which is not mongod, unless given a URL: so look at the ratios and the counts
only. The peer is the `MongoDBSession` of openai-agents. Both clients take turns in one run, in
small blocks in random order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener
from rich import box
from rich.console import Console
from rich.table import Table

from memory_async import Memory, MongoStorage

TURNS, LAST = 100, 20

Call = Callable[[], Awaitable[object]]


class Counter(CommandListener):
    """The commands sent so far."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: Any) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def turn(number: int) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": f"{number}: {'question ' * 40}?"},
        {"role": "assistant", "content": "answer " * 120},
    ]


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The URL of a server that ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("secantusd-py")
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603 - the path is of this environment
            [
                *(program, "--host", "127.0.0.1", "--port", str(port), "--storage-path", folder),
                *("--log-level", "ERROR", *options),
            ]
        )
        try:
            url = f"mongodb://127.0.0.1:{port}"
            with pymongo.MongoClient[dict[str, Any]](
                url, serverSelectionTimeoutMS=20_000
            ) as client:
                client.admin.command("ping")
            yield url
        finally:
            process.terminate()
            process.wait()


class Times(NamedTuple):
    """Of calls, in µs. What else the machine does is in the median, and hardly in the fastest."""

    median: float
    fastest: float  # nine of ten were slower


async def measure(calls: dict[str, Call], rounds: int, block: int) -> dict[str, Times]:
    """The times of each call; the first call of a block does not count."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            await calls[name]()
            for _ in range(block):
                start = perf_counter_ns()
                await calls[name]()
                spent[name].append(perf_counter_ns() - start)
    return {
        name: Times(statistics.median(each) / 1000, statistics.quantiles(each, n=10)[0] / 1000)
        for name, each in spent.items()
    }


async def times(url: str, rounds: int) -> list[tuple[str, Times, Times]]:
    """Of each call: by Motor, and by PyMongo's client."""
    clients: dict[str, Any] = {"motor": AsyncIOMotorClient(url), "pymongo": AsyncMongoClient(url)}
    saves: dict[str, Call] = {}
    loads: dict[str, Call] = {}
    for name, client in clients.items():
        storage = MongoStorage(client, database=f"bench-{name}")
        memory = Memory(storage, "chat", "ann", full_session_memory=True)
        for number in range(TURNS):
            await memory.save(turn(number))
        saves[name] = lambda memory=memory: memory.save(turn(0))  # type: ignore[misc]
        loads[name] = lambda memory=memory: memory.load(last=LAST)  # type: ignore[misc]
    found = []
    for what, calls in (("load, last 20 turns", loads), ("save", saves)):
        taken = await measure(calls, rounds, 5)
        found.append((what, taken["motor"], taken["pymongo"]))
    clients["motor"].close()
    await clients["pymongo"].close()
    return found


async def commands(url: str) -> dict[str, list[str]]:
    """What a warm save and a warm load send."""
    counter = Counter()
    client: Any = AsyncMongoClient(url, event_listeners=[counter])
    storage = MongoStorage(client, database="bench-commands")
    memory = Memory(storage, "chat", "ann", full_session_memory=True)
    sent = {}
    await memory.save(turn(0))
    calls: dict[str, Call] = {
        "save a turn of 2 messages": lambda: memory.save(turn(1)),
        "load the last 20 turns": lambda: memory.load(last=LAST),
    }
    for what, call in calls.items():
        await call()
        counter.names.clear()
        await call()
        sent[what] = list(counter.names)
    await client.close()
    return sent


async def commands_of_peer(url: str) -> dict[str, list[str]]:
    from agents.extensions.memory.mongodb_session import MongoDBSession

    counter = Counter()
    client: Any = AsyncMongoClient(url, event_listeners=[counter])
    session = MongoDBSession("chat", client=client, database="bench-peer")
    sent = {}
    items: Any = turn(0)
    await session.add_items(items)
    calls: dict[str, Call] = {
        "save a turn of 2 messages": lambda: session.add_items(items),
        "load the last 20 turns": lambda: session.get_items(limit=2 * LAST),
    }
    for what, call in calls.items():
        await call()
        counter.names.clear()
        await call()
        sent[what] = list(counter.names)
    await client.close()
    return sent


def show(title: str, head: list[str], rows: list[list[str]], *, markdown: bool) -> None:
    table = Table(*head, title=title, box=box.MARKDOWN if markdown else box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    Console(width=130 if markdown else None).print(table)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--url", help="of a MongoDB with transactions")
    given = parser.parse_args()
    rounds = 4 if given.quick else 20
    if given.url:
        ways = {"transactions": given.url}
        await report(ways, rounds, markdown=given.markdown)
    else:
        with server() as with_transactions, server("--standalone") as without:
            ways = {"transactions": with_transactions, "journal": without}
            await report(ways, rounds, markdown=given.markdown)


async def report(ways: dict[str, str], rounds: int, *, markdown: bool) -> None:
    rows = [
        [
            f"{what}, {way}",
            *[f"{each.median:,.0f} ({each.fastest:,.0f})" for each in (motor, own)],
            f"{motor.median / own.median:.2f} ({motor.fastest / own.fastest:.2f})",
        ]
        for way, url in ways.items()
        for what, motor, own in await times(url, rounds)
    ]
    versions = f"Motor {version('motor')}, PyMongo {version('pymongo')}"
    head = ["", "Motor", "AsyncMongoClient", "Motor / PyMongo"]
    show(
        f"The two clients, µs: median, and the fastest tenth ({versions})",
        head,
        rows,
        markdown=markdown,
    )
    sent = {way: await commands(url) for way, url in ways.items()}
    peer = f"MongoDBSession, openai-agents {version('openai-agents')}"
    sent[peer] = await commands_of_peer(next(iter(ways.values())))
    rows = [
        [what, *[f"{len(each[what])}: {', '.join(each[what])}" for each in sent.values()]]
        for what in next(iter(sent.values()))
    ]
    show("Commands of a warm call", ["", *sent], rows, markdown=markdown)


if __name__ == "__main__":
    asyncio.run(main())
