"""Searching a knowledge base: by words, and by meaning where there are vectors."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from memory_async.errors import CorruptRecordError
from memory_async.keys import Key, Partition
from memory_async.knowledge.adding import VECTORS
from memory_async.ranking import Passage, rank
from memory_async.records import Chunk, Document, Item, Record
from memory_async.storage.protocol import Storage, SupportsSearch
from memory_async.turns import Turn
from memory_async.vectors import Vector, cosine, unpack

__all__ = ["MAX_CANDIDATES", "KnowledgeHit", "Question", "documents", "fits", "search"]

logger = logging.getLogger("memory_async")

MAX_CANDIDATES = 10_000
"""Passages ranked here, newest first, where the engine has no full text: about 10 MB of text."""

RETRIES = 3
CANDIDATES = 60  # that an engine's full text is asked for, to rank them here
PAGE = 500
CHUNK_PAGE = 10_000
VECTOR_PAGE = 4  # Items, of a hundred vectors each


@dataclass(frozen=True, slots=True)
class KnowledgeHit:
    """A passage that was found: the one with this ``index``, from 0, of ``document``. ``score``
    says how well it fits, higher is better; it compares within one answer only."""

    text: str
    score: float
    document: Document
    index: int

    @property
    def source(self) -> str | None:
        """What to call where it stands: the document's name, else its source."""
        return self.document.name or self.document.source


class Question(NamedTuple):
    """What is searched for; ``vector`` of the text, where there is a model for it."""

    text: str
    vector: Vector | None
    limit: int
    metadata: Mapping[str, Any]


class _Place(NamedTuple):
    """A passage that may be a hit, by its chunk's id."""

    id: str
    score: float


class _Found(NamedTuple):
    hits: list[KnowledgeHit]
    torn: bool  # something was replaced between two reads


def fits(document: Document, metadata: Mapping[str, Any]) -> bool:
    """Whether the document has all of ``metadata``, equal."""
    missing = object()
    return all(document.metadata.get(name, missing) == value for name, value in metadata.items())


async def documents(
    storage: Storage, partition: Partition, **given: Any
) -> AsyncIterator[Document]:
    """All documents there, newest first; ``given`` are conditions of `Storage.find`."""
    before = given.pop("before", None)
    while page := await storage.find("document", partition, before=before, limit=PAGE, **given):
        for document in page:
            if isinstance(document, Document):
                yield document
        before = page[-1].cursor


async def search(storage: Storage, partition: Partition, question: Question) -> list[KnowledgeHit]:
    """The passages that fit best, best first; of documents as they are, each whole."""
    found = await _search(storage, partition, question)
    for _ in range(RETRIES):
        if not found.torn:
            break
        # Found under one generation and looked up under the next, a passage was missed.
        found = await _search(storage, partition, question)
    return found.hits


async def _search(storage: Storage, partition: Partition, question: Question) -> _Found:
    depth = max(4 * question.limit, CANDIDATES)
    while True:
        places = await _rank(storage, partition, question, depth)
        found = await _look_up(storage, partition, question, places)
        # What is just being written, or has other metadata, may have taken all places.
        if len(found.hits) == question.limit or len(places) < depth or depth >= MAX_CANDIDATES:
            return found
        depth *= 8


async def _rank(
    storage: Storage, partition: Partition, question: Question, depth: int
) -> list[_Place]:
    """The best ``depth`` passages, of any generation, best first."""
    texts = await _by_words(storage, partition, question.text, depth)
    alike: dict[str, float] = {}
    if question.vector is not None:
        nearest, alike = await _by_meaning(storage, partition, question.vector, depth, texts)
        texts |= await _texts(storage, partition, nearest - texts.keys())
    # Passages of one document, in one generation, are neighbours.
    passages = [Passage(text, place=_place_of(id)) for id, text in texts.items()]
    near = [alike.get(id, 0.0) for id in texts] if alike else ()
    if len(texts) <= 2 * CANDIDATES:
        ranked = rank(question.text, passages, depth, near)
    else:  # ten thousand passages take a second
        ranked = await asyncio.to_thread(rank, question.text, passages, depth, near)
    ids = list(texts)
    return [_Place(ids[index], score) for index, score in ranked]


def _place_of(chunk_id: str) -> tuple[str, int]:
    whole, _, index = chunk_id.rpartition("/")
    return whole, int(index)


async def _by_words(
    storage: Storage, partition: Partition, query: str, depth: int
) -> dict[str, str]:
    """Texts, by their chunks' ids, among which are those that have words of the query."""
    if isinstance(storage, SupportsSearch):
        matches = await storage.search(query, kind="chunk", partition=partition, limit=depth)
        return {each.key.id: each.text for each in matches}
    texts: dict[str, str] = {}
    before = None
    while len(texts) < MAX_CANDIDATES:
        page = await storage.find("chunk", partition, before=before, limit=CHUNK_PAGE)
        texts.update((chunk.key.id, chunk.text) for chunk in page if isinstance(chunk, Chunk))
        if len(page) < CHUNK_PAGE:
            return texts
        before = page[-1].cursor
    logger.warning("%s has more passages than the %d searched", partition, MAX_CANDIDATES)
    return texts


async def _by_meaning(
    storage: Storage, partition: Partition, vector: Vector, depth: int, ids: Collection[str]
) -> tuple[set[str], dict[str, float]]:
    """The ``depth`` passages whose vectors are nearest; how near these are, and those of ``ids``.
    All vectors are compared, a few at a time."""
    nearest: list[tuple[float, str]] = []
    alike: dict[str, float] = {}
    before = None
    while page := await storage.find(
        "item", partition, tags=(VECTORS,), before=before, limit=VECTOR_PAGE
    ):
        compared = [each for item in page for each in _compare(item, vector)]
        alike.update((id, value) for value, id in compared if id in ids)
        nearest = heapq.nlargest(depth, nearest + compared)
        before = page[-1].cursor
    alike.update((id, value) for value, id in nearest)
    return {id for _, id in nearest}, alike


def _compare(item: Record, vector: Vector) -> Iterator[tuple[float, str]]:
    assert isinstance(item, Item)  # noqa: S101 - what was asked for
    try:
        whole, first = _place_of(item.id)
        vectors = unpack(item.value)
    except (CorruptRecordError, ValueError) as error:
        logger.error("skipped %s: %s", item.key, error)  # noqa: TRY400 - like a corrupt row
        return
    for index, each in enumerate(vectors, first):
        yield cosine(vector, each), f"{whole}/{index:08d}"


async def _texts(storage: Storage, partition: Partition, ids: Iterable[str]) -> dict[str, str]:
    """Texts by ids; of chunks that are gone meanwhile "", for `_look_up` to see that they are."""
    keys = [Key("chunk", partition, id) for id in ids]
    chunks = await _get_all(storage, keys)
    return {
        key.id: chunk.text if isinstance(chunk, Chunk) else ""
        for key, chunk in zip(keys, chunks, strict=True)
    }


async def _look_up(
    storage: Storage, partition: Partition, question: Question, places: list[_Place]
) -> _Found:
    """The first that are of a document as it is, and have the metadata asked for."""
    hits: list[KnowledgeHit] = []
    torn = False
    known: dict[str, Document] = {}
    todo = iter(places)
    while len(hits) < question.limit and (some := list(islice(todo, 2 * question.limit))):
        found = await _get_all(storage, [Key("chunk", partition, each.id) for each in some])
        chunks = [chunk if isinstance(chunk, Chunk) else None for chunk in found]
        unknown = {chunk.document_id for chunk in chunks if chunk} - known.keys()
        keys = [Key("document", partition, id) for id in unknown]
        read = await _get_all(storage, keys)
        known.update((each.document_id, each) for each in read if isinstance(each, Document))
        for place, chunk in zip(some, chunks, strict=True):
            document = known.get(chunk.document_id) if chunk else None
            if chunk is None or document is None:
                torn = True  # deleted since
            elif chunk.generation != document.generation:
                torn = torn or chunk.generation not in document.staging
            elif fits(document, question.metadata):
                hits.append(KnowledgeHit(chunk.text, place.score, document, chunk.index))
    return _Found(hits[: question.limit], torn)


async def _get_all(storage: Storage, keys: list[Key]) -> list[Record | Turn | None]:
    return await asyncio.gather(*map(storage.get, keys))
