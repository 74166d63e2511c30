"""When jobs run: beside the agent, one at a time per session and kind, bounded, on their own."""

import asyncio
import functools
import gc
import weakref

import pytest

from memory_async import ConfigurationError, Memory, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import Errors, Script, header, says, stored_profile, until
from tests.llm import Call, CallKind, ScriptedLLM, default_answer, marks_answer


async def test_save_returns_while_the_answer_is_held(storage: Storage, llm: ScriptedLLM) -> None:
    llm.hold()
    async with Memory(
        storage,
        "s1",
        "ada",
        summary_memory=True,
        user_analysis_memory=True,
        model="openai/scripted",
    ) as memory:
        async with asyncio.timeout(5):
            await memory.save(says("first"))
            await asyncio.to_thread(llm.wait_for_calls, 2)
            await memory.save(says("second"))
            assert len(await memory.turns()) == 2  # durable, though nobody has answered
        assert (await memory.load()).summary is None
        assert [call.kind for call in llm.calls].count("summary") == 1
        llm.release()
        assert await memory.drain(10)
        assert await memory.summary() == default_answer(llm.summaries[1])


async def test_twenty_saves_during_a_call_lead_to_one_further_call(
    make: Make, script: Script
) -> None:
    script.answer = marks_answer
    script.hold()
    memory = make(summary_memory=True, user_analysis_memory=True)
    await memory.save(says("«0»"))
    await script.wait_for_calls(2)
    for number in range(1, 21):
        await memory.save(says(f"«{number}»"))
    script.release()
    assert await memory.drain(10)
    assert len(script.summaries) == len(script.analyses) == 2
    everything = [f"«{number}»" for number in range(21)]
    assert await memory.summary() == " ".join(everything)
    profile = await memory.profile()
    assert profile.facts == everything
    assert (memory.jobs.done, memory.jobs.failed) == (2, 0)


@pytest.mark.parametrize("held", ["summary", "analysis"])
async def test_two_jobs_of_a_session_go_on_without_each_other(
    make: Make, script: Script, storage: Storage, held: CallKind
) -> None:
    script.hold(held)
    memory = make(summary_memory=True, user_analysis_memory=True)
    free, waiting = ("profile:default", "summary")[:: 1 if held == "summary" else -1]
    for number in (1, 2, 3):
        await memory.save(says(str(number)))
        await until(functools.partial(is_done, memory, number))
        assert (await header(storage)).jobs[free].through == number
    assert (await header(storage)).jobs[waiting].through == 0
    assert [call.kind for call in script.calls].count(held) == 1


def is_done(memory: Memory, jobs: int) -> bool:
    return memory.jobs.done == jobs


async def test_many_sessions_share_a_few_slots(make: Make, script: Script) -> None:
    script.hold()
    memory = make(None, summary_memory=True, max_jobs=3)
    for number in range(20):
        await memory.bind(session_id=f"s{number}").save(says("hello"))
    await script.wait_for_calls(3)
    assert (memory.jobs.running, memory.jobs.queued) == (3, 17)
    script.release()
    assert await memory.drain(10)
    assert script.most_at_once == 3
    assert len(script.calls) == memory.jobs.done == 20


async def test_by_default_four_jobs_run_at_once(make: Make, script: Script) -> None:
    script.hold()
    memory = make(None, "ada", summary_memory=True, user_analysis_memory=True)
    for number in range(10):
        await memory.bind(session_id=f"s{number}").save(says("hello"))
    await script.wait_for_calls(4)
    assert (memory.jobs.running, memory.jobs.queued) == (4, 16)
    script.release()
    assert await memory.drain(10)
    assert (script.most_at_once, memory.jobs.done) == (4, 20)


@pytest.mark.parametrize("max_jobs", [0, -1, 1.5, True, "4"])
def test_a_bound_that_would_stop_all_jobs_is_refused(script: Script, max_jobs: object) -> None:
    with pytest.raises(ConfigurationError, match="max_jobs"):
        Memory("memory://", "s1", summary_memory=True, model=script, max_jobs=max_jobs)  # type: ignore[arg-type]


async def test_nothing_collects_a_job_that_waits(storage: Storage) -> None:
    """The loop holds tasks weakly, and these futures are held by nothing but their tasks."""
    waiting: list[weakref.ref[asyncio.Future[str]]] = []

    async def forgetful(messages: object, *, schema: object = None) -> str:
        future: asyncio.Future[str] = asyncio.Future()
        waiting.append(weakref.ref(future))
        return await future

    memory = Memory(storage, summary_memory=True, model=forgetful)
    for session_id in ("s1", "s2"):
        await memory.bind(session_id=session_id).save(says("hello"))
    await until(lambda: len(waiting) == 2)
    gc.collect()
    for ref in waiting:
        future = ref()
        assert future is not None
        future.set_result("The summary.")
        del future
    assert await memory.drain(10)
    assert await memory.bind(session_id="s2").summary() == "The summary."
    await memory.close()


async def test_a_failing_job_touches_no_other(make: Make, script: Script, errors: Errors) -> None:
    def answer(call: Call) -> str:
        if "bad" in call.said:
            raise RuntimeError("I do not like it")
        return default_answer(call)

    script.answer = answer
    memory = make(None, "ada", summary_memory=True, user_analysis_memory=True, on_job_error=errors)
    views = [memory.bind(session_id=f"s{number}") for number in range(6)]
    for number, view in enumerate(views):
        await view.save(says("bad" if number % 2 else "good"))
    await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
    assert sorted((job, session) for job, session, _ in errors) == [
        (job, f"s{number}") for job in ("profile:default", "summary") for number in (1, 3, 5)
    ]
    assert [bool(await view.summary()) for view in views] == [True, False] * 3
    profile = await memory.bind(session_id="s0").profile()
    assert profile is not None
    assert (memory.jobs.done, memory.jobs.failed) == (6, 6)


async def test_a_job_cancelled_from_outside_runs_again(
    make: Make, script: Script, storage: Storage
) -> None:
    """A server that cancels every task it finds at shutdown, before this one even began."""
    memory = make(summary_memory=True)
    for number in (1, 2):
        await memory.save(says(f"turn {number}"))
        [job] = [task for task in asyncio.all_tasks() if task.get_name() == "summary of s1"]
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert memory.jobs.queued == memory.jobs.running == 0
    await memory.save(says("turn 3"))
    assert await memory.drain(10)
    assert (await header(storage)).jobs["summary"].through == 3


async def test_an_anonymous_view_is_not_analysed(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(None, "ada", summary_memory=True, user_analysis_memory=True)
    await memory.bind(session_id="s1", user_id=None).save(says("I am nobody"))
    assert await memory.drain(10)
    assert (await header(storage)).jobs.keys() == {"summary"}
    assert script.analyses == []
    assert await storage.find("profile") == []
    await memory.bind(session_id="s2").save(says("I am Ada"))
    assert await memory.drain(10)
    assert len(script.analyses) == 1
    assert await stored_profile(storage) is not None
