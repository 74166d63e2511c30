"""MongoDB for the tests: a user's own when `$MONGODB_URL` is set, else a private server.

The private one is SecantusDB (from PyPI; GPL-2.0, for tests only), which speaks MongoDB's protocol
but is not mongod: always a process of its own, on a free loopback port, with or without
transactions. A package index keeps only a few of its versions, so a missing one fails in CI.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from memory_async.keys import Key
from memory_async.storage.mongo import MongoStorage
from memory_async.storage.mongo.documents import Names
from memory_async.storage.protocol import Storage
from memory_async.testing import MakeStorage
from memory_async.testing.material import unique
from tests.servers import need

DEADLINE = 60  # seconds to start; it takes half of one, where nothing else runs


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def binary() -> str:
    """The server to test with; without one the test fails in CI, and is skipped elsewhere."""
    beside = Path(sys.executable).with_name("secantusd-py")
    found = str(beside) if beside.exists() else shutil.which("secantusd-py")
    return found or need(
        "no server for MongoDB: pip install SecantusDB==0.7.0b3 (it is pinned exactly, and may no "
        "longer be on the index), or set MONGODB_URL to that of a mongod"
    )


class Server:
    """A server in a folder of its own, which ends with this process at the latest."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}"
        self._folder = tempfile.mkdtemp(prefix="mongo-")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.start()

    def start(self, *options: str) -> None:
        """Start, or start again with the data that is there."""
        with Path(self._folder, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(binary(), "--host", "127.0.0.1", "--port", str(self.port)),
                    *("--storage-path", str(Path(self._folder, "data")), "--log-level", "ERROR"),
                    *self._options,
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + DEADLINE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = Path(self._folder, "log").read_text(encoding="utf-8", errors="replace")
                raise AssertionError(f"{binary()} did not start: {said[-2000:]}")
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            with self.client(serverSelectionTimeoutMS=50) as client:
                client.admin.command("hello")
        except PyMongoError:
            return False
        return True

    def client(self, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A plain client, to look behind the storage's back."""
        return pymongo.MongoClient(self.url, **options)

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(DEADLINE)

    def kill(self) -> None:
        """As by `kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)


@cache
def _private(transactions: bool) -> str:
    return Server(*(() if transactions else ("--standalone",))).url


def url_of(*, transactions: bool = True) -> str:
    """A deployment for all tests that leave it as it is. Of a user's own it is not known whether it
    has transactions; there `storages` sees to it."""
    return os.environ.get("MONGODB_URL") or _private(transactions)


def storages(*, transactions: bool = True, client: Any = None, **options: Any) -> MakeStorage:
    """Makes storages on one new database, with transactions or without: by the URL, so with Motor,
    or by ``client``."""
    if os.environ.get("MONGODB_URL") and not transactions:
        options["transactions"] = False
    # The test server reads all of a collection for many a query: none is to get large.
    options.setdefault("database", unique("test"))

    def make(namespace: str = "default") -> Storage:
        place = client or url_of(transactions=transactions)
        return MongoStorage(place, namespace=namespace, **options)

    return make


@contextmanager
def documents(storage: Storage, *, transactions: bool = False) -> Iterator[Any]:
    """The collection, by a plain client: to look behind the storage's back."""
    assert isinstance(storage, MongoStorage)
    with pymongo.MongoClient[dict[str, Any]](url_of(transactions=transactions)) as client:
        yield client[str(storage._database)]["memory_async"]


def damage(storage: Storage, key: Key, *, transactions: bool = True) -> None:
    """Overwrite the stored payload at ``key`` with rubbish."""
    names = Names(storage.namespace)
    id = names.turn(str(key.partition), key.id) if key.kind == "turn" else names.record(key)
    change = {"metadata": "{}"} if key.kind == "session" else {"payload": "[]"}
    with documents(storage, transactions=transactions) as collection:
        assert collection.update_one({"_id": id}, {"$set": change}).matched_count == 1
