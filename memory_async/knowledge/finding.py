"""Searching a knowledge base: by words, and by meaning where there are vectors."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from memory_async.errors import CorruptRecordError
from memory_async.keys import Key, Partition
from memory_async.knowledge.adding import VECTORS
from memory_async.records import Chunk, Document, Item
from memory_async.storage.protocol import Storage, SupportsSearch
from memory_async.vectors import Vector, cosine, unpack

__all__ = ["MAX_CANDIDATES", "Hit", "Question", "documents", "fits", "search"]

MAX_CANDIDATES = 10_000
"""Passages ranked here, newest first, where the engine has no full text: about 10 MB of text."""

PAGE = 500
CHUNK_PAGE = 2_000
VECTOR_PAGE = 4  # Items, of a hundred vectors each


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found: the one with this ``index``, from 0, of ``document``. ``score``
    says how well it fits, higher is better; it compares within one answer only."""

    text: str
    score: float
    document: Document
    index: int


class Question(NamedTuple):
    """What is searched for; ``vector`` of the text, where there is a model for it."""

    text: str
    vector: Vector | None
    limit: int
    metadata: Mapping[str, Any]


class _Found(NamedTuple):
    hits: list[Hit]
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


async def search(storage: Storage, partition: Partition, question: Question) -> list[Hit]:
    """The passages that fit best, best first; of documents as they are, each whole."""
    found = _Found([], torn=True)
    for _ in range(3):
        # Found under one generation and looked up under the next, a passage would be missed.
        if not found.torn:
            break
        found = await _search(storage, partition, question)
    return found.hits


async def _search(storage: Storage, partition: Partition, question: Question) -> _Found:
    depth = max(4 * question.limit, 50)
    while True:
        ranked = await _ranked(storage, partition, question, depth)
        found = await _look_up(storage, partition, question, ranked)
        # What is just being written, or has other metadata, may have taken all places.
        if len(found.hits) == question.limit or len(ranked) < depth or depth >= MAX_CANDIDATES:
            return found
        depth *= 8


class _Place(NamedTuple):
    """A passage that may be a hit, by its chunk's id."""

    id: str
    score: float


async def _ranked(
    storage: Storage, partition: Partition, question: Question, depth: int
) -> list[_Place]:
    """The best ``depth`` passages of any generation, best first."""
    by_words = await _by_words(storage, partition, question.text, depth)
    if question.vector is None:
        return by_words
    by_meaning = await _by_meaning(storage, partition, question.vector, depth)
    return _fuse(by_words, by_meaning)[:depth]


async def _by_words(storage: Storage, partition: Partition, query: str, depth: int) -> list[_Place]:
    if isinstance(storage, SupportsSearch):
        matches = await storage.search(query, kind="chunk", partition=partition, limit=depth)
        return [_Place(each.key.id, each.score) for each in matches]
    ids: list[str] = []
    texts: list[str] = []
    before = None
    while len(ids) < MAX_CANDIDATES:
        page = await storage.find("chunk", partition, before=before, limit=CHUNK_PAGE)
        for chunk in page:
            if isinstance(chunk, Chunk):
                ids.append(chunk.key.id)
                texts.append(chunk.text)
        if len(page) < CHUNK_PAGE:
            break
        before = page[-1].cursor
    scores = _rank(query, texts)
    places = [_Place(id, score) for id, score in zip(ids, scores, strict=True) if score > 0]
    return heapq.nlargest(depth, places, key=lambda place: place.score)


async def _by_meaning(
    storage: Storage, partition: Partition, vector: Vector, depth: int
) -> list[_Place]:
    """The passages whose vectors are nearest, of all there are, a few at a time."""
    best: list[_Place] = []
    before = None
    while page := await storage.find(
        "item", partition, tags=(VECTORS,), before=before, limit=VECTOR_PAGE
    ):
        places = (place for item in page for place in _compared(item, vector))
        best = heapq.nlargest(depth, [*best, *places], key=lambda place: place.score)
        before = page[-1].cursor
    return best


def _compared(item: Any, vector: Vector) -> Iterable[_Place]:
    if not isinstance(item, Item):
        return
    start, _, first = item.id.rpartition("/")
    try:
        vectors = unpack(item.value)
    except CorruptRecordError:
        return  # an Item of somebody else's, under this tag
    for index, each in enumerate(vectors, int(first)):
        yield _Place(f"{start}/{index:08d}", cosine(vector, each))


async def _look_up(
    storage: Storage, partition: Partition, question: Question, ranked: list[_Place]
) -> _Found:
    """The first of ``ranked`` that are of a document as it is, and have the metadata asked for."""
    hits: list[Hit] = []
    torn = False
    known: dict[str, Document | None] = {}
    todo = iter(ranked)
    while len(hits) < question.limit:
        places = list(islice(todo, 2 * question.limit))
        if not places:
            break
        keys = [Key("chunk", partition, place.id) for place in places]
        found = await asyncio.gather(*map(storage.get, keys))
        chunks = [chunk if isinstance(chunk, Chunk) else None for chunk in found]
        ids = {chunk.document_id for chunk in chunks if chunk} - known.keys()
        for id, document in zip(
            ids,
            await asyncio.gather(*(storage.get(Key("document", partition, id)) for id in ids)),
            strict=True,
        ):
            known[id] = document if isinstance(document, Document) else None
        for place, chunk in zip(places, chunks, strict=True):
            document = known[chunk.document_id] if chunk else None
            if chunk is None or document is None:
                torn = True  # deleted since
            elif chunk.generation != document.generation:
                torn = torn or chunk.generation not in document.staging
            elif fits(document, question.metadata):
                hits.append(Hit(chunk.text, place.score, document, chunk.index))
    return _Found(hits[: question.limit], torn)


def _fuse(by_words: list[_Place], by_meaning: list[_Place]) -> list[_Place]:
    scores: dict[str, float] = {}
    for ranked in (by_words, by_meaning):
        for rank, place in enumerate(ranked, 1):
            scores[place.id] = scores.get(place.id, 0.0) + 1 / (60 + rank)
    places = [_Place(id, score) for id, score in scores.items()]
    return sorted(places, key=lambda place: place.score, reverse=True)


def _rank(query: str, texts: list[str]) -> list[float]:
    words = set(query.lower().split())
    return [float(sum(text.lower().split().count(word) for word in words)) for text in texts]
