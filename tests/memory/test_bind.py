"""`bind`: a cheap view of another session or user, which shares everything and owns nothing."""

import asyncio
import uuid

import pytest

from memory_async import (
    ALWAYS,
    ConfigurationError,
    InMemoryStorage,
    Memory,
    Put,
    StorageUnavailableError,
    UserProfile,
)

HI = {"role": "user", "content": "Hi"}
CALLS = {
    "load": lambda memory: memory.load(),
    "save": lambda memory: memory.save(HI),
    "messages": lambda memory: memory.messages(),
    "turns": lambda memory: memory.turns(),
    "session": lambda memory: memory.session(),
    "sessions": lambda memory: memory.sessions(),
    "summary": lambda memory: memory.summary(),
    "profile": lambda memory: memory.profile(),
    "usage": lambda memory: memory.usage(),
    "set_metadata": lambda memory: memory.set_metadata({}),
    "delete_session": lambda memory: memory.delete_session(),
    "forget_user": lambda memory: memory.forget_user(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


async def test_views_share_the_storage_and_keep_their_sessions_apart(storage):
    root = Memory(storage, full_session_memory=True)
    ada, bob = root.bind(session_id="a", user_id="ada"), root.bind(session_id="b", user_id="bob")
    await asyncio.gather(*(view.save(HI) for view in (ada, bob, ada, bob, ada)))
    assert len(await ada.messages()) == 3
    assert len(await bob.messages()) == 2
    assert len(await Memory(storage, "a", "ada").messages()) == 3


async def test_what_is_left_out_is_inherited(storage):
    root = Memory(storage, "s", "ada")
    assert (root.bind().session_id, root.bind().user_id) == ("s", "ada")
    assert root.bind(session_id="t").user_id == "ada"
    assert root.bind(user_id="bob").session_id == "s"
    view = root.bind(session_id="t", user_id="bob")
    assert (view.bind().session_id, view.bind().user_id) == ("t", "bob")
    assert (root.session_id, root.user_id) == ("s", "ada"), "the root stays as it was"


async def test_options_are_inherited(storage):
    root = Memory(
        storage, full_session_memory=True, num_last_messages=1, count_tokens=lambda messages: 7
    )
    view = root.bind(session_id="s")
    await view.save(HI)
    await view.save({"role": "user", "content": "Bye"})
    assert [message.text for message in (await view.load()).messages] == ["Bye"]
    assert (await view.load(max_tokens=6)).messages == []


async def test_session_id_none_is_a_new_session_each_time(storage):
    root = Memory(storage, "s", "ada")
    views = [root.bind(session_id=None) for _ in range(3)]
    ids = {view.session_id for view in views}
    assert len(ids) == 3
    assert {str(uuid.UUID(id)) for id in ids} == ids


async def test_a_memory_without_a_session_id_gets_a_uuid_of_its_own(storage):
    first, second = Memory(storage), Memory(storage)
    assert str(uuid.UUID(first.session_id)) == first.session_id
    assert first.session_id != second.session_id


@pytest.mark.parametrize(
    "given", [{"session_id": ""}, {"user_id": ""}, {"session_id": "x" * 513}, {"user_id": "a\0"}]
)
async def test_ids_are_checked_when_binding(storage, given):
    [name] = given
    with pytest.raises(ValueError, match=name):
        Memory(storage).bind(**given)


async def test_user_id_none_is_anonymous_and_learns_nothing(storage, model):
    root = Memory(
        storage, user_id="ada", full_session_memory=True, user_analysis_memory=True, model=model
    )
    await storage.apply(Put(UserProfile(user_id="ada", traits={"name": "Ada"}), ALWAYS))
    nobody = root.bind(session_id="s", user_id=None)
    turn = await nobody.save(HI)
    assert turn.user_id is None
    session = await nobody.session()
    assert (session.user_id, session.jobs) == (None, {})
    context = await nobody.load()
    assert (context.profile, context.instructions) == (None, "")
    assert len(context.messages) == 1
    assert await nobody.profile() is None


async def test_a_view_of_nobody_stays_anonymous_until_a_user_is_bound(storage, model):
    root = Memory(storage, user_id="ada", user_analysis_memory=True, model=model)
    nobody = root.bind(session_id="s", user_id=None).bind(session_id="t")
    assert await nobody.save(HI) is None, "nothing to persist, and no error for want of a user"
    known = nobody.bind(session_id="u", user_id="bob")
    assert await known.save(HI) is not None
    assert (await known.session()).jobs.keys() == {"profile:default"}


@every_call
async def test_a_memory_without_a_session_refuses_once_it_is_bound_per_request(
    storage, contents, call
):
    root = Memory(storage, user_id="ada", full_session_memory=True)
    await root.save(HI)
    view = root.bind(session_id="s")
    before = await contents()
    with pytest.raises(ConfigurationError, match=r"use the view that bind\(session_id"):
        await call(root)
    assert await contents() == before
    await call(view)
    await call(root.bind(session_id="t"))


@every_call
async def test_a_memory_with_a_session_goes_on_after_binding(storage, call):
    root = Memory(storage, "s", "ada", full_session_memory=True)
    root.bind(session_id="t")
    await call(root)


async def test_a_view_can_be_bound_further_and_used_itself(storage):
    view = Memory(storage, full_session_memory=True).bind(session_id="s")
    view.bind(session_id="t")
    assert await view.save(HI) is not None


async def test_closing_a_view_closes_nothing():
    root = Memory("memory://", full_session_memory=True)
    view, other = root.bind(session_id="s"), root.bind(session_id="t")
    await view.close()
    async with view:
        await view.save(HI)
    assert len(await view.messages()) == 1
    assert await other.save(HI) is not None
    await root.close()


@every_call
async def test_views_fail_clearly_once_the_root_is_closed(call):
    root = Memory("memory://", user_id="ada")
    view = root.bind(session_id="s")
    await view.save(HI)
    await root.close()
    with pytest.raises(StorageUnavailableError, match="make a new one"):
        await call(view)


async def test_views_of_a_closed_root_fail_even_on_a_storage_that_goes_on():
    async with InMemoryStorage() as storage:
        root = Memory(storage, full_session_memory=True)
        view = root.bind(session_id="s")
        await root.close()
        with pytest.raises(StorageUnavailableError):
            await view.save(HI)
        assert await storage.find("session") == []


async def test_a_view_is_of_the_class_it_was_bound_from(storage):
    class Ours(Memory):
        pass

    assert type(Ours(storage).bind(session_id="s")) is Ours


async def test_the_repr_names_session_and_user(storage):
    assert repr(Memory(storage, "s", "ada")) == "Memory(session_id='s', user_id='ada')"
