"""The memories of one namespace: reading rows from them, and writing rows into them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TypeVar

from memory_async.errors import StorageUnavailableError
from memory_async.storage.mem0.rows import Entry, Piece, entries, is_ours, scope_of
from memory_async.storage.mem0.service import Found, Service

__all__ = ["Shelf"]

T = TypeVar("T")

AT_ONCE = 16  # calls of one storage
READINGS = 5  # of rows that are being rewritten


class Shelf:
    """All rows of a namespace are memories of one agent, found by their metadata."""

    def __init__(self, service: Service, namespace: str) -> None:
        self.service = service
        self.scope = scope_of(namespace)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def read(self, *conditions: Mapping[str, str], remains: bool = False) -> list[Entry]:
        """The rows whose memories have all this metadata; with ``remains`` also what is left of
        those that were never written to their end."""
        wanted = {name: value for each in conditions for name, value in each.items()}
        found: list[Entry] = []
        for _ in range(READINGS):
            # Looked at once more: how a server takes its filters is not ours to rely on.
            listed = await self._call(self.service.read_all(self.scope, wanted))
            found = entries(each for each in listed if _fits(each, wanted))
            if all(entry.whole for entry in found):
                break
        return found if remains else [entry for entry in found if entry.head is not None]

    async def search(self, query: str, wanted: Mapping[str, str], limit: int) -> list[Found]:
        """The memories with this metadata that fit best, best first."""
        found = await self._call(self.service.search(query, self.scope, wanted, limit))
        return [each for each in found if is_ours(each.metadata) and _fits(each, wanted)]

    async def write(self, new: Sequence[Piece], old: Entry | None) -> Entry:
        """Write a row, in place of the ``old`` one. Until its head is written, nothing of it is
        there for others; whatever fails, it is not taken for written."""
        head, *rest = new
        added = await self.gather(self._add(piece) for piece in rest)
        if old is None or old.head is None:
            id = await self._add(head)
        elif await self._call(self.service.update(old.head, head.text, head.metadata)):
            id = old.head
        else:  # deleted by another writer meanwhile
            id = await self._add(head)
        await self.gather(map(self._delete, old.others if old is not None else ()))
        [entry] = entries(
            Found(each, piece.text, piece.metadata, "", "", 0.0)
            for each, piece in zip([id, *added], new, strict=True)
        )
        return entry

    async def remove(self, old: Entry) -> None:
        """The head last, so that what was interrupted is still there to be removed again."""
        await self.gather(map(self._delete, old.others))
        if old.head is not None:
            await self._delete(old.head)

    async def gather(self, calls: Iterable[Awaitable[T]]) -> list[T]:
        """The answers to calls made at once. All have ended when the first error is raised."""
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    # --- inside ---

    async def _call(self, call: Awaitable[T]) -> T:
        async with self._slots:
            return await call

    async def _delete(self, id: str) -> None:
        await self._call(self.service.delete(id))

    async def _add(self, piece: Piece) -> str:
        message = {"role": "user", "content": piece.text}
        ids = await self._call(self.service.add(self.scope, [message], piece.metadata, infer=False))
        if ids:
            return ids[0]
        # A text it has already (the first try has arrived) is dropped without naming an id.
        wanted = {"key": piece.metadata["key"]}
        for each in await self._call(self.service.read_all(self.scope, wanted)):
            if _fits(each, piece.metadata):
                return each.id
        raise StorageUnavailableError(
            f"{self.service!r} has answered, but has not kept the memory: nothing was saved"
        )


def _fits(memory: Found, wanted: Mapping[str, object]) -> bool:
    return all(memory.metadata.get(name) == value for name, value in wanted.items())
