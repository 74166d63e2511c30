"""Models and storages that fail: the turn is safe, the cursor stays, the next turn catches up."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stamina
import stamina.instrumentation

from memory_async import (
    Advance,
    ConflictError,
    MemoryAsyncError,
    ModelError,
    Storage,
    StorageUnavailableError,
)
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Errors, Script, header, says, until
from tests.llm import ScriptedLLM

NO_CHAT = '{"choices": []}'
NO_TEXT = '{"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}'
EMPTY = '{"choices": [{"message": {"content": " \\n"}}]}'


@pytest.mark.parametrize(
    ("status", "body", "headers", "attempts"),
    [
        (503, "{}", {}, 3),
        (500, "oops", {}, 3),
        (529, "{}", {}, 3),
        (408, "{}", {}, 3),
        (429, "{}", {}, 3),
        (429, "{}", {"Retry_After": "1"}, 3),
        (429, "{}", {"Retry_After": "0"}, 3),
        (429, "{}", {"Retry_After": "3600"}, 1),  # longer than anybody waits here
        (503, "{}", {"Retry_After": "61"}, 1),
        (200, "not JSON", {}, 3),
        (200, NO_CHAT, {}, 3),
        (200, NO_TEXT, {}, 3),
        (200, EMPTY, {}, 3),
        (0, "", {}, 3),
        (400, '{"error": "too long"}', {}, 1),
        (401, "{}", {}, 1),
        (404, "{}", {}, 1),
        (307, "", {"Location": "https://example.org"}, 1),
    ],
)
async def test_a_server_that_fails(
    make: Make,
    llm: ScriptedLLM,
    storage: Storage,
    errors: Errors,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: str,
    headers: dict[str, str],
    attempts: int,
) -> None:
    memory = make(
        full_session_memory=True, summary_memory=True, model="openai/scripted", on_job_error=errors
    )
    llm.fail(status, times=attempts, body=body, **headers)
    await memory.save(says("first"))
    await until(lambda: memory.jobs.failed == 1)
    assert len(await memory.turns()) == 1
    assert (await header(storage)).jobs["summary"].through == 0
    assert await memory.summary() is None
    assert len(llm.calls) == attempts
    [(job, session_id, error)] = errors
    assert (job, session_id, type(error)) == ("summary", "s1", ModelError)
    logged = [each for each in caplog.records if each.name == "memory_async.jobs"]
    assert [each.levelno for each in logged] == [logging.ERROR]
    assert "job 'summary' of session 's1' failed" in logged[0].message
    assert memory.jobs.lag == 1

    await memory.save(says("second"))
    assert await memory.drain(10)
    assert len(llm.calls) == attempts + 1
    assert "first" in llm.calls[-1].said
    assert "second" in llm.calls[-1].said
    assert (await header(storage)).jobs["summary"].through == 2
    assert (memory.jobs.done, memory.jobs.failed, memory.jobs.lag) == (1, 1, 0)


async def test_a_wrong_key_fails_both_jobs_once(
    make: Make, llm: ScriptedLLM, errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    memory = make(**JOBS, model="openai/scripted", on_job_error=errors)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 2)
    assert len(llm.calls) == 2
    assert sorted(job for job, *_ in errors) == ["profile:default", "summary"]
    assert all("check OPENAI_API_KEY" in str(error) for *_, error in errors)


async def test_a_server_that_is_late(make: Make, llm: ScriptedLLM, errors: Errors) -> None:
    from memory_async import OpenAIModel

    model = OpenAIModel("scripted", timeout=0.5)
    memory = make(summary_memory=True, model=model, on_job_error=errors)
    llm.delay = 1.5
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert "did not answer in time" in str(errors[0][2])
    assert len(llm.calls) == 3
    llm.delay = 0
    assert await memory.drain(10)
    assert memory.jobs.done == 1
    await model.aclose()


async def test_a_model_that_is_late(
    make: Make, script: Script, errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.model.CALL_TIMEOUT", 0.02)
    memory = make(**JOBS, on_job_error=errors)
    script.hold("summary")
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert [(job, str(error)) for job, _, error in errors] == [
        ("summary", "the model did not answer in time")
    ]
    assert len(script.summaries) == 3
    script.release()
    assert await memory.drain(10)
    assert memory.jobs.done == 2


async def test_no_server(make: Make, errors: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        memory = make(summary_memory=True, model="openai/scripted", on_job_error=errors)
        await memory.save(says("hello"))
        await until(lambda: memory.jobs.failed == 1)
    assert isinstance(errors[0][2], ModelError)
    assert "cannot reach" in str(errors[0][2])


@pytest.fixture
def pauses() -> Iterator[list[float]]:
    """What stamina was about to wait, each time; it does wait."""
    found: list[float] = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: found.append(details.wait_for)])
    with stamina.set_testing(False):
        yield found
    stamina.instrumentation.set_on_retry_hooks(before)


async def test_retry_after_is_what_is_waited(
    make: Make, llm: ScriptedLLM, pauses: list[float]
) -> None:
    memory = make(summary_memory=True, model="openai/scripted")
    llm.fail(429, Retry_After="0.0625")
    llm.fail(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    await memory.save(says("hello"))
    assert await memory.drain(10)
    assert pauses == [0.0625, 0]
    assert (memory.jobs.done, memory.jobs.failed) == (1, 0)


async def test_without_it_the_pause_is_ours(
    make: Make, script: Script, pauses: list[float]
) -> None:
    memory = make(summary_memory=True)
    script.failures.append(RuntimeError("once"))
    await memory.save(says("hello"))
    await until(lambda: len(pauses) == 1)
    assert 0.5 <= pauses[0] <= 1.5
    assert memory.jobs.running == 1  # it waits
    await memory.close(timeout=0)
    assert len(script.calls) == 1


def not_text() -> Any:
    return 42


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RuntimeError("I have a headache"), "I have a headache"),
        (TimeoutError(), "in time"),
        (KeyError("choices"), "choices"),
        (asyncio.CancelledError(), "cancelled"),
        (ModelError("as it says"), "as it says"),
    ],
)
async def test_a_callable_that_raises(
    make: Make, script: Script, errors: Errors, failure: BaseException, said: str
) -> None:
    memory = make(summary_memory=True, on_job_error=errors)
    script.failures += [failure] * 3
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert len(script.calls) == 3
    assert isinstance(errors[0][2], ModelError)
    assert said in str(errors[0][2])
    assert await memory.drain(10)
    assert memory.jobs.done == 1


async def test_an_error_that_cannot_pass_is_not_tried_again(
    make: Make, script: Script, errors: Errors
) -> None:
    memory = make(summary_memory=True, on_job_error=errors)
    script.failures.append(ModelError("no credit left", permanent=True))
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert len(script.calls) == 1


async def test_a_failure_that_passes_is_not_reported(
    make: Make, script: Script, errors: Errors
) -> None:
    memory = make(summary_memory=True, on_job_error=errors)
    script.failures += [RuntimeError("once"), RuntimeError("twice")]
    await memory.save(says("hello"))
    assert await memory.drain(10)
    assert (len(script.calls), errors, memory.jobs.failed) == (3, [], 0)
    assert await memory.summary() is not None


@pytest.mark.parametrize("answer", [not_text, lambda: None, lambda: b"bytes"])
async def test_a_callable_that_answers_no_text(
    make: Make, script: Script, errors: Errors, answer: Callable[[], Any]
) -> None:
    script.answer = lambda call: answer()
    memory = make(summary_memory=True, on_job_error=errors)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert "not a str" in str(errors[0][2])


@pytest.mark.parametrize("kind", ["summary", "analysis"])
async def test_half_a_character(make: Make, script: Script, errors: Errors, kind: str) -> None:
    """As a server gives it that cuts its answer in the middle of an emoji."""
    answers = {"summary": "So far \ud83d", "analysis": r'{"name": "\ud83d"}'}
    script.answer = lambda call: answers[call.kind]
    memory = make(
        summary_memory=kind == "summary",
        user_analysis_memory=kind == "analysis",
        on_job_error=errors,
    )
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert [type(error) for *_, error in errors] == [ModelError]
    assert len(script.calls) == 3


async def test_somebody_else_is_always_first(
    make: Make, storage: Storage, errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make(full_session_memory=True, summary_memory=True, on_job_error=errors)
    apply = storage.apply

    async def conflict(*writes: Any) -> Any:
        if isinstance(writes[0], Advance):
            raise ConflictError("moved")
        return await apply(*writes)

    monkeypatch.setattr(storage, "apply", conflict)
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert [type(error) for *_, error in errors] == [ConflictError]


@pytest.mark.parametrize("method", ["get", "history", "apply"])
async def test_a_storage_that_fails_beside_the_agent(
    make: Make,
    script: Script,
    storage: Storage,
    errors: Errors,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    memory = make(full_session_memory=True, summary_memory=True, on_job_error=errors)
    script.hold()
    if method == "apply":
        await memory.save(says("first"))
        await script.wait_for_calls(1)

    async def fail(*args: Any, **kwargs: Any) -> Any:
        raise StorageUnavailableError("the disk is full")

    with monkeypatch.context() as broken:
        if method != "apply":
            await memory.save(says("first"))
        broken.setattr(storage, method, fail)
        script.release()
        await until(lambda: memory.jobs.failed == 1)
    [(job, session_id, error)] = errors
    assert (job, session_id) == ("summary", "s1")
    assert isinstance(error, MemoryAsyncError)
    assert memory.jobs.lag == 1
    await memory.save(says("second"))
    assert await memory.drain(10)
    assert (await header(storage)).jobs["summary"].through == 2
    assert memory.jobs.lag == 0
