"""Bringing a document into a knowledge base: whole or not at all, whoever else is at it.

The content is written as a new *generation* of chunks, which nobody sees until the document's
record names it. What fits into one batch is written in one. Else, and when it has to be embedded
first, the record first says "pending" and names the generation under ``staging``; the chunks follow
in batches that are only applied while it does; the last batch makes the generation the document's
own, and drops all others: the old content, and what writers left that died, or were slower. Those
find their generation no longer named, and begin anew from what is there then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from memory_async.errors import ConflictError, MemoryAsyncError
from memory_async.keys import compound_prefix, new_version, utc_now
from memory_async.knowledge.reading import Given
from memory_async.passages import split_passages
from memory_async.records import Chunk, Document, Item
from memory_async.shield import to_the_end
from memory_async.storage.protocol import ABSENT, ALWAYS, Drop, Expect, Put, Storage, Write
from memory_async.vectors import Embed, embed_texts, pack

__all__ = ["VECTORS", "Adding", "drop_generations", "generation_prefix"]

logger = logging.getLogger("memory_async")

VECTORS = "vectors"
"""The tag of the Items that hold the vectors of chunks."""

# What one batch holds at most: small beside the limits of any engine.
BATCH_CHUNKS = 100
BATCH_CHARACTERS = 400_000


def generation_prefix(document_id: str, generation: str) -> str:
    """What the ids of a generation's chunks and vectors begin with."""
    return f"{compound_prefix(document_id)}{generation}/"


def drop_generations(document: Document, generations: Iterable[str]) -> list[Write]:
    return [
        Drop(document.key.partition, kind, generation_prefix(document.document_id, generation))
        for generation in generations
        if generation
        for kind in ("chunk", "item")
    ]


class Adding:
    """One call of `KnowledgeBase.add`."""

    def __init__(
        self, storage: Storage, given: Given, *, embed: Embed | None, passage_size: int
    ) -> None:
        self._storage = storage
        self._given = given
        self._embed = embed
        self._size = passage_size
        self._key = given.document.key
        self._generation = ""
        self._stored: Document | None = None

    async def run(self) -> Document:
        """The document as it is stored then."""
        await self._read()
        while True:
            try:
                if self._is_there():
                    return await self._describe()
                return await self._write()
            except ConflictError:
                await self._read()  # somebody else wrote first: on from there

    async def _read(self) -> None:
        found = await self._storage.get(self._key)
        self._stored = found if isinstance(found, Document) else None

    def _is_there(self) -> bool:
        stored = self._stored
        return stored is not None and stored.hash == self._given.document.hash

    # --- what becomes of the record ---

    def _changed(self, **fields: Any) -> Document:
        """The record as it is to be next: what is stored, else what was given."""
        base = self._stored or replace(self._given.document, size=0, hash=None)
        return replace(base, version=new_version(), updated_at=utc_now(), **fields)

    def _put(self, document: Document) -> Put:
        return Put(document, ABSENT if self._stored is None else self._stored.version)

    def _others(self) -> list[str]:
        stored = self._stored
        return [] if stored is None else [stored.generation, *stored.staging]

    def _ready(self, chunk_count: int) -> tuple[Document, list[Write]]:
        """The record of the generation that takes over; and the end of all others."""
        given = self._given
        document = self._changed(
            **given.said,
            status="ready",
            error=None,
            size=given.document.size,
            hash=given.document.hash,
            chunk_count=chunk_count,
            generation=self._generation,
            staging=[],
        )
        others = [each for each in self._others() if each != self._generation]
        return document, [self._put(document), *drop_generations(document, others)]

    async def _describe(self) -> Document:
        """The content is there: what else was given is set, where it is something else."""
        stored = self._stored
        assert stored is not None  # noqa: S101 - for the type
        wanted = replace(stored, **self._given.said, status="ready", error=None, staging=[])
        if wanted == stored:
            return stored
        document = replace(wanted, version=new_version(), updated_at=utc_now())
        leftovers = drop_generations(stored, stored.staging)
        await self._storage.apply(self._put(document), *leftovers)
        return document

    # --- writing ---

    async def _write(self) -> Document:
        text = self._given.text
        if len(text) <= BATCH_CHARACTERS:
            passages = split_passages(text, self._size)
        else:
            passages = await asyncio.to_thread(split_passages, text, self._size)
        self._generation = new_version()
        batches = list(_batches(passages))
        if self._embed is None and len(batches) == 1:
            document, writes = self._ready(len(passages))
            # Where a batch may be done in part, the document must not be ready before its chunks.
            await self._storage.apply(*self._chunks(0, passages), *writes)
            return document
        staging = [each for each in self._others()[1:] if each] + [self._generation]
        pending = self._changed(status="pending", error=None, staging=staging)
        await self._storage.apply(self._put(pending))
        self._stored = pending
        try:
            return await self._stage(batches, len(passages))
        except ConflictError:
            await self._storage.apply(*self._own_drops())
            raise
        except (Exception, asyncio.CancelledError) as error:
            await to_the_end(self._fail(error))
            raise

    async def _stage(self, batches: list[tuple[int, list[str]]], chunk_count: int) -> Document:
        for first, passages in batches:
            writes = self._chunks(first, passages)
            if self._embed is not None:
                writes.append(await self._vectors(self._embed, first, passages))
            await self._while_staged(writes)
        return await self._while_staged(None, chunk_count)

    async def _while_staged(self, writes: Sequence[Write] | None, chunk_count: int = 0) -> Document:
        """Apply ``writes``, or what makes the generation the document's, while it is staged."""
        while True:
            stored = self._stored
            if stored is None or self._generation not in stored.staging:
                raise ConflictError(f"{self._key} was written or deleted meanwhile")
            if writes is None:
                stored, batch = self._ready(chunk_count)
            else:
                batch = [Expect(self._key, stored.version), *writes]
            try:
                await self._storage.apply(*batch)
            except ConflictError:
                await self._read()  # another writer may have begun, or given up
            else:
                return stored

    def _chunks(self, first: int, passages: Sequence[str]) -> list[Write]:
        knowledge_base_id, document_id = self._key.partition.id, self._key.id
        return [
            Put(
                Chunk(
                    knowledge_base_id=knowledge_base_id,
                    document_id=document_id,
                    generation=self._generation,
                    index=index,
                    text=text,
                ),
                ALWAYS,
            )
            for index, text in enumerate(passages, first)
        ]

    async def _vectors(self, embed: Embed, first: int, passages: list[str]) -> Write:
        vectors = await embed_texts(embed, passages)
        item = Item(
            partition=self._key.partition,
            id=f"{generation_prefix(self._key.id, self._generation)}{first:08d}",
            value=pack(vectors),
            tags=(VECTORS,),
        )
        return Put(item, ALWAYS)

    # --- giving up ---

    def _own_drops(self) -> list[Write]:
        return drop_generations(self._given.document, [self._generation])

    async def _fail(self, error: BaseException) -> None:
        """Take back what was staged, and leave a message. Best effort: who adds again cleans up."""
        said = (
            str(error) or "cancelled" if isinstance(error, asyncio.CancelledError) else str(error)
        )
        message = f"{type(error).__name__}: {said}".encode("utf-8", "replace").decode()[:1000]
        try:
            while True:
                await self._read()
                stored = self._stored
                drops = self._own_drops()
                if stored is not None and stored.generation == self._generation:
                    return  # the last batch was applied, and only the answer is missing
                if stored is not None and self._generation in stored.staging:
                    staging = [each for each in stored.staging if each != self._generation]
                    failed = self._changed(status="failed", error=message, staging=staging)
                    drops = [self._put(failed), *drops]
                try:
                    await self._storage.apply(*drops)
                except ConflictError:
                    continue
                return
        except MemoryAsyncError as failure:
            logger.warning("%s stays pending until it is added again: %s", self._key, failure)


def _batches(passages: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Passages in batches, each with the index of its first."""
    first, size = 0, 0
    for index, passage in enumerate(passages):
        if index > first and (
            index - first == BATCH_CHUNKS or size + len(passage) > BATCH_CHARACTERS
        ):
            yield first, passages[first:index]
            first, size = index, 0
        size += len(passage)
    yield first, passages[first:]
