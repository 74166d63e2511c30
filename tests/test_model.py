"""What can be given as a model, and the client for OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import stamina

from memory_async import ConfigurationError, Memory, Model, ModelError
from memory_async.model import as_model, complete_json
from tests.llm import Call, ScriptedLLM, default_answer, scripted_llm

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi — «ä»"}]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedLLM]:
    pytest.importorskip("httpx")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with scripted_llm() as running:
        yield running


async def plain(messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None) -> str:
    return default_answer(Call(messages, schema))


class Callable:
    async def __call__(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        return await plain(messages, schema=schema)

    async def ask(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        return await plain(messages, schema=schema)


class Complete:
    async def complete(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        return await plain(messages, schema=schema)


async def with_more(
    client: str, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
) -> str:
    assert client == "client"
    return await plain(messages, schema=schema)


@pytest.mark.parametrize(
    "given",
    [plain, Callable(), Callable().ask, Complete(), functools.partial(with_more, "client")],
    ids=["function", "object", "method", "complete", "partial"],
)
async def test_what_is_a_model(given: Any) -> None:
    model = as_model(given)
    assert isinstance(model, Model)
    assert await model.complete(ASK) == default_answer(Call(ASK, None))
    assert await model.complete(ASK, schema=SCHEMA) == default_answer(Call(ASK, SCHEMA))
    assert as_model(Complete()) is not None
    memory = Memory("memory://", "s1", summary_memory=True, model=given)
    await memory.save({"role": "user", "content": "hello"})
    assert await memory.drain(10)
    assert str(await memory.summary()).startswith("Summary ")
    await memory.close()


def sync(messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None) -> str:
    return ""


@pytest.mark.parametrize(
    "given",
    [
        "gpt-4o-mini",
        "openai/",
        "openai",
        "",
        "anthropic/claude",
        sync,
        lambda messages, schema=None: "",
        Complete,
        Callable,
        object(),
        42,
        {"complete": plain},
    ],
)
def test_what_is_none(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="model"):
        Memory("memory://", "s1", summary_memory=True, model=given)


@pytest.mark.parametrize("flag", ["summary_memory", "user_analysis_memory"])
def test_a_job_needs_a_model(flag: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{flag} needs a model"):
        Memory("memory://", "s1", "ada", **{flag: True})  # type: ignore[arg-type]


async def test_a_model_by_name(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", llm.url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with Memory(
        "memory://",
        "s1",
        "ada",
        summary_memory=True,
        user_analysis_memory=True,
        model="openai/vendor/gpt-4o-mini",
    ) as memory:
        await memory.save({"role": "user", "content": "Hi — «ä»"})
        assert await memory.drain(10)
        [summary], [analysis] = llm.summaries, llm.analyses
        assert await memory.summary() == default_answer(summary)
        assert summary.body.keys() == {"model", "messages"}
        form = analysis.body["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["name"] == "profile"
        assert "remove_traits" in form["json_schema"]["schema"]["properties"]
        for call in (summary, analysis):
            assert call.body["model"] == "vendor/gpt-4o-mini"
            assert call.headers["Authorization"] == f"Bearer {KEY}"
            assert [message["role"] for message in call.messages] == ["system", "user"]
            assert "Hi — «ä»" in call.said
        assert 1 <= llm.connections <= 2
    await asyncio.to_thread(llm.wait_until_left)


async def test_a_model_with_its_own_address(llm: ScriptedLLM) -> None:
    from memory_async import OpenAIModel

    model = OpenAIModel("scripted", base_url=llm.url)
    assert await model.complete(ASK) == default_answer(llm.calls[0])
    assert "Authorization" not in llm.calls[0].headers  # a local server needs no key
    assert llm.calls[0].messages == ASK
    await model.complete(ASK, schema=SCHEMA)
    assert llm.calls[1].schema == SCHEMA
    assert llm.connections == 1  # kept between calls
    await model.aclose()
    await asyncio.to_thread(llm.wait_until_left)
    await model.aclose()
    await model.complete(ASK)
    await model.aclose()


async def test_a_model_of_the_callers_is_not_closed(llm: ScriptedLLM) -> None:
    from memory_async import OpenAIModel

    model = OpenAIModel("scripted", base_url=llm.url, api_key=KEY)
    for session_id in ("s1", "s2"):
        async with Memory("memory://", session_id, summary_memory=True, model=model) as memory:
            await memory.save({"role": "user", "content": "hello"})
            assert await memory.drain(10)
    assert llm.connections == 1
    await model.aclose()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_model_in_one_loop_after_another(llm: ScriptedLLM) -> None:
    """A connection that the first loop has left open is of no use in the second."""
    from memory_async import OpenAIModel

    model = OpenAIModel("scripted", base_url=llm.url)
    assert asyncio.run(model.complete(ASK)) == asyncio.run(model.complete(ASK))
    del model
    gc.collect()


def test_openai_needs_a_key(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("", "https://api.openai.com/v1", "https://api.openai.com/v1/"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        for key in ("", " \n"):
            monkeypatch.setenv("OPENAI_API_KEY", key)
            with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
                as_model("openai/gpt-4o-mini")


async def test_a_key_read_from_a_file(llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    from memory_async import OpenAIModel

    model = OpenAIModel("scripted", base_url=llm.url)
    await model.complete(ASK)
    assert llm.calls[0].headers["Authorization"] == f"Bearer {KEY}"
    await model.aclose()


@pytest.mark.parametrize("key", [f"{KEY}…", f"{KEY}\nX: y", f"sk-é{KEY}", f"{KEY}\0"])
def test_a_key_that_is_none(llm: ScriptedLLM, key: str) -> None:
    from memory_async import OpenAIModel

    with pytest.raises(ConfigurationError, match="API key") as caught:
        OpenAIModel("scripted", base_url=llm.url, api_key=key)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


ECHO = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}})


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, ECHO), (403, ECHO), (500, ECHO), (200, ECHO), (0, ""), (200, ECHO + "{")],
)
async def test_the_key_is_in_no_error_and_no_log(
    llm: ScriptedLLM, caplog: pytest.LogCaptureFixture, status: int, body: str
) -> None:
    from memory_async import OpenAIModel

    caplog.set_level(logging.DEBUG)
    errors: list[Exception] = []
    url = llm.url.replace("//", "//user:pass-secret@")
    model = OpenAIModel("scripted", base_url=url, api_key=KEY)
    llm.fail(status, times=3, body=body)
    memory = Memory(
        "memory://",
        "s1",
        summary_memory=True,
        model=model,
        on_job_error=lambda job, session_id, error: errors.append(error),
    )
    await memory.save({"role": "user", "content": "hello"})
    await memory.close()
    await model.aclose()
    [error] = errors
    told = [str(error), repr(error), repr(model), repr(vars(memory)), caplog.text]
    told += traceback.format_exception(error)
    ours = [each for each in caplog.records if each.name.startswith("memory_async")]
    assert ours
    assert KEY not in "\n".join(told)
    assert "pass-secret" not in str(error)
    assert "/v1/chat/completions" in str(error)


async def test_a_huge_and_strange_text(llm: ScriptedLLM) -> None:
    from memory_async import OpenAIModel

    text = '\0\r\n\u2028😀é"\\</s>' * 10_000
    llm.answer = lambda call: call.said
    model = OpenAIModel("scripted", base_url=llm.url)
    assert await model.complete([{"role": "user", "content": text}]) == text
    await model.aclose()


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\n {"a": [null, "x"]}\n', {"a": [None, "x"]}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": "```"}\n```', {"a": "```"}),
        ('```JSON\r\n{"a": 1}\r\n```\n', {"a": 1}),
    ],
)
def test_json_of_an_answer(answer: str, data: dict[str, Any]) -> None:
    assert complete_json(answer) == data


@pytest.mark.parametrize(
    "answer", ["", "{", "null", "[1]", '{"a": NaN}', '{"a": -Infinity}', "```json", "Sure! {}"]
)
def test_an_answer_that_is_no_json(answer: str) -> None:
    with pytest.raises(ModelError):
        complete_json(answer)


async def test_models_of_pydantic_ai() -> None:
    pytest.importorskip("pydantic_ai")
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.models.test import TestModel

    asked: list[list[ModelMessage]] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(messages)
        is_analysis = "JSON schema" in str(messages)
        text = '```json\n{"name": "Ada"}\n```' if is_analysis else "They met."
        return ModelResponse(parts=[TextPart(text)])

    async with Memory(
        "memory://",
        "s1",
        "ada",
        summary_memory=True,
        user_analysis_memory=True,
        model=FunctionModel(answer),
        summary_prompt="In two words.",
    ) as memory:
        await memory.save({"role": "user", "content": "I am Ada"})
        assert await memory.drain(10)
        assert await memory.summary() == "They met."
        profile = await memory.profile()
        assert profile is not None
        assert profile.name == "Ada"
    assert len(asked) == 2
    assert all("I am Ada" in str(each) for each in asked)
    assert any("In two words." in str(each) for each in asked)

    model = TestModel(custom_output_text="A summary.")
    async with Memory("memory://", "s1", summary_memory=True, model=model) as memory:
        await memory.save({"role": "user", "content": "hello"})
        assert await memory.drain(10)
        assert await memory.summary() == "A summary."
    with pytest.raises(ConfigurationError):
        as_model(TestModel)
