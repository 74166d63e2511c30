"""What is told of the jobs: errors to the callback and the log, counts, and the queue seam."""

import asyncio
import logging
from typing import Any

import pytest

from memory_async import ModelError, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Errors, Script, header, says, until
from tests.llm import marks_answer


async def test_an_async_callback(make: Make, script: Script) -> None:
    told, ended = asyncio.Event(), asyncio.Event()

    async def on_error(job: str, session_id: str, error: Exception) -> None:
        assert (job, session_id, type(error)) == ("summary", "s1", ModelError)
        told.set()
        await asyncio.sleep(0)
        ended.set()

    memory = make(summary_memory=True, on_job_error=on_error)
    script.failures += [RuntimeError("no")] * 3
    await memory.save(says("hello"))
    await asyncio.wait_for(told.wait(), 10)
    assert await memory.drain(10)
    assert ended.is_set()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callback_that_fails_itself(
    make: Make, script: Script, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    called = []

    def on_error(*args: Any) -> None:
        called.append(args)
        raise ZeroDivisionError("in the callback")

    async def on_error_async(*args: Any) -> None:
        on_error(*args)

    memory = make(**JOBS, on_job_error=on_error_async if is_async else on_error)
    script.failures += [RuntimeError("no")] * 6
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 2)
    await until(lambda: memory.jobs.running == 0)
    assert len(called) == 2
    assert "on_job_error failed itself" in caplog.text
    assert "in the callback" in caplog.text
    await memory.save(says("again"))
    assert await memory.drain(10)
    assert (memory.jobs.done, memory.jobs.lag) == (2, 0)


async def test_each_series_of_attempts_is_reported_once(
    make: Make, script: Script, errors: Errors
) -> None:
    memory = make(summary_memory=True, on_job_error=errors)
    script.answer = lambda call: ""
    for number in (1, 2, 3):
        await memory.save(says("hello"))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
        assert len(errors) == memory.jobs.failed == number
        assert len(script.calls) == 3 * number
    assert memory.jobs.lag == 3


async def test_what_the_log_says(
    make: Make, script: Script, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own errors say what is wrong; of a bug the traceback is needed."""
    memory = make(summary_memory=True)
    script.failures += [RuntimeError("no")] * 3
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    monkeypatch.setattr("memory_async.summary.take", lambda *args: 1 / 0)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 2)
    first, second = (each for each in caplog.records if each.name == "memory_async.jobs")
    assert not first.exc_info
    assert second.exc_info
    assert second.exc_info[0] is ZeroDivisionError
    assert first.levelno == second.levelno == logging.ERROR


async def test_the_counts_at_each_stage(make: Make, script: Script) -> None:
    memory = make(None, **JOBS, max_jobs=3)
    jobs = memory.jobs

    def counts() -> tuple[int, int, int, int, int]:
        return jobs.queued, jobs.running, jobs.done, jobs.failed, jobs.lag

    assert counts() == (0, 0, 0, 0, 0)
    script.hold()
    one, other = (memory.bind(session_id=each) for each in ("s1", "s2"))
    await one.save(says("first"))
    await script.wait_for_calls(2)
    assert counts() == (0, 2, 0, 0, 2)
    await other.save(says("first"))
    await script.wait_for_calls(3)
    assert counts() == (1, 3, 0, 0, 4)
    await one.save(says("second"))
    assert counts() == (1, 3, 0, 0, 6)
    assert other.jobs is jobs
    script.answer = lambda call: "" if call.kind == "analysis" else "A summary."
    script.release("summary")
    await until(lambda: counts() == (0, 2, 2, 0, 3))  # one may look again, and find nothing
    script.release()
    await until(lambda: jobs.queued + jobs.running == 0)
    assert counts()[:3] == (0, 0, 2)
    assert jobs.failed in (2, 3)  # the second turn of s1 came during the first attempts
    assert jobs.lag == 3
    script.answer = marks_answer
    assert await memory.drain(10)
    assert (jobs.queued, jobs.running, jobs.done, jobs.lag) == (0, 0, 4, 0)


class Queue:
    """A task queue: what was submitted waits here for a worker."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, str]] = []
        self.fails = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def submit(self, job: str, session_id: str) -> None:
        self.submitted.append((job, session_id))
        if self.fails:
            raise ConnectionError("no broker")
        await self.go_on.wait()


async def test_jobs_go_to_an_existing_queue(make: Make, script: Script, storage: Storage) -> None:
    script.answer = marks_answer
    queue = Queue()
    memory = make(**JOBS, job_queue=queue)
    await memory.save(says("«1»"))
    await until(lambda: len(queue.submitted) == 2)
    assert sorted(queue.submitted) == [("profile:default", "s1"), ("summary", "s1")]
    await until(lambda: memory.jobs.lag == 0)
    assert script.calls == []
    assert (memory.jobs.queued, memory.jobs.running, memory.jobs.done) == (0, 0, 0)

    worker = make("unused", "worker", **JOBS)
    for job, session_id in queue.submitted:
        assert await worker.jobs.run(job, session_id)
        assert not await worker.jobs.run(job, session_id)
    assert await memory.summary() == "«1»"
    assert (await memory.profile()).facts == ["«1»"]
    assert {state.through for state in (await header(storage)).jobs.values()} == {1}
    assert not await worker.jobs.run("summary", "no such session")
    with pytest.raises(KeyError):
        await worker.jobs.run("no such job", "s1")


async def test_a_queue_is_handed_only_what_is_due(make: Make, script: Script) -> None:
    """A worker takes all there is when it comes, and is asked again `summary_every` turns later."""
    queue = Queue()
    memory, worker = (
        make(summary_memory=True, summary_every=3, job_queue=queue_) for queue_ in (queue, None)
    )
    submitted, lag = [], []
    for number in range(1, 13):
        await memory.save(says(str(number)))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
        submitted.append(len(queue.submitted))
        lag.append(memory.jobs.lag)
        if number in (4, 12):
            for message in queue.submitted:
                await worker.jobs.run(*message)
    #                   1  2  3  4  5  6  7  8  9 10 11 12
    assert submitted == [0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert lag == [1, 2, 0, 1, 2, 2, 0, 1, 2, 0, 1, 2]
    assert len(script.calls) == 2
    assert await memory.drain(10)
    assert len(script.calls) == 2, "the worker took them"


async def test_a_queue_is_handed_rests_after_a_pause(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.indexing.SearchJob.idle", 0.05)
    queue = Queue()
    memory = make(search_memory=True, job_queue=queue)
    await memory.save(says("Hi"))
    await until(lambda: queue.submitted == [("search", "s1")])
    await until(lambda: memory.jobs.lag == 0)
    assert await make("unused", search_memory=True).jobs.run(*queue.submitted[0])


async def test_what_a_worker_fails_at_is_its_own(make: Make, script: Script) -> None:
    """So that the queue can try again as it sees fit."""
    queue = Queue()
    memory = make(summary_memory=True, job_queue=queue)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.lag == 0)
    worker = make("unused", summary_memory=True)
    script.failures += [RuntimeError("no")] * 3
    with pytest.raises(ModelError):
        await worker.jobs.run(*queue.submitted[0])
    assert await worker.jobs.run(*queue.submitted[0])


async def test_a_queue_that_fails_fails_no_save(make: Make, script: Script, errors: Errors) -> None:
    queue = Queue()
    queue.fails = True
    memory = make(summary_memory=True, job_queue=queue, on_job_error=errors)
    assert await memory.save(says("first")) is not None
    await until(lambda: memory.jobs.failed == 1)
    [(job, session_id, error)] = errors
    assert (job, session_id, type(error)) == ("summary", "s1", ConnectionError)
    assert memory.jobs.lag == 1
    assert script.calls == []
    assert await memory.drain(10)  # here, since the queue did not take it
    assert memory.jobs.lag == 0
    assert "first" in script.calls[0].said


async def test_turns_that_come_while_a_job_is_handed_over(make: Make, script: Script) -> None:
    """The worker may have looked before they came: they need a message of their own."""
    queue = Queue()
    queue.go_on.clear()
    memory = make(summary_memory=True, job_queue=queue)
    await memory.save(says("first"))
    await until(lambda: len(queue.submitted) == 1)
    for number in range(5):
        await memory.save(says(str(number)))
    assert memory.jobs.lag == 6
    queue.go_on.set()
    await until(lambda: memory.jobs.lag == 0)
    assert queue.submitted == [("summary", "s1")] * 2


async def test_what_the_queue_did_not_take_is_done_here(make: Make, script: Script) -> None:
    script.answer = marks_answer
    queue = Queue()
    queue.go_on.clear()
    memory = make(summary_memory=True, job_queue=queue)
    await memory.save(says("«1»"))
    await until(lambda: len(queue.submitted) == 1)
    for number in (2, 3, 4):
        await memory.save(says(f"«{number}»"))
    queue.fails = True
    queue.go_on.set()
    await until(lambda: memory.jobs.failed == 1)
    assert (len(queue.submitted), memory.jobs.lag) == (2, 3)
    assert await memory.drain(10)
    assert await memory.summary() == "«1» «2» «3» «4»"


async def test_close_waits_for_the_queue_to_take_them(make: Make, script: Script) -> None:
    queue = Queue()
    memory = make(summary_memory=True, job_queue=queue)
    await memory.save(says("first"))
    await memory.close()
    assert queue.submitted == [("summary", "s1")]
    assert script.calls == []
