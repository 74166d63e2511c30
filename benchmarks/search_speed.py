"""What searching one user's long history costs, beside loading the last turns of a session.

    python benchmarks/search_speed.py FOLDER [--turns 10000] [--markdown]

The history is made of lines of the conversations in FOLDER (in the format of LoCoMo), two to a
turn, over fifty sessions of one user on one SQLite file; a second user with as many turns shares
the file. Queries are those conversations' questions. Loading and searching take turns, so that both
see the same machine. Exits with 1 when the limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from memory_async import Memory, SqliteStorage

SESSIONS = 50
LAST = 20
ROUNDS = 400
LIMIT = 10.0  # times the cost of loading


def read(folder: Path) -> tuple[list[str], list[str]]:
    """All lines, and all questions."""
    lines, questions = [], []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        questions += [each["question"] for each in data["qa"]]
        for name in data:
            if re.fullmatch(r"session_\d+", name):
                lines += [said["text"] for said in data[name]]
    return lines, questions


async def fill(memory: Memory, user: str, turns: int, lines: list[str]) -> None:
    dice = random.Random(user)
    for number in range(turns):
        session = f"{user} {number * SESSIONS // turns}"
        asked, answered = dice.choices(lines, k=2)
        await memory.bind(session_id=session, user_id=user).save(
            [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        )
    await memory.drain()


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1e6


async def measure(folder: Path, turns: int) -> dict[str, list[float]]:
    lines, questions = read(folder)
    took: dict[str, list[float]] = {"load": [], "search": [], "search, an unindexed tail": []}
    with tempfile.TemporaryDirectory() as place:
        storage = SqliteStorage(Path(place) / "memory.db", durability="normal")
        async with (
            storage,
            Memory(
                storage, search_memory=True, full_session_memory=True, num_last_messages=LAST
            ) as memory,
        ):
            for user in ("ada", "bob"):
                await fill(memory, user, turns, lines)
            chat = memory.bind(session_id=f"ada {SESSIONS - 1}", user_id="ada")
            # Whoever has no job of its own leaves a tail that no index has taken.
            other = Memory(storage, full_session_memory=True)
            tail = other.bind(session_id=f"ada {SESSIONS - 1}", user_id="ada")
            dice = random.Random(0)
            for name in ("search", "search, an unindexed tail"):
                for _ in range(ROUNDS):
                    query = dice.choice(questions)
                    took["load"].append(await timed(chat.load))
                    took[name].append(await timed(lambda query=query: chat.search(query)))  # type: ignore[misc]
                for text in dice.choices(lines, k=10):
                    await tail.save({"role": "user", "content": text})
            await other.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    took = asyncio.run(measure(given.folder, given.turns))
    load = statistics.median(took["load"])
    header, rule = "| {:<50} | {:>12} | {:>7} | {:>5} |", "|---|---:|---:|---:|"
    plain = "{:<50} {:>12} {:>7} {:>5}"
    line = header if given.markdown else plain
    print(line.format("", "median, µs", "p95", "times"))
    if given.markdown:
        print(rule)
    names = {
        "load": f"load the last {LAST} turns of a session",
        "search": f"search the user's {given.turns:,} turns",
        "search, an unindexed tail": "the same, ten turns of them in no index yet",
    }
    ratios = []
    for key, values in took.items():
        median = statistics.median(values)
        ratios.append(median / load)
        p95 = statistics.quantiles(values, n=20)[-1]
        print(line.format(names[key], f"{median:,.0f}", f"{p95:,.0f}", f"{median / load:.1f}"))
    if max(ratios) >= LIMIT:
        print(f"searching costs {max(ratios):.1f} times loading: the limit is {LIMIT:g}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
