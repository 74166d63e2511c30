"""The async storage protocol over `sync.Storage`, each call in a worker thread: what runs natively
runs through the facade as well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from memory_async import Key, Partition, Record, Result, Snapshot, Turn, sync
from memory_async.keys import Kind
from memory_async.shield import to_the_end
from memory_async.storage.protocol import Write

__all__ = ["Threaded"]

T = TypeVar("T")


async def _in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    # A thread cannot be cancelled: whoever is, goes on when it has ended.
    return await to_the_end(asyncio.to_thread(call, *args, **kwargs))


class Threaded:
    """With ``within`` the storage is entered when it is made, and left when it is closed; without,
    it is used as it is."""

    def __init__(self, storage: sync.Storage, *, within: bool) -> None:
        self.storage = storage
        self._within = within
        if within:  # in a thread: here is a running loop, which plain calls would block
            entering = threading.Thread(target=storage.__enter__)
            entering.start()
            entering.join()

    @property
    def namespace(self) -> str:
        return self.storage.namespace

    @property
    def unpromised(self) -> frozenset[str]:
        return self.storage.unpromised

    @property
    def corrupt_rows(self) -> int:
        return self.storage.corrupt_rows

    async def open(self) -> None:
        await _in_thread(self.storage.open)

    async def close(self) -> None:
        if self._within:
            await _in_thread(self.storage.__exit__, None, None, None)
        else:
            await _in_thread(self.storage.close)

    async def apply(self, *writes: Write) -> list[Result]:
        return await _in_thread(self.storage.apply, *writes)

    async def get(self, key: Key) -> Record | Turn | None:
        return await _in_thread(self.storage.get, key)

    async def find(self, kind: Kind, *args: Any, **kwargs: Any) -> list[Record]:
        return await _in_thread(self.storage.find, kind, *args, **kwargs)

    async def history(self, session_id: str, **kwargs: Any) -> list[Turn]:
        return await _in_thread(self.storage.history, session_id, **kwargs)

    async def snapshot(
        self, session_id: str, user_id: str | None = None, **kwargs: Any
    ) -> Snapshot:
        return await _in_thread(self.storage.snapshot, session_id, user_id, **kwargs)

    async def now(self, partition: Partition) -> datetime:
        return await _in_thread(self.storage.now, partition)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
