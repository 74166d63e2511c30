"""Jobs and what is gone when their answer comes: a session, or its user."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from memory_async import Delete, Key, Memory, Storage, UserProfile
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Script, header, says, stored_profile, until
from tests.llm import marks_answer

KEEP = {"full_session_memory": True, **JOBS}


async def no_traits(storage: Storage, user_id: str = "ada") -> bool:
    found = await storage.find("profile", user_id=user_id)
    return not any(each.traits for each in found if isinstance(each, UserProfile))


async def ended(memory: Memory[Any]) -> None:
    await until(lambda: memory.jobs.queued + memory.jobs.running == 0)
    assert memory.jobs.failed == 0


async def test_a_deleted_session_stays_deleted(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(**KEEP)
    script.hold()
    await memory.save(says("hello"))
    await script.wait_for_calls(2)
    assert await memory.delete_session()
    script.release()
    await ended(memory)
    assert await memory.session() is None
    assert await storage.find("session") == []
    assert memory.jobs.lag == 0


async def test_a_session_begun_anew_gets_no_old_summary(
    make: Make, script: Script, storage: Storage
) -> None:
    script.answer = marks_answer
    memory = make(**KEEP)
    script.hold()
    await memory.save(says("«old»"))
    await script.wait_for_calls(2)
    await memory.delete_session()
    await memory.save(says("«new»"))
    script.release()
    assert await memory.drain(10)
    assert memory.jobs.failed == 0
    assert await memory.summary() == "«new»"
    assert {job.through for job in (await header(storage)).jobs.values()} == {1}
    profile = await memory.profile()
    assert "«new»" in profile.facts


@pytest.mark.parametrize("known_before", [False, True])
async def test_a_user_forgotten_while_the_answer_is_held(
    make: Make, script: Script, storage: Storage, known_before: bool
) -> None:
    script.answer = marks_answer
    memory = make(**KEEP)
    if known_before:
        await memory.save(says("«before»"))
        assert await memory.drain(10)
    calls = len(script.calls)
    script.hold()
    await memory.save(says("«old»"))
    await script.wait_for_calls(calls + 2)
    await memory.forget_user()
    script.release()
    await ended(memory)
    assert await no_traits(storage)
    assert await storage.find("session") == []
    assert await memory.profile() is None


@pytest.mark.parametrize("session_id", ["s1", "s2"])
async def test_a_forgotten_user_who_comes_back_meanwhile(
    make: Make, script: Script, storage: Storage, session_id: str
) -> None:
    script.answer = marks_answer
    memory = make(**KEEP)
    script.hold()
    await memory.save(says("«old»"))
    await script.wait_for_calls(2)
    await memory.forget_user()
    again = memory.bind(session_id=session_id)
    await again.save(says("«new»"))
    script.release()
    assert await memory.drain(10)
    assert memory.jobs.failed == 0
    assert await again.summary() == "«new»"
    assert (await again.profile()).facts == ["«new»"]
    assert len(await storage.find("session")) == 1
    assert all("«old»" not in call.said for call in script.calls[2:])


async def test_what_is_asked_with_forgotten_traits_is_asked_again(
    make: Make, script: Script, storage: Storage
) -> None:
    """A new session begins between the mark and the answer, in a job that began before the mark."""
    script.answer = marks_answer
    memory = make(None, **KEEP)
    await memory.bind(session_id="s1").save(says("«old»"))
    assert await memory.drain(10)
    script.hold("analysis")
    calls = len(script.analyses)
    async with forgetting_stops_before_dropping(memory.bind(session_id="s1"), storage) as finish:
        back = memory.bind(session_id="s2")
        await back.save(says("«new»"))  # its traits are asked for after the mark
        await until(lambda: len(script.analyses) > calls)
        await finish()
    script.release()
    assert await memory.drain(10)
    assert (await back.profile()).facts == ["«new»"]


@asynccontextmanager
async def forgetting_stops_before_dropping(
    memory: Memory[Any], storage: Storage
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """``forget_user`` has marked the user, and waits; the function given lets it finish."""
    apply, here, go_on = storage.apply, asyncio.Event(), asyncio.Event()

    async def apply_slowly(*writes: Any) -> Any:
        if isinstance(writes[0], Delete) and not here.is_set():
            here.set()
            await go_on.wait()
        return await apply(*writes)

    storage.apply = apply_slowly  # type: ignore[method-assign]
    forgetting = asyncio.create_task(memory.forget_user())
    await asyncio.wait_for(here.wait(), 10)

    async def finish() -> None:
        go_on.set()
        await forgetting

    try:
        yield finish
    finally:
        storage.apply = apply  # type: ignore[method-assign]
        await finish()


@pytest.mark.parametrize("profile_name", ["default", "work"])
async def test_a_job_that_begins_while_its_user_is_being_forgotten(
    make: Make, script: Script, storage: Storage, profile_name: str
) -> None:
    """It meets the mark at once, also when another agent's Memory does the forgetting."""
    script.hold()
    memory = make(**KEEP, profile_name=profile_name)
    await memory.save(says("«old»"))
    await memory.close(timeout=0)
    script.release()
    script.answer = marks_answer
    later = make(**KEEP, profile_name=profile_name)
    async with forgetting_stops_before_dropping(make(**KEEP), storage):
        for job in ("summary", f"profile:{profile_name}"):
            await later.jobs.run(job, "s1")
        assert await no_traits(storage)
    assert await no_traits(storage)
    assert await storage.find("session") == []
    found = await storage.find("profile", tags=("forgetting",))
    assert found == []


async def test_a_session_begun_anew_while_the_old_one_is_being_forgotten(
    make: Make, script: Script, storage: Storage
) -> None:
    script.answer = marks_answer
    memory = make(None, **KEEP)
    for session_id in ("s1", "s2"):
        await memory.bind(session_id=session_id).save(says("«old»"))
    assert await memory.drain(10)
    view = memory.bind(session_id="s1")
    async with forgetting_stops_before_dropping(view, storage):
        await view.delete_session()
        await view.save(says("«new»"))
        assert await memory.drain(10)
        assert (await view.profile()).facts == ["«new»"]
    assert (await view.profile()).facts == ["«new»"]
    assert [session.session_id for session in await view.sessions()] == ["s1"]


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_user_forgotten_between_two_reads_of_a_job(
    make: Make,
    script: Script,
    storage: Storage,
    monkeypatch: pytest.MonkeyPatch,
    comes_back: bool,
) -> None:
    """The job has read session and turns; when it looks for the profile all that is gone."""
    script.answer = marks_answer
    memory = make(**KEEP)
    get, forgotten = storage.get, asyncio.Event()

    async def forget_first(key: Key) -> Any:
        if key.kind == "profile" and not forgotten.is_set():
            forgotten.set()
            await memory.forget_user()
            if comes_back:
                await memory.save(says("«new»"))
        return await get(key)

    monkeypatch.setattr(storage, "get", forget_first)
    await memory.save(says("«old»"))
    await ended(memory)
    assert forgotten.is_set()
    profile = await stored_profile(storage)
    assert profile is not None
    assert profile.traits == ({"facts": ["«new»"]} if comes_back else {})
    assert all("«old»" not in call.said for call in script.analyses)
