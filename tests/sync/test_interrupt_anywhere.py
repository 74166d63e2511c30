"""Ctrl-C at every moment of a facade's beginning, of its end and of a run: nothing hangs, nothing
is lost, and what comes next works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sync import child

Said = Callable[..., list[str]]

# Python looks for signals after calls, where functions begin and where loops begin again.
EVERYWHERE = """
import dis, faulthandler, gc
faulthandler.dump_traceback_later(50, exit=True)

def looks(instruction):
    name = instruction.opname
    return name.startswith("CALL") or name in ("RESUME", "JUMP_BACKWARD")

class Interrupt:
    "Raises KeyboardInterrupt at the nth of these places."
    def __init__(self, nth):
        self.left = nth
        self.places = {}

    def enter(self, frame, event, arg):
        code = frame.f_code
        # Where Python itself drops an exception, or is not in the block yet (or any more).
        if code.co_name in ("_remove", "__del__", "__exit__"):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if code not in self.places:
            self.places[code] = {i.offset for i in dis.get_instructions(code) if looks(i)}
        places, looked = self.places[code], False

        def step(frame, event, arg):
            nonlocal looked
            if event == "opcode":
                if looked:
                    self.left -= 1
                    if self.left == 0:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                looked = frame.f_lasti in places
            return step

        return step

def moments(work, begin=lambda number: None):
    "work(begin(number)), interrupted at every moment, and at last not at all."
    gc.disable()  # what is collected must not be interrupted
    number = 0
    while True:
        number += 1
        given, interrupt = begin(number), Interrupt(number)
        sys.settrace(interrupt.enter)
        try:
            work(given)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        yield given
        if interrupt.left > 0:
            tell(number)
            return
        if number % 50 == 0:
            gc.collect()

def only_the_main_thread():
    while threading.active_count() > 1:
        pass
"""
WARM = """
with sync.Memory(url, "warm", full_session_memory=True) as memory:  # what is imported is there
    with memory.run("Hi"):
        memory.checkpoints()
    memory.turns()
"""


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, url: str) -> str:
    return "memory://" if request.param == "memory" else url


def test_the_first_call(place: str) -> None:
    script = """
        def begin(number):
            global memory
            memory = None
            return f"s{number}"

        def work(name):
            global memory
            memory = sync.Memory(url, name, full_session_memory=True)
            memory.save(says("Hi"))

        for _ in moments(work, begin):
            if memory is not None:
                memory.save(says("Still here"))
                assert said(memory) in (["Hi", "Still here"], ["Still here"])
                memory.close()
                only_the_main_thread()
    """
    [number] = child.run(child.script(EVERYWHERE, WARM, script), place)
    assert int(number) > 200


def test_a_with_from_end_to_end(place: str) -> None:
    script = """
        def begin(number):
            global saved
            saved = False
            return sync.Memory(url, f"s{number}", full_session_memory=True)

        def work(memory):
            global saved
            with memory:
                memory.save(says("Hi"))
                saved = True

        for memory in moments(work, begin):
            name = memory.session_id
            try:
                memory.load()  # when it was interrupted before the `with`
            except StorageUnavailableError:
                pass
            memory.close()
            only_the_main_thread()
            if saved and url != "memory://":
                with sync.Memory(url, name) as again:
                    assert said(again) == ["Hi"]
    """
    [number] = child.run(child.script(EVERYWHERE, WARM, script), place)
    assert int(number) > 100


def test_a_run(place: str) -> None:
    """It is completed, or cancelled and its lease given back. Before its block was entered it may
    be there, too, until its lease runs out."""
    script = """
        def begin(number):
            global entered
            entered = False
            return memory.bind(session_id=f"s{number}")

        def work(chat):
            global entered
            with chat.run("Book", run_id="r" + chat.session_id) as run:
                entered = True
                run.add({"role": "assistant", "content": "Booked"})
                run.checkpoint({"n": 1})

        def resume(chat, kept):
            while True:
                try:
                    with chat.resume(kept.run_id):
                        return
                except RunAlreadyClaimedError:
                    assert not entered

        memory = sync.Memory(url, full_session_memory=True, lease_seconds=0.2)
        last = memory.bind(session_id="last")
        for chat in moments(work, begin):
            last.set_metadata({})  # comes after what was interrupted when it was being written
            if not chat.turns():
                kept = chat.checkpoints()
                assert not entered or [each.status for each in kept] == ["cancelled"]
                if kept:
                    resume(chat, kept[0])
                else:
                    with chat.run("Book"):
                        pass
            assert len(chat.turns()) == 1 and not chat.checkpoints()
            assert said(chat)[0] == "Book"
        memory.close()
    """
    [number] = child.run(child.script(EVERYWHERE, WARM, script), place)
    assert int(number) > 100


def test_real_signals_while_it_begins(place: str) -> None:
    """From a timer, at some time while it begins."""
    script = """
        import faulthandler, gc, random
        faulthandler.dump_traceback_later(50, exit=True)
        signal.signal(signal.SIGALRM, signal.default_int_handler)

        def begin(seconds):
            global memory
            memory = None
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, seconds)
                    memory = sync.Memory(url, f"s{seconds}", full_session_memory=True)
                    memory.save(says("Hi"))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                return 1
            return 0

        gc.disable()  # what is collected must not be interrupted
        dice, limit, interrupted = random.Random(1), 0.005, 0
        for _ in range(100):
            hit = begin(dice.uniform(1e-6, limit))
            limit *= 1.1 if hit else 0.9  # as long as it takes on this machine, now
            interrupted += hit
            if memory is not None:
                memory.save(says("Still here"))
                assert said(memory)[-1] == "Still here"
                memory.close()
        tell(interrupted)
    """
    [interrupted] = child.run(child.script(WARM, script), place)
    assert int(interrupted) > 10
