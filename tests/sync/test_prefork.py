"""A server that opens its memory, then forks its workers, as many do to share what is loaded."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.llm import ScriptedLLM
from tests.sync import child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

SERVER = """
import json, socket
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        chat = memory.bind(session_id=self.path)
        known = len(chat.load().messages)
        turn = chat.save(says(text))
        body = json.dumps({"worker": os.getpid(), "seq": turn.seq, "known": known}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

def serve():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = HTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    tell("ready")
    server.serve_forever()

# The facade is open, has a loop, connections and jobs, when the workers are made.
memory = sync.Memory(url, full_session_memory=True, summary_memory=True, model="openai/scripted")
memory.bind(session_id="of the parent").save(says("Hi"))
assert memory.drain()

listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)  # of several that wake up, one gets the request
workers = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        serve()
    workers.append(pid)
tell(listening.getsockname()[1])
hear()
memory.bind(session_id="of the parent").save(says("Bye"))
for pid in workers:
    os.kill(pid, signal.SIGTERM)
tell(wait(*workers))
"""
SESSIONS, REQUESTS = 10, 200


def test_a_prefork_server(url: str, said: Callable[..., list[str]], llm: ScriptedLLM) -> None:
    def ask(number: int) -> dict[str, Any]:
        # A request of its own, and a connection: any worker may get it.
        address = f"http://127.0.0.1:{port}/{number % SESSIONS}"
        with urllib.request.urlopen(address, f"request {number}".encode(), timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    with child.started(SERVER, url) as server:
        heard = [server.hear() for _ in range(5)]
        [port] = [int(line) for line in heard if line != "ready"]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(REQUESTS)))
        server.tell()
        assert server.end() == ["[0, 0, 0, 0]"]

    assert len({answer["worker"] for answer in answers}) > 1
    assert all(answer["known"] < answer["seq"] for answer in answers)
    for session in range(SESSIONS):
        own = range(session, REQUESTS, SESSIONS)
        stored = said(f"/{session}")
        assert sorted(stored) == sorted(f"request {number}" for number in own)
        for number in own:
            assert stored[answers[number]["seq"] - 1] == f"request {number}"
    assert said("of the parent") == ["Hi", "Bye"]
    # The workers' jobs ran in the workers, and were waited for when these ended.
    summed_up = "".join(call.said for call in llm.calls)
    assert all(f"request {number}" in summed_up for number in range(REQUESTS))
