"""Save flags say what is stored, load flags what is injected; a load flag of None mirrors."""

from itertools import product
from typing import Any

import pytest

from memory_async import ALWAYS, Advance, Append, JobState, Memory, Put, Session, Turn, UserProfile
from memory_async.message import Message

SAVE = ("full_session_memory", "summary_memory", "user_analysis_memory")
LOAD = tuple(f"load_{name}" for name in SAVE)
SAVES = list(product([False, True], repeat=3))
LOADS = list(product([None, False, True], repeat=3))
HI = {"role": "user", "content": "Hi"}


def saving(storage, model, flags, **more: Any) -> Memory:
    named = dict(zip(SAVE, flags, strict=True))
    return Memory(storage, "s1", "ada", model=model, summary_every=1000, **named, **more)


def jobs_of(flags) -> set[str]:
    _, summary, analysis = flags
    return ({"summary"} if summary else set()) | ({"profile:default"} if analysis else set())


async def seed(storage, *, turns=4, through=2):
    """A session of four turns, two of them in its summary, of a user who is known."""
    session = Session(session_id="s1", user_id="ada", keep_turns=True)
    for seq in range(1, turns + 1):
        said = [Message(role="user", content=str(seq))]
        turn = Turn(session_id="s1", user_id="ada", messages=said)
        await storage.apply(Append(turn, session, ("summary",)))
    await storage.apply(Advance("s1", "summary", 0, through, "Ada counts."))
    await storage.apply(Put(UserProfile(user_id="ada", traits={"name": "Ada"}), ALWAYS))


@pytest.mark.parametrize("flags", SAVES)
async def test_save_stores_the_turn_when_some_flag_persists_it_and_else_nothing(
    storage, model, contents, flags
):
    memory = saving(storage, model, flags)
    turn = await memory.save(HI, usage={"input_tokens": 3})
    if not any(flags):
        assert turn is None
        assert await contents() == {}
        return
    assert turn is not None
    assert turn.seq == 1
    assert turn.user_id == "ada"
    assert await storage.history("s1") == [turn]
    session = await memory.session()
    assert session is not None
    assert session.keep_turns is flags[0]
    assert session.jobs.keys() == jobs_of(flags)
    assert (await contents()).keys() == {"session", "turn"}


@pytest.mark.parametrize("flags", [flags for flags in SAVES if any(flags)])
async def test_turns_all_jobs_have_taken_stay_only_with_full_session_memory(storage, model, flags):
    memory = saving(storage, model, flags)
    for _ in range(3):
        await memory.save(HI)
    for job in jobs_of(flags):
        await storage.apply(Advance("s1", job, 0, 2, None))
    kept = [turn.seq for turn in await memory.turns()]
    assert kept == ([1, 2, 3] if flags[0] else [3])
    assert len(await memory.messages()) == len(kept)


async def test_a_turn_stays_until_the_slowest_job_has_taken_it(storage, model):
    memory = saving(storage, model, (False, True, True))
    for _ in range(3):
        await memory.save(HI)
    await storage.apply(Advance("s1", "summary", 0, 3, "Greetings."))
    assert [turn.seq for turn in await memory.turns()] == [1, 2, 3]
    await storage.apply(Advance("s1", "profile:default", 0, 2))
    assert [turn.seq for turn in await memory.turns()] == [3]


async def test_the_header_decides_trimming_not_the_flags_of_one_process(storage, model):
    await saving(storage, model, (True, True, False)).save(HI)
    await saving(storage, model, (False, True, False)).save(HI)
    await storage.apply(Advance("s1", "summary", 0, 2, "Greetings."))
    kept = await saving(storage, model, (False, True, False)).turns()
    assert [turn.seq for turn in kept] == [1, 2]


@pytest.mark.parametrize("flags", SAVES)
async def test_load_injects_what_the_load_flags_say_and_they_mirror_the_save_flags(
    storage, model, contents, flags
):
    await seed(storage)
    before = await contents()
    for given in LOADS:
        memory = saving(storage, model, flags, **dict(zip(LOAD, given, strict=True)))
        full, summary, profile = (
            save if load is None else load for save, load in zip(flags, given, strict=True)
        )
        context = await memory.load()
        said = [message.content for message in context.messages]
        assert said == (["1", "2", "3", "4"] if full else ["3", "4"] if summary else []), given
        assert context.summary == ("Ada counts." if summary else None), given
        assert (context.profile and context.profile.name) == ("Ada" if profile else None), given
        blocks = ["<SessionSummary>\nAda counts.\n</SessionSummary>"] if summary else []
        blocks += ["<UserProfile>\nname: Ada\n</UserProfile>"] if profile else []
        assert context.instructions == "\n\n".join(blocks), given
        assert context.dropped == ()
    assert await contents() == before, "loading writes nothing"


async def test_load_flags_alone_need_neither_a_model_nor_save_flags_nor_a_user(storage):
    loads: Any = dict.fromkeys(LOAD, True)
    nobody = await Memory(storage, "empty", **loads).load()
    assert (nobody.messages, nobody.summary, nobody.profile) == ([], None, None)
    await seed(storage)
    context = await Memory(storage, "s1", "ada", **loads).load()
    assert context.summary == "Ada counts."


async def test_metadata_is_injected_whatever_the_flags_say(storage):
    memory = Memory(storage, "s1")
    await memory.set_metadata({"ticket": 7})
    context = await memory.load(agent_metadata={"agent": "helper"})
    assert context.metadata == {"ticket": 7}
    assert context.instructions == (
        "<SessionMetadata>\nticket: 7\n</SessionMetadata>\n\n"
        "<AgentMetadata>\nagent: helper\n</AgentMetadata>"
    )


async def test_loading_a_session_that_does_not_exist_gives_an_empty_context(storage, contents):
    context = await Memory(storage, "s1", "ada", full_session_memory=True).load()
    assert context.messages == []
    assert context.summary is None
    assert context.profile is None
    assert context.metadata == {}
    assert context.instructions == ""
    assert context.to_openai() == []
    assert await contents() == {}


async def test_a_new_session_of_a_known_user_starts_with_the_profile(storage):
    await seed(storage)
    memory = Memory(storage, "another", "ada", load_user_analysis_memory=True)
    context = await memory.load()
    assert context.profile is not None
    assert context.profile.name == "Ada"
    assert context.messages == []


async def test_a_registered_summary_job_without_a_value_gives_all_turns_and_no_summary(
    storage, model
):
    memory = saving(storage, model, (False, True, False))
    await memory.save(HI)
    await memory.save(HI)
    context = await memory.load()
    assert len(context.messages) == 2
    assert context.summary is None
    assert context.instructions == ""


async def test_save_registers_a_job_of_its_own_for_each_profile_name(storage, model):
    for name in ("default", "work"):
        await saving(storage, model, (False, False, True), profile_name=name).save(HI)
    session = await Memory(storage, "s1", "ada").session()
    assert session is not None
    assert session.jobs.keys() == {"profile:default", "profile:work"}
    assert all(isinstance(job, JobState) for job in session.jobs.values())
