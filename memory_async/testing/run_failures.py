"""Leaving a run's block by an exception, a cancellation or an interrupt: the run is kept."""

# ruff: noqa: PT012 - a run's block has a middle, and is left from there
# What is named in a block that may swallow is "possibly unbound" after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from memory_async.errors import PayloadError
from memory_async.memory import Memory
from memory_async.message import Message
from memory_async.run import Run, RunPaused
from memory_async.storage.protocol import Storage
from memory_async.testing.material import texts, unique
from memory_async.testing.run_suite import (
    ANSWER,
    ASK,
    HI,
    RunSuite,
    finish,
    kept,
)


class FailureConformance(RunSuite):
    """Runs that fail, and go on later."""

    # --- exceptions ---

    @pytest.mark.parametrize("full", [False, True])
    async def test_an_exception_keeps_everything_and_goes_on(
        self, storage: Storage, full: bool
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=full)
        mistake = ValueError("no such order: 7\0 \ud800")
        with pytest.raises(ValueError, match="no such order") as info:
            async with memory.run(HI) as run:
                await run.checkpoint({"step": 1})
                run.add(ASK)
                run.usage = {"input_tokens": 5}
                run.state["step"] = 2
                raise mistake
        assert info.value is mistake
        assert not hasattr(mistake, "__notes__")
        assert run.status == "error"
        found = await kept(storage, s, run.run_id)
        assert found.checkpoint
        assert (found.status, found.lease) == ("error", None)
        assert found.checkpoint.error == "ValueError: no such order: 7\0 ?"
        assert (found.checkpoint.state, found.checkpoint.usage) == (
            {"step": 2},
            {"input_tokens": 5},
        )
        assert [message.to_openai() for message in found.checkpoint.messages] == [ASK]
        assert await storage.history(s, trimmed=True) == []
        async with memory.resume(run.run_id) as again:
            assert (again.state, again.usage, len(again.messages)) == (
                ({"step": 2}, {"input_tokens": 5}, 1)
            )
            found = await kept(storage, s, run.run_id)
            assert found.checkpoint
            assert (found.status, found.checkpoint.error) == ("running", None)
            again.add(ANSWER)
        [turn] = await storage.history(s, trimmed=True)
        assert texts([turn]) == ([HI, ASK["content"], ANSWER["content"]] if full else [])

    async def test_what_cannot_be_stored_does_not_keep_the_rest_from_it(
        self, storage: Storage
    ) -> None:
        class Wordless(Exception):  # noqa: N818
            def __str__(self) -> str:
                raise RuntimeError("broken")

        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        with pytest.raises(Wordless) as info:
            async with memory.run(HI) as run:
                await run.checkpoint({"step": 1})
                run.state["step"] = object()
                raise Wordless
        assert "could not store" in info.value.__notes__[0]
        found = await kept(storage, s, run.run_id)
        assert found.checkpoint
        assert (found.status, found.lease) == ("error", None)
        assert (found.checkpoint.error, found.checkpoint.state) == ("Wordless", {"step": 1})
        with pytest.raises(PayloadError):  # at the normal end too
            async with memory.resume(run.run_id) as again:
                again.messages.append(Message(role="assistant", content="\ud800"))
        found = await kept(storage, s, run.run_id)
        assert (again.status, found.status, found.lease) == ("error", "error", None)
        await finish(memory, run.run_id)

    # --- cancelling ---

    @pytest.mark.parametrize("how", ["cancel", "twice", "timeout", "scope", "group", "generator"])
    @pytest.mark.parametrize("full", [False, True])
    async def test_a_cancelled_run_is_kept(self, storage: Storage, how: str, full: bool) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=full)
        runs: list[Run[Any]] = []
        await asyncio.wait_for(CANCELLING[how](memory, runs), 30)
        [run] = runs
        assert run.status == "cancelled"
        found = await kept(storage, s, run.run_id)
        assert found.checkpoint
        assert (found.status, found.lease, found.checkpoint.state) == ("cancelled", None, 1)
        assert [message.to_openai() for message in found.checkpoint.messages] == [ASK]
        await finish(memory, run.run_id)
        assert len(await storage.history(s, trimmed=True)) == 1

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    async def test_an_interrupted_run_is_kept(
        self, storage: Storage, kind: type[BaseException]
    ) -> None:
        s, interrupt = unique("session"), kind()
        memory = self.memory(storage, s, full_session_memory=True)
        with pytest.raises(kind) as info:
            async with memory.run(HI) as run:
                raise interrupt
        assert info.value is interrupt
        found = await kept(storage, s, run.run_id)
        assert (run.status, found.status, found.lease) == ("cancelled", "cancelled", None)
        await finish(memory, run.run_id)

    async def test_the_words_of_a_pause_are_for_its_own_run_only(self, storage: Storage) -> None:
        memory = self.memory(storage, unique("session"))
        async with memory.run("one") as one:
            pass
        with pytest.raises(RunPaused):
            async with memory.run("other") as other:
                raise RunPaused(one)
        assert other.status == "cancelled"


# --- ways to cancel -------------------------------------------------------------------------------


@asynccontextmanager
async def _waiting(memory: Memory[Any], runs: list[Run[Any]]) -> AsyncIterator[None]:
    """A run that waits for ever."""
    async with memory.run(HI) as run:
        runs.append(run)
        await run.checkpoint(1)
        run.add(ASK)
        yield
        await asyncio.Event().wait()


async def _cancel(memory: Memory[Any], runs: list[Run[Any]], times: int = 1) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with _waiting(memory, runs):
            inside.set()

    task = asyncio.create_task(work())
    await inside.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def _timeout(memory: Memory[Any], runs: list[Run[Any]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout, _waiting(memory, runs):
            timeout.reschedule(0)


async def _scope(memory: Memory[Any], runs: list[Run[Any]]) -> None:
    with anyio.CancelScope() as scope:
        async with _waiting(memory, runs):
            scope.cancel()
    assert scope.cancelled_caught


async def _group(memory: Memory[Any], runs: list[Run[Any]]) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with _waiting(memory, runs):
            inside.set()

    async def fail() -> None:
        await inside.wait()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as info:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            group.create_task(fail())
    assert info.group_contains(ZeroDivisionError)
    assert len(info.value.exceptions) == 1


async def _generator(memory: Memory[Any], runs: list[Run[Any]]) -> None:
    """As a streamed answer whose reader has gone."""

    async def stream() -> AsyncIterator[str]:
        async with memory.run(HI) as run:
            runs.append(run)
            await run.checkpoint(1)
            run.add(ASK)
            while True:
                yield "word"

    words = stream()
    async for _ in words:
        break
    await words.aclose()  # type: ignore[attr-defined]


CANCELLING: dict[str, Callable[[Memory[Any], list[Run[Any]]], Awaitable[None]]] = {
    "cancel": _cancel,
    "twice": lambda memory, runs: _cancel(memory, runs, 9),
    "timeout": _timeout,
    "scope": _scope,
    "group": _group,
    "generator": _generator,
}
