"""What saving and loading a turn costs: in short and long sessions, and beside a peer.

    python benchmarks/save_load.py [--markdown] [--quick] [--folder FOLDER]

The peer is the `AsyncSQLiteSession` of openai-agents. Everything is measured in one run on one file
system, call by call in random order, so that what the call before left in the caches, and whatever
else the machine does, meets all alike: look at the ratios. Exits with 1 when one is above its
limit.

A call is handed to SQLite's thread and back. Where that runs on another core, and idle cores sleep
(in virtual machines above all), this takes a few µs or a hundred, and medians jump between the two.
`taskset -c 0 python benchmarks/save_load.py` keeps all on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol

from agents.extensions.memory import AsyncSQLiteSession
from rich import box
from rich.console import Console
from rich.table import Table

from memory_async import Memory, SqliteStorage

SHORT, LONG = 10, 10_000
LAST = 20
SESSIONS = 64  # appending at once
GROWTH_LIMIT, PEER_LIMIT = 1.2, 1.0

Messages = list[dict[str, Any]]
Call = Callable[[], Awaitable[object]]
Save = Callable[[Messages], Awaitable[object]]


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


class Subject(Protocol):
    """One session in a file of its own."""

    async def fill(self, turns: int) -> None:
        """Make the session anew, with so many turns."""

    async def save(self, turn: Messages) -> object: ...

    async def load(self, last: int | None) -> Messages: ...

    async def close(self) -> None: ...


class Ours:
    def __init__(self, path: Path, durability: Any = "full", session: str = "session") -> None:
        self._storage = SqliteStorage(path, durability=durability)
        self._memory = Memory(self._storage, session, "user", full_session_memory=True)

    def another(self, session: str) -> Memory:
        return self._memory.bind(session_id=session)

    async def fill(self, turns: int) -> None:
        await self._memory.delete_session()
        for number in range(turns):
            await self.save(make_turn(number))

    async def save(self, turn: Messages) -> object:
        return await self._memory.save(turn)

    async def load(self, last: int | None) -> Messages:
        return (await self._memory.load(last=last)).to_openai()

    async def load_context(self, last: int | None) -> object:
        return await self._memory.load(last=last)

    async def close(self) -> None:
        await self._storage.close()


class Peer:
    def __init__(self, path: Path, durability: Any = "full", session: str = "session") -> None:
        self._session = AsyncSQLiteSession(session, path)
        self._durability = durability

    async def set_durability(self) -> None:
        """Its own setting is SQLite's default; "normal" is set from outside, to compare like with
        like."""
        connection = await self._session._get_connection()
        await connection.execute(f"PRAGMA synchronous = {self._durability}")

    async def synchronous(self) -> int:
        connection = await self._session._get_connection()
        [[found]] = await connection.execute_fetchall("PRAGMA synchronous")
        return int(found)

    async def fill(self, turns: int) -> None:
        await self.set_durability()
        await self._session.clear_session()
        items: Any = [message for number in range(turns) for message in make_turn(number)]
        await self._session.add_items(items)

    async def save(self, turn: Any) -> object:
        await self._session.add_items(turn)
        return None

    async def load(self, last: int | None) -> Messages:
        items: Any = await self._session.get_items(limit=None if last is None else 2 * last)
        return list(items)

    async def close(self) -> None:
        await self._session.close()


class Timing(NamedTuple):
    """Microseconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, nanoseconds: Iterable[int]) -> Timing:
        micros = sorted(each / 1000 for each in nanoseconds)
        return cls(statistics.median(micros), micros[int(len(micros) * 0.95)])

    def __str__(self) -> str:
        return f"{self.median:,.0f} ({self.p95:,.0f})"


async def measure(
    calls: dict[str, Call], *, rounds: int, times: int, before: Sequence[Call] = ()
) -> dict[str, Timing]:
    """The time of each call. A round is each of them so many ``times``, in random order, after
    those of ``before`` and one of each that does not count."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for first in (*before, *calls.values()):
            await first()
        for name in random.sample([*calls] * times, len(calls) * times):
            start = perf_counter_ns()
            await calls[name]()
            spent[name].append(perf_counter_ns() - start)
    return {name: Timing.of(each) for name, each in spent.items()}


class Report:
    """Tables on the screen, or for a Markdown file; remembers the limits that were missed."""

    def __init__(self, *, markdown: bool) -> None:
        self._box = box.MARKDOWN if markdown else box.SIMPLE_HEAD
        self._console = Console(width=140)
        self.missed: list[str] = []

    def say(self, text: str) -> None:
        self._console.print(f"\n{text}\n", highlight=False, soft_wrap=True)

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        table = Table(box=self._box)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        with self._console.capture() as capture:
            self._console.print(table)
        print(*filter(str.strip, capture.get().splitlines()), sep="\n")

    def ratio(self, what: str, a: float, b: float, limit: float | None = None) -> str:
        if limit is not None and a / b > limit:
            self.missed.append(f"{what}: {a / b:.2f}, limit {limit}")
        return f"{a / b:.2f}"


async def measure_loads(folder: Path, report: Report, rounds: int, long: int) -> None:
    sizes = (SHORT, LAST, long)
    ours = {size: Ours(folder / f"load-ours-{size}.db") for size in sizes}
    peer = {size: Peer(folder / f"load-peer-{size}.db") for size in sizes}
    for size in sizes:
        await ours[size].fill(size)
        await peer[size].fill(size)
        assert await ours[size].load(LAST) == await peer[size].load(LAST)

    calls: dict[str, Call] = {}
    for size in sizes:
        calls[f"ours {size}"] = partial(ours[size].load, LAST)
        calls[f"context {size}"] = partial(ours[size].load_context, LAST)
        calls[f"peer {size}"] = partial(peer[size].load, LAST)
    calls[f"ours last {SHORT} of {SHORT}"] = partial(ours[SHORT].load, SHORT)
    calls[f"ours last {SHORT} of {long}"] = partial(ours[long].load, SHORT)
    took = await measure(calls, rounds=rounds, times=5)
    whole: dict[str, Call] = {}
    for size in (SHORT, long):
        whole[f"ours {size}"] = partial(ours[size].load, None)
        whole[f"peer {size}"] = partial(peer[size].load, None)
    took_whole = await measure(whole, rounds=max(rounds // 20, 3), times=2)
    for size in sizes:
        await ours[size].close()
        await peer[size].close()

    report.say("Loading as the session grows, µs: median (p95)")
    growth = []
    for n, few, many in (
        (LAST, f"ours {LAST}", f"ours {long}"),
        (SHORT, f"ours last {SHORT} of {SHORT}", f"ours last {SHORT} of {long}"),
    ):
        short, grown = took[few], took[many]
        ratio = report.ratio(f"load last {n}", grown.median, short.median, GROWTH_LIMIT)
        growth.append([f"last {n} turns", str(short), str(grown), ratio])
    report.table(["load", "all there are", f"of {long:,} turns", "ratio"], growth)

    report.say("Loading beside the peer, µs: median (p95)")
    rows = []
    for size in (SHORT, long):
        a, b = took[f"ours {size}"], took[f"peer {size}"]
        ratio = report.ratio(f"load at {size} beside the peer", a.median, b.median, PEER_LIMIT)
        context = took[f"context {size}"]
        rows.append([f"last {LAST}, at {size:,} turns", str(a), str(context), str(b), ratio])
    for size in (SHORT, long):
        a, b = took_whole[f"ours {size}"], took_whole[f"peer {size}"]
        ratio = report.ratio("whole history", a.median, b.median)
        rows.append([f"all, at {size:,} turns (both by default)", str(a), "", str(b), ratio])
    columns = ["", "load().to_openai()", "load() alone", "get_items(limit=40)", "ours / peer"]
    report.table(columns, rows)


async def measure_saves(folder: Path, report: Report, rounds: int, long: int) -> None:
    subjects: dict[str, Subject] = {}
    for durability in ("full", "normal"):
        for size in (SHORT, long):
            name = f"{durability} {size}"
            path = folder / f"save-{durability}-{size}"
            subjects[f"ours {name}"] = Ours(path.with_suffix(".ours.db"), durability)
            subjects[f"peer {name}"] = Peer(path.with_suffix(".peer.db"), durability)
    turns = cycle([make_turn(number) for number in range(997)])

    async def save_next(subject: Subject) -> None:
        await subject.save(next(turns))

    calls: dict[str, Call] = {}
    before: list[Call] = []
    for name, subject in subjects.items():
        size = int(name.split()[-1])
        await subject.fill(size)
        calls[name] = partial(save_next, subject)
        if size == SHORT:
            before.append(partial(subject.fill, SHORT))
    took = await measure(calls, rounds=rounds, times=4, before=before)
    for subject in subjects.values():
        await subject.close()

    report.say("Saving a turn as the session grows, µs: median (p95)")
    rows = []
    for durability in ("full", "normal"):
        short, grown = took[f"ours {durability} {SHORT}"], took[f"ours {durability} {long}"]
        what = f"save, durability={durability}"
        ratio = report.ratio(what, grown.median, short.median, GROWTH_LIMIT)
        rows.append([what, str(short), str(grown), ratio])
    report.table(["", f"at {SHORT} turns", f"at {long:,} turns", "ratio"], rows)

    report.say("Saving a turn beside the peer, µs: median (p95)")
    rows = []
    for durability in ("full", "normal"):
        for size in (SHORT, long):
            a, b = took[f"ours {durability} {size}"], took[f"peer {durability} {size}"]
            what = f"synchronous={durability.upper()}, at {size:,} turns"
            ratio = report.ratio(f"save, {what}", a.median, b.median, PEER_LIMIT)
            rows.append([what, str(a), str(b), ratio])
    report.table(["", "save(turn)", "add_items(2 items)", "ours / peer"], rows)


async def append_all(savers: Sequence[Save], each: int) -> tuple[float, int]:
    """Every saver saves ``each`` turns, all at once; turns per second, and how many failed."""
    turns = [make_turn(number) for number in range(each)]
    failed = 0

    async def append(save: Save) -> None:
        nonlocal failed
        for turn in turns:
            try:
                await save(turn)
            except sqlite3.OperationalError:  # the peer: "database is locked"
                failed += 1

    start = perf_counter_ns()
    await asyncio.gather(*map(append, savers))
    seconds = (perf_counter_ns() - start) / 1e9
    return (len(savers) * each - failed) / seconds, failed


async def measure_many(folder: Path, report: Report, rounds: int) -> None:
    names = [f"session {number}" for number in range(SESSIONS)]
    rows = []
    for durability in ("full", "normal"):
        ours = Ours(folder / f"many-{durability}.ours.db", durability)
        path = folder / f"many-{durability}.peer.db"
        peers = [Peer(path, durability, name) for name in names]
        for peer in peers:
            await peer.fill(1)
        mine = [ours.another(name).save for name in names]
        theirs = [peer.save for peer in peers]
        await append_all(mine, 1)
        both = [(await append_all(mine, 10), await append_all(theirs, 10)) for _ in range(rounds)]
        await ours.close()
        for peer in peers:
            await peer.close()
        a, b = (statistics.median(each[side][0] for each in both) for side in (0, 1))
        failed = sum(each[1][1] for each in both)
        assert not any(each[0][1] for each in both)
        tried = rounds * SESSIONS * 10
        rows.append([f"synchronous={durability.upper()}", f"{a:,.0f}", f"{b:,.0f}"])
        rows[-1] += [f"{a / b:.1f}", f"{failed:,.0f} of {tried:,}"]
    report.say(f"{SESSIONS} sessions of one file append at once, turns/s")
    report.table(["", "ours", "peer", "ours / peer", "of the peer's failed (locked)"], rows)


async def describe(folder: Path, report: Report) -> None:
    peer = Peer(folder / "pragma.db")
    found = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}[await peer.synchronous()]
    await peer.close()
    report.say(
        f"{_cores()}, {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, openai-agents {version('openai-agents')} "
        f"(WAL, synchronous={found})."
    )


def _cores() -> str:
    every = os.cpu_count()
    used = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else every
    return f"{every} cores" if used == every else f"{used} of {every} cores"


async def run_all(options: argparse.Namespace) -> int:
    report = Report(markdown=options.markdown)
    rounds, long = (3, 200) if options.quick else (120, LONG)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        await describe(folder, report)
        await measure_saves(folder, report, rounds, long)
        await measure_loads(folder, report, rounds, long)
        await measure_many(folder, report, 1 if options.quick else 5)
    for missed in report.missed:
        print("above its limit:", missed, file=sys.stderr)
    return 1 if report.missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure saving and loading.")
    parser.add_argument("--markdown", action="store_true", help="tables for RESULTS.md")
    parser.add_argument("--quick", action="store_true", help="small and short, to see it work")
    parser.add_argument("--folder", default=".", help="where the databases are made for the run")
    sys.exit(asyncio.run(run_all(parser.parse_args())))
