"""`sync.Memory` and what belongs to it, dressed as the async API: every call goes to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from memory_async import StorageUnavailableError, sync
from memory_async.shield import to_the_end
from memory_async.testing.around import Around


class Dressed:
    """Methods become coroutine functions; attributes stay."""

    plain: frozenset[str] = frozenset()

    def __init__(self, of: Any) -> None:
        self.__dict__["of"] = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        if not callable(found) or name in self.plain:
            return found
        return lambda *args, **kwargs: asyncio.to_thread(found, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.of, name, value)


class Run(Dressed):
    plain = frozenset({"add", "pause", "to_openai"})


class Block:
    def __init__(self, of: Any) -> None:
        self._of = of

    async def __aenter__(self) -> Any:
        return Run(await asyncio.to_thread(self._of.__enter__))

    async def __aexit__(self, *error: object) -> Any:
        return await to_the_end(asyncio.to_thread(self._of.__exit__, *error))


class Memory(Dressed):
    def run(self, *args: Any, **kwargs: Any) -> Any:
        return Block(self.of.run(*args, **kwargs))

    def resume(self, *args: Any, **kwargs: Any) -> Any:
        return Block(self.of.resume(*args, **kwargs))

    def bind(self, **kwargs: Any) -> Any:
        return Memory(self.of.bind(**kwargs))


class Inbox(Dressed):
    async def memory_for(self, *args: Any, **kwargs: Any) -> Any:
        return Memory(await asyncio.to_thread(self.of.memory_for, *args, **kwargs))


class Facades:
    """Makes them; closes all in the end, but not the storages under them."""

    def __init__(self) -> None:
        self._made: list[sync.Storage] = []

    def make(
        self, dress: Callable[[Any], Any], facade: Any, storage: Any, *args: Any, **kw: Any
    ) -> Any:
        self._made.append(sync.Storage(Around(storage)))
        return dress(facade(self._made[-1], *args, **kw))

    def close(self) -> None:
        for storage in self._made:
            try:
                storage.close()
            except StorageUnavailableError:
                continue
