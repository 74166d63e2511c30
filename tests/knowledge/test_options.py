"""What a `KnowledgeBase` is made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memory_async import (
    ConfigurationError,
    InMemoryStorage,
    KnowledgeBase,
    MemoryAsyncError,
    Put,
    StorageUnavailableError,
)
from memory_async.testing.around import Around

pytest.importorskip("Stemmer")


@pytest.mark.parametrize(
    "options",
    [{"embed": 7}, {"passage_size": 0}, {"passage_size": True}, {"passage_size": 10**6}],
    ids=str,
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        KnowledgeBase("memory://", "k", **options)


@pytest.mark.parametrize("id", ["", "x" * 513, "a\0b", 7, None])
def test_impossible_ids_are_refused(id: Any) -> None:
    with pytest.raises(MemoryAsyncError, match="knowledge_base_id"):
        KnowledgeBase("memory://", id)


def test_a_bare_path_shows_the_url_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///chat\.db"):
        KnowledgeBase("chat.db", "k")


async def test_it_closes_what_it_opened_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    async with KnowledgeBase(url, "k") as knowledge:
        await knowledge.add("text")
    with pytest.raises(StorageUnavailableError):
        await knowledge._storage.open()
    async with KnowledgeBase(url, "k") as knowledge:
        assert await knowledge.count() == 1


async def test_a_storage_of_the_caller_s_stays_open() -> None:
    async with InMemoryStorage() as storage:
        async with KnowledgeBase(storage, "k") as knowledge:
            await knowledge.add("text")
        async with KnowledgeBase(storage, "k") as knowledge:
            assert await knowledge.count() == 1


async def test_an_embed_that_is_not_async_is_told() -> None:
    async with KnowledgeBase("memory://", "k", embed=lambda texts: [[1.0]]) as knowledge:  # type: ignore[arg-type,return-value]
        with pytest.raises(ConfigurationError, match="async"):
            await knowledge.add("text")


async def test_progress_may_be_async() -> None:
    seen = []

    async def on_progress(done: int, total: int, document: object) -> None:
        seen.append((done, total))

    async with KnowledgeBase("memory://", "k") as knowledge:
        await knowledge.add_many(["one", "two"], on_progress=on_progress)
    assert seen == [(1, 2), (2, 2)]


async def test_a_document_is_ready_after_its_passages() -> None:
    """Where a batch may be done in part, in this order, adding again must not find it done."""
    order: list[str] = []

    class Ordered(Around):
        async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "apply":
                order.extend(each.record.kind for each in args if isinstance(each, Put))
            return await super().call(name, *args, **kwargs)

    base = KnowledgeBase(Ordered(InMemoryStorage()), "kb")
    await base.add("One.\n\nTwo.", source="a")
    assert order[-1] == "document"
    assert "chunk" in order
