"""Readers and metadata: a missing session reads as None or empty, and is not created."""

import asyncio
from datetime import UTC, datetime

import pytest

from memory_async import ALWAYS, Advance, ConfigurationError, Item, Memory, Partition, Put

HI = {"role": "user", "content": "Hi"}


@pytest.fixture
def memory(storage) -> Memory:
    return Memory(storage, "s1", "ada", full_session_memory=True)


async def seven(memory):
    for n in range(1, 8):
        await memory.save([{"role": "user", "content": str(n)}, {**HI, "role": "assistant"}])


def seqs(turns):
    return [turn.seq for turn in turns]


@pytest.mark.parametrize("user_id", ["ada", None])
async def test_a_missing_session_reads_as_nothing_and_is_not_created(storage, contents, user_id):
    memory = Memory(storage, "missing", user_id, full_session_memory=True)
    assert await memory.session() is None
    assert await memory.summary() is None
    assert await memory.profile() is None
    assert await memory.messages() == []
    assert await memory.messages(last=3) == []
    assert await memory.turns() == []
    assert await memory.turns(after=1, limit=1) == []
    assert await memory.sessions() == []
    assert await memory.usage() == {}
    assert await memory.delete_session() is False
    await memory.load()
    assert await contents() == {}


async def test_turns_gives_all_the_last_or_those_after_a_seq(memory):
    await seven(memory)
    assert seqs(await memory.turns()) == [1, 2, 3, 4, 5, 6, 7]
    assert seqs(await memory.turns(last=2)) == [6, 7]
    assert seqs(await memory.turns(last=0)) == []
    assert seqs(await memory.turns(last=99)) == [1, 2, 3, 4, 5, 6, 7]
    assert seqs(await memory.turns(after=5)) == [6, 7]
    assert seqs(await memory.turns(after=2, limit=2)) == [3, 4]
    assert seqs(await memory.turns(limit=2)) == [1, 2]
    assert seqs(await memory.turns(after=5, last=1)) == [7]
    assert seqs(await memory.turns(after=7)) == []


async def test_paging_with_after_and_limit_meets_every_turn_once(memory):
    await seven(memory)
    met, after = [], 0
    while page := await memory.turns(after=after, limit=3):
        met += seqs(page)
        after = page[-1].seq
        await memory.save(HI) if len(met) == 3 else None
    assert met == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_messages_counts_turns_and_keeps_them_whole(memory):
    await seven(memory)
    assert [each.text for each in await memory.messages(last=2)] == ["6", "Hi", "7", "Hi"]


@pytest.mark.parametrize(
    "bounds", [{"last": -1}, {"after": -1}, {"limit": 1.5}, {"last": True}, {"last": 1, "limit": 1}]
)
async def test_bounds_that_make_no_sense_are_refused(memory, bounds):
    await memory.save(HI)
    with pytest.raises(ConfigurationError, match=next(iter(bounds))):
        await memory.turns(**bounds)


async def test_the_header_says_owner_agent_and_how_far_the_log_is(storage):
    memory = Memory(storage, "s1", "ada", full_session_memory=True, agent_id="helper")
    started = datetime.now(UTC)
    await memory.save(HI)
    await memory.save(HI)
    session = await memory.session()
    assert (session.session_id, session.user_id, session.agent_id) == ("s1", "ada", "helper")
    assert (session.last_seq, session.trimmed, session.keep_turns) == (2, 0, True)
    assert session.created_at <= session.updated_at
    assert abs((session.created_at - started).total_seconds()) < 60
    assert [listed.session_id for listed in await memory.sessions()] == ["s1"]
    assert await memory.sessions() == [session]


async def test_summary_is_the_value_of_its_job(storage, model):
    memory = Memory(storage, "s1", summary_memory=True, model=model, summary_every=1000)
    await memory.save(HI)
    assert await memory.summary() is None
    await storage.apply(Advance("s1", "summary", 0, 1, "They said hi."))
    assert await memory.summary() == "They said hi."
    # Anybody of the session may read it, whatever their flags.
    assert await Memory(storage, "s1").summary() == "They said hi."


async def test_set_metadata_creates_the_session_and_then_replaces(memory, storage):
    created = await memory.set_metadata({"a": 1, "b": [1, {"c": None}]})
    assert created.metadata == {"a": 1, "b": [1, {"c": None}]}
    assert await memory.session() == created
    assert created.last_seq == 0
    changed = await memory.set_metadata({"z": "é"})
    assert (await memory.session()).metadata == {"z": "é"}
    assert changed.created_at == created.created_at
    assert (await memory.load()).metadata == {"z": "é"}


async def test_metadata_does_not_touch_the_log_nor_the_log_metadata(memory, storage, model):
    await memory.set_metadata({"a": 1})
    turn = await memory.save(HI)
    changed = await memory.set_metadata({"a": 2})
    assert changed.last_seq == 1
    assert await memory.turns() == [turn]
    await memory.save(HI)
    assert (await memory.session()).metadata == {"a": 2}


async def test_what_the_caller_changes_later_is_not_in_the_metadata(memory):
    given = {"list": [1]}
    await memory.set_metadata(given)
    given["list"].append(2)
    given["new"] = [3]
    assert (await memory.session()).metadata == {"list": [1]}


async def test_writers_of_metadata_at_once_all_land_one_after_the_other(memory):
    given = [{"by": n} for n in range(12)]
    landed = await asyncio.gather(*(memory.set_metadata(each) for each in given))
    assert [session.metadata for session in landed] == given
    assert len({session.version for session in landed}) == 12
    last = await memory.session()
    assert last in landed
    assert (await memory.load()).metadata == last.metadata


async def test_metadata_set_while_turns_are_saved_loses_neither(memory):
    saves = [memory.save(HI) for _ in range(20)]
    sets = [memory.set_metadata({"n": n}) for n in range(5)]
    await asyncio.gather(*saves[:10], *sets, *saves[10:])
    session = await memory.session()
    assert session.last_seq == 20
    assert session.metadata["n"] in range(5)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "metadata.at is a datetime"),
        ({"n": float("inf")}, "metadata.n is inf"),
        ({1: 2}, "metadata has the key 1"),
        ({"s": "\ud800"}, "lone surrogate"),
    ],
    ids=["datetime", "inf", "key", "surrogate"],
)
async def test_metadata_that_json_cannot_hold_is_refused(memory, contents, bad, complaint):
    with pytest.raises(ValueError, match=complaint):
        await memory.set_metadata(bad)
    assert await contents() == {}


async def test_deleting_a_session_takes_all_that_is_in_it(memory, storage, contents):
    await memory.save(HI)
    await memory.set_metadata({"a": 1})
    place = Partition("session", "s1")
    await storage.apply(Put(Item(partition=place, id="note", value=1), ALWAYS))
    other = memory.bind(session_id="s2")
    await other.save(HI)
    assert await memory.delete_session() is True
    assert await memory.session() is None
    assert await memory.turns() == []
    assert [session.session_id for session in (await contents())["session"]] == ["s2"]
    assert "item" not in await contents()
    assert len(await other.turns()) == 1
    assert await memory.delete_session() is False


async def test_a_deleted_session_begins_again_at_one(memory):
    await memory.save(HI, run_id="r1")
    await memory.delete_session()
    again = await memory.save({"role": "user", "content": "again"}, run_id="r1")
    assert again.seq == 1
    assert [message.text for message in await memory.messages()] == ["again"]
    assert (await memory.session()).metadata == {}


async def test_deleting_a_session_whose_metadata_changes_meanwhile_still_deletes_it(
    memory, storage, monkeypatch
):
    await memory.save(HI)
    apply = storage.apply

    async def apply_late(*writes):
        monkeypatch.undo()
        await memory.set_metadata({"changed": True})
        return await apply(*writes)

    monkeypatch.setattr(storage, "apply", apply_late)
    assert await memory.delete_session() is True
    assert await memory.session() is None


async def test_a_session_that_began_anew_meanwhile_is_not_deleted(memory, storage, monkeypatch):
    await memory.save(HI)
    apply = storage.apply

    async def apply_late(*writes):
        monkeypatch.undo()
        await memory.delete_session()
        await memory.save({"role": "user", "content": "new"})
        return await apply(*writes)

    monkeypatch.setattr(storage, "apply", apply_late)
    assert await memory.delete_session() is False
    assert [message.text for message in await memory.messages()] == ["new"]
