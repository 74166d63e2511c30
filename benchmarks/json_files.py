"""What JSON files cost as a session grows: saving, the last turns, stalls of the loop.

    python benchmarks/json_files.py [--markdown] [--quick]

One run, warm, in small blocks that take turns: look at the ratios. Exits with 1 when saving a turn
at 10,000 costs more than 1.2 times what it costs at 10.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter, perf_counter_ns

from rich import box
from rich.console import Console
from rich.table import Table

from memory_async import JSONStorage, Memory

SHORT, LONG, LAST, LIMIT = 10, 10_000, 20, 1.2
BLOCK = 10

Call = Callable[[], Awaitable[object]]


def make_turn(number: int) -> list[dict[str, str]]:
    """160 words."""
    return [
        {"role": "user", "content": f"{number}: " + "question " * 40},
        {"role": "assistant", "content": "answered ✓ " * 120},
    ]


async def block(call: Call) -> float:
    """Microseconds a call."""
    start = perf_counter_ns()
    for _ in range(BLOCK):
        await call()
    return (perf_counter_ns() - start) / BLOCK / 1000


async def longest_stall(call: Call) -> float:
    """Milliseconds for which a task that ticks all the time was held up."""
    longest, over = 0.0, False

    async def tick() -> None:
        nonlocal longest
        last = perf_counter()
        while not over:
            await asyncio.sleep(0)
            now = perf_counter()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await call()
    over = True
    await ticking
    return longest * 1000


async def measure(folder: Path, rounds: int, turns: int) -> list[tuple[str, str, str, str]]:
    async with JSONStorage(folder) as storage:
        memory = Memory(storage, full_session_memory=True)
        short, long = memory.bind(session_id="short"), memory.bind(session_id="long")
        for number in range(turns):
            await long.save(make_turn(number))
        times: dict[str, list[float]] = {}
        for number in range(rounds):
            # A new short one each time: it has ten turns and stays about there.
            short = memory.bind(session_id=f"short-{number}")
            for each in range(SHORT):
                await short.save(make_turn(each))
            for name, chat in (("short", short), ("long", long)):
                save, load = partial(chat.save, make_turn(number)), partial(chat.load, last=LAST)
                times.setdefault(f"save {name}", []).append(await block(save))
                times.setdefault(f"load {name}", []).append(await block(load))
        rows = []
        for what, name in (("save", "save a turn"), ("load", f"load the last {LAST}")):
            few, many = times[f"{what} short"], times[f"{what} long"]
            ratio = statistics.median(b / a for a, b in zip(few, many, strict=True))
            at_few, at_many = (f"{statistics.median(each):,.0f}" for each in (few, many))
            rows.append((name, at_few, at_many, f"{ratio:.2f}"))
        big = {"role": "user", "content": "x" * 1_000_000}
        stalls = [
            await longest_stall(partial(long.save, big)),
            await longest_stall(partial(long.load, last=1_000)),
        ]
    print(f"longest stall, ms: saving 1 MB {stalls[0]:.0f}, loading 1,000 turns {stalls[1]:.0f}")
    return rows


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--quick", action="store_true")
    given = options.parse_args()
    turns = 500 if given.quick else LONG
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(Path(folder), 5 if given.quick else 40, turns))
    table = Table(box=box.MARKDOWN if given.markdown else box.SIMPLE)
    for column in ("median, µs", f"at {SHORT} turns", f"at {turns:,} turns", "ratio"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    return float(rows[0][3]) > LIMIT


if __name__ == "__main__":
    sys.exit(main())
