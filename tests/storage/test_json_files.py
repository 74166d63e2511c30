"""JSON files as a file system sees them: names, bytes read, syncs; and a loop that goes on."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("filelock")

from filelock import FileLock

from memory_async.errors import MemoryAsyncError
from memory_async.storage.json import JSONStorage
from memory_async.storage.json.files import safe_name
from memory_async.storage.protocol import ALWAYS, Delete, Drop, Put
from memory_async.testing.material import append, fill, in_session, item, session_key, texts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory"


class TestNames:
    ODD = ("../../etc/passwd", "..", ".", "a/b", "A", "a", "ä", "a\u0308", "CON", "con", "x" * 300)

    async def test_odd_sessions_stay_apart_and_within_the_folder(self, path: Path) -> None:
        names = (*self.ODD, "x" * 299 + "X", "a\\b", "a:b", " ", "a.", "%41", "~", ".hidden", "\n")
        async with JSONStorage(path) as storage:
            for name in names:
                await storage.apply(append(name, name), Put(item(in_session(name), name), ALWAYS))
        async with JSONStorage(path) as storage:
            for name in names:
                assert texts(await storage.history(name)) == [name]
                assert await storage.get(item(in_session(name), name).key) is not None
            found = await storage.find("session", limit=1000)
            assert {each.key.id for each in found} == set(names)
        made = list(path.parent.rglob("*"))
        assert all(each.is_relative_to(path) for each in made)
        folded = [str(each).casefold() for each in made]
        assert len(set(folded)) == len(folded), "apart where the file system folds case, too"

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.text(max_size=300), st.text(max_size=300))
    def test_any_name_is_safe_everywhere_and_no_others(self, one: str, other: str) -> None:
        name = safe_name(one)
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%~")
        assert len(name) <= 120
        assert (name == safe_name(other)) == (one == other)

    def test_names_of_devices_and_lengths(self) -> None:
        for name in ("con", "nul", "com1", "lpt9"):
            assert safe_name(name) != name
        assert len({safe_name("x" * n) for n in range(1, 513)}) == 512

    async def test_nul_is_refused(self, path: Path) -> None:
        async with JSONStorage(path) as storage:
            with pytest.raises(MemoryAsyncError, match="NUL"):
                await storage.history("a\0b")


class TestBytesRead:
    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The sizes of what is read from logs."""
        sizes: list[int] = []

        class Counting(io.FileIO):
            def readinto(self, buffer: Any) -> int | None:
                count = super().readinto(buffer)
                sizes.append(count or 0)
                return count

            def readall(self) -> bytes:
                data = super().readall()
                sizes.append(len(data))
                return data

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode == "rb" and path.suffix == ".jsonl":
                return io.BufferedReader(Counting(path))
            return io.open(path, mode, *args, **kwargs)  # noqa: UP020 - as Path.open does

        monkeypatch.setattr(Path, "open", opened)
        return sizes

    async def test_the_last_20_turns_do_not_take_the_whole_file(
        self, path: Path, read: list[int]
    ) -> None:
        async with JSONStorage(path) as storage:
            for number in range(1_000):
                await storage.apply(append("s", f"{number} {'x' * 800}"))
        size = (path / "default" / "sessions" / "s" / "turns.jsonl").stat().st_size
        assert size > 900_000
        read.clear()
        async with JSONStorage(path) as storage:  # nothing is known of the file
            last = await storage.history("s", last=20)
            assert [text.split()[0] for text in texts(last)] == [str(n) for n in range(980, 1000)]
            cold = sum(read)
            assert 0 < cold < 200_000
            await storage.snapshot("s", last=20)
            assert sum(read) - cold < 200_000
            await storage.apply(append("s"))  # looks its run up in the whole log, once
            read.clear()
            assert len(await storage.history("s", last=20)) == 20
            assert sum(read) < 50_000
            read.clear()
            await storage.apply(append("s"))
            assert sum(read) == 0


async def test_what_is_new_is_synced_up_to_its_folders(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is lost in a power cut together with a name above it."""
    synced: set[str] = set()

    def fsync(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("cannot tell what is synced here")
    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    async with JSONStorage(path) as storage:
        await storage.apply(append("s"))
        folder = path / "default" / "sessions" / "s"
        for each in (folder / "turns.jsonl", folder, *folder.parents):
            assert str(each) in synced, each
            if each == path.parent:
                break
        synced.clear()
        await storage.apply(Drop(in_session("s")))
        assert str(folder.parent) in synced


# --- the event loop ---

BOUND = 0.4  # seconds; what would block it takes twice as long


@asynccontextmanager
async def no_long_stall(bound: float = BOUND) -> AsyncIterator[None]:
    """A task that ticks all the time; fails when it was held up for longer than the bound."""
    longest, over = 0.0, False

    async def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not over:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    yield
    over = True
    await ticking
    assert longest < bound, f"the loop stood still for {longest:.3f} s"


CALLS: dict[str, Callable[[JSONStorage], Awaitable[object]]] = {
    "append": lambda storage: storage.apply(append("s")),
    "batch": lambda storage: storage.apply(append("s"), Put(item(in_session("s"), "i"), ALWAYS)),
    "put": lambda storage: storage.apply(Put(item("c", "i"), ALWAYS)),
    "history": lambda storage: storage.history("s"),
    "snapshot": lambda storage: storage.snapshot("s", "u"),
    "find": lambda storage: storage.find("session"),
    "get": lambda storage: storage.get(session_key("s")),
    "delete": lambda storage: storage.apply(Delete(session_key("s"))),
    "drop": lambda storage: storage.apply(Drop(in_session("s"))),
}


async def test_a_slow_disk_holds_nobody_else_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def slow(handle: int) -> None:
        time.sleep(2 * BOUND)
        real(handle)

    async with JSONStorage(path) as storage:
        await fill(storage, "s", 2)
        await storage.apply(append("t"))
        monkeypatch.setattr(os, "fsync", slow)
        async with no_long_stall():
            await asyncio.gather(
                CALLS["append"](storage), CALLS["put"](storage), CALLS["history"](storage)
            )


async def test_waiting_for_another_process_holds_nobody_else_up(path: Path) -> None:
    async with JSONStorage(path) as storage:
        await fill(storage, "s", 2)
        await storage.apply(Put(item("c", "i"), ALWAYS))
        locks = list((path / "default" / "locks").glob("*.lock"))
        others = [FileLock(each, is_singleton=False) for each in locks]
        for each in others:
            each.acquire()
        async with no_long_stall():
            waiting = {name: asyncio.ensure_future(call(storage)) for name, call in CALLS.items()}
            await asyncio.wait(waiting.values(), timeout=2 * BOUND)
            assert [name for name, task in waiting.items() if task.done()] == [], "they wait"
            for each in others:
                each.release()
            await asyncio.gather(*waiting.values())


async def test_big_things_hold_nobody_up_for_long(path: Path) -> None:
    """Decoding takes the interpreter's lock, though not the loop's thread: a part at a time."""
    text = "x" * 1_000_000
    async with JSONStorage(path) as storage, no_long_stall(2 * BOUND):
        for number in range(10):
            await storage.apply(append("s", f"{number} {text}"))
        assert len(texts(await storage.history("s"))) == 10
    assert json.loads((path / "memory_async.json").read_text())["format"] == 1
