"""Programs that end without `close`: nothing promised is lost, nothing hangs, no stray word."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from memory_async import sync
from tests.llm import ScriptedLLM
from tests.sync import child

Said = Callable[..., list[str]]

MEMORY = """
memory = sync.Memory(url, "s", full_session_memory=True)
"""
LEARNING = """
flags = {"full_session_memory": True, "summary_memory": True}
memory = sync.Memory(url, "s", model="openai/scripted", **flags)
"""
# What Python does from 3.12 on, here on every version: no thread starts once the end has begun.
NO_NEW_THREADS = """
import atexit

def no_new_threads():
    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")
    threading.Thread.start = start

atexit.register(no_new_threads)  # runs before what was registered earlier
"""
HURRY, PATIENCE = (
    f"""
import memory_async.sync.portal, memory_async.sync.storage
memory_async.sync.portal.EXIT_SECONDS = memory_async.sync.storage.EXIT_SECONDS = {seconds}
"""
    for seconds in (1, 1000)
)


def summary(url: str, session_id: str = "s") -> str | None:
    with sync.Memory(url, session_id) as memory:
        return memory.summary()


@pytest.mark.parametrize("threads", ["", NO_NEW_THREADS], ids=["", "no new threads"])
def test_without_jobs(url: str, said: Said, threads: str) -> None:
    script = """
        for number in range(20):
            memory.save(says(str(number)))
        unused = sync.Memory(url)
        tell("end")
    """
    assert child.run(child.script(MEMORY, threads, script), url) == ["end"]
    assert said() == [str(number) for number in range(20)]


def test_a_private_store(url: str) -> None:
    script = "memory = sync.Memory('memory://', full_session_memory=True); memory.save(says('Hi'))"
    assert child.run(script, url) == []


@pytest.mark.parametrize("threads", ["", NO_NEW_THREADS], ids=["", "no new threads"])
def test_jobs_that_are_due_are_waited_for(url: str, llm: ScriptedLLM, threads: str) -> None:
    llm.hold()
    script = child.script(LEARNING, threads, "memory.save(says('Hi')); tell('end')")
    with child.started(script, url) as one:
        assert one.hear() == "end"
        llm.wait_for_calls(1)
        llm.release()
        assert one.end() == []
    assert summary(url) == llm.answer(llm.calls[0])


def test_a_model_first_reached_at_the_end(url: str, llm: ScriptedLLM) -> None:
    """Looking up its host takes a thread, of which there are no more."""
    script = """
        import atexit
        from memory_async import OpenAIModel

        server, ending, loops = OpenAIModel("scripted"), threading.Event(), []
        asked = threading.Event()

        async def model(messages, *, schema=None):
            waiting = asyncio.Event()
            loops.append((asyncio.get_running_loop(), waiting))
            asked.set()
            await waiting.wait()
            return await server.complete(messages, schema=schema)

        @atexit.register
        def now_the_end_has_begun():
            [(loop, waiting)] = loops
            loop.call_soon_threadsafe(waiting.set)

        memory = sync.Memory(url, "s", summary_memory=True, model=model)
        memory.save(says("Hi"))
        asked.wait()
    """
    named = llm.url.replace("127.0.0.1", "localhost")
    assert child.run(child.script(script, NO_NEW_THREADS), url, OPENAI_BASE_URL=named) == []
    assert summary(url) == llm.answer(llm.calls[0])


def test_a_job_that_does_not_end_is_left_to_the_next_process(
    url: str, llm: ScriptedLLM, said: Said
) -> None:
    llm.hold()
    with child.started(child.script(LEARNING, "memory.save(says('Hi')); tell('end')"), url) as one:
        assert one.hear() == "end"
        begun = time.monotonic()
        left = "1 jobs did not end in 5 s: they are done after the next turn or recover()\n"
        assert one.end(errors=left) == []
        assert time.monotonic() - begun < 12
    llm.release()
    assert said() == ["Hi"]
    assert summary(url) is None
    assert child.run(child.script(LEARNING, "tell(memory.recover())"), url) == ["1"]
    assert summary(url) == llm.answer(llm.calls[-1])


def test_many_facades_share_the_time_there_is(url: str) -> None:
    script = """
        async def silent(messages, *, schema=None):
            await asyncio.Event().wait()

        import logging
        logging.disable()
        storage = sync.Storage(url)
        for place in (storage, storage, storage, "memory://", "memory://", "memory://"):
            sync.Memory(place, summary_memory=True, model=silent).save(says("Hi"))
        tell("end")
    """
    with child.started(child.script(HURRY, script), url) as one:
        assert one.hear() == "end"
        begun = time.monotonic()
        assert one.end() == []
        assert time.monotonic() - begun < 5


def test_a_loop_that_something_blocks_for_good(url: str, said: Said) -> None:
    script = """
        async def deaf(messages, *, schema=None):
            asked.set()
            threading.Event().wait()

        asked = threading.Event()
        memory = sync.Memory(url, "s", full_session_memory=True, summary_memory=True, model=deaf)
        memory.save(says("Hi"))
        asked.wait()
        tell("end")
    """
    assert child.run(child.script(HURRY, script), url) == ["end"]
    assert said() == ["Hi"]


def test_no_patience_while_it_waits(url: str, llm: ScriptedLLM) -> None:
    """Ctrl-C at the end: it goes at once, the job is left to whoever comes next."""
    script = """
        def watch():
            while not memory._memory._shared.closed:
                pass
            tell("closing")

        memory.save(says("Hi"))
        threading.Thread(target=watch, daemon=True).start()
    """
    llm.hold()
    with child.started(child.script(LEARNING, PATIENCE, script), url) as one:
        assert one.hear() == "closing"
        one.interrupt()
        assert one.end() == []
    llm.release()
    assert child.run(child.script(LEARNING, "tell(memory.recover())"), url) == ["1"]


class TestThreads:
    def test_the_last_one_goes_on_after_the_main_one(
        self, url: str, said: Said, llm: ScriptedLLM
    ) -> None:
        script = """
            def work():
                main.join()
                for number in range(20):
                    memory.save(says(str(number)))
                tell("end")
                sys.exit(3)  # of this thread only

            main = threading.main_thread()
            threading.Thread(target=work).start()
            tell("main")
        """
        assert child.run(child.script(LEARNING, script), url) == ["main", "end"]
        assert said() == [str(number) for number in range(20)]
        assert summary(url) == llm.answer(llm.calls[-1])

    def test_daemons_in_the_middle_of_calls(self, url: str, said: Said) -> None:
        script = """
            def work(name):
                chat = memory.bind(session_id=name)
                while True:
                    chat.save(says("Hi"))
                    chat.load(last=1)

            def quiet(name):
                try:
                    work(name)
                except StorageUnavailableError:
                    pass

            for name in "abcd":
                threading.Thread(target=quiet, args=(name,), daemon=True).start()
            for _ in range(20):
                memory.save(says("Hi"))
        """
        assert child.run(child.script(MEMORY, script), url) == []
        assert len(said()) == 20
        assert {text for name in "abcd" for text in said(name)} <= {"Hi"}


def test_a_write_that_waits_for_another_process(path: Path, url: str, said: Said) -> None:
    """Nothing is heard of it: its worker does not outlive the loop it answers to."""
    script = """
        def work():
            try:
                memory.save(says("late"))
            except StorageUnavailableError:
                pass

        memory.save(says("Hi"))
        tell("saved")
        hear()
        threading.Thread(target=work, daemon=True).start()
        while not memory._portal._loop._calls:
            pass
    """
    with (
        child.started(child.script(MEMORY, HURRY, script), url) as one,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        assert one.hear() == "saved"
        other.execute("BEGIN IMMEDIATE")
        one.tell()
        assert one.end() == []
        other.execute("ROLLBACK")
    assert said() == ["Hi"]


class TestWith:
    @pytest.mark.parametrize(
        ("leave", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("raise SystemExit(4)", 4)]
    )
    def test_sys_exit_within(self, url: str, llm: ScriptedLLM, leave: str, code: int) -> None:
        llm.hold()
        script = f"with memory: memory.save(says('Hi')); tell('saved'); {leave}"
        with child.started(child.script(LEARNING, script), url) as one:
            assert one.hear() == "saved"
            llm.wait_for_calls(1)
            llm.release()
            assert one.end(code) == []
        assert summary(url) is not None

    def test_an_exception_within(self, url: str, llm: ScriptedLLM) -> None:
        script = """
            try:
                with memory:
                    memory.save(says("Hi"))
                    raise LookupError("mine")
            except LookupError as error:
                tell(repr(error), error.__context__)
        """
        assert child.run(child.script(LEARNING, script), url) == ["LookupError('mine') None"]
        assert summary(url) == llm.answer(llm.calls[0])

    def test_a_close_registered_for_the_end(self, url: str, llm: ScriptedLLM) -> None:
        script = """
            memory.save(says("Hi"))
            atexit.register(memory.close)
        """
        assert child.run(child.script(LEARNING, NO_NEW_THREADS, script), url) == []
        assert summary(url) == llm.answer(llm.calls[0])
