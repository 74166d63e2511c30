"""A session is its owner's: nobody else reads it, writes it or deletes it."""

import asyncio

import pytest

from memory_async import (
    ALWAYS,
    Memory,
    Put,
    SessionOwnershipError,
    UserProfile,
)

HI = {"role": "user", "content": "Hi"}

READERS = {
    "load": lambda memory: memory.load(),
    "load_nothing": lambda memory: memory.load(last=0),
    "messages": lambda memory: memory.messages(),
    "turns": lambda memory: memory.turns(),
    "no_turns": lambda memory: memory.turns(last=0),
    "turns_beyond": lambda memory: memory.turns(after=99),
    "session": lambda memory: memory.session(),
    "summary": lambda memory: memory.summary(),
    "usage": lambda memory: memory.usage(),
}
WRITERS = {
    "save": lambda memory: memory.save(HI),
    "save_known_run": lambda memory: memory.save(HI, run_id="r1"),
    "set_metadata": lambda memory: memory.set_metadata({"hijacked": True}),
    "delete_session": lambda memory: memory.delete_session(),
}
ALL = READERS | WRITERS


def memory_of(storage, session_id, user_id, **flags) -> Memory:
    return Memory(storage, session_id, user_id, full_session_memory=True, **flags)


@pytest.fixture(autouse=True)
async def sessions(storage) -> None:
    """One session of ada's, one of nobody's."""
    for session_id, user_id in (("owned", "ada"), ("anonymous", None)):
        memory = memory_of(storage, session_id, user_id)
        await memory.save({"role": "user", "content": session_id}, run_id="r1", usage={"n": 1})
        await memory.set_metadata({"of": session_id})


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    ("session_id", "visitor"),
    [("owned", "bob"), ("owned", None), ("anonymous", "bob"), ("anonymous", "ada")],
)
async def test_nobody_but_the_owner_gets_in(storage, contents, session_id, visitor, call):
    before = await contents()
    with pytest.raises(SessionOwnershipError) as caught:
        await call(memory_of(storage, session_id, visitor))
    message = str(caught.value)
    assert repr(session_id) in message
    assert "use another session_id" in message
    assert visitor == "ada" or "ada" not in message, "the owner's id is not the caller's to know"
    assert await contents() == before


@pytest.mark.parametrize("call", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("session_id", "owner"), [("owned", "ada"), ("anonymous", None)])
async def test_the_owner_reads_their_own(storage, session_id, owner, call):
    await call(memory_of(storage, session_id, owner))


@pytest.mark.parametrize(("session_id", "owner"), [("owned", "ada"), ("anonymous", None)])
async def test_the_owner_finds_what_they_wrote(storage, session_id, owner):
    memory = memory_of(storage, session_id, owner)
    assert [message.text for message in await memory.messages()] == [session_id]
    assert (await memory.load()).metadata == {"of": session_id}
    assert await memory.usage() == {"n": 1}
    assert (await memory.session()).user_id == owner
    assert (await memory.save(HI)).seq == 2
    assert await memory.delete_session() is True
    assert await memory.session() is None


async def test_without_any_load_flag_a_foreign_session_is_still_refused(storage):
    with pytest.raises(SessionOwnershipError):
        await Memory(storage, "owned", "bob", load_full_session_memory=False).load()


async def test_a_user_reads_only_their_own_profile(storage):
    await storage.apply(Put(UserProfile(user_id="ada", traits={"name": "Ada"}), ALWAYS))
    # The session is not theirs; the profile is: each gets their own, or none.
    assert (await memory_of(storage, "anonymous", "ada").profile()).name == "Ada"
    assert await memory_of(storage, "owned", "bob").profile() is None
    assert await memory_of(storage, "owned", None).profile() is None


async def test_a_foreign_session_does_not_give_away_its_owners_profile(storage):
    await storage.apply(Put(UserProfile(user_id="ada", traits={"name": "Ada"}), ALWAYS))
    memory = Memory(storage, "owned", "bob", load_user_analysis_memory=True)
    with pytest.raises(SessionOwnershipError):
        await memory.load()


async def test_sessions_lists_the_users_own_newest_first(storage):
    for n in range(3):
        await memory_of(storage, f"a{n}", "ada").save(HI)
        await memory_of(storage, f"b{n}", "bob").save(HI)
    listed = await memory_of(storage, "anything", "ada").sessions()
    assert [session.session_id for session in listed] == ["a2", "a1", "a0", "owned"]
    assert {session.user_id for session in listed} == {"ada"}
    assert await memory_of(storage, "anything", "carol").sessions() == []


@pytest.mark.parametrize("as_cursor", [False, True], ids=["session", "cursor"])
async def test_sessions_are_paged_without_missing_or_repeating_one(storage, as_cursor):
    memory = memory_of(storage, "owned", "ada")
    for n in range(6):
        await memory.bind(session_id=f"a{n}").save(HI)
    everything = await memory.sessions()
    pages, before = [], None
    while page := await memory.sessions(limit=3, before=before):
        pages.append(len(page))
        assert page == everything[: len(page)]
        everything = everything[len(page) :]
        before = page[-1].cursor if as_cursor else page[-1]
        await memory.bind(session_id=f"late {len(pages)}").save(HI)
        await memory.bind(session_id="a0").save(HI)
        views = [memory.bind(session_id=each.session_id) for each in everything]
        everything = [each for view in views if (each := await view.session())]
    assert pages == [3, 3, 1]
    assert everything == []


async def test_nobody_lists_only_their_own_session(storage):
    await memory_of(storage, "another", None).save(HI)
    memory = memory_of(storage, "anonymous", None)
    [own] = await memory.sessions()
    assert own.session_id == "anonymous"
    assert await memory.sessions(before=own) == []
    assert await memory.sessions(limit=0) == []
    assert await memory_of(storage, "missing", None).sessions() == []


async def test_nobody_cannot_list_a_session_that_is_owned(storage):
    with pytest.raises(SessionOwnershipError):
        await memory_of(storage, "owned", None).sessions()


async def test_forgetting_a_user_asks_for_a_user_not_for_the_session(storage, contents):
    # bob, whose view names ada's session, forgets bob: ada's things stay.
    before = await contents()
    await memory_of(storage, "owned", "bob").forget_user()
    after = await contents()
    assert [profile.user_id for profile in after.pop("profile")] == ["bob"]
    assert after == before


async def test_of_two_users_opening_a_new_session_at_once_one_gets_it(storage):
    users = ["ada", "bob", None, "carol"]
    results = await asyncio.gather(
        *(memory_of(storage, "new", user).save(HI) for user in users), return_exceptions=True
    )
    lost = [result for result in results if isinstance(result, SessionOwnershipError)]
    assert len(lost) == 3
    [turn] = [result for result in results if not isinstance(result, BaseException)]
    assert await memory_of(storage, "new", turn.user_id).turns() == [turn]


async def test_of_two_users_setting_metadata_of_a_new_session_at_once_one_gets_it(storage):
    results = await asyncio.gather(
        *(memory_of(storage, "new", user).set_metadata({"of": user}) for user in ("ada", "bob")),
        return_exceptions=True,
    )
    assert sum(isinstance(result, SessionOwnershipError) for result in results) == 1
    [session] = [result for result in results if not isinstance(result, BaseException)]
    assert session.metadata == {"of": session.user_id}


async def test_a_deleted_session_id_can_be_taken_by_somebody_else(storage):
    await memory_of(storage, "owned", "ada").delete_session()
    turn = await memory_of(storage, "owned", "bob").save(HI)
    assert (turn.seq, turn.user_id) == (1, "bob")


async def test_ids_that_differ_in_case_or_spelling_are_different_users(storage):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    await memory_of(storage, "s", composed).save(HI)
    for other in (decomposed, composed.upper(), f" {composed}"):
        with pytest.raises(SessionOwnershipError):
            await memory_of(storage, "s", other).load()
        assert await memory_of(storage, "t", other).sessions() == []
