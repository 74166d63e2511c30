"""When a job is due: every so many turns, rests, jobs registered late, and trimming."""

import asyncio

import pytest

from memory_async import JobState, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import Script, header, says, stored_profile, until
from tests.llm import Call, marks_answer

PROFILE = "profile:default"


async def through(storage: Storage, job: str = "summary", session_id: str = "s1") -> int:
    return (await header(storage, session_id)).jobs[job].through


async def test_the_summary_moves_in_steps(make: Make, script: Script, storage: Storage) -> None:
    memory = make(summary_memory=True, user_analysis_memory=True, summary_every=4)
    seen = []
    for number in range(1, 11):
        await memory.save(says(str(number)))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
        seen.append(await through(storage))
        assert await through(storage, PROFILE) == number
    assert seen == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]
    assert len(script.summaries) == 2
    assert len(script.analyses) == 10
    assert memory.jobs.lag == 2


async def test_a_step_that_came_late_takes_all_there_is(make: Make, script: Script) -> None:
    script.answer = marks_answer
    script.hold()
    memory = make(summary_memory=True, summary_every=3)
    for number in range(1, 9):
        await memory.save(says(f"«{number}»"))
        if number == 3:
            await script.wait_for_calls(1)
    script.release()
    await until(lambda: memory.jobs.done == 1)
    assert await memory.summary() == "«1» «2» «3» «4» «5» «6» «7» «8»"


@pytest.mark.parametrize("by", ["drain", "recover"])
async def test_drain_and_recover_take_the_rest(
    make: Make, script: Script, storage: Storage, by: str
) -> None:
    memory = make(summary_memory=True, summary_every=5)
    await memory.save(says("one"))
    await memory.save(says("two"))
    await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
    assert script.calls == []
    assert memory.jobs.lag == 2
    if by == "drain":
        assert await memory.drain(10)
    else:
        assert await make("another", summary_memory=True, summary_every=5).recover() == 1
    assert await through(storage) == 2
    assert len(script.calls) == 1


async def test_drain_takes_the_rest_of_what_was_just_saved(
    make: Make, script: Script, storage: Storage
) -> None:
    """The job that `save` started has not looked yet, and would leave it."""
    memory = make(summary_memory=True, summary_every=5)
    await memory.save(says("one"))
    assert await memory.drain(10)
    assert await through(storage) == 1
    assert (memory.jobs.done, memory.jobs.lag) == (1, 0)


async def test_close_leaves_the_rest_and_waits_for_what_is_due(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(None, summary_memory=True, summary_every=2)
    rest, due = memory.bind(session_id="rest"), memory.bind(session_id="due")
    for number in (1, 2, 3):
        await rest.save(says(str(number)))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
    script.hold()
    await due.save(says("one"))
    await due.save(says("two"))
    await script.wait_for_calls(2)
    closing = asyncio.create_task(memory.close())
    await asyncio.sleep(0)
    assert not closing.done()
    script.release()
    await closing
    assert await through(storage, session_id="rest") == 2
    assert await through(storage, session_id="due") == 2
    assert (await memory.jobs.drain(), len(script.calls)) == (True, 2)


async def test_a_job_registered_late_starts_at_the_beginning(
    make: Make, script: Script, storage: Storage
) -> None:
    plain = make(full_session_memory=True)
    for number in range(1, 61):
        await plain.save(says(f"turn {number}."))
    late = make(full_session_memory=True, summary_memory=True, user_analysis_memory=True)
    assert (await header(storage)).jobs == {}
    await late.save(says("turn 61."))
    assert await late.drain(10)
    assert await through(storage) == await through(storage, PROFILE) == 61
    for calls in (script.summaries, script.analyses):
        assert len(calls) == 2  # 50 turns at most are taken at once
        log = "\n".join(call.said for call in calls)
        assert [log.count(f"turn {number}.") for number in range(1, 62)] == [1] * 61


async def test_recover_does_not_begin_what_was_never_registered(make: Make, script: Script) -> None:
    await make(full_session_memory=True).save(says("hello"))
    assert await make(full_session_memory=True, summary_memory=True).recover() == 0
    assert script.calls == []


async def test_turns_are_trimmed_when_every_job_has_taken_them(
    make: Make, script: Script, storage: Storage
) -> None:
    script.hold("analysis")
    memory = make(summary_memory=True, user_analysis_memory=True)
    for number in (1, 2, 3):
        await memory.save(says(str(number)))
    await until(lambda: memory.jobs.done == 1)
    assert await through(storage) == 3
    assert [turn.seq for turn in await memory.turns()] == [1, 2, 3]  # the analysis needs them
    script.release()
    assert await memory.drain(10)
    assert await memory.turns() == []
    assert [turn.seq for turn in await storage.history("s1", trimmed=True)] == [1, 2, 3]


async def test_turns_are_not_trimmed_before_the_step(make: Make, storage: Storage) -> None:
    memory = make(summary_memory=True, summary_every=3)
    for number, left in ((1, [1]), (2, [1, 2]), (3, []), (4, [4])):
        await memory.save(says(str(number)))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
        assert [turn.seq for turn in await memory.turns()] == left


async def test_the_full_session_keeps_its_turns(make: Make, storage: Storage) -> None:
    memory = make(full_session_memory=True, summary_memory=True, user_analysis_memory=True)
    for number in range(3):
        await memory.save(says(str(number)))
    assert await memory.drain(10)
    assert len(await memory.turns()) == 3
    # Another agent that keeps nothing itself trims nothing of it.
    await make(summary_memory=True).save(says("three"))
    assert await memory.drain(10)
    assert len(await memory.turns()) == 4


async def test_no_turn_is_missing_beside_the_summary(
    make: Make, script: Script, storage: Storage
) -> None:
    """Whatever the summary has not taken is injected with it, in any mixture of flags."""
    script.answer = marks_answer
    memory = make(summary_memory=True, summary_every=3)
    reader = make(load_summary_memory=True, load_full_session_memory=False)
    for number in range(1, 12):
        await memory.save(says(f"«{number}»"))
        await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
        for each in (memory, reader):
            context = await each.load()
            known = (context.summary or "").split()
            known += [m.text for m in context.messages if m.role == "user"]
            assert known == [f"«{n}»" for n in range(1, number + 1)]


async def test_the_summary_comes_with_the_turns_after_it_while_a_call_is_held(
    make: Make, script: Script
) -> None:
    memory = make(summary_memory=True)
    await memory.save(says("first"))
    assert await memory.drain(10)
    script.hold()
    await memory.save(says("second"))
    await script.wait_for_calls(2)
    context = await memory.load()
    assert context.summary is not None
    assert [message.text for message in context.messages] == ["second", "I see."]


async def test_two_agents_may_keep_different_profiles(
    make: Make, script: Script, storage: Storage
) -> None:
    def answer(call: Call) -> str:
        return '{"facts": ["for work"]}' if "WORK" in call.system else '{"facts": ["at home"]}'

    script.answer = answer
    work = make(
        user_analysis_memory=True, profile_name="work", analysis_prompt="WORK", model=script
    )
    home = make(user_analysis_memory=True)
    await work.save(says("hello"))
    assert await work.drain(10)
    await home.save(says("hello again"))
    assert await home.drain(10)
    # The turn of `home` made nothing due for `work`, whose process would take it.
    assert (await header(storage)).jobs == {PROFILE: JobState(2), "profile:work": JobState(1)}
    for name, fact in (("work", "for work"), ("default", "at home")):
        profile = await stored_profile(storage, name=name)
        assert profile is not None
        assert profile.traits == {"facts": [fact]}
