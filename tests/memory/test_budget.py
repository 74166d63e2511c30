"""`load(max_tokens=)` drops the oldest whole turns and says which."""

from hypothesis import given
from hypothesis import strategies as st

from memory_async import Advance, InMemoryStorage, Memory


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


async def chat(storage, *turns, **options):
    memory = Memory(storage, "s1", full_session_memory=True, **options)
    for turn in turns:
        await memory.save(turn)
    return memory


def texts(messages):
    return [message.content for message in messages]


async def test_the_oldest_whole_turns_are_dropped_and_reported_oldest_first(storage):
    memory = await chat(
        storage,
        [user("1" * 40), assistant("a" * 40)],
        [user("2" * 40), assistant("b" * 40)],
        [user("3" * 40), assistant("c" * 40)],
    )
    context = await memory.load(max_tokens=25)
    assert texts(context.messages) == ["3" * 40, "c" * 40]
    assert context.dropped == tuple((await memory.turns())[:2])
    # Half of the second turn would fit; a turn is dropped as a whole.
    assert texts((await memory.load(max_tokens=39)).messages) == ["3" * 40, "c" * 40]
    assert len((await memory.load(max_tokens=40)).messages) == 4


async def test_a_newest_turn_too_large_is_dropped_too(storage):
    memory = await chat(storage, user("small"), user("x" * 400))
    context = await memory.load(max_tokens=50)
    assert context.messages == []
    assert [turn.seq for turn in context.dropped] == [1, 2]


async def test_a_small_old_turn_does_not_jump_over_a_large_newer_one(storage):
    memory = await chat(storage, user("small"), user("x" * 400), user("new"))
    context = await memory.load(max_tokens=50)
    assert texts(context.messages) == ["new"]
    assert [turn.seq for turn in context.dropped] == [1, 2]


async def test_the_estimate_is_a_quarter_of_the_utf8_bytes(storage):
    memory = await chat(storage, user("é" * 6))  # 12 bytes
    assert (await memory.load(max_tokens=3)).dropped == ()
    assert len((await memory.load(max_tokens=2.99)).dropped) == 1
    assert (await memory.load(max_tokens=2.99)).messages == []


async def test_content_parts_and_tool_calls_cost_tokens_too(storage):
    parts = {"role": "user", "content": [{"type": "text", "text": "x" * 400}]}
    assert len((await (await chat(storage, parts)).load(max_tokens=99)).dropped) == 1
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "x" * 400}}
    memory = Memory(storage, "s2", full_session_memory=True, feed_tool_call_results=True)
    await memory.save({"role": "assistant", "content": None, "tool_calls": [call]})
    assert len((await memory.load(max_tokens=99)).dropped) == 1


async def test_nothing_is_dropped_without_a_budget_or_within_it(storage):
    memory = await chat(storage, user("1"), user("2"))
    for context in (await memory.load(), await memory.load(max_tokens=1000)):
        assert texts(context.messages) == ["1", "2"]
        assert context.dropped == ()


async def test_no_tokens_at_all_drop_every_turn(storage):
    memory = await chat(storage, user("1"), user("2"))
    assert len((await memory.load(max_tokens=0)).dropped) == 2


async def test_count_tokens_is_asked_turn_by_turn_from_the_newest(storage):
    asked = []

    def count(messages):
        asked.append(texts(messages))
        return 10

    memory = await chat(
        storage, user("1"), [user("2"), assistant("b")], user("3"), count_tokens=count
    )
    context = await memory.load(max_tokens=20)
    assert texts(context.messages) == ["2", "b", "3"]
    assert asked == [["3"], ["2", "b"], ["1"]]
    await memory.load()
    assert len(asked) == 3, "without a budget nobody counts"


async def test_what_is_left_out_of_the_history_is_not_counted(storage):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [
        user("weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "x" * 4000},
        assistant("sunny"),
    ]
    memory = await chat(storage, turn)
    assert texts((await memory.load(max_tokens=4)).messages) == ["weather?", "sunny"]


async def test_a_dropped_turn_is_reported_with_its_tool_calls(storage):
    turn = [user("x" * 400), {"role": "tool", "tool_call_id": "c1", "content": "y"}]
    memory = await chat(storage, turn)
    [dropped] = (await memory.load(max_tokens=1)).dropped
    assert [message.role for message in dropped.messages] == ["user", "tool"]


async def test_turns_after_the_summary_are_dropped_for_the_budget_but_never_silently(
    storage, model
):
    memory = Memory(storage, "s1", summary_memory=True, model=model, summary_every=1000)
    for text in ("1", "2" * 400, "3"):
        await memory.save(user(text))
    await storage.apply(Advance("s1", "summary", 0, 1, "One."))
    context = await memory.load(max_tokens=50)
    assert texts(context.messages) == ["3"]
    assert [turn.seq for turn in context.dropped] == [2]
    assert context.summary == "One."


async def test_turns_outside_the_window_are_not_reported_as_dropped(storage):
    memory = await chat(storage, *(user("x" * 40) for _ in range(5)))
    context = await memory.load(last=2, max_tokens=10)
    assert [turn.seq for turn in context.dropped] == [4]


async def test_the_instructions_do_not_count(storage):
    memory = await chat(storage, user("hi"))
    await memory.set_metadata({"long": "x" * 4000})
    assert texts((await memory.load(max_tokens=1)).messages) == ["hi"]


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 40))
async def test_what_stays_is_the_longest_end_of_the_history_that_fits(sizes, budget):
    async with InMemoryStorage() as storage:
        memory = await chat(
            storage,
            *(user("x" * size) for size in sizes),
            count_tokens=lambda messages: len(messages[0].text),
        )
        context = await memory.load(max_tokens=budget)
    kept, left = len(context.messages), len(context.dropped)
    assert kept + left == len(sizes)
    assert [turn.seq for turn in context.dropped] == list(range(1, left + 1))
    assert sum(sizes[left:]) <= budget
    assert left == 0 or sum(sizes[left - 1 :]) > budget
