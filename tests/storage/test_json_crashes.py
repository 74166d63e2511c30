"""JSON files after a crash: at every byte of a line, at every step of a batch, by ``kill -9``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("filelock")

from memory_async.errors import StorageUnavailableError
from memory_async.records import Session
from memory_async.storage.json import JSONStorage, files, log, partition
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Delete, Drop, Put, Write
from memory_async.testing.material import (
    append,
    changed,
    contents,
    fill,
    in_session,
    item,
    seqs,
    session_key,
    texts,
)
from tests.storage.test_sqlite_processes import needs_fork, run

WHERE = in_session("s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory"


def folder(path: Path) -> Path:
    return path / "default" / "sessions" / "s"


async def test_a_last_line_torn_at_every_byte_never_was(path: Path) -> None:
    async with JSONStorage(path) as storage:
        await fill(storage, "s", 2)
        turns = folder(path) / "turns.jsonl"
        whole = turns.stat().st_size
        await storage.apply(append("s", "Grüße"), Put(item(WHERE, "i", "new"), ALWAYS))
    written = turns.read_bytes()
    (folder(path) / "item" / "i.json").unlink()
    header = (folder(path) / "session.json").read_bytes()
    assert b'"log_bytes":%d' % len(written) in header
    before = header.replace(b'"log_bytes":%d' % len(written), b'"log_bytes":%d' % whole)
    before = before.replace(b'"last_seq":3', b'"last_seq":2')
    for end in range(whole, len(written)):
        (folder(path) / "session.json").write_bytes(before)
        turns.write_bytes(written[:end])
        async with JSONStorage(path) as storage:
            assert texts(await storage.history("s")) == ["1", "2"]
            assert await storage.get(item(WHERE, "i").key) is None
            [result] = await storage.apply(append("s", "3"))
            assert result.turn.seq == 3
            assert texts(await storage.history("s")) == ["1", "2", "3"]
    (folder(path) / "session.json").write_bytes(before)
    turns.write_bytes(written)
    async with JSONStorage(path) as storage:
        assert texts(await storage.history("s")) == ["1", "2", "Grüße"]
        assert (await storage.get(item(WHERE, "i").key)).value == "new", "the line says it all"


async def test_the_first_line_torn_at_every_byte_never_was(path: Path) -> None:
    async with JSONStorage(path) as storage:
        await fill(storage, "s", 1)
    turns = folder(path) / "turns.jsonl"
    written = turns.read_bytes()
    for end in range(0, len(written), 7):
        (folder(path) / "session.json").unlink()
        turns.write_bytes(written[:end])
        async with JSONStorage(path) as storage:
            assert await storage.history("s") == []
            await fill(storage, "s", 1)
            assert texts(await storage.history("s")) == ["1"]


KILLED = """
import os

async def write(number):
    async with JSONStorage(path) as storage:
        while True:
            number += 1
            text = f"{number} " + "x" * 3000
            await storage.apply(append("s", text), Put(item(in_session("s"), "i", number), ALWAYS))
            os.write(out, b"%d " % number)  # what it says is durable

number = 0
for kill in range(30):
    came, out = os.pipe()
    if (pid := os.fork()) == 0:
        asyncio.run(write(number))
    os.close(out)
    told = os.read(came, 1000)
    while told.count(b" ") < 1 + kill % 4:
        told += os.read(came, 1000)
    time.sleep(kill * 0.0001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(came, 1000):
        told += more
    os.close(came)
    told = [*map(int, told.split())]
    number = max([number, *told]) + 1  # one may be there whose save did not return
    print(*told, flush=True)
"""


@needs_fork
async def test_kill_9_while_it_writes(path: Path) -> None:
    imports = """
import signal
from memory_async.storage.json import JSONStorage
from memory_async.storage.protocol import ALWAYS, Put
from memory_async.testing.material import in_session, item
"""
    told = set(map(int, run(imports + KILLED, path).split()))
    assert len(told) > 30
    async with JSONStorage(path) as storage:
        turns = await storage.history("s")
        kept = await storage.get(item(WHERE, "i").key)
    assert seqs(turns) == list(range(1, len(turns) + 1))
    stored = [int(text.split()[0]) for text in texts(turns)]
    assert sorted(set(stored)) == stored, "none twice"
    assert told <= set(stored), "all whose save returned"
    assert kept.value == stored[-1], "a batch's record is as its turn"


# --- at every step ---

OLD, OTHER = item(WHERE, "old", 1), item(WHERE, "other", 1)
BATCHES: dict[str, Callable[[Session], list[Write]]] = {
    "turn": lambda _: [append("s", "new", run_id="r")],
    "turn and records": lambda _: [
        append("s", "new", run_id="r"),
        Put(changed(OLD, value=2), ALWAYS),
        Put(item(WHERE, "new", 1), ABSENT),
        Delete(OTHER.key),
    ],
    "records": lambda _: [Put(changed(OLD, value=2), ALWAYS), Delete(OTHER.key)],
    "header and record": lambda s: [Put(changed(s, metadata={"a": 1}), ALWAYS), Delete(OTHER.key)],
    "cursor": lambda s: [Advance("s", "job", 0, 2, "so far", created_at=s.created_at)],
    "delete session": lambda _: [Delete(session_key("s"))],
    "drop": lambda _: [Drop(WHERE)],
}


class Crash(BaseException):
    """The process dies here, as far as its files are concerned."""


class Steps:
    """Each change of a file is a step; the one counted out fails before, within or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.when = 0, ""
        self.error: type[BaseException] = Crash
        self._patch = monkeypatch
        for module, names in (
            (log, ("append_line", "write_whole")),
            (partition, ("write_whole", "remove")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, self._step(getattr(files, name)))
        monkeypatch.setattr(Path, "rename", self._step(Path.rename))

    def fail(self, step: int, when: str, error: type[BaseException]) -> None:
        self.left, self.when, self.error = step, when, error

    def _step(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            self.left -= 1
            if self.left == 0 and self.when == "before":
                raise self.error
            if self.left == 0 and self.when == "within":
                with self._patch.context() as patch:
                    patch.setattr(os, "fsync", self._torn)
                    return do(*args)
            done = do(*args)
            if self.left == 0 and self.when == "after":
                raise self.error
            return done

        return step

    def _torn(self, handle: int) -> None:
        try:
            os.ftruncate(handle, os.fstat(handle).st_size - 5)
        except OSError:  # a folder
            return
        raise self.error


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


async def begin(storage: JSONStorage) -> Session:
    await storage.apply(append("s", "1", due=("job",), keep_turns=True))
    await storage.apply(append("s", "2", due=("job",), keep_turns=True))
    await storage.apply(Put(OLD, ALWAYS), Put(OTHER, ALWAYS))
    found = await storage.get(session_key("s"))
    assert isinstance(found, Session)
    return found


def plain(found: list[Any]) -> str:
    """What a batch changes, without the ids and times that differ from one try to the next."""
    snapshot, turns, *records = found
    session = snapshot.session
    return str(
        [
            session and (session.metadata, session.jobs, session.last_seq),
            texts(snapshot.turns),
            texts(turns),
            sorted(str((r.key.id, getattr(r, "value", None))) for each in records for r in each),
        ]
    )


@pytest.mark.parametrize("again", ["another process", "the same"])
@pytest.mark.parametrize("when", ["before", "within", "after"])
@pytest.mark.parametrize("batch", BATCHES)
async def test_a_batch_is_whole_or_absent(
    tmp_path: Path, steps: Steps, batch: str, when: str, again: str
) -> None:
    """After a crash, and after a failure (a full disk) of a process that goes on."""
    writes, step = BATCHES[batch], 0
    async with JSONStorage(tmp_path / "done") as storage:
        session = await begin(storage)
        absent = plain(await contents(storage, "s"))
        await storage.apply(*writes(session))
        whole = plain(await contents(storage, "s"))
    seen, failed = set(), True
    while failed:
        step += 1
        storage = JSONStorage(tmp_path / str(step))
        session = await begin(storage)
        steps.fail(step, when, Crash if again != "the same" else OSError)
        try:
            await storage.apply(*writes(session))
            failed = False
        except (Crash, StorageUnavailableError):
            steps.left = 0
        if again != "the same":
            storage = JSONStorage(tmp_path / str(step))
        found = plain(await contents(storage, "s"))
        assert found in (absent, whole), step
        assert failed or found == whole
        seen.add(found)
        if "turn" in batch:  # safe to repeat
            await storage.apply(*writes(session))
            found = whole
        async with JSONStorage(tmp_path / str(step)) as other:
            for each in (storage, other):
                assert plain(await contents(each, "s")) == found
        await storage.close()
    assert len(seen) == 2 or when != "before"
    assert step > 1 or (batch, when) == ("drop", "within")
