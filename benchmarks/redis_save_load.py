"""What saving and loading a turn costs on Redis: in short and long sessions, and beside a peer.

    python benchmarks/redis_save_load.py [--markdown] [--quick] [--url URL]

Starts a redis-server of its own unless given a URL. The peer is the `RedisSession` of
openai-agents, on the same server. Everything is measured in one run, in small blocks that take
turns in random order: look at the ratios. Exits with 1 when a ratio is outside its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from itertools import cycle
from time import perf_counter, perf_counter_ns
from typing import Any

import redis.asyncio
from agents.extensions.memory import RedisSession
from rich import box
from rich.console import Console
from rich.table import Table

from memory_async import Memory, RedisStorage

SHORT, LONG, LAST, SESSIONS = 10, 10_000, 20, 64
GROWTH_LIMIT, SAVE_LIMIT, LOAD_LIMIT, RATE_LIMIT = 1.2, 0.6, 1.0, 2.0
PORT = 26379

Messages = list[dict[str, Any]]
Call = Callable[[], Awaitable[object]]


def make_turn(number: int) -> Messages:
    """A question of 40 words and an answer of 120 (every fourth not in ASCII)."""
    dice = random.Random(number)
    words = [
        " ".join("".join(dice.choices("aeioubdklmnrst", k=dice.randint(2, 9))) for _ in range(size))
        for size in (40, 120)
    ]
    return [
        {"role": "user", "content": f"{number}: {words[0]}?"},
        {"role": "assistant", "content": words[1] + (". ✓" if number % 4 == 0 else ".")},
    ]


async def measure(calls: dict[str, Call], rounds: int, block: int) -> dict[str, float]:
    """The median time of each call in µs; the first call of a block does not count."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            await calls[name]()
            for _ in range(block):
                start = perf_counter_ns()
                await calls[name]()
                spent[name].append(perf_counter_ns() - start)
    return {name: statistics.median(each) / 1000 for name, each in spent.items()}


async def per_second(savers: list[Callable[[Messages], Awaitable[object]]], each: int) -> float:
    turns = [make_turn(number) for number in range(each)]

    async def talk(save: Callable[[Messages], Awaitable[object]]) -> None:
        for turn in turns:
            await save(turn)

    start = perf_counter()
    await asyncio.gather(*map(talk, savers))
    return len(savers) * each / (perf_counter() - start)


async def run(url: str, *, quick: bool, markdown: bool) -> int:  # noqa: C901, PLR0915 - a script
    rounds, long = (3, 200) if quick else (100, LONG)
    storage = RedisStorage(url, namespace=f"benchmark-{os.getpid()}")
    client = redis.asyncio.Redis.from_url(url)
    info = await client.info("server")
    memory = Memory(storage, "s", "user", full_session_memory=True)

    def ours(session: str) -> Memory:
        return memory.bind(session_id=session)

    def peer(session: str) -> RedisSession:
        return RedisSession(f"{os.getpid()}-{session}", redis_client=client)

    # Saving makes a short session longer, so that it is not the one that is loaded.
    for kind, size in (("save", SHORT), ("load", SHORT), ("load", long)):
        items: Any = []
        for number in range(size):
            items += (turn := make_turn(number))
            await ours(f"{kind} {size}").save(turn)
        await peer(f"{kind} {size}").add_items(items)
    turns = cycle([make_turn(number) for number in range(997)])

    async def save(saver: Callable[[Any], Awaitable[object]]) -> None:
        await saver(next(turns))

    async def load(session: Memory, last: int | None) -> Messages:
        return (await session.load(last=last)).to_openai()

    calls: dict[str, Call] = {}
    rarely: dict[str, Call] = {}
    for size in (SHORT, long):
        name = f"{'save' if size == SHORT else 'load'} {size}"
        mine, its = ours(name), peer(name)
        calls[f"save ours {size}"] = partial(save, mine.save)
        calls[f"save peer {size}"] = partial(save, its.add_items)
        mine, its = ours(f"load {size}"), peer(f"load {size}")
        assert await load(mine, LAST) == await its.get_items(2 * LAST)
        calls[f"load ours {size}"] = partial(load, mine, SHORT)
        calls[f"load peer {size}"] = partial(its.get_items, 2 * SHORT)
        whole = calls if size == SHORT else rarely
        whole[f"all ours {size}"] = partial(load, mine, None)
        whole[f"all peer {size}"] = partial(its.get_items)
    took = await measure(calls, rounds, 5) | await measure(rarely, max(rounds // 12, 2), 1)

    names = [f"many {number}" for number in range(SESSIONS)]
    mine_all: Any = [ours(name).save for name in names]
    its_all: Any = [peer(name).add_items for name in names]
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(2 if quick else 7):
        rates["ours"].append(await per_second(mine_all, 10))
        rates["peer"].append(await per_second(its_all, 10))
    await storage.close()
    await client.aclose()

    rows, missed = [], []

    def row(what: str, a: float, b: float, limit: float | None, *, least: bool = False) -> None:
        wrong = limit is not None and (a / b < limit if least else a / b > limit)
        if wrong:
            missed.append(f"{what}: {a / b:.2f}, limit {limit}")
        bound = "" if limit is None else f"{'≥' if least else '≤'} {limit}"
        rows.append([what, f"{a:,.0f}", f"{b:,.0f}", f"{a / b:.2f}", bound])

    for kind in ("save", "load"):
        row(
            f"{kind}, µs: at {long:,} turns / at {SHORT}",
            took[f"{kind} ours {long}"],
            took[f"{kind} ours {SHORT}"],
            GROWTH_LIMIT,
        )
    for size in (SHORT, long):
        a, b = took[f"save ours {size}"], took[f"save peer {size}"]
        row(f"save, µs, at {size:,} turns: ours / peer", a, b, SAVE_LIMIT)
        a, b = took[f"load ours {size}"], took[f"load peer {size}"]
        row(f"load the last {SHORT} of {size:,} turns, µs: ours / peer", a, b, LOAD_LIMIT)
        a, b = took[f"all ours {size}"], took[f"all peer {size}"]
        row(f"load all {size:,} turns, µs: ours / peer", a, b, LOAD_LIMIT)
    a, b = (statistics.median(rates[who]) for who in ("ours", "peer"))
    row(f"{SESSIONS} sessions at once, turns/s: ours / peer", a, b, RATE_LIMIT, least=True)

    console = Console(width=140)
    console.print(
        f"\n{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"Redis {info['redis_version']} without persistence, redis-py {version('redis')} with "
        f"hiredis {version('hiredis')}, "
        f"openai-agents {version('openai-agents')}.\n",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD)
    for index, column in enumerate(["", "first", "second", "ratio", "limit"]):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for each in rows:
        table.add_row(*each)
    with console.capture() as capture:
        console.print(table)
    print(*filter(str.strip, capture.get().splitlines()), sep="\n")
    for each in missed:
        print("outside its limit:", each, file=sys.stderr)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure saving and loading on Redis.")
    parser.add_argument("--markdown", action="store_true", help="a table for RESULTS.md")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--url", help="a Redis that may be written to")
    options = parser.parse_args()
    server = None
    with tempfile.TemporaryDirectory() as folder:
        if options.url is None:
            command = ["redis-server", "--port", str(PORT), "--bind", "127.0.0.1", "--save", ""]
            command += ["--dir", folder]
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        try:
            url = options.url or f"redis://127.0.0.1:{PORT}"
            asyncio.run(ready(url))
            return asyncio.run(run(url, quick=options.quick, markdown=options.markdown))
        finally:
            if server is not None:
                server.terminate()
                server.wait()


async def ready(url: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                async with redis.asyncio.Redis.from_url(url) as client:
                    await client.ping()
            except redis.ConnectionError:
                await asyncio.sleep(0.02)
            else:
                return


if __name__ == "__main__":
    raise SystemExit(main())
