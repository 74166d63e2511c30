"""Jobs run for completed turns only."""

import asyncio

import pytest

from memory_async import Inbox, Memory
from memory_async.testing.run_suite import ANSWER, ASK, HI, finish, pause


class Model:
    def __init__(self):
        self.asked = []

    async def __call__(self, messages, *, schema=None):
        self.asked.append(messages[-1]["content"])
        return "A summary." if schema is None else '{"facts": ["orders a lot"]}'


@pytest.fixture
async def model():
    return Model()


@pytest.fixture
async def memory(storage, model):
    async with Memory(
        storage, "s", "ada", summary_memory=True, user_analysis_memory=True, model=model
    ) as memory:
        yield memory


async def test_runs_that_wait_or_failed_are_nothing_to_learn_from(memory, model):
    waiting = await pause(memory)
    for error in (ValueError, asyncio.CancelledError, KeyboardInterrupt):
        with pytest.raises(error):
            async with memory.run("secret") as run:
                run.add(ASK)
                await run.checkpoint()
                raise error
    assert (memory.jobs.queued, memory.jobs.lag) == (0, 0)
    assert await memory.drain(20)
    assert await memory.recover() == 0
    assert model.asked == []
    assert (await memory.session()).jobs == {}
    await finish(memory, waiting)
    assert await memory.drain(20)
    assert (memory.jobs.done, memory.jobs.failed) == (2, 0)
    assert len(model.asked) == 2
    assert all(HI in asked and "secret" not in asked for asked in model.asked)
    assert await memory.summary() == "A summary."
    assert (await memory.profile()).facts == ["orders a lot"]
    assert await memory.turns() == []  # taken by both, and nobody wants them kept


async def test_jobs_are_of_the_run_s_own_session(storage, model):
    run_id = await pause(Memory(storage, "s", "ada"))
    inbox = Inbox(storage)
    options = {"summary_memory": True, "user_analysis_memory": True, "model": model}
    async with await inbox.memory_for(run_id, **options) as memory:
        await finish(memory, run_id)
        assert await memory.drain(20)
        assert (memory.session_id, await memory.summary()) == ("s", "A summary.")
    run_id = await pause(Memory(storage, "s", "ada"))
    async with Memory(storage, "elsewhere", "ada", **options) as memory:
        await finish(memory, run_id)
        assert await memory.drain(20)
        assert await memory.session() is None
        assert len(model.asked) == 4
        assert (await memory.bind(session_id="s").session()).last_seq == 2


async def test_a_run_begins_with_what_is_remembered(storage, model):
    async with Memory(storage, "s", "ada", summary_memory=True, model=model) as memory:
        await memory.save([{"role": "user", "content": "I am Ada."}, ANSWER])
        await memory.drain(20)
        async with memory.run(HI) as run:
            assert run.context.summary == "A summary."
            run.add(ASK)
            system, *rest = run.to_openai("Be kind.")
            assert system["content"].startswith("Be kind.\n\n<SessionSummary>")
            assert rest == [{"role": "user", "content": HI}, ASK]
            run.pause()
        await memory.save({"role": "user", "content": "meanwhile"})
        await memory.drain(20)
        async with memory.resume(run.run_id) as again:
            assert again.context.summary == "A summary."
            assert again.to_openai()[1:] == rest
