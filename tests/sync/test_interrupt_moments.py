"""Ctrl-C at every moment of a call: a timer's signal, a little later each time."""

from __future__ import annotations

from collections.abc import Callable

from tests.sync import child

# A call that some signal interrupts after the given microseconds, if it still runs then.
INTERRUPTED_AFTER = """
def interrupted_after(micros, call):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, micros / 1e6)
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False

signal.signal(signal.SIGALRM, signal.default_int_handler)
"""


def test_of_every_kind_at_every_moment(url: str) -> None:
    """A batch is whole or absent, and whatever was interrupted, the next call is as ever."""
    script = """
        import dataclasses
        storage = sync.Storage(url)
        now = storage.now(Partition("session", "s"))

        def apply(number):
            text = str(number)
            said = [Message(role="user", content=text)]
            turn = Turn(session_id="s", run_id=text, messages=said)
            header = Session(session_id="s", keep_turns=True)
            noted = Session(session_id="s", metadata={"last": text})
            storage.apply(Append(turn, header), Put(noted, ALWAYS))
            return text

        def check():
            session, turns, _ = storage.snapshot("s")
            numbers = [turn.run_id for turn in turns]
            assert session.metadata == {"last": numbers[-1]}, (session.metadata, numbers[-1])
            assert [turn.seq for turn in turns] == [*range(1, session.last_seq + 1)]
            assert len({*numbers}) == len(numbers)
            return numbers

        apply(0)
        returned, cut = ["0"], 0
        for number in range(1, 400):
            moment = 20 + number * 5
            if interrupted_after(moment, lambda: returned.append(apply(number))):
                cut += 1
            if number % 4 == 0:
                interrupted_after(moment, lambda: storage.history("s"))
            if number % 10 == 0:
                check()
        apply("last")
        numbers = check()
        assert {*returned} <= {*numbers}, {*returned} - {*numbers}
        tell(cut > 20, numbers[-1], len(threading.enumerate()))
        storage.close()
        tell(len(threading.enumerate()))
    """
    lines = child.run(child.script(INTERRUPTED_AFTER, script), url)
    assert lines == ["True last 4", "1"]  # the main one, the loop's and SQLite's two


def test_of_the_first_call(url: str) -> None:
    script = """
        for moment in range(20, 20_000, 197):
            memory = sync.Memory(url, "s", full_session_memory=True)
            interrupted_after(moment, lambda: memory.save(says("Hi")))
            assert memory.save(says("Hi")) is not None
            memory.close()
        for thread in threading.enumerate()[1:]:
            thread.join(10)  # one that was starting then ends by itself
        tell(len(threading.enumerate()))
    """
    assert child.run(child.script(INTERRUPTED_AFTER, script), url) == ["1"]


def test_of_closing(url: str, said: Said) -> None:
    script = """
        for moment in range(20, 10_000, 97):
            memory = sync.Memory(url, "s", full_session_memory=True)
            memory.save(says(str(moment)))
            interrupted_after(moment, memory.close)
            memory.close()
            try:
                memory.load()
            except StorageUnavailableError:
                continue
            tell("it is open")
        tell("end")
    """
    assert child.run(child.script(INTERRUPTED_AFTER, script), url) == ["end"]
    assert said() == [str(moment) for moment in range(20, 10_000, 97)]


def test_at_every_moment_of_its_beginning(url: str) -> None:
    """Whatever was begun is given up again: nothing goes on renewing its lease."""
    script = """
        memory = sync.Memory(url, "s", full_session_memory=True, lease_seconds=0.5)
        memory.save(says("Hi"))

        def begin(number):
            with memory.run("Book a flight", run_id=str(number)):
                pass

        for number in range(150):
            interrupted_after(20 + number * 30, lambda: begin(number))
        kept = [each.run_id for each in memory.checkpoints(limit=1000)]
        while kept_on := [each.run_id for each in memory.checkpoints(limit=1000)]:
            for run_id in kept_on:
                try:
                    with memory.resume(run_id):
                        pass
                except RunAlreadyClaimedError:
                    pass  # cut off in the middle: until the lease ends
        done = {turn.run_id for turn in memory.turns()}
        tell({*kept} <= done, memory.checkpoints())
    """
    assert child.run(child.script(INTERRUPTED_AFTER, script), url) == ["True []"]
