"""What saving and loading a turn costs on PostgreSQL: in short and long sessions, beside a peer.

    python benchmarks/postgres.py [--quick] [--url postgresql://user@host/database]

Starts a server of its own, with PostgreSQL's defaults (fsync on) and its data in /var/tmp, unless
given a URL, where it makes the schema ``memory_async_benchmark`` and the peer's two tables. The
peer is the `SQLAlchemySession` of openai-agents, on asyncpg. Everything is measured in one run, in
small blocks that take turns in random order: look at the ratios. Exits with 1 when a ratio is
outside its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import sys
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

import asyncpg
from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from memory_async import Memory, PostgresStorage

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.servers.postgres import postgres

SCHEMA = "memory_async_benchmark"
SHORT, LONG, LAST, SESSIONS = 10, 10_000, 20, 64
GROWTH_LIMIT, SAVE_LIMIT, RATE_LIMIT = 1.2, 0.5, 3.0

Messages = list[dict[str, Any]]
Call = Callable[[], Awaitable[object]]
Save = Callable[[Any], Awaitable[object]]


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


TURNS = [make_turn(number) for number in range(997)]


class Sides:
    """Ours and the peer's sessions, on one server; ``settings`` are those of the connections."""

    def __init__(self, url: str, run: str, pool: Any = None, **settings: str) -> None:
        self._run = run
        self.storage = PostgresStorage(pool or url, schema=SCHEMA, namespace=run)
        self._memory = Memory(self.storage, full_session_memory=True)
        theirs = url.replace("postgresql://", "postgresql+asyncpg://")
        self.engine = create_async_engine(theirs, connect_args={"server_settings": settings})

    def ours(self, name: str) -> Memory:
        return self._memory.bind(session_id=name)

    def peer(self, name: str) -> SQLAlchemySession:
        return SQLAlchemySession(f"{self._run} {name}", engine=self.engine, create_tables=True)

    async def close(self) -> None:
        await self._memory.close()
        await self.storage.close()
        await self.engine.dispose()


async def fill(url: str, run: str, sizes: dict[str, int]) -> None:
    """Turn by turn, as time would bring them; only here without waiting for the disk."""
    hurried = {"synchronous_commit": "off"}
    async with asyncpg.create_pool(url, server_settings=hurried) as pool:
        sides = Sides(url, run, pool, **hurried)

        async def talk(save: Save, size: int) -> None:
            for number in range(size):
                await save(TURNS[number % len(TURNS)])

        await sides.peer("first").get_items()  # makes the tables
        for name, size in sizes.items():
            await asyncio.gather(
                talk(sides.ours(name).save, size), talk(sides.peer(name).add_items, size)
            )
        await sides.close()
        await pool.execute("VACUUM ANALYZE")
        await pool.execute("CHECKPOINT")


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


async def per_second(savers: list[Save], each: int) -> float:
    async def talk(save: Save) -> None:
        for turn in TURNS[:each]:
            await save(turn)

    start = perf_counter()
    await asyncio.gather(*map(talk, savers))
    return len(savers) * each / (perf_counter() - start)


async def run(url: str, *, quick: bool) -> int:
    rounds, long = (3, 200) if quick else (60, LONG)
    name = uuid.uuid4().hex
    short = [f"short {number}" for number in range(rounds)]
    await fill(url, name, {f"{long}": long, f"{SHORT}": SHORT, **dict.fromkeys(short, SHORT)})

    sides = Sides(url, name)
    turns = cycle(TURNS)
    # Sessions that are saved to are short for a block only.
    ours_short = cycle([save for n in short for save in [sides.ours(n).save] * 6])
    peer_short = cycle([save for n in short for save in [sides.peer(n).add_items] * 6])

    async def save(saver: Save) -> None:
        await saver(next(turns))

    async def load(session: Memory, last: int | None) -> Messages:
        return (await session.load(last=last)).to_openai()

    async def load_peer(session: SQLAlchemySession, last: int | None) -> Any:
        return await session.get_items(last and 2 * last)

    for size in (SHORT, long):  # they load equal lists
        mine, its = sides.ours(f"{size}"), sides.peer(f"{size}")
        assert await load(mine, LAST) == await load_peer(its, LAST)
        assert await load(mine, None) == await load_peer(its, None)
    long_ours, long_peer = sides.ours(f"{long}"), sides.peer(f"{long}")
    calls: dict[str, Call] = {
        f"ours save {SHORT}": lambda: save(next(ours_short)),
        f"peer save {SHORT}": lambda: save(next(peer_short)),
        f"ours save {long}": lambda: save(long_ours.save),
        f"peer save {long}": lambda: save(long_peer.add_items),
    }
    whole: dict[str, Call] = {}
    for size in (SHORT, long):
        mine, its = sides.ours(f"{size}"), sides.peer(f"{size}")
        for last in (SHORT, LAST):
            calls[f"ours load {last} of {size}"] = partial(load, mine, last)
            calls[f"peer load {last} of {size}"] = partial(load_peer, its, last)
        whole[f"ours load all of {size}"] = partial(load, mine, None)
        whole[f"peer load all of {size}"] = partial(load_peer, its, None)
    took = await measure(calls, rounds, 5)
    took |= await measure(whole, max(rounds // 12, 2), 1)

    names = [f"many {number}" for number in range(SESSIONS)]
    savers: dict[str, list[Any]] = {
        "ours": [sides.ours(name).save for name in names],
        "peer": [sides.peer(name).add_items for name in names],
    }
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(2 if quick else 8):
        for who in random.sample(list(rates), 2):
            rates[who].append(await per_second(savers[who], 10))
    async with asyncpg.create_pool(url) as pool:
        server, *safe = [
            await pool.fetchval(f"SHOW {name}")
            for name in ("server_version", "fsync", "synchronous_commit")
        ]
    await sides.close()

    print(
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"PostgreSQL {server} (fsync {safe[0]}, synchronous_commit {safe[1]}), "
        f"asyncpg {version('asyncpg')}, "
        f"openai-agents {version('openai-agents')}, SQLAlchemy {version('sqlalchemy')}.\n\n"
        "| | first | second | ratio | limit |\n|---|---:|---:|---:|---:|"
    )
    missed = []

    def row(
        what: str, a: float, b: float, limit: float | None = None, *, least: bool = False
    ) -> None:
        if limit is not None and (a / b < limit if least else a / b > limit):
            missed.append(f"{what}: {a / b:.2f}, limit {limit}")
        bound = "" if limit is None else f"{'≥' if least else '≤'} {limit}"
        print(f"| {what} | {a:,.0f} | {b:,.0f} | {a / b:.2f} | {bound} |")

    a, b = took[f"ours save {long}"], took[f"ours save {SHORT}"]
    row(f"save, µs: at {long:,} turns / at {SHORT}", a, b, GROWTH_LIMIT)
    a, b = took[f"ours load {SHORT} of {long}"], took[f"ours load {SHORT} of {SHORT}"]
    row(f"load the last {SHORT}, µs: of {long:,} turns / of {SHORT}", a, b, GROWTH_LIMIT)
    for size in (SHORT, long):
        a, b = took[f"ours save {size}"], took[f"peer save {size}"]
        row(f"save, µs, at {size:,} turns: ours / peer", a, b, SAVE_LIMIT)
    a, b = (statistics.median(rates[who]) for who in ("ours", "peer"))
    row(f"{SESSIONS} sessions at once, turns/s: ours / peer", a, b, RATE_LIMIT, least=True)
    for size, last in ((SHORT, SHORT), (long, SHORT), (long, LAST), (SHORT, "all"), (long, "all")):
        a, b = took[f"ours load {last} of {size}"], took[f"peer load {last} of {size}"]
        row(f"load {last} of {size:,} turns, µs: ours / peer", a, b)
    for each in missed:
        print("outside its limit:", each, file=sys.stderr)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure saving and loading on PostgreSQL.")
    parser.add_argument("--markdown", action="store_true", help="the table is Markdown anyway")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--url", help="a database that may be written to")
    options = parser.parse_args()
    if options.url:
        return asyncio.run(run(options.url, quick=options.quick))
    with postgres(durable=True, within="/var/tmp") as server:  # noqa: S108 - /tmp may be no disk
        return asyncio.run(run(server.url(), quick=options.quick))


if __name__ == "__main__":
    raise SystemExit(main())
