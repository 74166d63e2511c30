"""A real long conversation as one session: what the model is sent of it, and how much at a time."""

import asyncio
import hashlib
import json

import pytest

from memory_async import Memory, Storage
from tests.jobs.script import JOBS, header, talk, texts
from tests.llm import Call, ScriptedLLM

TURNS = 200


def realistic(call: Call) -> str:
    """A summary of 1,000 characters and a profile of 20 facts, all new with every call."""
    digest = hashlib.sha256(call.said.encode()).hexdigest()
    if call.schema is None:
        return f"So far, {digest[:8]}: {'lorem ipsum ' * 80}"[:900] + "."
    return json.dumps({"facts": [f"{digest[:8]}-{number}" for number in range(20)]})


async def replay(memory: Memory, *, drain_every: int) -> None:
    for number in range(1, TURNS + 1):
        await memory.save(talk(number))
        if number % drain_every == 0:
            assert await memory.drain(10)


def occurrences(calls: list[Call], wanted: list[str]) -> list[int]:
    log = "\0\0".join(message["content"] for call in calls for message in call.messages)
    return [log.count(text) for text in wanted]


def test_the_conversation_is_what_this_needs() -> None:
    said = [text for number in range(1, TURNS + 1) for text in texts(talk(number))]
    assert len(said) > 2 * TURNS
    assert [sum(text in other for other in said) for text in said] == [1] * len(said)
    whole = "".join(said)
    assert all(each in whole for each in ("\r\n", "\0", "\u05e9", '"', "e\u0301", "\U0001f9ed"))


@pytest.mark.parametrize(("every", "drain_every"), [(1, 1), (1, 7), (10, TURNS)])
async def test_every_text_is_sent_once_and_late_turns_cost_no_more(
    storage: Storage, llm: ScriptedLLM, every: int, drain_every: int
) -> None:
    llm.answer = realistic
    turns = [talk(number) for number in range(1, TURNS + 1)]
    async with Memory(
        storage, "s1", "ada", model="openai/scripted", summary_every=every, **JOBS
    ) as memory:
        await replay(memory, drain_every=drain_every)
        assert await memory.drain(20)
        assert memory.jobs.lag == 0

    everything = [text for turn in turns for text in texts(turn)]
    assert occurrences(llm.summaries, everything) == [1] * len(everything)
    by_user = [text for turn in turns for text in texts(turn, "user")]
    assert occurrences(llm.analyses, by_user) == [1] * len(by_user)
    by_others = [text for text in everything if text not in by_user]
    assert occurrences(llm.analyses, by_others) == [0] * len(by_others)

    if (every, drain_every) == (1, 1):
        for calls in (llm.summaries, llm.analyses):
            assert len(calls) == TURNS
            early, late = (sum(call.size for call in calls[a:b]) for a, b in ((9, 20), (189, 200)))
            assert late <= 1.2 * early

    jobs = (await header(storage)).jobs
    assert {name: state.through for name, state in jobs.items()} == {
        "summary": TURNS,
        "profile:default": TURNS,
    }
    assert jobs["summary"].value == realistic(llm.summaries[-1])


async def test_what_was_said_in_the_order_it_was_said(storage: Storage, llm: ScriptedLLM) -> None:
    """Saved by several at once, as fast as it goes: each call takes the next turns, none twice."""
    llm.answer = realistic
    async with Memory(storage, "s1", summary_memory=True, model="openai/scripted") as memory:
        for first in range(1, TURNS, 20):
            await asyncio.gather(*(memory.save(talk(n)) for n in range(first, first + 20)))
        assert await memory.drain(20)
        order = [turn.run_id for turn in await storage.history("s1", trimmed=True)]
    assert len(order) == TURNS
    said = [call.said for call in llm.summaries]
    places = []
    for number in range(1, TURNS + 1):
        [place] = [n for n, each in enumerate(said) if f"Answer {number}: " in each]
        places.append((place, said[place].index(f"Answer {number}: ")))
    assert len(set(places)) == TURNS
    assert len(said) < TURNS
