"""What the sync facade adds to a call: its guard beside a bare portal call, in one run.

    python benchmarks/sync_overhead.py [--markdown]

Both call an empty coroutine function in an event loop of another thread, in small blocks that take
turns. Exits with 1 when the guard costs more than the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from time import perf_counter_ns

from anyio.from_thread import start_blocking_portal
from rich import box
from rich.console import Console
from rich.table import Table

from memory_async import sync

ROUNDS, BLOCK = 300, 40
LIMIT = 1.15


async def nothing() -> None:
    return


def block(call: Callable[[], object]) -> float:
    """Microseconds a call, over one block."""
    start = perf_counter_ns()
    for _ in range(BLOCK):
        call()
    return (perf_counter_ns() - start) / BLOCK / 1000


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--markdown", action="store_true")
    markdown = options.parse_args().markdown
    bare: list[float] = []
    ours: list[float] = []
    with sync.Memory("memory://", "s") as memory, start_blocking_portal() as portal:
        guarded = memory._portal
        for _ in range(ROUNDS):
            bare.append(block(lambda: portal.call(nothing)))
            ours.append(block(lambda: guarded.call(nothing)))
    ratio = statistics.median(b / a for a, b in zip(bare, ours, strict=True))
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE)
    for column in ("an empty call", "median, µs", "ratio, pair by pair"):
        table.add_column(column)
    table.add_row("bare portal", f"{statistics.median(bare):.1f}", "1")
    table.add_row("through the facade", f"{statistics.median(ours):.1f}", f"{ratio:.2f}")
    Console(width=100).print(table)
    return ratio > LIMIT


if __name__ == "__main__":
    sys.exit(main())
