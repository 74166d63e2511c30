"""What another process left behind: killed, in a race, of another kind, or while forgetting."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_async import Memory, SqliteStorage, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Errors, Script, header, says, stored_profile, until
from tests.llm import ScriptedLLM, marks_answer

WORKER = Path(__file__).parent / "worker.py"


@contextmanager
def worker(path: Path, action: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(WORKER), f"sqlite:///{path}", action],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_what_a_killed_process_had_begun(tmp_path: Path, llm: ScriptedLLM) -> None:
    path = tmp_path / "chat.db"
    llm.answer = marks_answer
    llm.hold()
    with worker(path, "wait") as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "saved\n"
        await asyncio.to_thread(llm.wait_for_calls, 2)
        process.kill()
        assert await asyncio.to_thread(process.wait, 10) != 0
    llm.release()
    async with Memory(f"sqlite:///{path}", "s1", "ada", **JOBS, model="openai/scripted") as memory:
        assert len(await memory.turns()) == 3
        assert (await memory.load()).summary is None
        assert await memory.recover() == 2
        assert memory.jobs.lag == 0
        assert await memory.summary() == "«1» «2» «3»"
        profile = await memory.profile()
        assert profile is not None
        assert profile.facts == ["«1»", "«2»", "«3»"]
        assert await memory.recover() == 0


async def test_two_processes_recover_at_once(
    tmp_path: Path, llm: ScriptedLLM, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ask about the same sessions; of each answer one is stored, and nothing twice."""
    path = tmp_path / "chat.db"
    sessions, turns = 25, 3
    caplog.set_level(logging.CRITICAL)
    async with Memory(f"sqlite:///{path}", **JOBS, model="openai/scripted") as memory:
        llm.fail(400, times=10_000)
        for number in range(sessions):
            view = memory.bind(session_id=f"s{number}", user_id=f"u{number // 5}")
            for turn in range(turns):
                await view.save(says(f"«{number}x{turn}»"))
        await memory.jobs.drain()
    assert memory.jobs.failed >= 2 * sessions
    llm.failures.clear()
    llm.calls.clear()

    llm.answer = marks_answer
    llm.hold()
    with worker(path, "recover") as one, worker(path, "recover") as other:
        await asyncio.to_thread(llm.wait_for_calls, 8)  # four of each
        llm.release()
        for each in (one, other):
            out, err = await asyncio.to_thread(each.communicate, timeout=30)
            assert (each.returncode, err) == (0, "")
            assert 1 <= int(out) <= 2 * sessions
    assert len(llm.calls) > 2 * sessions  # they did race

    async with SqliteStorage(path) as storage:
        for number in range(sessions):
            found = await header(storage, f"s{number}")
            assert {state.through for state in found.jobs.values()} == {turns}
            chain = " ".join(f"«{number}x{turn}»" for turn in range(turns))
            assert found.jobs["summary"].value == chain
        for number in range(5):
            profile = await stored_profile(storage, f"u{number}")
            assert profile is not None
            assert sorted(profile.traits["facts"]) == sorted(
                f"«{session}x{turn}»"
                for session in range(5 * number, 5 * number + 5)
                for turn in range(turns)
            )


async def lag_behind(make: Make, script: Script, *session_ids: str, **jobs: bool) -> None:
    """Sessions whose process was stopped before the model answered."""
    script.hold()
    memory = make(None, **jobs)
    for session_id in session_ids:
        await memory.bind(session_id=session_id).save(says(f"«{session_id}»"))
    await memory.close(timeout=0)
    script.release()
    script.calls.clear()


async def test_only_the_jobs_this_memory_has(make: Make, script: Script, storage: Storage) -> None:
    await lag_behind(make, script, "s1", **JOBS)
    assert await make(None, full_session_memory=True).recover() == 0
    assert await make(None, user_analysis_memory=True, profile_name="other").recover() == 0
    assert script.calls == []

    assert await make(None, summary_memory=True).recover() == 1
    jobs = (await header(storage)).jobs
    assert (jobs["summary"].through, jobs["profile:default"].through) == (1, 0)
    assert [turn.seq for turn in await storage.history("s1")] == [1]

    assert await make(None, user_analysis_memory=True).recover() == 1
    assert (await header(storage)).jobs["profile:default"].through == 1
    assert await storage.history("s1") == []


async def test_sessions_of_everybody_and_many_of_them(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(None, None, summary_memory=True)
    script.hold()
    for number in range(230):  # more than a page, and than are started at once
        user = None if number % 3 else f"u{number}"
        await memory.bind(session_id=f"s{number}", user_id=user).save(says("hello"))
    await memory.close(timeout=0)
    script.release()
    script.calls.clear()

    later = make("other", summary_memory=True)
    waiting: list[int] = []

    def answer(call: object) -> str:
        waiting.append(later.jobs.queued + later.jobs.running)
        return "A summary."

    script.answer = answer
    assert await later.recover() == later.jobs.done == 230
    assert len(script.calls) == 230
    assert script.most_at_once == 4
    assert max(waiting) <= 100
    assert await storage.find("session", lagging="summary") == []


async def test_recover_leaves_what_fails_for_the_next(
    make: Make, script: Script, storage: Storage, errors: Errors
) -> None:
    await lag_behind(make, script, "good", "bad", summary_memory=True)

    def answer(call: object) -> str:
        if "«bad»" in str(call):
            raise RuntimeError("no")
        return "The summary."

    script.answer = answer
    assert await make(None, summary_memory=True, on_job_error=errors).recover() == 2
    assert [(job, session) for job, session, _ in errors] == [("summary", "bad")]
    assert (await header(storage, "good")).jobs["summary"].through == 1
    assert (await header(storage, "bad")).jobs["summary"].through == 0
    script.answer = marks_answer
    assert await make(None, summary_memory=True).recover() == 1
    assert (await header(storage, "bad")).jobs["summary"].value == "«bad»"


async def test_recover_beside_jobs_that_run(make: Make, script: Script) -> None:
    script.answer = marks_answer
    await lag_behind(make, script, "s1", "s2", summary_memory=True)
    script.hold()
    memory = make("s1", summary_memory=True)
    await memory.save(says("«more»"))
    await script.wait_for_calls(1)
    recovering = asyncio.create_task(memory.recover())
    await script.wait_for_calls(2)
    script.release()
    assert await recovering == 2
    assert len(script.calls) == 2
    assert await memory.summary() == "«s1» «more»"


async def test_an_interrupted_forgetting_is_finished(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(None, summary_memory=True, user_analysis_memory=True, full_session_memory=True)
    for number in range(3):
        await memory.bind(session_id=f"s{number}").save(says(f"I am Ada, {number}"))
    await memory.bind(session_id="other", user_id="bob").save(says("I am Bob"))
    assert await memory.drain(10)

    apply, applied = storage.apply, []

    async def apply_two(*writes: object) -> object:
        applied.append(writes)
        if len(applied) > 2:
            raise ConnectionError("the process died here")
        return await apply(*writes)  # type: ignore[arg-type]

    storage.apply = apply_two  # type: ignore[method-assign,assignment]
    with pytest.raises(ConnectionError):
        await memory.bind(session_id="s0").forget_user()
    storage.apply = apply  # type: ignore[method-assign]
    assert len(await storage.find("session", user_id="ada")) == 2

    assert await make("later", "bob", full_session_memory=True).recover() == 1
    assert await storage.find("session", user_id="ada") == []
    mark = await stored_profile(storage)
    assert mark is not None
    assert (mark.traits, mark.applied, mark.forgetting) == ({}, {}, {})
    assert await memory.bind(session_id="other", user_id="bob").summary() is not None
    assert await make("later", "bob", full_session_memory=True).recover() == 0


async def test_the_loop_ends_while_a_job_waits(tmp_path: Path, llm: ScriptedLLM) -> None:
    """Without close: no hang, nothing said, nothing lost."""
    llm.hold()
    path = tmp_path / "chat.db"
    with worker(path, "leave") as process:
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
        assert (process.returncode, out, err) == (0, "saved\n", "")
    llm.release()
    llm.wait_until_left()
    async with Memory(f"sqlite:///{path}", "s1", "ada", **JOBS, model="openai/scripted") as memory:
        assert await memory.recover() == 2
        assert await memory.summary() is not None


@pytest.mark.parametrize("bound", [False, True])
async def test_a_server_recovers_without_a_session_or_user(
    storage: Storage, make: Make, script: Script, bound: bool
) -> None:
    await lag_behind(make, script, "s1", **JOBS)
    memory = make(None, None, **JOBS)
    if bound:
        await memory.bind(session_id="s2", user_id="ada").save(says("hello"))
        assert await memory.drain(10)
    assert await memory.recover() == 2


async def test_drain_takes_no_session_of_others(make: Make, script: Script) -> None:
    await lag_behind(make, script, "s1", summary_memory=True)
    memory = make("s2", summary_memory=True)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    await until(lambda: memory.jobs.lag == 0)
    assert len(script.calls) == 1
    assert "«s1»" not in script.calls[0].said
