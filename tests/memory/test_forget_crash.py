"""Forgetting a user in bad company: crashes, other workers, and a user who comes back."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_async import (
    ALWAYS,
    InMemoryStorage,
    Item,
    Memory,
    Partition,
    Put,
    StorageUnavailableError,
    UserProfile,
)

HI = {"role": "user", "content": "Hi"}
SESSIONS = ("a1", "a2", "a3")
PROFILES = ("default", "work")
APPLIES = 1 + len(SESSIONS) + len(PROFILES)  # the marks, each session, the end of each mark


def view(storage, session_id=None, user_id="ada") -> Memory:
    return Memory(storage, session_id, user_id, full_session_memory=True)


async def live(storage):
    for session_id in SESSIONS:
        await view(storage, session_id).save(HI)
    for name in PROFILES:
        profile = UserProfile(user_id="ada", name=name, traits={"name": "Ada"})
        await storage.apply(Put(profile, ALWAYS))
    place = Partition("user", "ada")
    await storage.apply(Put(Item(partition=place, id="note", value=1), ALWAYS))
    await view(storage, "b1", "bob").save(HI)


async def is_forgotten(storage):
    profiles = await storage.find("profile", user_id="ada")
    return (
        await view(storage).sessions() == []
        and await storage.find("item") == []
        and {profile.name for profile in profiles} == set(PROFILES)
        and all(profile.forgotten_at for profile in profiles)
        and not any(profile.traits or profile.forgetting for profile in profiles)
        and len(await view(storage, "b1", "bob").turns()) == 1
    )


def crashing(storage, monkeypatch, number, *, lost_answer):
    """From that apply on the storage is gone; ``lost_answer``: that one still lands."""
    apply, calls = storage.apply, 0

    async def apply_until_then(*writes):
        nonlocal calls
        calls += 1
        if calls < number:
            return await apply(*writes)
        if calls == number and lost_answer:
            await apply(*writes)
        raise StorageUnavailableError("crashed")

    monkeypatch.setattr(storage, "apply", apply_until_then)


@pytest.mark.parametrize("lost_answer", [False, True])
@pytest.mark.parametrize("number", range(1, APPLIES + 1))
async def test_a_crash_at_any_write_is_finished_by_the_next_call(
    storage, monkeypatch, number, lost_answer
):
    await live(storage)
    with monkeypatch.context() as patch:
        crashing(storage, patch, number, lost_answer=lost_answer)
        with pytest.raises(StorageUnavailableError, match="crashed"):
            await view(storage).forget_user()
    marked = number > 1 or lost_answer
    assert (await view(storage).profile() is None) is marked, "the profile goes first"
    await view(storage).forget_user()
    assert await is_forgotten(storage)


async def test_no_crash_is_left_out_above(storage, monkeypatch):
    await live(storage)
    crashing(storage, monkeypatch, APPLIES + 1, lost_answer=False)
    await view(storage).forget_user()
    monkeypatch.undo()
    assert await is_forgotten(storage)


@settings(deadline=None, max_examples=30)
@given(crashes=st.lists(st.tuples(st.integers(1, APPLIES), st.booleans()), max_size=4))
async def test_any_number_of_crashes_is_finished_by_one_quiet_call(crashes):
    async with InMemoryStorage() as storage:
        await live(storage)
        for number, lost_answer in crashes:
            with pytest.MonkeyPatch.context() as patch:
                crashing(storage, patch, number, lost_answer=lost_answer)
                with suppress(StorageUnavailableError):
                    await view(storage).forget_user()
        await view(storage).forget_user()
        assert await is_forgotten(storage)


async def soon(event):
    async with asyncio.timeout(10):
        await event.wait()


class Gate:
    """Holds one worker back before its ``number``-th apply, until `open` is set."""

    def __init__(self, storage, monkeypatch, number):
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self._apply, self._number, self._calls = storage.apply, number, 0
        monkeypatch.setattr(storage, "apply", self._held)
        self._monkeypatch = monkeypatch

    async def _held(self, *writes):
        self._calls += 1
        if self._calls == self._number:
            self._monkeypatch.undo()
            self.reached.set()
            await self.open.wait()
        return await self._apply(*writes)


@pytest.mark.parametrize("number", range(2, APPLIES + 1))
async def test_a_new_start_survives_a_late_second_finishing_of_the_old_forgetting(
    storage, monkeypatch, number
):
    await live(storage)
    gate = Gate(storage, monkeypatch, number)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    await view(storage).forget_user()  # another worker finishes it meanwhile
    for session_id in (*SESSIONS, "new"):
        await view(storage, session_id).save({"role": "user", "content": "back"})
    learned = UserProfile(user_id="ada", traits={"name": "Ada again"})
    await storage.apply(Put(learned, ALWAYS))
    place = Partition("user", "ada")
    await storage.apply(Put(Item(partition=place, id="note", value=2), ALWAYS))
    gate.open.set()
    await late
    assert len(await view(storage).sessions()) == len(SESSIONS) + 1
    for session_id in (*SESSIONS, "new"):
        assert [each.text for each in await view(storage, session_id).messages()] == ["back"]
    assert (await view(storage).profile()).name == "Ada again"
    [note] = await storage.find("item")
    assert note.value == 2


@pytest.mark.parametrize("number", range(1, APPLIES + 1))
async def test_two_workers_forgetting_at_once_agree(storage, monkeypatch, number):
    await live(storage)
    gate = Gate(storage, monkeypatch, number)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    await view(storage).forget_user()
    gate.open.set()
    await late
    assert await is_forgotten(storage)


async def test_many_workers_forgetting_at_once_agree(storage):
    await live(storage)
    await asyncio.gather(*(view(storage).forget_user() for _ in range(8)))
    assert await is_forgotten(storage)


async def test_a_profile_learned_while_the_mark_is_written_is_forgotten_too(storage, monkeypatch):
    await live(storage)
    gate = Gate(storage, monkeypatch, 1)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    for name in ("default", "work"):
        learned = UserProfile(user_id="ada", name=name, traits={"name": "Ada"})
        await storage.apply(Put(learned, ALWAYS))
    gate.open.set()
    await late
    assert not any(each.traits for each in await storage.find("profile"))
    assert await view(storage).sessions() == []


@pytest.mark.parametrize("number", range(2, APPLIES))
async def test_a_session_whose_metadata_changes_meanwhile_is_forgotten_all_the_same(
    storage, monkeypatch, number
):
    await live(storage)
    gate = Gate(storage, monkeypatch, number)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    for session in await view(storage).sessions():
        await view(storage, session.session_id).set_metadata({"changed": True})
        await view(storage, session.session_id).save(HI)
    gate.open.set()
    await late
    assert await is_forgotten(storage)


async def test_a_session_begun_while_the_user_is_being_forgotten_is_a_new_start(
    storage, monkeypatch
):
    await live(storage)
    gate = Gate(storage, monkeypatch, 2)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    await view(storage, "new").save({"role": "user", "content": "back"})
    gate.open.set()
    await late
    assert [session.session_id for session in await view(storage).sessions()] == ["new"]
    assert [each.text for each in await view(storage, "new").messages()] == ["back"]


@pytest.mark.parametrize("method", ["now", "find", "apply"])
async def test_a_session_that_outlives_the_forgetting_is_newer_than_the_mark(
    storage, monkeypatch, method
):
    await live(storage)
    original = getattr(storage, method)

    async def interrupted(*args, **conditions):
        monkeypatch.undo()
        await view(storage, "new").save(HI)
        return await original(*args, **conditions)

    monkeypatch.setattr(storage, method, interrupted)
    await view(storage).forget_user()
    profile, _ = await storage.find("profile", user_id="ada")
    for session in await view(storage).sessions():
        assert session.session_id == "new"
        assert session.created_at >= profile.forgotten_at, "else its jobs would stand still"


async def test_a_late_first_forgetting_does_not_call_off_a_second_one(storage, monkeypatch):
    await live(storage)
    gate = Gate(storage, monkeypatch, APPLIES)
    late = asyncio.create_task(view(storage).forget_user())
    await soon(gate.reached)
    await view(storage, "new").save(HI)  # the user comes back, and is to be forgotten again
    with monkeypatch.context() as patch:
        crashing(storage, patch, 2, lost_answer=False)
        with pytest.raises(StorageUnavailableError):
            await view(storage).forget_user()
    gate.open.set()
    await late
    await Memory(storage).recover()
    assert await is_forgotten(storage)


async def test_recover_finishes_what_a_crash_interrupted_and_spares_the_new_start(
    storage, monkeypatch
):
    await live(storage)
    with monkeypatch.context() as patch:
        crashing(storage, patch, 3, lost_answer=False)
        with pytest.raises(StorageUnavailableError):
            await view(storage).forget_user()
    await view(storage, "new").save({"role": "user", "content": "back"})
    for found in (len(PROFILES), 0):
        assert await Memory(storage).recover() == found
        assert [session.session_id for session in await view(storage).sessions()] == ["new"]
        assert [each.text for each in await view(storage, "new").messages()] == ["back"]
        assert await view(storage).profile() is None
    assert await storage.find("item") == []


@pytest.mark.parametrize("name", ["default", "work"])
async def test_a_job_that_was_learning_does_not_bring_the_user_back(storage, name):
    asked, go = asyncio.Event(), asyncio.Event()

    async def model(messages, *, schema=None):
        asked.set()
        await go.wait()
        return '{"facts": ["likes tea"]}'

    agent = Memory(storage, "a1", "ada", user_analysis_memory=True, profile_name=name, model=model)
    await agent.save(HI)
    await soon(asked)
    await view(storage).forget_user()
    go.set()
    assert await agent.drain(5)
    assert await agent.profile() is None
    assert {str(each.traits) for each in await storage.find("profile")} == {"{}"}
    # A later turn is a new start.
    await agent.save(HI)
    assert await agent.drain(5)
    assert (await agent.profile()).facts == ["likes tea"]
    await agent.close()
