"""Forked children with a facade of their parent's: a loop and connections of their own, and nothing
of the parent's is touched."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.llm import ScriptedLLM
from tests.sync import child

Said = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

MEMORY = """
memory = sync.Memory(url, "s", full_session_memory=True)
"""


def test_children_of_multiprocessing_and_their_parent(url: str, said: Said) -> None:
    script = """
        import multiprocessing
        fork = multiprocessing.get_context("fork")

        def write(name):
            for number in range(20):
                memory.save(says(f"{name} {number}"))

        memory.save(says("first"))
        children = [fork.Process(target=write, args=(f"child {n}",)) for n in range(4)]
        for each in children:
            each.start()
        write("parent")
        for each in children:
            each.join()
        write("after")
        tell([each.exitcode for each in children], len(memory.turns()))
    """
    assert child.run(child.script(MEMORY, script), url) == ["[0, 0, 0, 0] 121"]
    stored = said()
    for name in ("child 0", "child 1", "child 2", "child 3", "parent", "after"):
        own = [text for text in stored if text.startswith(name)]
        assert own == [f"{name} {number}" for number in range(20)]
    assert stored[0] == "first"


@pytest.mark.parametrize("use", ["", "memory.save(says('child')); tell(len(memory.turns()))"])
@pytest.mark.parametrize("end", ["sys.exit(3)", "pass"], ids=["exit", "end"])
def test_a_child_that_ends_as_programs_do(url: str, said: Said, use: str, end: str) -> None:
    script = f"""
        memory.save(says("parent"))
        asked = threading.Event()

        async def silent(messages, *, schema=None):
            asked.set()
            await asyncio.Event().wait()

        busy = sync.Memory("memory://", "s", summary_memory=True, model=silent)
        busy.save(says("Hi"))
        asked.wait()
        if (pid := os.fork()) == 0:
            {use or "pass"}
            {end}
        else:
            tell(wait(pid))
            memory.save(says("after"))
            os._exit(0)
    """
    code = 3 if "exit" in end else 0
    expected = ["2"] if use else []
    assert child.run(child.script(MEMORY, script), url) == [*expected, f"[{code}]"]
    assert said() == ["parent", *(["child"] if use else []), "after"]


def test_grandchildren(url: str, said: Said) -> None:
    script = """
        def family(depth):
            memory.save(says(f"at {depth}"))
            if depth < 4:
                assert wait(fork(family, depth + 1)) == [0]
                memory.save(says(f"again at {depth}"))

        family(0)
        tell(len(memory.turns()))
    """
    assert child.run(child.script(MEMORY, script), url) == ["9"]
    assert said() == [f"at {n}" for n in range(5)] + [f"again at {n}" for n in (3, 2, 1, 0)]


def test_jobs_of_a_child_run_there(url: str) -> None:
    script = """
        async def model(messages, *, schema=None):
            if holding:
                asked.set()
                await asyncio.Event().wait()
            return f"by {os.getpid()}"

        holding, asked = True, threading.Event()
        memory = sync.Memory(url, "parent", summary_memory=True, model=model)
        memory.save(says("Hi"))
        asked.wait()

        def work():
            global holding
            holding = False
            mine = memory.bind(session_id="child")
            mine.save(says("Hi"))
            tell(memory.drain(), memory.jobs.done, memory.jobs.running, memory.jobs.lag)
            tell(mine.summary() == f"by {os.getpid()}")
            tell(memory.summary())  # the parent's is the parent's
            memory.close()

        tell(wait(fork(work)))
        tell(memory.jobs.running, memory.jobs.lag, memory.bind(session_id="child").summary()[:2])
        os._exit(0)
    """
    assert child.run(script, url) == ["True 1 0 0", "True", "None", "[0]", "1 1 by"]


def test_jobs_over_connections_a_child_inherits(url: str, llm: ScriptedLLM) -> None:
    """The parent's connection to the model's server stays the parent's."""
    script = """
        memory = sync.Memory(url, summary_memory=True, model="openai/scripted")

        def talk(name):
            chat = memory.bind(session_id=name)
            chat.save(says(name))
            assert memory.drain()
            tell(name, chat.summary())

        def end():
            talk("child")
            sys.exit()  # through the end of the interpreter

        talk("before")
        if (pid := os.fork()) == 0:
            end()
        wait(pid)
        talk("after")
    """
    lines = child.run(script, url)
    assert [line.split()[0] for line in lines] == ["before", "child", "after"]
    assert [line.partition(" ")[2] for line in lines] == [llm.answer(call) for call in llm.calls]


class TestWhoGoesFirst:
    """SQLite counts the connections a child inherits as its own: the file would be closed under it
    when the parent goes."""

    SCRIPT = """
        memory.save(says("parent"))
        def work():
            memory.save(says("child 1"))
            tell("saved")
            assert hear() == "go on"
            memory.save(says("child 2"))
            tell(said(memory))
            memory.close()
            tell("end")

        fork(work)
    """

    @pytest.mark.parametrize("leave", ["memory.close(); os._exit(0)", "os._exit(0)", "pass"])
    def test_the_parent_is_gone(self, url: str, said: Said, leave: str) -> None:
        with child.started(child.script(MEMORY, self.SCRIPT, leave), url) as one:
            assert one.hear() == "saved"
            assert said() == ["parent", "child 1"], "opened and closed by somebody else"
            one.tell("go on")
            assert one.end() == ["['parent', 'child 1', 'child 2']", "end"]
        assert said() == ["parent", "child 1", "child 2"]

    def test_the_child_is_gone(self, url: str, said: Said) -> None:
        script = """
            memory.save(says("parent 1"))
            def work():
                memory.save(says("child"))
                memory.close()
            tell(wait(fork(work)))
            assert hear() == "go on"
            memory.save(says("parent 2"))
        """
        with child.started(child.script(MEMORY, script), url) as one:
            assert one.hear() == "[0]"
            assert said() == ["parent 1", "child"]
            one.tell("go on")
            assert one.end() == []
        assert said() == ["parent 1", "child", "parent 2"]


def test_a_facade_closed_before_the_fork_is_closed_in_the_child(url: str) -> None:
    script = """
        def work():
            try:
                memory.load()
            except StorageUnavailableError as error:
                tell(error)
            memory.close()

        memory.save(says("Hi"))
        memory.close()
        tell(wait(fork(work)))
    """
    lines = child.run(child.script(MEMORY, script), url)
    assert lines == ["this facade is closed: make a new one", "[0]"]


def test_two_facades_and_one_that_is_not_used(url: str, said: Said) -> None:
    script = """
        other = sync.Memory(url.replace("chat", "other"), "s", full_session_memory=True)
        unused = sync.Memory(url)
        memory.save(says("parent"))
        other.save(says("other parent"))

        def work(text):
            other.save(says(text))
            memory.save(says(text))

        tell(wait(*[fork(work, str(number)) for number in range(3)]))
        tell(sorted(said(other)))
    """
    lines = child.run(child.script(MEMORY, script), url)
    assert lines == ["[0, 0, 0]", "['0', '1', '2', 'other parent']"]
    assert sorted(said()) == ["0", "1", "2", "parent"]
