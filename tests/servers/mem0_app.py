"""The calls of the Mem0 Platform, as an ASGI app on top of a real ``AsyncMemory``.

What the Platform documents and ``AsyncMemory`` has not is added here: the key, pages, events, the
limits, and that the same text twice is kept once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

KEY = "m0-a-key-of-the-tests"
MAX_METADATA = 2000
MAX_ENTITY = 255
MAX_PAGE = 200
# Connections stay open for longer than a busy machine makes a client think.
SERVING: dict[str, Any] = {
    "host": "127.0.0.1",
    "log_level": "error",
    "lifespan": "off",
    "access_log": False,
    "timeout_keep_alive": 120,
    "timeout_graceful_shutdown": 5,
}
ENTITIES = ("user_id", "agent_id", "app_id", "run_id")


class Refused(Exception):  # noqa: N818
    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


@dataclass
class Request:
    """One that has arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Mem0App:
    """``fail`` is asked before each request is served (with ``late`` after it was, before it is
    answered) and may raise `Refused`."""

    memory: Any
    requests: list[Request] = field(default_factory=list)
    fail: Callable[[Request], None] | None = None
    late: bool = False
    keep_requests: bool = True
    events: dict[str, Any] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        query = {name: each[-1] for name, each in parse_qs(scope["query_string"].decode()).items()}
        data = json.loads(body) if body else None
        request = Request(scope["method"], scope["path"], query, headers, data)
        if self.keep_requests:
            self.requests.append(request)
        status, more_headers = 200, {}
        try:
            if self.fail is not None and not self.late:
                self.fail(request)
            if headers.get("authorization") != f"Token {KEY}":
                raise Refused(401, "Invalid API key.")
            answer = await self._serve(request)
            if self.fail is not None and self.late:
                self.fail(request)
        except Refused as refused:
            status, answer, more_headers = (
                refused.status,
                {"detail": refused.detail},
                refused.headers,
            )
        lines = {"content-type": "application/json", **more_headers}
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in lines.items()],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def _serve(self, request: Request) -> Any:
        match request.method, [unquote(part) for part in request.path.strip("/").split("/")]:
            case "GET", ["v1", "ping"]:
                return {"status": "ok", "org_id": "o", "project_id": "p", "user_email": None}
            case "POST", ["v3", "memories", "add"]:
                return await self._add(request.body)
            case "POST", ["v3", "memories"]:
                return await self._list(request)
            case "POST", ["v3", "memories", "search"]:
                body = request.body
                options = {name: body[name] for name in ("threshold", "top_k") if name in body}
                filters = _flat(body["filters"])
                found = await self.memory.search(body["query"], filters=filters, **options)
                return {"results": found["results"]}
            case "GET", ["v1", "event", event] if event in self.events:
                return self.events[event]
            case method, ["v1", "memories", id]:
                return await self._one(method, id, request.body)
        raise Refused(404, "Not found.")

    async def _add(self, body: dict[str, Any]) -> Any:
        scope = {name: body[name] for name in ENTITIES if name in body}
        metadata, infer = body.get("metadata") or {}, body.get("infer", True)
        for name, id in scope.items():
            if len(id) > MAX_ENTITY:
                raise Refused(
                    400, f"{name} is too long. Maximum length is {MAX_ENTITY} characters."
                )
        if len(json.dumps(metadata)) > MAX_METADATA:
            raise Refused(
                400, f"metadata is too long. Maximum length is {MAX_METADATA} characters."
            )
        if infer:
            event = str(uuid.uuid4())
            self.events[event] = {"id": event, "status": "PENDING"}
            task = asyncio.create_task(self._extract(event, body["messages"], scope, metadata))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return {"message": "queued", "status": "PENDING", "event_id": event}
        new = []
        for message in body["messages"]:
            text = hashlib.md5(message["content"].encode()).hexdigest()
            same = await self.memory.get_all(filters={**scope, "hash": text}, top_k=1)
            if message["role"] == "user" and not same["results"]:
                new.append(message)
        if not new:
            return {"results": []}
        return await self.memory.add(new, **scope, metadata=metadata, infer=False)

    async def _extract(self, event: str, messages: Any, scope: Any, metadata: Any) -> None:
        try:
            done = await self.memory.add(messages, **scope, metadata=metadata, infer=True)
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self.events[event] = {"id": event, "status": "FAILED", "error": repr(error)}
        else:
            self.events[event] = {"id": event, "status": "SUCCEEDED", **done}

    async def _list(self, request: Request) -> Any:
        page = int(request.query.get("page", 1))
        size = min(int(request.query.get("page_size", 100)), MAX_PAGE)
        found = await self.memory.get_all(filters=_flat(request.body["filters"]), top_k=100_000)
        every = sorted(found["results"], key=lambda each: (each["created_at"], each["id"]))[::-1]
        start, end = (page - 1) * size, page * size
        return {
            "count": len(every),
            "next": f"?page={page + 1}" if end < len(every) else None,
            "previous": f"?page={page - 1}" if page > 1 else None,
            "results": every[start:end],
        }

    async def _one(self, method: str, id: str, body: Any) -> Any:
        memory = await self.memory.get(id)
        if memory is None:
            raise Refused(404, "Memory not found!")
        match method:
            case "GET":
                return memory
            case "PUT":
                if len(json.dumps(body.get("metadata") or {})) > MAX_METADATA:
                    raise Refused(400, "metadata is too long.")
                try:
                    await self.memory.update(id, text=body.get("text"), metadata=body["metadata"])
                except ValueError as error:  # deleted meanwhile
                    raise Refused(404, str(error)) from error
                return await self.memory.get(id) or {}
            case "DELETE":
                try:
                    await self.memory.delete(id)
                except ValueError as error:
                    raise Refused(404, str(error)) from error
                return {"message": "Memory deleted successfully!"}
        raise Refused(405, "Method not allowed.")


def _flat(filters: dict[str, Any]) -> dict[str, Any]:
    """The conditions of a root AND as ``AsyncMemory`` takes them."""
    if list(filters) != ["AND"]:
        raise Refused(400, "The root of the filters must be AND, OR or NOT.")
    flat: dict[str, Any] = {}
    for condition in filters["AND"]:
        [(name, value)] = condition.items()
        if name in ENTITIES:
            flat[name] = value
        elif name == "metadata":
            flat |= value
        else:
            raise Refused(400, f"Unknown field {name}.")
    if len(flat.keys() & set(ENTITIES)) != 1:
        return {"agent_id": "of two entities there is nothing"}
    return flat


def own_memory(database: str, models: str, collection: str) -> Any:
    """A real ``AsyncMemory`` on pgvector."""
    from mem0 import AsyncMemory

    from tests.servers.embedder import DIMENSIONS

    model = {"api_key": "none", "openai_base_url": models}
    vectors = {"connection_string": database, "collection_name": collection, "hnsw": False}
    vectors |= {"embedding_model_dims": DIMENSIONS, "maxconn": 10}
    return AsyncMemory.from_config(
        {
            "vector_store": {"provider": "pgvector", "config": vectors},
            "embedder": {"provider": "openai", "config": {"model": "m", **model}},
            "llm": {"provider": "openai", "config": {"model": "m", **model}},
            "history_db_path": ":memory:",
        }
    )


def main(models: str, port: int) -> None:
    """Serve until killed, in a process of its own, on the database that stdin will name."""
    import mem0  # noqa: F401 - which takes its time
    import uvicorn

    database = sys.stdin.readline().strip()
    app = Mem0App(own_memory(database, models, "platform"), keep_requests=False)
    uvicorn.run(app, port=port, **SERVING)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
