"""Forks at bad moments: other threads are in the middle of something, or a loop is running."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sync import child

Said = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

MEMORY = """
memory = sync.Memory(url, "s", full_session_memory=True)
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
        from memory_async import forked

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

        def let_go():
            while not forked._making.locked():  # until the fork waits
                pass
            go_on.set()

        parent, halfway, go_on = os.getpid(), threading.Event(), threading.Event()
        storage = sync.Storage(Slow())
        threading.Thread(target=write).start()
        halfway.wait()
        threading.Thread(target=let_go).start()
        tell(wait(fork(lambda: tell(storage.snapshot("s").session.metadata))))
        write()
        tell(len(storage.history("s")))
    """
    assert child.run(script, url) == ["{'n': 1}", "[0]", "2"]


def test_a_fork_in_the_middle_of_an_import(url: str, tmp_path: Path) -> None:
    """It waits for the end: what is half imported could never be imported in the child."""
    (tmp_path / "slow.py").write_text("import __main__; __main__.wait_here()\n")
    script = """
        from memory_async import forked

        def wait_here():
            importing.set()
            go_on.wait()

        def let_go():
            while not forked._making.locked():  # until the fork waits
                pass
            go_on.set()

        def work():
            import slow
            tell("imported")

        sys.path.append(sys.argv[2])
        importing, go_on = threading.Event(), threading.Event()
        threading.Thread(target=__import__, args=("slow",)).start()
        importing.wait()
        threading.Thread(target=let_go).start()
        tell(wait(fork(work)))
    """
    assert child.run(script, url, tmp_path) == ["imported", "[0]"]


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
