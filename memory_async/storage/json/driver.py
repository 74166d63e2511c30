"""`JSONStorage`: a folder a person can read; safe for several processes on one machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import (
    ConfigurationError,
    SchemaTooNewError,
    StorageUnavailableError,
)
from memory_async.keys import Key, Partition, Space
from memory_async.storage.batch import Batch
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.engine import scan, start_of_view
from memory_async.storage.json.files import make_folder, safe_name, write_whole
from memory_async.storage.url import file_path

try:
    from filelock import FileLock, Timeout

    from memory_async.storage.json.partition import PartitionFiles
except ImportError as error:  # pragma: no cover - shown by the session without extras
    raise ConfigurationError(
        'JSONStorage needs filelock: pip install "memory-async[json]"'
    ) from error

T = TypeVar("T")

FORMAT = 1
CACHED = 256
FOLDERS: dict[Space, str] = {
    "session": "sessions",
    "user": "profiles",
    "knowledge": "documents",
    "collection": "collections",
}


class JSONStorage(Driver):
    """A folder of JSON files: for each session ``session.json`` and ``turns.jsonl``, for each user
    and knowledge base their records.

    For one machine and modest sizes: `find` reads every session's header. Every write is synced to
    the disk before it returns. ``lock_timeout`` (seconds) is how long a call waits for another
    process's on the same session.
    """

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "lock_timeout": float,
    }

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = "default",
        lock_timeout: float = 30.0,
    ) -> None:
        super().__init__(namespace=namespace)
        if not os.fspath(path) or "\0" in os.fspath(path):
            raise ConfigurationError(f"{os.fspath(path)!r} is no path of a folder")
        self._root = Path(path)
        self._folder = self._root / safe_name(namespace)
        self._lock_timeout = lock_timeout
        self._abandon()

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        path = file_path(scheme, rest)
        if not path:
            raise ConfigurationError("json:// names no folder: write json:///relative/folder")
        return cls(path, **options)

    def __repr__(self) -> str:
        return f"JSONStorage({str(self._root)!r}, namespace={self.namespace!r})"

    async def _open(self) -> None:
        await self._run(self._prepare)

    async def _close(self) -> None:
        self._abandon()

    def _abandon(self) -> None:
        self._cache: OrderedDict[Path, PartitionFiles] = OrderedDict()
        self._caching = threading.Lock()

    def _prepare(self) -> None:
        about = self._root / "memory_async.json"
        make_folder(self._root)
        with FileLock(self._root / ".lock", timeout=self._lock_timeout):
            if not about.exists():
                write_whole(about, json.dumps({"format": FORMAT}) + "\n")
        if (found := json.loads(about.read_text())["format"]) > FORMAT:
            raise SchemaTooNewError(
                f"{self._root} has format {found}, this memory_async knows {FORMAT}: "
                "upgrade memory_async"
            )
        for name in FOLDERS.values():
            for gone in (self._folder / name).glob(".*"):
                shutil.rmtree(gone, ignore_errors=True)  # deleted, and then interrupted

    # --- every call runs in a worker thread, under the lock of its partition ---

    async def _apply(self, batch: Batch) -> Applied:
        return await self._in(batch.partition, lambda files: files.apply(batch))

    async def _get(self, key: Key) -> SessionRow | RecordRow | TurnRow | None:
        def get(files: PartitionFiles) -> SessionRow | RecordRow | TurnRow | None:
            if key.kind != "turn":
                return files.row(key)
            seq = files.log.seq_of(key.id)
            return None if seq is None else files.log.turn(seq)

        return await self._in(key.partition, get)

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        def find() -> Sequence[SessionRow | RecordRow]:
            rows: list[SessionRow | RecordRow] = []
            for folder in self._partitions(query):
                files = self._files(folder)
                with files.locked():
                    if query.kind != "session":
                        rows += files.records(query.kind)
                    elif files.log.header is not None:
                        rows.append(files.log.header)
            return scan(rows, query)

        return await self._run(find)

    async def _history(self, session_id: str, span: Span) -> Sequence[TurnRow]:
        return await self._in(Partition("session", session_id), lambda files: files.log.read(span))

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        def view(files: PartitionFiles) -> tuple[SessionRow | None, list[TurnRow]]:
            header = files.log.header
            if header is None:
                return None, []
            start = start_of_view(header, last, since)
            return header, files.log.read(Span(start, None, None, newest=False, trimmed=False))

        header, turns = await self._in(Partition("session", session_id), view)
        row = None if profile is None else await self._get(profile)
        return View(header, turns, row if isinstance(row, RecordRow) else None)

    async def _in(self, partition: Partition, call: Callable[[PartitionFiles], T]) -> T:
        def locked() -> T:
            files = self._files(self._path(partition))
            with files.locked():
                return call(files)

        return await self._run(locked)

    async def _run(self, call: Callable[[], T]) -> T:
        with self._errors():
            return await asyncio.to_thread(call)

    def _path(self, partition: Partition) -> Path:
        return self._folder / FOLDERS[partition.space] / safe_name(partition.id)

    def _partitions(self, query: Query) -> Iterable[Path]:
        if query.partition is not None:
            return [self._path(Partition.parse(query.partition))]
        spaces = ["sessions"] if query.kind == "session" else FOLDERS.values()
        folders = (path for space in spaces for path in (self._folder / space).glob("[!.]*"))
        return (
            folders
            if query.kind == "session"
            else (f for f in folders if (f / query.kind).is_dir())
        )

    def _files(self, folder: Path) -> PartitionFiles:
        with self._caching:
            files = self._cache.pop(folder, None)
            if files is None:
                lock = self._folder / "locks" / f"{folder.parent.name}-{folder.name}.lock"
                files = PartitionFiles(folder, lock, timeout=self._lock_timeout)
            self._cache[folder] = files
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
            return files

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Timeout as error:
            raise StorageUnavailableError(
                f"{error.lock_file} stayed locked for {self._lock_timeout:g} s by another process"
            ) from error
        except OSError as error:
            raise StorageUnavailableError(f"{self._root}: {error}") from error
