"""Which turns are injected: no gap between the summary and the history, and a bounded window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_async import (
    Advance,
    Append,
    ConfigurationError,
    InMemoryStorage,
    Memory,
    Session,
    SqliteStorage,
    Turn,
)
from memory_async.message import Message

counts = st.none() | st.integers(0, 10)


async def chat(storage, turns, *, keep=True, registered_after=None, through=0, value="..."):
    """A session whose turns say their seq; the summary job is known after so many turns."""
    session = Session(session_id="s1", keep_turns=keep)
    for seq in range(1, turns + 1):
        due = registered_after is not None and seq > registered_after
        said = [
            Message(role="user", content=str(seq)),
            Message(role="assistant", content=f"re {seq}"),
        ]
        turn = Turn(session_id="s1", messages=said)
        await storage.apply(Append(turn, session, ("summary",) if due else ()))
    if through:
        await storage.apply(Advance("s1", "summary", 0, through, value))


def seqs(context):
    return [int(each.content) for each in context.messages if each.role == "user"]


@pytest.mark.parametrize("make", [InMemoryStorage, SqliteStorage])
@settings(deadline=None, max_examples=80)
@given(data=st.data())
async def test_the_history_is_the_window_and_all_that_the_summary_has_not_taken(make, data):
    last_seq = data.draw(st.integers(0, 8), "last_seq")
    registered_after = data.draw(st.none() | st.integers(0, 8), "registered_after")
    registered = registered_after is not None and registered_after < last_seq
    through = data.draw(st.integers(0, last_seq), "through") if registered else 0
    keep = data.draw(st.booleans(), "keep_turns")
    load_full, load_summary = data.draw(st.tuples(st.booleans(), st.booleans()), "flags")
    num_last, last = data.draw(st.tuples(counts, counts), "num_last_messages, last")
    async with make() as storage:
        await chat(storage, last_seq, keep=keep, registered_after=registered_after, through=through)
        memory = Memory(
            storage,
            "s1",
            load_full_session_memory=load_full,
            load_summary_memory=load_summary,
            num_last_messages=num_last,
        )
        context = await memory.load(last=last)

    everything = list(range(1, last_seq + 1))
    bound = num_last if last is None else last
    newest = everything if bound is None else everything[max(len(everything) - bound, 0) :]
    wanted = [
        seq
        for seq in everything
        if (load_full and seq in newest) or (load_summary and registered and seq > through)
    ]
    # What nobody keeps and the summary has taken is not there any more.
    stored = [seq for seq in everything if keep or seq > through]
    assert seqs(context) == [seq for seq in wanted if seq in stored]
    assert len(context.messages) == 2 * len(seqs(context)), "turns are whole"
    assert context.summary == ("..." if load_summary and through else None)
    if load_summary and registered:
        taken = set(range(1, through + 1))
        assert taken | set(seqs(context)) >= set(everything), "no gap"


@pytest.mark.parametrize("load_full", [None, False, True])
async def test_without_full_session_memory_turns_after_the_summary_are_verbatim(
    storage, model, load_full
):
    memory = Memory(
        storage,
        "s1",
        summary_memory=True,
        load_full_session_memory=load_full,
        num_last_messages=1,
        model=model,
        summary_every=1000,
    )
    for seq in range(1, 6):
        await memory.save([{"role": "user", "content": str(seq)}])
    await storage.apply(Advance("s1", "summary", 0, 2, "one, two"))
    context = await memory.load()
    assert seqs(context) == [3, 4, 5]
    assert context.summary == "one, two"


async def test_the_window_is_longer_than_asked_for_where_the_summary_lags(storage):
    await chat(storage, 6, registered_after=0, through=2)
    memory = Memory(storage, "s1", load_full_session_memory=True, load_summary_memory=True)
    assert seqs(await memory.load(last=1)) == [3, 4, 5, 6]
    assert seqs(await memory.load(last=5)) == [2, 3, 4, 5, 6]


async def test_num_last_messages_counts_turns_and_not_messages(storage):
    await chat(storage, 5)
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=2)
    context = await memory.load()
    assert [each.content for each in context.messages] == ["4", "re 4", "5", "re 5"]


async def test_last_stands_in_for_num_last_messages_in_both_directions(storage):
    await chat(storage, 5)
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=2)
    assert seqs(await memory.load(last=1)) == [5]
    assert seqs(await memory.load(last=4)) == [2, 3, 4, 5]
    assert seqs(await memory.load(last=99)) == [1, 2, 3, 4, 5]
    assert seqs(await memory.load(last=0)) == []
    assert seqs(await memory.load()) == [4, 5]


async def test_a_window_of_no_turns_is_an_empty_history(storage):
    await chat(storage, 5)
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=0)
    assert seqs(await memory.load()) == []
    assert seqs(await memory.load(last=1)) == [5]


async def test_last_does_not_turn_on_a_history_the_flags_leave_out(storage):
    await chat(storage, 5)
    memory = Memory(storage, "s1", full_session_memory=True, load_full_session_memory=False)
    assert seqs(await memory.load(last=3)) == []


async def test_num_last_messages_does_not_bound_the_readers(storage):
    await chat(storage, 5)
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=2)
    assert len(await memory.turns()) == 5
    assert len(await memory.messages()) == 10


@pytest.mark.parametrize("last", [-1, 1.5, True, "2"])
async def test_a_window_that_is_no_count_is_refused(storage, last):
    with pytest.raises(ConfigurationError, match="last must be a whole number"):
        await Memory(storage, "s1", full_session_memory=True).load(last=last)


async def test_turns_stay_in_order_with_seq_from_one(storage):
    memory = Memory(storage, "s1", full_session_memory=True)
    saved = [await memory.save({"role": "user", "content": str(n)}) for n in range(1, 8)]
    assert [turn.seq for turn in saved if turn] == list(range(1, 8))
    assert await memory.turns() == saved
    assert seqs(await memory.load()) == list(range(1, 8))
