"""Tool calls in the loaded history: never half of a pair, and the words beside a call stay."""

from hypothesis import given
from hypothesis import strategies as st

from memory_async import InMemoryStorage, Memory, Message


def user(text):
    return {"role": "user", "content": text}


def call(*ids, text=None):
    calls = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def result(id, text="42"):
    return {"role": "tool", "tool_call_id": id, "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


async def loaded(storage, *turns, feed=True, session_id="s1", **bounds):
    memory = Memory(storage, session_id, full_session_memory=True, feed_tool_call_results=feed)
    for turn in turns:
        await memory.save(turn)
    return (await memory.load(**bounds)).to_openai()


ROUND = [user("weather?"), call("c1"), result("c1"), assistant("sunny")]


async def test_calls_and_results_are_left_out_by_default(storage):
    assert await loaded(storage, ROUND, feed=False) == [user("weather?"), assistant("sunny")]


async def test_calls_and_results_come_back_whole_when_they_are_wanted(storage):
    assert await loaded(storage, ROUND, ROUND) == ROUND + ROUND


async def test_the_readers_have_the_tools_whatever_is_fed(storage):
    await loaded(storage, ROUND, feed=False)
    stored = await Memory(storage, "s1").messages()
    assert [message.to_openai() for message in stored] == ROUND


async def test_words_beside_a_call_stay_without_the_call(storage):
    turn = [user("weather?"), call("c1", text="Let me look."), result("c1"), assistant("sunny")]
    kept = [user("weather?"), assistant("Let me look."), assistant("sunny")]
    assert await loaded(storage, turn, feed=False) == kept


async def test_content_parts_beside_a_call_stay_without_the_call(storage):
    parts = [{"type": "text", "text": "Let me look."}]
    said = await loaded(storage, [call("c1", text=parts), result("c1")], feed=False)
    assert said == [{"role": "assistant", "content": parts}]


async def test_the_time_of_words_beside_a_call_stays(storage):
    memory = Memory(storage, "s1", full_session_memory=True)
    at = (await memory.save(user("when?"))).created_at
    message = Message.parse({**call("c1", text="Let me look."), "created_at": at})
    await memory.save([message, result("c1")])
    assert (await memory.load()).messages[-1].created_at == at


async def test_unknown_fields_beside_a_call_stay_without_the_call(storage):
    odd = {**call("c1", text="Let me look."), "reasoning_content": "hm"}
    kept = {"role": "assistant", "content": "Let me look.", "reasoning_content": "hm"}
    assert await loaded(storage, [odd, result("c1")], feed=False) == [kept]


async def test_the_old_function_call_shape_is_left_out_like_tools(storage):
    turn = [
        user("weather?"),
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
        assistant("sunny"),
    ]
    assert await loaded(storage, turn, feed=False) == [user("weather?"), assistant("sunny")]
    assert await loaded(storage, turn, session_id="s2") == turn


async def test_a_message_that_calls_nothing_stays_whatever_null_keys_it_carries(storage):
    refusal = {"role": "assistant", "content": None, "refusal": "I must not.", "tool_calls": None}
    [said] = await loaded(storage, [refusal], feed=False)
    assert said["refusal"] == "I must not."
    empty = {"role": "assistant", "content": "", "tool_calls": []}
    bare = {"role": "assistant", "tool_calls": []}
    kept = [user("hi"), {"role": "assistant", "content": ""}]
    turn = [user("hi"), empty, bare]
    assert await loaded(storage, turn, feed=False, session_id="s2") == kept


async def test_a_result_whose_call_is_outside_the_window_is_left_out(storage):
    turns = [[user("1"), call("c1")], [result("c1"), assistant("2")]]
    assert await loaded(storage, *turns, last=1) == [assistant("2")]


async def test_a_call_answered_in_the_next_turn_stays_with_its_result(storage):
    turns = [[user("1"), call("c1")], [result("c1"), assistant("2")]]
    assert await loaded(storage, *turns) == turns[0] + turns[1]


async def test_a_result_whose_call_was_dropped_for_the_budget_is_left_out(storage):
    turns = [[user("x" * 400), call("c1")], [result("c1"), assistant("2")]]
    assert await loaded(storage, *turns, max_tokens=50) == [assistant("2")]


async def test_a_call_of_an_older_turn_that_was_never_answered_is_left_out(storage):
    turns = [[user("1"), call("c1", text="Hm."), call("c2")], [user("2"), assistant("b")]]
    kept = [user("1"), assistant("Hm."), user("2"), assistant("b")]
    assert await loaded(storage, *turns) == kept


async def test_a_half_answered_call_of_an_older_turn_is_left_out_with_its_results(storage):
    turns = [[user("1"), call("c1", "c2"), result("c1")], [user("2")]]
    assert await loaded(storage, *turns) == [user("1"), user("2")]


async def test_a_call_of_the_newest_turn_may_still_be_answered(storage):
    turns = [[user("1")], [call("c1", "c2"), result("c1")]]
    assert await loaded(storage, *turns) == turns[0] + turns[1]
    assert await loaded(storage, [user("3")]) == [user("1"), user("3")]


async def test_ids_used_again_in_a_later_turn_do_not_pair_with_an_older_call(storage):
    broken = [user("1"), call("call_0")]
    turns = [broken, [user("2"), call("call_0"), result("call_0"), assistant("b")]]
    assert await loaded(storage, *turns) == [user("1"), *turns[1]]


async def test_a_result_that_stands_before_its_call_answers_nothing(storage):
    turns = [[result("c1"), call("c1")], [user("2")]]
    assert await loaded(storage, *turns) == [user("2")]


async def test_a_result_that_names_no_call_does_not_outlive_the_call_beside_it(storage):
    turns = [[user("1"), call("c1"), {"role": "tool", "content": "42"}], [user("2")]]
    assert await loaded(storage, *turns) == [user("1"), user("2")]


async def test_calls_without_ids_pair_with_results_without_ids(storage):
    bare = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    turn = [user("1"), bare, {"role": "tool", "content": "42"}]
    assert await loaded(storage, turn, [user("2")]) == [*turn, user("2")]


IDS = st.sampled_from(["a", "b", "c"])
STEP = st.one_of(
    st.builds(lambda ids, text: call(*ids, text=text), st.lists(IDS, min_size=1, unique=True),
              st.sampled_from([None, "beside"])),
    st.builds(result, IDS),
    st.just(user("hi")),
    st.just(assistant("ok")),
)  # fmt: skip
TURNS = st.lists(st.lists(STEP, min_size=1, max_size=4), min_size=1, max_size=4)


def words(messages):
    said = [each["content"] for each in messages if each["role"] != "tool"]
    return [text for text in said if text is not None]


@given(TURNS, st.none() | st.integers(0, 4))
async def test_no_history_has_half_of_a_pair_in_its_older_turns(turns, last):
    async with InMemoryStorage() as storage:
        said = await loaded(storage, *turns, last=last)
    window = turns if last is None else turns[max(len(turns) - last, 0) :]
    flat = [message for turn in window for message in turn]
    assert words(said) == words(flat)
    newest = len(window[-1]) if window else 0
    rest = iter(flat)
    assert all(
        any(each in (given, {"role": "assistant", "content": given["content"]}) for given in rest)
        for each in said
    ), "the order stays"
    for index, message in enumerate(said):
        before, after = said[:index], said[index + 1 :]
        if message["role"] == "tool":
            id = message["tool_call_id"]
            assert any(c["id"] == id for each in before for c in each.get("tool_calls", ()))
        for each in message.get("tool_calls", ()):
            answered = False
            for later in after:
                if any(c["id"] == each["id"] for c in later.get("tool_calls", ())):
                    break
                answered = answered or later.get("tool_call_id") == each["id"]
            assert answered or len(after) < newest


@given(TURNS)
async def test_without_tools_the_words_are_all_there_and_nothing_of_the_tools(turns):
    async with InMemoryStorage() as storage:
        said = await loaded(storage, *turns, feed=False)
    flat = [message for turn in turns for message in turn]
    assert words(said) == words(flat)
    assert all(each.keys() == {"role", "content"} and each["role"] != "tool" for each in said)
