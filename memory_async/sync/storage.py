"""`sync.Storage`: any async driver for plain callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from threading import Lock
from typing import Any

from memory_async.forked import watch
from memory_async.keys import Cursor, Key, Kind, Partition
from memory_async.memory import Memory
from memory_async.records import Record
from memory_async.storage import protocol
from memory_async.storage.protocol import Result, Snapshot, Write
from memory_async.storage.url import open_storage
from memory_async.sync.block import Block
from memory_async.sync.portal import EXIT_SECONDS, Portal
from memory_async.turns import Turn

__all__ = ["Storage"]

logger = logging.getLogger("memory_async.sync")

CLOSE_SECONDS = 10.0


class Storage(Block):
    """A driver (or URL) with an event loop of its own; owns both, facades given it share both.

    Every method is the driver's, without ``await``: see `memory_async.Storage`.
    """

    def __init__(self, storage: str | protocol.Storage) -> None:
        self._driver = open_storage(storage) if isinstance(storage, str) else storage
        self._portal = Portal()
        self._portal.at_exit = self._close_at_exit
        self._memories: dict[Memory[Any], Lock] = {}  # each with who closes it
        self._closing = Lock()
        watch(self)

    @property
    def namespace(self) -> str:
        return self._driver.namespace

    @property
    def unpromised(self) -> frozenset[str]:
        return self._driver.unpromised

    @property
    def corrupt_rows(self) -> int:
        return self._driver.corrupt_rows

    def open(self) -> None:
        self._portal.call(self._driver.open)

    def close(self) -> None:
        """Close the facades it was given to as well: up to 10 s for jobs that are due."""
        self._portal.refuse_own_thread()
        with self._closing:
            try:
                if self._portal.running:
                    self._portal.call(self._close_memories, CLOSE_SECONDS)
            finally:
                self._portal.close(self._driver.close)
                for memory in self._memories:
                    memory.abandon()

    async def _close_memories(self, timeout: float) -> None:
        closing = [memory.close(timeout) for memory in self._memories]
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failed, Exception):
                logger.error("closing a Memory failed", exc_info=failed)

    async def _close_at_exit(self) -> None:
        try:
            await self._close_memories(EXIT_SECONDS)
        finally:
            await self._driver.close()

    def _close_memory(self, memory: Memory[Any], timeout: float) -> None:
        closing = self._memories.get(memory)
        if closing is None:
            return  # a view, or closed
        with closing:
            if self._portal.running:
                self._portal.call(memory.close, timeout)
            else:
                memory.abandon()
        self._memories.pop(memory, None)

    def _forked(self) -> None:
        """In a child: no thread is left that could be closing anything."""
        self._closing = Lock()
        self._memories = {memory: Lock() for memory in self._memories}

    def apply(self, *writes: Write) -> list[Result]:
        return self._portal.call(self._driver.apply, *writes)

    def get(self, key: Key) -> Record | Turn | None:
        return self._portal.call(self._driver.get, key)

    def find(
        self,
        kind: Kind,
        partition: Partition | None = None,
        *,
        id: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        user_id: str | None = None,
        status: str | None = None,
        lagging: str | None = None,
        before: Cursor | None = None,
        limit: int = 100,
    ) -> list[Record]:
        return self._portal.call(
            self._driver.find,
            kind,
            partition,
            id=id,
            prefix=prefix,
            tags=tags,
            user_id=user_id,
            status=status,
            lagging=lagging,
            before=before,
            limit=limit,
        )

    def history(
        self,
        session_id: str,
        *,
        last: int | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
        trimmed: bool = False,
    ) -> list[Turn]:
        return self._portal.call(
            self._driver.history,
            session_id,
            last=last,
            after=after,
            before=before,
            limit=limit,
            trimmed=trimmed,
        )

    def snapshot(
        self,
        session_id: str,
        user_id: str | None = None,
        *,
        last: int | None = None,
        since: str | None = None,
        profile: str = "default",
    ) -> Snapshot:
        return self._portal.call(
            self._driver.snapshot, session_id, user_id, last=last, since=since, profile=profile
        )

    def now(self, partition: Partition) -> datetime:
        return self._portal.call(self._driver.now, partition)

    def _begin(self) -> None:
        self.open()

    def __repr__(self) -> str:
        return f"sync.Storage({self._driver!r})"
