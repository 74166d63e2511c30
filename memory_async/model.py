"""`Model`: the one thing background jobs ask of a language model, and what is accepted as one."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import stamina

from memory_async.errors import ConfigurationError, ModelError

__all__ = ["Model", "ModelLike", "SupportsClose", "as_model", "ask", "complete_json"]

ATTEMPTS = 3
CALL_TIMEOUT = 300.0
LONGEST_WAIT = 60.0
_SURROGATE = re.compile("[\ud800-\udfff]")


@runtime_checkable
class Model(Protocol):
    """A language model. ``messages`` are OpenAI chat dicts; with ``schema`` (a JSON schema) the
    answer is a JSON object that should fit it, else plain text."""

    async def complete(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str: ...


@runtime_checkable
class SupportsClose(Protocol):
    """A model with connections to close."""

    async def aclose(self) -> None: ...


ModelLike: TypeAlias = "Model | Callable[..., Awaitable[str]] | str | Any"
"""A `Model`, an async callable with the parameters of `Model.complete`, ``"openai/<name>"`` (any
compatible endpoint), or a pydantic-ai model."""


class _Callable:
    def __init__(self, function: Callable[..., Awaitable[str]]) -> None:
        self._function = function

    async def complete(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        return await self._function(messages, schema=schema)


class _PydanticAI:
    """A pydantic-ai model, asked directly: no agent, no tools."""

    def __init__(self, model: Any) -> None:
        self._model = model

    async def complete(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        from pydantic_ai.direct import model_request
        from pydantic_ai.messages import ModelRequest, SystemPromptPart, TextPart, UserPromptPart

        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        if schema is not None:
            system += f"\n\nAnswer with one JSON object of this JSON schema: {json.dumps(schema)}"
        said = "\n\n".join(m["content"] for m in messages if m["role"] != "system")
        request = ModelRequest(parts=[SystemPromptPart(system), UserPromptPart(said)])
        response = await model_request(self._model, [request])
        return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def as_model(given: ModelLike) -> Model:
    """``given`` as a `Model`; `ConfigurationError` when it cannot be one."""
    if isinstance(given, str):
        provider, _, name = given.partition("/")
        if provider != "openai" or not name:
            raise ConfigurationError(
                f"model={given!r} is unknown: write 'openai/<model>' (any compatible endpoint, see "
                "OPENAI_BASE_URL), or give a Model, an async callable or a pydantic-ai model"
            )
        from memory_async.chat_completions import OpenAIModel

        return OpenAIModel(name)
    if any(each.__module__.startswith("pydantic_ai.models") for each in _classes(given)):
        return _PydanticAI(given)
    if isinstance(given, Model) and not isinstance(given, type):
        return given
    if inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(
        getattr(type(given), "__call__", None)  # noqa: B004
    ):
        return _Callable(given)
    raise ConfigurationError(
        f"{given!r} is no model: it needs `async def complete(messages, *, schema=None) -> str`"
    )


async def ask(
    model: Model,
    messages: list[dict[str, Any]],
    *,
    schema: dict[str, Any] | None = None,
    check: Callable[[str], Any],
) -> Any:
    """``check`` of the model's answer. A failing call or answer is tried again with growing pauses
    (a server's Retry-After is honoured); `ModelError` when the last attempt failed."""
    async for attempt in stamina.retry_context(
        on=_again, attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=10.0
    ):
        with attempt:
            return check(await _complete(model, messages, schema))
    raise AssertionError("unreachable: retry_context returns or raises")


def complete_json(answer: str) -> dict[str, Any]:
    """The JSON object in ``answer``, also inside a Markdown fence; else `ModelError`."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the model answered no JSON ({error}): {answer[:200]!r}") from error
    if not isinstance(data, dict):
        raise ModelError(f"the model answered JSON that is no object: {answer[:200]!r}")
    return data


def _classes(value: object) -> tuple[type, ...]:
    return type(value).__mro__


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _again(error: Exception) -> bool | float:
    if not isinstance(error, ModelError) or error.permanent:
        return False
    if error.retry_after is None:
        return True
    return error.retry_after if error.retry_after <= LONGEST_WAIT else False


async def _complete(
    model: Model, messages: list[dict[str, Any]], schema: dict[str, Any] | None
) -> str:
    try:
        async with asyncio.timeout(CALL_TIMEOUT):
            answer: object = await model.complete(messages, schema=schema)
    except ModelError:
        raise
    except TimeoutError as error:
        raise ModelError("the model did not answer in time") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ModelError("the model's own call was cancelled") from error
    except Exception as error:
        raise ModelError(f"the model failed: {error!r}") from error
    if not isinstance(answer, str):
        raise ModelError(f"the model answered a {type(answer).__name__}, not a str")
    if not answer.isascii() and _SURROGATE.search(answer):  # half a character, of a cut answer
        raise ModelError("the model answered a lone surrogate, which is not valid UTF-8")
    return answer
