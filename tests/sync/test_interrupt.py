"""Ctrl-C, wherever it comes: raised at once, the call is cancelled, the facade goes on."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

import pytest

from memory_async import sync
from tests.llm import ScriptedLLM
from tests.sync import child

Said = Callable[..., list[str]]

LEARNING = """
flags = {"full_session_memory": True, "summary_memory": True}
memory = sync.Memory(url, "s", model="openai/scripted", **flags)
"""
ELSEWHERE = """
class Elsewhere:
    async def submit(self, job, session_id):
        pass
"""


class TestInTheMiddleOfACall:
    def test_that_waits_for_a_job(self, url: str, llm: ScriptedLLM) -> None:
        script = """
            memory.save(says("Hi"))
            tell("waiting")
            try:
                memory.drain()
            except KeyboardInterrupt:
                tell("interrupted", memory.jobs.running)
            memory.save(says("Still here"))
            tell(said(memory))
            hear()
            tell(memory.drain(), memory.jobs.lag)
        """
        llm.hold()
        with child.started(child.script(LEARNING, script), url) as one:
            assert one.hear() == "waiting"
            llm.wait_for_calls(1)
            one.interrupt()
            assert one.hear() == "interrupted 1", "the job goes on, only the waiting ends"
            assert one.hear() == "['Hi', 'Still here']"
            llm.release()
            one.tell()
            assert one.end() == ["True 0"]

    def test_that_waits_for_a_model(self, url: str) -> None:
        """It is cancelled in the loop, too: nobody waits for an answer any more."""
        script = """
            async def silent(messages, *, schema=None):
                asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    tell("given up")
                    given_up.set()

            asked, given_up = threading.Event(), threading.Event()
            memory = sync.Memory(url, "s", summary_memory=True, model=silent, job_queue=Elsewhere())
            memory.save(says("Hi"))
            jobs = memory.jobs
            threading.Thread(target=lambda: (asked.wait(), tell("asked"))).start()
            try:
                jobs.run("summary", "s")
            except KeyboardInterrupt:
                given_up.wait()
                tell("interrupted")
        """
        with child.started(child.script(ELSEWHERE, script), url) as one:
            assert one.hear() == "asked"
            one.interrupt()
            assert one.end() == ["given up", "interrupted"]

    def test_of_many_saves(self, url: str, said: Said) -> None:
        """Real signals from another process, some of them between two calls."""
        script = """
            memory = sync.Memory(url, "s", full_session_memory=True)
            returned, interrupted, number = [], 0, 0
            while interrupted < 50:
                try:
                    tell("saving")
                    while True:
                        number += 1
                        memory.save(says(str(number)))
                        returned.append(str(number))
                except KeyboardInterrupt:
                    interrupted += 1
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            memory.save(says("end"))
            stored = said(memory)
            tell(set(returned) <= set(stored), len(stored) == len(set(stored)), stored[-1])
            memory.close()
        """
        with child.started(script, url) as one:
            for _ in range(50):
                assert one.hear() == "saving"
                one.interrupt()
            assert one.end() == ["True True end"]
        said()


class TestInTheMiddleOfAWith:
    SCRIPT = """
        try:
            with memory:
                memory.save(says("Hi"))
                tell("within")
                signal.pause()
        except KeyboardInterrupt:
            tell("interrupted")
    """

    def test_once_the_jobs_are_waited_for(self, url: str, llm: ScriptedLLM) -> None:
        llm.hold()
        with child.started(child.script(LEARNING, self.SCRIPT), url) as one:
            assert one.hear() == "within"
            llm.wait_for_calls(1)
            one.interrupt()
            llm.release()
            assert one.end() == ["interrupted"]
        with sync.Memory(url, "s") as memory:
            assert memory.summary() == llm.answer(llm.calls[0])

    def test_twice_they_are_left_to_the_next_process(
        self, url: str, llm: ScriptedLLM, said: Said
    ) -> None:
        watch = """
            def watch():
                while not memory._memory._shared.closed:
                    pass
                tell("closing")

            threading.Thread(target=watch, daemon=True).start()
        """
        llm.hold()
        with child.started(child.script(LEARNING, watch, self.SCRIPT), url) as one:
            assert one.hear() == "within"
            llm.wait_for_calls(1)
            one.interrupt()
            assert one.hear() == "closing"
            one.interrupt()
            assert one.end() == ["interrupted"]
        llm.release()
        assert said() == ["Hi"]
        assert child.run(child.script(LEARNING, "tell(memory.recover())"), url) == ["1"]
        with sync.Memory(url, "s") as memory:
            assert memory.summary() == llm.answer(llm.calls[-1])

    def test_nobody_catches_it(self, url: str, said: Said) -> None:
        script = """
            def quiet(kind, error, traceback):
                tell(kind.__name__)

            sys.excepthook = quiet
            with sync.Memory(url, "s", full_session_memory=True) as memory:
                memory.save(says("Hi"))
                tell("within")
                signal.pause()
        """
        with child.started(script, url) as one:
            assert one.hear() == "within"
            one.interrupt()
            assert one.end(-signal.SIGINT) == ["KeyboardInterrupt"]
        assert said() == ["Hi"]


class TestInTheMiddleOfARun:
    def test_it_is_kept_to_be_resumed(self, url: str, said: Said) -> None:
        script = """
            memory = sync.Memory(url, "s", full_session_memory=True)
            try:
                with memory.run("Book a flight", run_id="r") as run:
                    run.add({"role": "assistant", "content": "Looking..."})
                    tell("running")
                    signal.pause()
            except KeyboardInterrupt:
                tell(run.status)
            [kept] = memory.checkpoints()
            tell(kept.status, len(kept.messages))
        """
        with child.started(script, url) as one:
            assert one.hear() == "running"
            one.interrupt()
            assert one.end() == ["cancelled", "cancelled 1"]
        with sync.Memory(url, "s", full_session_memory=True) as memory, memory.resume("r") as run:
            run.add({"role": "assistant", "content": "Booked."})
        assert said() == ["Book a flight", "Looking...", "Booked."]


def test_a_signal_reaches_only_the_main_thread(url: str) -> None:
    """Ctrl-C here, while another thread is in a call: that one gets its answer."""
    asked, answer = threading.Event(), threading.Event()

    async def model(messages: object, *, schema: object = None) -> str:
        asked.set()
        await asyncio.to_thread(answer.wait)
        return "A summary."

    results: list[bool] = []
    with sync.Memory(url, "s", summary_memory=True, model=model) as memory:
        memory.save({"role": "user", "content": "Hi"})
        thread = threading.Thread(target=lambda: results.append(memory.drain()))
        thread.start()
        try:
            assert asked.wait(10)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        finally:
            answer.set()
        thread.join()
        assert results == [True]
        assert memory.summary() == "A summary."
