"""What the parts of `memory_async.testing.KnowledgeConformance` share."""

from __future__ import annotations

from typing import Any

import pytest

from memory_async.keys import Partition
from memory_async.knowledge import KnowledgeBase
from memory_async.records import Chunk, Document, Item
from memory_async.storage.protocol import Storage
from memory_async.testing.suite import Suite

PARAGRAPHS = 220  # of a book: several batches


def book(word: str) -> str:
    """A long text in which every passage has this word."""
    return "\n\n".join(f"{word} is what paragraph {n} is about." for n in range(PARAGRAPHS))


def in_base(id: str) -> Partition:
    return Partition("knowledge", id)


async def chunks(storage: Storage, id: str) -> list[Chunk]:
    """Everything written into passages there, in order, of whatever generation."""
    found = await storage.find("chunk", in_base(id), limit=100_000)
    return sorted((each for each in found if isinstance(each, Chunk)), key=lambda each: each.index)


async def is_whole(storage: Storage, id: str, document: Document, text: str) -> None:
    """The document has the passages of this text, and nothing else is left in the base."""
    found = await chunks(storage, id)
    assert {each.generation for each in found} == {document.generation}
    assert [each.index for each in found] == list(range(document.chunk_count))
    assert " ".join(each.text for each in found).split() == text.split()
    assert document.staging == []
    assert (document.status, document.error) == ("ready", None)
    for item in await storage.find("item", in_base(id), limit=10_000):
        assert isinstance(item, Item)
        assert document.generation in item.id


class Meaning:
    """A model that knows two subjects, and counts its calls."""

    subjects = ({"cat", "cats", "kitten", "purrs"}, {"car", "cars", "engine", "motor"})

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(texts)
        return [self._vector(text.lower().replace(".", "").split()) for text in texts]

    def _vector(self, words: list[str]) -> list[float]:
        return [0.1, *(float(sum(word in subject for word in words)) for subject in self.subjects)]


class KnowledgeSuite(Suite):
    """The fixtures of `KnowledgeConformance`."""

    @pytest.fixture(autouse=True)
    def _needs_the_extra(self) -> None:
        pytest.importorskip("Stemmer", reason="needs the extra: search")

    def knowledge(self, storage: Storage, id: str, **options: Any) -> KnowledgeBase:
        """May be overridden: the `KnowledgeBase`, or what behaves like one, that is tested."""
        return KnowledgeBase(storage, id, **options)
