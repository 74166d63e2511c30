"""The language model of the tests: an OpenAI-compatible server on loopback, with deterministic
answers, that holds, fails and delays on command and keeps what it was sent."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

CallKind = Literal["summary", "analysis"]
KINDS: tuple[CallKind, ...] = ("summary", "analysis")


@dataclass(frozen=True)
class Call:
    """One request: the chat messages, and the JSON schema asked for, if any. ``body`` and
    ``headers`` are the whole of it, when it came by HTTP."""

    messages: list[dict[str, Any]]
    schema: dict[str, Any] | None
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> CallKind:
        return "summary" if self.schema is None else "analysis"

    @property
    def system(self) -> str:
        return "\n".join(m["content"] for m in self.messages if m["role"] == "system")

    @property
    def said(self) -> str:
        """What the user message holds."""
        return "\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def size(self) -> int:
        return sum(len(m["content"]) for m in self.messages)


Answer = Callable[[Call], str]


def default_answer(call: Call) -> str:
    """A summary that names what it was made of; a profile with one trait for each call."""
    digest = hashlib.sha256(call.said.encode()).hexdigest()[:8]
    return f"Summary {digest}" if call.schema is None else json.dumps({"facts": [digest]})


def marks_answer(call: Call) -> str:
    """Every mark like «7» it was shown, in order and as often: what has been taken in so far."""
    marks = re.findall(r"«\w+»", call.said)
    return " ".join(marks) if call.schema is None else json.dumps({"facts": marks})


@dataclass
class CallLog:
    """What a model of the tests was asked."""

    calls: list[Call] = field(default_factory=list)
    answer: Answer = default_answer

    @property
    def summaries(self) -> list[Call]:
        return [call for call in self.calls if call.kind == "summary"]

    @property
    def analyses(self) -> list[Call]:
        return [call for call in self.calls if call.kind == "analysis"]


@dataclass
class ScriptedLLM(CallLog):
    """``url`` is what OPENAI_BASE_URL takes. ``failures`` are answered first, one a request (status
    0: the connection is closed without an answer); every answer comes ``delay`` seconds late."""

    url: str = ""
    failures: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    delay: float = 0.0
    connections: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)
    _held: set[CallKind] = field(default_factory=set)

    def hold(self, *kinds: CallKind) -> None:
        """Keep answers (of these kinds, or all) back until `release`."""
        with self.arrived:
            self._held.update(kinds or KINDS)

    def release(self, *kinds: CallKind) -> None:
        with self.arrived:
            self._held.difference_update(kinds or KINDS)
            self.arrived.notify_all()

    def fail(self, status: int, *, times: int = 1, body: str = "{}", **headers: str) -> None:
        self.failures += [(status, headers, body)] * times

    def wait_for_calls(self, count: int, timeout: float = 60.0) -> None:
        """Until ``count`` requests have arrived (whether answered or not)."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.calls) >= count, timeout), len(self.calls)

    def wait_until_left(self, timeout: float = 60.0) -> None:
        """Until no connection is open any more."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.connections == 0, timeout), self.connections


def _handler(llm: ScriptedLLM) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with llm.arrived:
                llm.connections += 1

        def finish(self) -> None:
            super().finish()
            with llm.arrived:
                llm.connections -= 1
                llm.arrived.notify_all()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            form = body.get("response_format")
            schema = form and form["json_schema"]["schema"]
            call = Call(body["messages"], schema, body, dict(self.headers.items()))
            with llm.arrived:
                llm.calls.append(call)
                failure = llm.failures.pop(0) if llm.failures else None
                llm.arrived.notify_all()
                llm.arrived.wait_for(lambda: call.kind not in llm._held, 30)
            time.sleep(llm.delay)
            if failure is not None:
                self._send(*failure)
            elif self.headers.get("Authorization") == "Bearer wrong":
                self._send(401, {}, '{"error": {"message": "Incorrect API key"}}')
            else:
                message = {"role": "assistant", "content": llm.answer(call)}
                self._send(200, {}, json.dumps({"choices": [{"message": message}]}))

        def _send(self, status: int, headers: dict[str, str], body: str) -> None:
            self.close_connection = status == 0
            if status == 0:
                return
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


@contextmanager
def scripted_llm() -> Iterator[ScriptedLLM]:
    llm = ScriptedLLM()
    server = _Server(("127.0.0.1", 0), _handler(llm))
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
