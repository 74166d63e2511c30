"""`OpenAIModel`: Chat Completions over httpx, of OpenAI or any compatible endpoint."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

from memory_async.errors import ConfigurationError, ModelError
from memory_async.forked import keep, watch
from memory_async.retry_after import parse_retry_after

try:
    import httpx
except ImportError as error:  # pragma: no cover - shown by the session without extras
    raise ConfigurationError(
        'model="openai/..." needs httpx: pip install "memory-async[openai]"'
    ) from error

__all__ = ["OpenAIModel"]

OPENAI = "https://api.openai.com/v1"
_RETRYABLE = frozenset({408, 409, 425, 429})


class OpenAIModel:
    """A model behind ``POST {base_url}/chat/completions``.

    ``base_url`` and ``api_key`` default to ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``. ``timeout``
    (seconds) is how long an answer may take. With a schema it asks for ``response_format``
    ``json_schema``; see https://platform.openai.com/docs/api-reference/chat/create.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.name = name
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not key and url == OPENAI:
            raise ConfigurationError(f"openai/{name} needs an API key: set OPENAI_API_KEY")
        if not (key.isascii() and key.isprintable()):  # httpx would show it in its error
            raise ConfigurationError("the API key (OPENAI_API_KEY) is not printable ASCII")
        self._key = key
        self._url = url + "/chat/completions"
        self._shown = re.sub(r"//[^/@]*@", "//", self._url)  # without a password
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = httpx.Timeout(timeout, connect=10.0)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        watch(self)

    def _forked(self) -> None:
        keep(self._client)
        self._client = None

    async def complete(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        """The answer's text; `ModelError` when there is none."""
        body: dict[str, Any] = {"model": self.name, "messages": messages}
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "profile", "schema": schema, "strict": False},
            }
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to their loop
            self._loop = loop
            self._client = httpx.AsyncClient(headers=self._headers, timeout=self._timeout)
        try:
            response = await self._client.post(self._url, json=body)
        except httpx.TimeoutException as error:
            raise ModelError(f"{self._shown} did not answer in time") from error
        except httpx.HTTPError as error:
            raise ModelError(f"cannot reach {self._shown}: {error!r}") from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"{self._shown} answered no chat completion: {self._start(response)}"
            ) from error
        if not isinstance(content, str):
            raise ModelError(f"{self._shown} answered without text: {self._start(response)}")
        return content

    async def aclose(self) -> None:
        """Close the connections. The next `complete` opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _refusal(self, response: httpx.Response) -> ModelError:
        status = response.status_code
        message = f"{self._shown} answered {status}: {self._start(response)}"
        if status in (401, 403):
            message += " (check OPENAI_API_KEY)"
        permanent = status < 500 and status not in _RETRYABLE
        after = parse_retry_after(response.headers.get("retry-after", ""))
        return ModelError(message, permanent=permanent, retry_after=after)

    def _start(self, response: httpx.Response) -> str:
        """What it answered; some servers repeat the key."""
        secret = self._key if len(self._key) > 7 else "\0"  # shorter: none, only asked for
        return repr(response.text.replace(secret, "***")[:200])
