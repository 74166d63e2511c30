"""The Mem0 Platform over HTTP: its calls, every page of its answers, its refusals as our errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import stamina

from memory_async.errors import ConfigurationError, StorageError, StorageUnavailableError
from memory_async.forked import keep
from memory_async.retry_after import parse_retry_after
from memory_async.storage.mem0.service import Found, Scope, found

__all__ = ["HOST", "Platform"]

HOST = "https://api.mem0.ai"
PAGE = 200  # the most the Platform gives at once
MOST_FOUND = 1000  # the most it searches for
ATTEMPTS = 4
LONGEST_WAIT = 60.0
CLOSING = 5.0  # seconds that calls under way have to end
READINGS = 5  # of pages that change while they are read
EVENT_TIMEOUT = 300.0  # seconds an extraction may take

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MEANING = {
    401: "refused the API key: check api_key or MEM0_API_KEY",
    403: "refused the API key: it may not do this",
    404: "knows no such call: check base_url",
    413: "takes no more: the account's quota is used up, or the memory is too large",
    429: "has had too many requests: the account's rate limit is reached",
}


class Refusal(Exception):  # noqa: N818 - only ever seen here
    """``error`` is what the caller is told; ``again`` whether to try again, or in how long."""

    def __init__(self, error: StorageError, again: bool | float) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again


class Platform:
    """A `Service`. What fails in passing (no connection, 429, 5xx) is tried again, a few times; a
    server's Retry-After is honoured."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = HOST,
        org_id: str | None = None,
        project_id: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        if not (api_key.isascii() and api_key.isprintable()):  # httpx would show it in its error
            raise ConfigurationError("the API key (MEM0_API_KEY) is not printable ASCII")
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc:
            raise ConfigurationError(f"base_url is the address of a Mem0 server, e.g. {HOST}")
        self._key = api_key
        self._url = base_url.rstrip("/")
        self._shown = re.sub(r"//[^/?#]*@", "//", self._url)  # without a password
        of = {"org_id": org_id, "project_id": project_id}
        self._params = {name: value for name, value in of.items() if value is not None}
        self._timeout = httpx.Timeout(timeout, connect=10.0, pool=None)
        self._client: httpx.AsyncClient | None = None
        self._under_way = 0
        self._idle = asyncio.Event()

    def __repr__(self) -> str:
        return self._shown

    async def open(self) -> None:
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Token {self._key}"},
            timeout=self._timeout,
            verify=self._url.startswith("https:"),  # else reading all certificates is in vain
        )
        try:
            await self._call("GET", "/v1/ping/")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        # httpx would forget a connection that is being made while it closes the others.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                while self._under_way:
                    self._idle.clear()
                    await self._idle.wait()
        await client.aclose()

    def abandon(self) -> None:
        keep(self._client, self._idle)
        self._client, self._under_way, self._idle = None, 0, asyncio.Event()

    async def add(
        self,
        scope: Scope,
        messages: Sequence[Mapping[str, str]],
        metadata: Mapping[str, Any],
        *,
        infer: bool,
    ) -> list[str]:
        body = {"messages": messages, **scope, "metadata": metadata, "infer": infer}
        answer = await self._call("POST", "/v3/memories/add/", body)
        ids = _ids(answer)
        if not ids and isinstance(answer, dict) and (event := answer.get("event_id")):
            ids = _ids(await self._outcome(str(event)))
        return ids

    async def read_all(self, scope: Scope, metadata: Mapping[str, str]) -> list[Found]:
        for _ in range(READINGS):
            memories, steady = await self._read_pages(scope, metadata)
            if steady:
                return memories
        raise StorageUnavailableError(
            f"{self._shown}: memories were deleted all the time while they were listed: try again"
        )

    async def search(
        self, query: str, scope: Scope, metadata: Mapping[str, str], limit: int
    ) -> list[Found]:
        body = {
            "query": query,
            "filters": _filters(scope, metadata),
            "top_k": min(limit, MOST_FOUND),
        }
        return self._results(await self._call("POST", "/v3/memories/search/", body))

    async def update(self, id: str, text: str, metadata: Mapping[str, Any]) -> bool:
        body = {"text": text, "metadata": metadata}
        return await self._call("PUT", _path(id), body, gone=None) is not None

    async def delete(self, id: str) -> None:
        await self._call("DELETE", _path(id), gone=None)

    # --- inside ---

    async def _read_pages(
        self, scope: Scope, metadata: Mapping[str, str]
    ) -> tuple[list[Found], bool]:
        """What is listed, and whether nothing can have slipped from one page to one read before: a
        deletion meanwhile moves up what follows it."""
        body = {"filters": _filters(scope, metadata)}
        memories: dict[str, Found] = {}
        page, counts = 1, list[int]()
        while True:
            params = {"page": page, "page_size": PAGE}
            answer = await self._call("POST", "/v3/memories/", body, params)
            results, known = self._results(answer), len(memories)
            memories.update((each.id, each) for each in results)
            counts.append(int(answer.get("count") or len(results)))
            if not answer.get("next") or len(memories) == known:
                break
            page += 1
        return list(memories.values()), counts == sorted(counts) and len(memories) >= counts[0]

    def _results(self, answer: Any) -> list[Found]:
        try:
            return [found(each) for each in answer["results"]]
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise StorageUnavailableError(f"{self._shown} answered no list of memories") from error

    async def _outcome(self, event: str) -> Any:
        """What became of what the Platform does later."""
        pause, path = 0.1, f"/v1/event/{quote(event, safe='')}/"
        try:
            async with asyncio.timeout(EVENT_TIMEOUT):
                while True:
                    answer = await self._call("GET", path)
                    status = answer.get("status") if isinstance(answer, dict) else None
                    if status == "SUCCEEDED":
                        return answer
                    if status == "FAILED":
                        raise StorageError(f"{self._shown} could not add a memory: {answer!r:.200}")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 5.0)
        except TimeoutError as error:
            raise StorageUnavailableError(
                f"{self._shown} has not said within {EVENT_TIMEOUT:g} s what became of a memory"
            ) from error

    async def _call(self, method: str, path: str, body: Any = None, *args: Any, **more: Any) -> Any:
        """The answer's JSON. A 404 gives ``gone``, where that is given."""
        try:
            async for attempt in stamina.retry_context(
                on=_again, attempts=ATTEMPTS, timeout=None, wait_initial=0.5, wait_max=10.0
            ):
                with attempt:
                    return await self._once(method, path, body, *args, **more)
        except Refusal as refusal:
            raise refusal.error from refusal.__cause__
        raise AssertionError("unreachable: retry_context returns or raises")

    async def _once(
        self,
        method: str,
        path: str,
        body: Any,
        params: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Any:
        if self._client is None:
            raise StorageUnavailableError(f"the storage at {self._shown} was closed meanwhile")
        given = {**self._params, **(params or {})} or None
        self._under_way += 1
        try:
            response = await self._client.request(method, self._url + path, json=body, params=given)
        except httpx.TimeoutException as error:
            late = StorageUnavailableError(f"{self._shown} did not answer in time")
            raise Refusal(late, again=True) from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            unreachable = StorageUnavailableError(f"cannot reach Mem0 at {self._shown}: {error!r}")
            raise Refusal(unreachable, again=isinstance(error, httpx.HTTPError)) from error
        finally:
            self._under_way -= 1
            self._idle.set()
        if response.status_code == 404 and "gone" in more and _is_json(response):
            return more["gone"]
        if not response.is_success:
            raise self._refusal(method, path, response)
        if not response.content:
            return {}
        try:
            return response.json()
        except ValueError as error:
            raise StorageUnavailableError(
                f"{self._shown} answered no JSON, so it is no Mem0 server: check base_url"
            ) from error

    def _refusal(self, method: str, path: str, response: httpx.Response) -> Refusal:
        status = response.status_code
        secret = self._key if len(self._key) > 7 else "\0"  # some servers repeat the key
        said = repr(response.text.replace(secret, "***")[:300])
        meaning = _MEANING.get(status, "failed" if status >= 500 else "refused a request")
        message = f"{self._shown} {meaning} ({status} to {method} {path}: {said})"
        unavailable = status in _AGAIN or status in (401, 403, 404, 413)
        error = StorageUnavailableError(message) if unavailable else StorageError(message)
        after = parse_retry_after(response.headers.get("retry-after", ""))
        if status not in _AGAIN:
            return Refusal(error, again=False)
        return Refusal(error, again=True if after is None else after)


def _again(error: Exception) -> bool | float:
    if not isinstance(error, Refusal):
        return False
    if isinstance(error.again, bool):
        return error.again
    return error.again if error.again <= LONGEST_WAIT else False


def _filters(scope: Scope, metadata: Mapping[str, str]) -> dict[str, Any]:
    each = [{"metadata": {name: value}} for name, value in metadata.items()]
    return {"AND": [dict(scope), *each]}


def _path(id: str) -> str:
    return f"/v1/memories/{quote(id, safe='')}/"


def _is_json(response: httpx.Response) -> bool:
    """Of the API itself, and not of a web server that knows no such path."""
    return "application/json" in response.headers.get("content-type", "")


def _ids(answer: Any) -> list[str]:
    results = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(results, list):
        return []
    return [str(each["id"]) for each in results if isinstance(each, dict) and each.get("id")]
