"""What saving and loading a turn costs on PostgreSQL, and beside a peer.

    python benchmarks/postgres.py postgresql://user@host/database [--markdown] [--quick]

The peer is the `SQLAlchemySession` of openai-agents, on asyncpg. Both are measured in one run, in
small blocks that take turns in random order: look at the ratios. Exits with 1 when one is above
(or below) its limit. Makes the schema ``memory_async_benchmark`` and the peer's two tables.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import uuid
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from memory_async import Memory, PostgresStorage

SHORT, LONG, LAST, SESSIONS = 10, 10_000, 20, 64
Messages = list[dict[str, Any]]
Call = Callable[[], Awaitable[object]]


def make_turn(number: int) -> Messages:
    dice = random.Random(number)
    words = [
        " ".join("".join(dice.choices("aeioubdklmnrst", k=dice.randint(2, 9))) for _ in range(size))
        for size in (40, 120)
    ]
    return [{"role": r, "content": w} for r, w in zip(("user", "assistant"), words, strict=True)]


async def measure(calls: dict[str, Call], rounds: int, block: int) -> dict[str, float]:
    """The median of each call, in microseconds."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            await calls[name]()
            for _ in range(block):
                start = perf_counter_ns()
                await calls[name]()
                spent[name].append(perf_counter_ns() - start)
    return {name: statistics.median(each) / 1000 for name, each in spent.items()}


async def rate(saves: list[Callable[[Any], Awaitable[object]]], each: int) -> float:
    """Turns per second, of all at once."""

    async def run(save: Callable[[Any], Awaitable[object]]) -> None:
        for number in range(each):
            await save(make_turn(number))

    start = perf_counter_ns()
    await asyncio.gather(*map(run, saves))
    return len(saves) * each / ((perf_counter_ns() - start) / 1e9)


async def main(options: argparse.Namespace) -> int:
    rounds, long = (3, 200) if options.quick else (40, LONG)
    run = uuid.uuid4().hex
    storage = PostgresStorage(options.url, schema="memory_async_benchmark", namespace=run)
    memory = Memory(storage, full_session_memory=True)
    engine = create_async_engine(options.url.replace("postgresql://", "postgresql+asyncpg://"))

    def peer(name: str) -> SQLAlchemySession:
        return SQLAlchemySession(f"{run} {name}", engine=engine, create_tables=True)

    calls: dict[str, Call] = {}
    for size in (SHORT, LAST, long):
        for use in ("save", "load"):
            mine, theirs = memory.bind(session_id=f"{use} {size}"), peer(f"{use} {size}")
            for number in range(size):
                await mine.save(make_turn(number))
            await theirs.add_items([m for n in range(size) for m in make_turn(n)])  # type: ignore[misc]
            if use == "save" and size != LAST:
                calls[f"save {size}"] = lambda mine=mine: mine.save(make_turn(1))
                calls[f"peer save {size}"] = lambda theirs=theirs: theirs.add_items(make_turn(1))
            elif use == "load" and size != SHORT:
                calls[f"load {size}"] = lambda mine=mine: mine.load(last=LAST)
                calls[f"peer load {size}"] = lambda theirs=theirs: theirs.get_items(2 * LAST)
    took = await measure(calls, rounds, 5)
    ours = [memory.bind(session_id=f"many {n}").save for n in range(SESSIONS)]
    others = [peer(f"many {n}").add_items for n in range(SESSIONS)]
    await asyncio.gather(rate(ours, 1), rate(others, 1))
    both = [(await rate(ours, 10), await rate(others, 10)) for _ in range(3)]
    mine_s, theirs_s = (statistics.median(each[side] for each in both) for side in (0, 1))
    await memory.close()
    await storage.close()
    await engine.dispose()

    rows = [
        ("save: at 10,000 turns / at 10", took[f"save {long}"], took[f"save {SHORT}"], 1.2),
        ("load last 20: of 10,000 / of 20", took[f"load {long}"], took[f"load {LAST}"], 1.2),
        ("save at 10: ours / peer", took[f"save {SHORT}"], took[f"peer save {SHORT}"], 0.5),
        ("save at 10,000: ours / peer", took[f"save {long}"], took[f"peer save {long}"], 0.5),
        ("load last 20 of 10,000: ours / peer", took[f"load {long}"], took[f"peer load {long}"], 1),
        ("turns/s, 64 sessions: peer / ours", theirs_s, mine_s, 1 / 3),
    ]
    print("| | a | b | a / b | limit |\n|---|---:|---:|---:|---:|")
    for what, a, b, limit in rows:
        print(f"| {what} | {a:,.0f} | {b:,.0f} | {a / b:.2f} | {limit:.2f} |")
    missed = [what for what, a, b, limit in rows if a / b > limit]
    print(*(f"above its limit: {what}" for what in missed), sep="\n", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure saving and loading on PostgreSQL.")
    parser.add_argument("url")
    parser.add_argument("--markdown", action="store_true", help="the table is Markdown anyway")
    parser.add_argument("--quick", action="store_true", help="small and short, to see it work")
    sys.exit(asyncio.run(main(parser.parse_args())))
