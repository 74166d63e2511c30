"""`save`: what it takes, what it gives back, and that a run is stored once."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from pydantic import BaseModel

from memory_async import (
    ABSENT,
    Advance,
    Checkpoint,
    ConflictError,
    Memory,
    Message,
    PayloadError,
    Put,
    SessionOwnershipError,
)

HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello!"}


class SdkMessage(BaseModel):
    """What an SDK answers with: every optional field is there, as None."""

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, object]] | None = None


@pytest.fixture
def memory(storage) -> Memory:
    return Memory(storage, "s1", "ada", full_session_memory=True)


def said(turn) -> list[dict[str, object]]:
    return [message.to_openai() for message in turn.messages]


@pytest.mark.parametrize(
    "given",
    [
        HI,
        [HI],
        (HI,),
        Message(role="user", content="Hi"),
        [Message(role="user", content="Hi")],
        MappingProxyType(HI),
        SdkMessage(role="user", content="Hi"),
        [SdkMessage(role="user", content="Hi")],
        {"only": HI}.values(),
    ],
    ids=lambda given: type(given).__name__,
)
async def test_one_message_or_many_of_any_accepted_shape_are_stored_alike(memory, given):
    turn = await memory.save(given)
    assert said(turn) == [HI]
    assert await memory.turns() == [turn]


async def test_a_generator_of_mixed_shapes_is_one_turn_in_order(memory):
    turn = await memory.save(each for each in (HI, SdkMessage(content="Hello!"), Message.parse(HI)))
    assert said(turn) == [HI, HELLO, HI]


async def test_an_sdk_message_with_a_tool_call_comes_back_without_its_nulls(memory):
    call: dict[str, object] = {"id": "c1", "type": "function", "function": {"name": "f"}}
    await memory.save(SdkMessage(tool_calls=[call]))
    [stored] = await memory.messages()
    assert stored.to_openai() == {"role": "assistant", "tool_calls": [call]}


async def test_the_turn_comes_back_with_its_place_owner_and_time(memory):
    before = datetime.now(UTC)
    turn = await memory.save([HI, HELLO], run_id="r1", usage={"input_tokens": 5})
    assert turn is not None
    assert (turn.seq, turn.run_id, turn.session_id, turn.user_id) == (1, "r1", "s1", "ada")
    assert turn.usage == {"input_tokens": 5}
    assert before - timedelta(seconds=1) <= turn.created_at <= datetime.now(UTC)
    assert await memory.turns() == [turn]


async def test_what_the_caller_changes_after_saving_is_not_what_was_saved(memory):
    parts = [{"type": "text", "text": "Hi"}]
    messages: list[object] = [{"role": "user", "content": parts}]
    await memory.save(messages)
    parts[0]["text"] = "changed"
    messages.append(HELLO)
    [stored] = await memory.messages()
    assert stored.text == "Hi"


async def test_each_save_without_a_run_id_is_a_run_of_its_own(memory):
    first, second = await memory.save(HI), await memory.save(HI)
    assert first.run_id != second.run_id
    assert [turn.seq for turn in await memory.turns()] == [1, 2]


async def test_a_run_saved_twice_is_stored_once_and_comes_back_as_first_stored(memory):
    first = await memory.save(HI, run_id="r1", usage={"n": 1})
    await memory.save(HELLO, run_id="r2")
    again = await memory.save([HELLO, HELLO], run_id="r1", usage={"n": 100})
    assert again == first
    assert [turn.run_id for turn in await memory.turns()] == ["r1", "r2"]
    assert await memory.usage() == {"n": 1}
    assert (await memory.save(HI)).seq == 3


async def test_the_same_run_id_in_another_session_is_another_run(memory):
    await memory.save(HI, run_id="r1")
    other = await memory.bind(session_id="s2").save(HELLO, run_id="r1")
    assert said(other) == [HELLO]
    assert said((await memory.turns())[0]) == [HI]


async def test_one_run_sent_many_times_at_once_is_stored_once(memory):
    sent = [
        memory.save({"role": "user", "content": str(n)}, run_id="r1", usage={"n": n})
        for n in range(1, 31)
    ]
    turns = await asyncio.gather(*sent)
    assert all(turn == turns[0] for turn in turns)
    assert await memory.turns() == [turns[0]]
    assert (await memory.save(HI)).seq == 2


async def test_saves_at_once_each_get_a_seq_and_none_is_lost(memory):
    turns = await asyncio.gather(*(memory.save(HI, run_id=str(n)) for n in range(60)))
    assert sorted(turn.seq for turn in turns) == list(range(1, 61))
    assert [turn.seq for turn in await memory.turns()] == list(range(1, 61))


async def test_a_run_is_still_known_after_its_messages_were_trimmed(storage, model):
    memory = Memory(storage, "s1", summary_memory=True, model=model, summary_every=1000)
    await memory.save(HI, run_id="r1")
    await memory.save(HELLO, run_id="r2")
    await storage.apply(Advance("s1", "summary", 0, 1, "Hi."))
    again = await memory.save(HI, run_id="r1")
    assert (again.seq, again.messages) == (1, [])
    assert [turn.seq for turn in await memory.turns()] == [2]


async def test_saving_a_run_that_is_open_is_a_conflict_and_writes_nothing(
    memory, storage, contents
):
    await storage.apply(Put(Checkpoint(session_id="s1", run_id="r1", user_id="ada"), ABSENT))
    before = await contents()
    with pytest.raises(ConflictError, match="r1"):
        await memory.save(HI, run_id="r1")
    assert await contents() == before
    assert (await memory.save(HI, run_id="r2")).seq == 1


async def test_an_open_run_of_another_session_is_no_obstacle(memory, storage):
    await storage.apply(Put(Checkpoint(session_id="s2", run_id="r1"), ABSENT))
    assert (await memory.save(HI, run_id="r1")).seq == 1


@pytest.mark.parametrize("empty", [[], (), iter([])], ids=["list", "tuple", "iterator"])
async def test_an_empty_turn_is_refused(memory, contents, empty):
    with pytest.raises(PayloadError, match="at least one"):
        await memory.save(empty)
    assert await contents() == {}


async def test_one_bad_message_among_good_ones_stores_none_of_them(memory, contents):
    with pytest.raises(PayloadError, match="role"):
        await memory.save([HI, {"content": "who?"}, HELLO])
    assert await contents() == {}


@pytest.mark.parametrize("run_id", ["", "x" * 513, "a\0b", 7])
async def test_a_run_id_that_cannot_be_an_id_is_refused(memory, contents, run_id):
    with pytest.raises(PayloadError, match="run_id"):
        await memory.save(HI, run_id=run_id)
    assert await contents() == {}


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_saving_back_what_was_loaded_is_refused(memory, contents, role):
    await memory.save([HI, HELLO])
    await memory.set_metadata({"city": "Bath"})
    before = await contents()
    loaded = (await memory.load()).to_openai(system="Be brief.")
    loaded[0]["role"] = role
    with pytest.raises(PayloadError, match="save only what is new"):
        await memory.save([*loaded, {"role": "user", "content": "And now?"}])
    with pytest.raises(PayloadError, match="save only what is new"):
        parts = [{"type": "text", "text": loaded[0]["content"]}]
        await memory.save([{"role": role, "content": parts}, HI])
    assert await contents() == before


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
async def test_the_same_words_from_anybody_else_are_kept(memory, role):
    await memory.set_metadata({"city": "Bath"})
    words = (await memory.load()).instructions
    assert "<SessionMetadata>" in words
    turn = await memory.save({"role": role, "content": words, "tool_call_id": "c1"})
    assert turn.messages[0].text == words


@pytest.mark.parametrize(
    "words",
    ["Be brief.", "Read <UserProfile> with care.", "<UserProfile>name</UserProfile>", ""],
)
async def test_a_system_message_of_the_callers_own_is_kept(memory, words):
    turn = await memory.save([{"role": "system", "content": words}, HI])
    assert turn.messages[0].text == words


async def test_a_session_taken_by_another_user_meanwhile_refuses_the_turn(memory, contents):
    await memory.bind(user_id="bob").save(HI)
    before = await contents()
    with pytest.raises(SessionOwnershipError):
        await memory.save(HELLO)
    assert await contents() == before


async def test_a_repeated_save_of_a_trimmed_turn_knows_its_owner(storage):
    async def model(messages, *, schema=None):
        return "a summary"

    memory = Memory(storage, "s", "ada", summary_memory=True, model=model)
    await memory.save(HI, run_id="r")
    await memory.drain()
    again = await memory.save(HI, run_id="r")
    assert (again.user_id, again.seq, again.messages) == ("ada", 1, [])
    await memory.close()
