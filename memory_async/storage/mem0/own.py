"""A caller's own ``mem0ai`` ``AsyncMemory``: self-hosted, in this process, without HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from memory_async.errors import ConfigurationError, StorageError, StorageUnavailableError
from memory_async.storage.mem0.service import Found, Scope, found

__all__ = ["OwnMemory"]

AT_FIRST = 1000  # an AsyncMemory lists so many at most, and has no pages: more are asked for then


class OwnMemory:
    """A `Service`. The memory stays the caller's: it is neither opened nor closed here, and what it
    retries is its own affair."""

    def __init__(self, memory: Any) -> None:
        missing = [n for n in ("add", "get_all", "search", "update", "delete", "get")
                   if not callable(getattr(memory, n, None))]  # fmt: skip
        if missing:
            raise ConfigurationError(
                f"memory= takes a mem0ai AsyncMemory; {type(memory).__name__} has no "
                f"{', '.join(missing)}"
            )
        self._memory = memory
        self._inherited = False

    def __repr__(self) -> str:
        return type(self._memory).__name__

    async def open(self) -> None:
        if self._inherited:
            raise ConfigurationError(
                "a forked process cannot go on with its parent's AsyncMemory: make one of its own"
            )

    async def close(self) -> None:
        return

    def abandon(self) -> None:
        self._inherited = True

    async def add(
        self,
        scope: Scope,
        messages: Sequence[Mapping[str, str]],
        metadata: Mapping[str, Any],
        *,
        infer: bool,
    ) -> list[str]:
        with self._errors():
            answer = await self._memory.add(
                list(messages), **scope, metadata=dict(metadata), infer=infer
            )
            return [str(each["id"]) for each in answer["results"]]

    async def read_all(self, scope: Scope, metadata: Mapping[str, str]) -> list[Found]:
        most = AT_FIRST
        while True:
            with self._errors():
                answer = await self._memory.get_all(filters={**scope, **metadata}, top_k=most)
                memories = [found(each) for each in answer["results"]]
            if len(memories) < most:
                return memories
            most *= 10

    async def search(
        self, query: str, scope: Scope, metadata: Mapping[str, str], limit: int
    ) -> list[Found]:
        with self._errors():
            answer = await self._memory.search(query, filters={**scope, **metadata}, top_k=limit)
            return [found(each) for each in answer["results"]]

    async def update(self, id: str, text: str, metadata: Mapping[str, Any]) -> bool:
        with self._errors():
            if await self._memory.get(id) is None:  # update() raises, as for much else
                return False
            await self._memory.update(id, text=text, metadata=dict(metadata))
            return True

    async def delete(self, id: str) -> None:
        with self._errors():
            if await self._memory.get(id) is not None:
                await self._memory.delete(id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """It lets through whatever its database, embedder and model raise."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise StorageUnavailableError(f"{self!r} failed: {error!r}") from error
