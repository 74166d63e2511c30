"""The models a self-hosted Mem0 asks: an OpenAI-compatible server on loopback. It embeds a text as
the words in it, and extracts what a user says of themselves."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSIONS = 256
EVERYWHERE = frozenset(["a", "called", "i", "is", "my", "of", "the", "user", "what"])


def embed(text: str) -> list[float]:
    """A direction for each word: texts that share words are close."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        if word in EVERYWHERE:
            continue
        digest = hashlib.sha256(word.encode()).digest()
        vector[digest[0] % DIMENSIONS] += 1.0 if digest[1] % 2 else -1.0
    return vector if any(vector) else [1.0] * DIMENSIONS


def extract(prompt: str) -> list[str]:
    """What the user says with "I …" in the new messages, as facts."""
    new = prompt.rpartition("New Messages")[2]
    return list(dict.fromkeys(re.findall(r"\bI (?:am|have|like|live)\b[^.\"\n\\]*", new)))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/embeddings"):
            data = [
                {"object": "embedding", "index": n, "embedding": embed(text)}
                for n, text in enumerate(asked["input"])
            ]
            answer: Any = {"object": "list", "data": data, "model": "m", "usage": _USAGE}
        else:
            facts = extract(asked["messages"][-1]["content"])
            said = json.dumps({"memory": [{"text": f"User: {fact}"} for fact in facts]})
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
            answer |= {"choices": [choice], "usage": _USAGE}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def embedder() -> Iterator[str]:
    """Its base URL."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
