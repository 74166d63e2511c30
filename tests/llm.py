"""The language model of the tests: an OpenAI-compatible server on loopback, with deterministic
answers, that holds, fails and delays on command and keeps what it was sent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Call"], str]


@dataclass(frozen=True)
class Call:
    """One request: the chat messages, and the JSON schema asked for, if any."""

    messages: list[dict[str, Any]]
    schema: dict[str, Any] | None

    @property
    def said(self) -> str:
        """What the user message holds."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def size(self) -> int:
        return sum(len(m["content"]) for m in self.messages)


def default_answer(call: Call) -> str:
    """A summary that names what it was made of; a profile with one trait for each call."""
    digest = hashlib.sha256(call.said.encode()).hexdigest()[:8]
    return f"Summary {digest}" if call.schema is None else json.dumps({"facts": [digest]})


@dataclass
class ScriptedLLM:
    """``url`` is what OPENAI_BASE_URL takes. ``failures`` are answered first, one a request."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    failures: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    answer: Answer = default_answer
    arrived: threading.Condition = field(default_factory=threading.Condition)
    _go: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        """Keep answers back until `release`."""
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def fail(self, status: int, *, times: int = 1, body: str = "{}", **headers: str) -> None:
        self.failures += [(status, headers, body)] * times

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> None:
        """Until ``count`` requests have arrived (whether answered or not)."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.calls) >= count, timeout), len(self.calls)

    @property
    def summaries(self) -> list[Call]:
        return [call for call in self.calls if call.schema is None]

    @property
    def analyses(self) -> list[Call]:
        return [call for call in self.calls if call.schema is not None]


def _handler(llm: ScriptedLLM) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = body.get("response_format")
            call = Call(body["messages"], form and form["json_schema"]["schema"])
            with llm.arrived:
                llm.calls.append(call)
                failure = llm.failures.pop(0) if llm.failures else None
                llm.arrived.notify_all()
            llm._go.wait(30)
            if failure is not None:
                self._send(*failure)
            elif self.headers.get("Authorization") == "Bearer wrong":
                self._send(401, {}, '{"error": {"message": "Incorrect API key"}}')
            else:
                message = {"role": "assistant", "content": llm.answer(call)}
                self._send(200, {}, json.dumps({"choices": [{"message": message}]}))

        def _send(self, status: int, headers: dict[str, str], body: str) -> None:
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())
            except ConnectionError:
                self.close_connection = True  # the client was cancelled

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@contextmanager
def scripted_llm() -> Iterator[ScriptedLLM]:
    llm = ScriptedLLM()
    llm.release()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(llm))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    llm.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield llm
    finally:
        llm.release()
        server.shutdown()
        server.server_close()
        thread.join()
