"""Forks at bad moments: other threads are in the middle of something, or a loop is running."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.llm import ScriptedLLM
from tests.sync import child

Said = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

MEMORY = """
memory = sync.Memory(url, "s", full_session_memory=True)
"""
GO_ON = """
from memory_async import forked

def let_go():
    while not forked._forking.locked():  # until the fork waits
        pass
    go_on.set()

go_on = threading.Event()
"""


def test_forks_while_other_threads_are_in_calls(url: str, said: Said) -> None:
    """Whatever a call holds, a lock of SQLite's even, no child is left with it."""
    script = """
        memory = sync.Memory(f"{url}?durability=normal&busy_timeout=5", full_session_memory=True)
        stop = threading.Event()

        def work(name):
            chat = memory.bind(session_id=name)
            while not stop.is_set():
                chat.save(says("x" * 5000))
                chat.load(last=5)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        chat = memory.bind(session_id="s")
        failed = sum(sum(wait(fork(chat.save, says(str(number))))) for number in range(40))
        stop.set()
        for thread in threads:
            thread.join()
        tell(failed)
    """
    assert child.run(script, url) == ["0"]
    assert said() == [str(number) for number in range(40)]
    assert {text for name in "abcd" for text in said(name)} == {"x" * 5000}


def test_a_fork_in_the_middle_of_a_batch_in_memory(url: str) -> None:
    """It waits for the end: a child's copy holds whole batches."""
    script = """
        class Slow(InMemoryStorage):
            def _write(self, op):
                if os.getpid() == parent and isinstance(getattr(op, "row", None), tuple):
                    halfway.set()
                    go_on.wait()
                return super()._write(op)

        def write():
            turn = Turn(session_id="s", messages=[Message(role="user", content="Hi")])
            header = Session(session_id="s", keep_turns=True)
            renamed = Session(session_id="s", metadata={"n": 1})
            storage.apply(Append(turn, header), Put(renamed, ALWAYS))

        parent, halfway = os.getpid(), threading.Event()
        storage = sync.Storage(Slow())
        threading.Thread(target=write).start()
        halfway.wait()
        threading.Thread(target=let_go).start()
        tell(wait(fork(lambda: tell(storage.snapshot("s").session.metadata))))
        write()
        tell(len(storage.history("s")))
    """
    assert child.run(child.script(GO_ON, script), url) == ["{'n': 1}", "[0]", "2"]


class TestInTheMiddleOfAnImport:
    SCRIPT = """
        import time
        from types import SimpleNamespace
        from memory_async import forked

        def wait_here():
            importing.set()
            if os.getpid() == parent:
                go_on.wait()

        def work():
            import slow
            tell(slow.whole)

        sys.path.append(sys.argv[2])
        importing, go_on, parent = threading.Event(), threading.Event(), os.getpid()
        thread = threading.Thread(target=__import__, args=("slow",), daemon=True)
    """

    @pytest.fixture
    def slow(self, tmp_path: Path) -> Path:
        (tmp_path / "slow.py").write_text("import __main__; __main__.wait_here(); whole = True\n")
        return tmp_path

    def test_it_waits_for_the_end(self, url: str, slow: Path) -> None:
        script = """
            def sleep(seconds):  # while the fork waits
                go_on.set()
                time.sleep(seconds)

            forked.time = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
            thread.start()
            importing.wait()
            tell(wait(fork(work)))
            tell("slow" in sys.modules, thread.join())
        """
        lines = child.run(child.script(self.SCRIPT, script), url, slow)
        assert lines == ["True", "[0]", "True None"]

    def test_one_that_begins_after_that_begins_anew_in_the_child(
        self, url: str, slow: Path
    ) -> None:
        script = """
            class Late:
                def _rest(self, rest):  # nothing was imported so far
                    thread.start()
                    importing.wait()
                    return False

                def _forked(self):
                    pass

            late = Late()
            forked.watch(late)
            tell(wait(fork(work)))
        """
        assert child.run(child.script(self.SCRIPT, script), url, slow) == ["True", "[0]"]

    def test_one_that_does_not_end_hangs_no_child(self, url: str, slow: Path) -> None:
        """A program that is itself imported: nobody wants to import it, and run it, again."""
        script = """
            def work():
                try:
                    from slow import whole
                except ImportError as error:
                    tell("partially initialized" in str(error))

            forked.IMPORT_SECONDS = 0.01
            thread.start()
            importing.wait()
            tell(wait(fork(work)))
        """
        assert child.run(child.script(self.SCRIPT, script), url, slow) == ["True", "[0]"]


def test_a_fork_in_the_middle_of_a_job(url: str) -> None:
    """It waits until the loop is between two things: what one holds, like OpenSSL's locks while a
    model's client is made, a child would be left with."""
    script = """
        async def model(messages, *, schema=None):
            with lock:
                busy.set()
                if os.getpid() == parent:
                    go_on.wait()
            return "a summary"

        def work():
            mine = memory.bind(session_id="child")
            mine.save(says("Hi"))
            tell(memory.drain(), mine.summary())
            memory.close()

        parent, busy, lock = os.getpid(), threading.Event(), threading.Lock()
        memory = sync.Memory(url, "s", summary_memory=True, model=model)
        memory.save(says("Hi"))
        busy.wait()
        threading.Thread(target=let_go).start()
        tell(wait(fork(work)))
        tell(memory.drain(), memory.summary())
    """
    lines = child.run(child.script(GO_ON, script), url)
    assert lines == ["True a summary", "[0]", "True a summary"]


def test_a_fork_while_an_address_is_looked_up(url: str, llm: ScriptedLLM) -> None:
    """It waits for the end: libc has locks, too."""
    script = """
        import socket

        def look_up(*args, **kwargs):
            with lock:
                busy.set()
                if os.getpid() == parent:
                    go_on.wait()
                return find(*args, **kwargs)

        def work():
            memory.bind(session_id="child").save(says("Hi"))
            tell(memory.drain())
            memory.close()

        parent, busy, lock = os.getpid(), threading.Event(), threading.Lock()
        find, socket.getaddrinfo = socket.getaddrinfo, look_up
        memory = sync.Memory(url, "s", summary_memory=True, model="openai/scripted")
        memory.save(says("Hi"))
        busy.wait()
        threading.Thread(target=let_go).start()
        tell(wait(fork(work)))
        tell(memory.drain())
    """
    named = llm.url.replace("127.0.0.1", "localhost")
    lines = child.run(child.script(GO_ON, script), url, OPENAI_BASE_URL=named)
    assert lines == ["True", "[0]", "True"]


def test_a_fork_does_not_wait_for_a_loop_that_is_blocked_for_good(url: str) -> None:
    script = """
        import time
        from memory_async import forked

        async def deaf(messages, *, schema=None):
            asked.set()
            threading.Event().wait()

        forked.REST_SECONDS = 1
        asked = threading.Event()
        memory = sync.Memory(url, "s", summary_memory=True, model=deaf)
        memory.save(says("Hi"))
        asked.wait()
        begun = time.monotonic()
        children = [fork(memory.summary) for _ in range(5)]
        tell(time.monotonic() - begun < 4)
        tell(wait(*children))
        os._exit(0)
    """
    assert child.run(script, url) == ["True", "[0, 0, 0, 0, 0]"]


def test_a_fork_in_the_middle_of_opening(url: str) -> None:
    script = """
        class Slow(InMemoryStorage):
            async def _open(self):
                if os.getpid() == parent:
                    opening.set()
                    await asyncio.Event().wait()

        parent, opening = os.getpid(), threading.Event()
        storage = sync.Storage(Slow())
        threading.Thread(target=storage.open, daemon=True).start()
        opening.wait()
        tell(wait(fork(lambda: tell(storage.find("session")))))
        os._exit(0)
    """
    assert child.run(script, url) == ["[]", "[0]"]


@pytest.mark.parametrize("policy", ["", "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())"])
def test_a_fork_in_a_running_loop(url: str, said: Said, policy: str) -> None:
    if policy and not os.environ.get("CI"):
        pytest.importorskip("uvloop")
    script = f"""
        import warnings
        warnings.simplefilter("ignore", RuntimeWarning)
        {policy and "import uvloop"}
        {policy}

        async def main():
            memory.save(says("parent"))
            await asyncio.sleep(0)
            tell(wait(fork(memory.save, says("child"))))
            memory.save(says("after"))

        asyncio.run(main())
    """
    assert child.run(child.script(MEMORY, script), url) == ["[0]"]
    assert said() == ["parent", "child", "after"]
