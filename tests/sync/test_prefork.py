"""A server that opens its facade, forks its workers and has them answer requests on one socket."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest

from memory_async import sync
from tests.llm import ScriptedLLM
from tests.sync import child

Said = Callable[..., list[str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

WORKERS = 3
SERVER = """
import json, multiprocessing
from http.server import BaseHTTPRequestHandler, HTTPServer

meeting = multiprocessing.get_context("fork").Barrier(int(sys.argv[2]))
flags = {"full_session_memory": True, "summary_memory": True}
memory = sync.Memory(url, "s", model="openai/scripted", **flags)
memory.save(says("parent"))

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        session, text = self.path.strip("/").split("/")
        if session == "meeting":  # each of them holds one worker until all are there
            meeting.wait()
        turn = memory.bind(session_id=session).save(says(text))
        answer = json.dumps([os.getpid(), turn.seq]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

def worker():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with server, memory:
            server.serve_forever(poll_interval=60)
    except SystemExit:
        pass

with HTTPServer(("127.0.0.1", 0), Handler) as server:
    workers = [fork(worker) for _ in range(int(sys.argv[2]))]
    tell(server.server_port)
memory.save(says("parent again"))
hear()
for pid in workers:
    os.kill(pid, signal.SIGTERM)
tell(wait(*workers))
"""


def test_every_worker_answers_and_every_turn_is_there(
    url: str, said: Said, llm: ScriptedLLM
) -> None:
    """They are forked while a job of their parent asks a model."""

    def ask(session: str, text: str) -> tuple[int, int]:
        with urlopen(f"http://127.0.0.1:{port}/{session}/{text}", b"") as response:
            pid, seq = json.load(response)
        return pid, seq

    def talk(session: str) -> None:
        for number in range(1, 11):
            assert ask(session, str(number))[1] == number

    sessions = [f"s{number}" for number in range(6)]
    llm.hold()
    with child.started(SERVER, url, WORKERS) as parent, ThreadPoolExecutor(6) as threads:
        port = int(parent.hear())
        pids = {pid for pid, _ in threads.map(ask, ["meeting"] * WORKERS, "abc")}
        assert len(pids) == WORKERS
        assert parent.pid not in pids
        llm.release()
        list(threads.map(talk, sessions))
        parent.tell()
        assert parent.end() == [str([0] * WORKERS)]
    assert said() == ["parent", "parent again"]
    assert sorted(said("meeting")) == ["a", "b", "c"]
    for session in sessions:
        assert said(session) == [str(number) for number in range(1, 11)]
    with sync.Memory(url, summary_memory=True, model="openai/scripted") as memory:
        assert memory.recover() == 0, "a job was left undone"
