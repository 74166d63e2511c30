"""One facade and many threads: nothing lost, nothing mixed up, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memory_async import (
    ConfigurationError,
    Message,
    ModelError,
    StorageUnavailableError,
    sync,
)
from memory_async.sync import portal
from tests.llm import ScriptedLLM
from tests.sync import child
from tests.sync.leftovers import nothing_left

SAVES, SESSIONS, THREADS = 3000, 50, 32
DEADLINE = 60.0
LEFT = "1 jobs did not end in 0 s: they are done after the next turn or recover()\n"


def says(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def at_once(functions: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each function returned or raised, all having started together."""
    calls = list(functions)
    start = threading.Barrier(len(calls))

    def call(function: Callable[[], Any]) -> Any:
        start.wait(DEADLINE)
        try:
            return function()
        except Exception as error:  # noqa: BLE001
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls, timeout=DEADLINE))


def test_32_threads_save_3000_turns_into_50_sessions(url: str) -> None:
    def write(thread: int) -> None:
        for number in range(thread, SAVES, THREADS):
            turn = memory.bind(session_id=f"s{number % SESSIONS}").save(says(f"{thread} {number}"))
            assert turn is not None
            if number % 10 == 0:
                memory.bind(session_id=f"s{number % SESSIONS}").load(last=2)

    with sync.Memory(url, full_session_memory=True) as memory:
        assert at_once(partial(write, each) for each in range(THREADS)) == [None] * 32

    with sync.Memory(url, full_session_memory=True) as memory:
        found: list[int] = []
        for session in range(SESSIONS):
            turns = memory.bind(session_id=f"s{session}").turns()
            assert [turn.seq for turn in turns] == list(range(1, SAVES // SESSIONS + 1))
            said = [[*map(int, turn.messages[0].text.split())] for turn in turns]
            for thread in range(THREADS):
                own = [number for writer, number in said if writer == thread]
                assert own == sorted(own)
            found += [number for _, number in said]
    assert sorted(found) == list(range(SAVES))


def test_the_first_calls_of_many_threads_share_one_loop(url: str) -> None:
    memory = sync.Memory(url, "s", full_session_memory=True)
    answers = at_once(lambda: memory.save(says("Hi")) for _ in range(16))
    assert sorted(turn.seq for turn in answers) == list(range(1, 17))
    assert [thread.name for thread in threading.enumerate()].count("memory_async") == 1
    memory.close()


def test_two_facades_at_once(tmp_path: Path) -> None:
    """And one more on the file of the second, in one process; two of them are never closed."""
    script = """
        urls = [f"sqlite:///{sys.argv[1]}/{name}.db" for name in "abb"]
        facades = [sync.Memory(url, "s", full_session_memory=True) for url in urls]

        def write(facade):
            for number in range(50):
                facade.save(says(str(number)))

        threads = [threading.Thread(target=write, args=(facade,)) for facade in facades * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tell([len(facade.turns()) for facade in facades])
        facades[1].close()
        tell(facades[2].save(says("one more")).seq)
    """
    assert child.run(script, tmp_path) == ["[100, 200, 200]", "201"]


@pytest.mark.parametrize("closers", [1, 2])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_closing_while_others_save(tmp_path: Path, kind: str, closers: int) -> None:
    """Each save is stored, or says that it is closed; nobody waits for ever."""
    for attempt in range(8):
        url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/{attempt}.db"
        memory = sync.Memory(url, full_session_memory=True)
        enough, saved = threading.Event(), list[str]()

        def write(thread: int) -> None:
            chat = memory.bind(session_id=f"s{thread}")  # noqa: B023
            for number in range(10_000):
                chat.save(says(f"{thread}.{number}"))
                saved.append(f"{thread}.{number}")  # noqa: B023
                if len(saved) > 10 * attempt:  # noqa: B023
                    enough.set()  # noqa: B023

        def close() -> None:
            assert not attempt or enough.wait(DEADLINE)  # noqa: B023
            memory.close()  # noqa: B023

        writers = [lambda each=each: write(each) for each in range(8)]
        *errors, _ = answers = at_once([*writers, *[close] * closers])
        assert answers[8:] == [None] * closers
        assert all(isinstance(error, StorageUnavailableError) for error in errors[:8]), errors
        if kind == "sqlite":
            with sync.Memory(url) as memory:
                for thread in range(8):
                    stored = [m.text for m in memory.bind(session_id=f"s{thread}").messages()]
                    own = [text for text in saved if text.startswith(f"{thread}.")]
                    assert stored[: len(own)] == own
                    assert len(stored) <= len(own) + 1, "stored, but the answer came too late"


def test_a_second_closer_waits_for_the_first(url: str, llm: ScriptedLLM) -> None:
    memory = sync.Memory(url, "s", summary_memory=True, model="openai/scripted")
    llm.hold()
    memory.save(says("Hi"))
    llm.wait_for_calls(1)
    with ThreadPoolExecutor(2) as threads:
        closing = [threads.submit(memory.close) for _ in range(2)]
        while not memory._memory._shared.closed:
            pass  # the first has begun; neither may cut its jobs short
        llm.release()
        for each in closing:
            each.result(DEADLINE)
    with sync.Memory(url, "s") as again:
        assert again.summary() is not None


def test_closing_does_not_wait_for_a_call_that_waits_for_a_model(url: str) -> None:
    asked = threading.Event()

    async def silent(messages: object, *, schema: object = None) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    memory = sync.Memory(url, "s", summary_memory=True, model=silent)
    memory.save(says("Hi"))
    with ThreadPoolExecutor(1) as threads:
        jobs = memory.jobs
        waiting = threads.submit(lambda: jobs.run("summary", "s"))
        assert asked.wait(DEADLINE)
        memory.close(timeout=0.01)
        with pytest.raises(StorageUnavailableError, match="closed"):
            waiting.result(DEADLINE)


def test_closing_does_not_wait_for_a_thread_that_does_not_end(url: str) -> None:
    script = """
        async def model(messages, *, schema=None):
            return await asyncio.to_thread(ask)

        def ask():
            asked.set()
            answer.wait()

        asked, answer = threading.Event(), threading.Event()
        memory = sync.Memory(url, "s", summary_memory=True, model=model)
        memory.save(says("Hi"))
        asked.wait()
        memory.close(timeout=0)
        tell("closed")
        answer.set()
    """
    with child.started(script, url) as one:
        assert one.hear() == "closed"
        assert one.end(errors=LEFT) == []


def test_closed_facades_leave_nothing_behind(tmp_path: Path) -> None:
    def life(number: int) -> None:
        with sync.Memory(f"sqlite:///{tmp_path}/{number % 5}.db", "s") as memory:
            memory.load()

    life(0)
    live = set(portal._live)
    with nothing_left():
        for number in range(200):
            life(number)
    assert portal._live == live


class TestFromItsOwnLoop:
    """A plain call there would wait for itself."""

    @pytest.mark.parametrize("name", ["save", "load", "close", "close storage", "drain"])
    def test_an_async_model_is_told_so(self, url: str, name: str) -> None:
        errors: list[Exception] = []

        async def model(messages: object, *, schema: object = None) -> str:
            calls = {"save": lambda: memory.save(says("Hi")), "close storage": storage.close}
            try:
                calls.get(name, getattr(memory, name, None))()  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001
                errors.append(error)
            return "A summary."

        storage = sync.Storage(url)
        memory = sync.Memory(storage, "s", summary_memory=True, model=model)
        memory.save(says("Hi"))
        assert memory.drain(timeout=DEADLINE)
        assert memory.summary() == "A summary."
        memory.close()
        storage.close()
        [error] = errors
        assert isinstance(error, ConfigurationError)
        assert "own event loop" in str(error)

    def test_a_callback_for_errors_is_told_so(self, url: str) -> None:
        errors: list[Exception] = []

        def on_error(job: str, session_id: str, error: Exception) -> None:
            try:
                memory.turns()
            except ConfigurationError as refused:
                errors.append(refused)

        async def model(messages: object, *, schema: object = None) -> str:
            raise ModelError("never", permanent=True)

        options: dict[str, Any] = {"model": model, "on_job_error": on_error}
        with sync.Memory(url, "s", summary_memory=True, **options) as memory:
            memory.save(says("Hi"))
            assert memory.drain(timeout=DEADLINE)
        assert errors

    def test_a_token_counter_is_told_so(self, url: str) -> None:
        def count(messages: list[Message]) -> int:
            return len(memory.bind(session_id="other").messages()) + len(messages)

        memory = sync.Memory(url, "s", full_session_memory=True, count_tokens=count)
        memory.save(says("Hi"))
        with pytest.raises(ConfigurationError, match="own event loop"):
            memory.load(max_tokens=100)
        memory.close()

    def test_an_exit_in_there_ends_only_the_call(self, url: str) -> None:
        def count(messages: list[Message]) -> int:
            raise SystemExit(3)

        memory = sync.Memory(url, "s", full_session_memory=True, count_tokens=count)
        memory.save(says("Hi"))
        with pytest.raises(SystemExit):
            memory.load(max_tokens=100)
        assert memory.save(says("Hi")) is not None
        memory.close()


def test_a_call_knows_the_context_of_its_caller() -> None:
    caller: ContextVar[str] = ContextVar("caller")
    heard = []

    async def model(messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None) -> str:
        heard.append(caller.get())
        return "a summary"

    caller.set("the first")
    with sync.Memory("memory://", "s", summary_memory=True, model=model) as memory:
        memory.save(says("Hi"))
        memory.drain()
        caller.set("the second")
        memory.save(says("Hi again"))
    assert heard == ["the first", "the second"]
