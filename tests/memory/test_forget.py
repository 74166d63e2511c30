"""`forget_user`: everything of the user is gone, everybody else's is not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from memory_async import (
    ALWAYS,
    Checkpoint,
    Chunk,
    ConfigurationError,
    Decision,
    Document,
    Item,
    Key,
    Lease,
    Memory,
    Partition,
    Put,
    SqliteStorage,
    UserProfile,
)
from memory_async.message import Message

HI = {"role": "user", "content": "Hi"}
SOON = datetime(2100, 1, 1, tzinfo=UTC)


async def live(storage, user_id, *sessions):
    """A user with sessions, an open run, a profile and items of all sorts."""
    for session_id in sessions:
        memory = Memory(storage, session_id, user_id, full_session_memory=True)
        await memory.save(HI, run_id="r1", usage={"n": 1})
        await memory.set_metadata({"of": user_id})
        run = {"session_id": session_id, "run_id": "open"}
        said = [Message(role="user", content="Go")]
        place = Partition("session", session_id)
        for record in (
            Checkpoint(**run, user_id=user_id, status="paused", input=said),
            Lease(**run, owner="worker", until=SOON),
            Decision(**run, requirement_id="q1", approved=True),
            Item(partition=place, id="note", value={"of": user_id}, tags=("t",)),
        ):
            await storage.apply(Put(record, ALWAYS))
    applied = dict.fromkeys(sessions, 1)
    for name in ("default", "work"):
        profile = UserProfile(user_id=user_id, name=name, traits={"name": user_id}, applied=applied)
        await storage.apply(Put(profile, ALWAYS))
    place = Partition("user", user_id)
    await storage.apply(Put(Item(partition=place, id="note", value=user_id), ALWAYS))


async def shared_things(storage):
    """Things that are nobody's in particular."""
    pytest.importorskip("Stemmer")  # a chunk is indexed as it is put
    knowledge: Any = {"knowledge_base_id": "kb", "document_id": "d"}
    for record in (
        Document(**knowledge, name="ada"),
        Chunk(**knowledge, index=0, text="ada"),
        Item(partition=Partition("collection", "ada"), id="ada", value="ada", tags=("ada",)),
    ):
        await storage.apply(Put(record, ALWAYS))


def view(storage, user_id="ada", session_id=None, **options) -> Memory:
    return Memory(storage, session_id, user_id, full_session_memory=True, **options)


def tombstones(contents):
    return sorted(
        (profile.user_id, profile.name)
        for profile in contents["profile"]
        if profile.forgotten_at is not None
    )


async def test_everything_of_the_user_goes_in_every_kind(storage, contents):
    await live(storage, "ada", "a1", "a2")
    await view(storage).forget_user()
    left = await contents()
    assert left.keys() == {"profile"}
    assert tombstones(left) == [("ada", "default"), ("ada", "work")]
    for profile in left["profile"]:
        assert (profile.traits, profile.applied, profile.forgetting) == ({}, {}, {})
    for session_id in ("a1", "a2"):
        assert await storage.history(session_id, trimmed=True) == []
        turn = Key("turn", Partition("session", session_id), "r1")
        assert await storage.get(turn) is None


async def test_what_belongs_to_others_or_to_nobody_stays_as_it_is(storage, contents):
    await live(storage, "bob", "b1")
    await live(storage, "ada2", "x")
    await Memory(storage, "anonymous", full_session_memory=True).save(HI)
    await shared_things(storage)
    before = await contents()
    await live(storage, "ada", "a1")
    await view(storage).forget_user()
    after = await contents()
    after["profile"] = [each for each in after["profile"] if each.user_id != "ada"]
    assert after == before


async def test_the_readers_find_nothing_afterwards(storage):
    await live(storage, "ada", "a1")
    memory = view(storage, session_id="a1", load_user_analysis_memory=True)
    await memory.forget_user()
    assert await memory.profile() is None
    assert await view(storage, profile_name="work").profile() is None
    assert await memory.sessions() == []
    assert await memory.session() is None
    assert await memory.turns() == []
    assert await memory.usage() == {}
    context = await memory.load()
    assert (context.messages, context.profile, context.instructions) == ([], None, "")


async def test_forgetting_again_changes_nothing_a_user_can_see(storage, contents):
    await live(storage, "ada", "a1")
    for _ in range(3):
        await view(storage).forget_user()
        left = await contents()
        assert left.keys() == {"profile"}
        assert tombstones(left) == [("ada", "default"), ("ada", "work")]


async def test_a_user_nobody_knows_can_be_forgotten(storage, contents):
    await view(storage, "stranger").forget_user()
    assert tombstones(await contents()) == [("stranger", "default")]
    assert await view(storage, "stranger").profile() is None


async def test_nobody_cannot_be_forgotten(storage, contents):
    await live(storage, "ada", "a1")
    before = await contents()
    with pytest.raises(ConfigurationError, match=r"bind\(user_id"):
        await Memory(storage, "a1").forget_user()
    assert await contents() == before


async def test_a_forgotten_user_can_start_anew_also_under_an_old_session_id(storage):
    await live(storage, "ada", "a1")
    memory = view(storage, session_id="a1")
    await memory.forget_user()
    turn = await memory.save({"role": "user", "content": "I am new here"}, run_id="r1")
    assert turn.seq == 1
    assert [message.text for message in await memory.messages()] == ["I am new here"]
    assert [session.session_id for session in await memory.sessions()] == ["a1"]
    assert (await memory.session()).metadata == {}
    # The session is free: it could as well have been somebody else's.
    await memory.delete_session()
    assert (await view(storage, "bob", "a1").save(HI)).user_id == "bob"


async def test_a_user_forgotten_a_second_time_loses_the_new_start_too(storage, contents):
    await live(storage, "ada", "a1")
    memory = view(storage, session_id="a1")
    await memory.forget_user()
    await live(storage, "ada", "a1", "a3")
    await memory.forget_user()
    assert (await contents()).keys() == {"profile"}
    assert await memory.profile() is None


async def test_a_users_many_sessions_are_all_found(storage):
    memory = view(storage)
    for n in range(1010):
        await memory.bind(session_id=f"s{n}").set_metadata({"n": n})
    await view(storage, "bob", "b").save(HI)
    await view(storage).forget_user()
    assert await view(storage).sessions(limit=2000) == []
    assert len(await storage.find("session", limit=2000)) == 1
    [profile] = await storage.find("profile")
    assert profile.forgetting == {}


async def test_the_data_of_another_namespace_stays(tmp_path):
    url = tmp_path / "chat.db"
    async with SqliteStorage(url) as storage, SqliteStorage(url, namespace="b") as other:
        for each in (storage, other):
            await live(each, "ada", "a1")
        await view(storage).forget_user()
        assert await view(storage).sessions() == []
        assert len(await view(other).sessions()) == 1
        assert await view(other).profile() is not None
