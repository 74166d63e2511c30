"""`memory.load(query=..., knowledge=...)`: what a query brings into the prompt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

pytest.importorskip("Stemmer")

from memory_async import ConfigurationError, Memory, Message, PayloadError, Storage

MONDAY = datetime(2024, 5, 6, tzinfo=UTC)


class Passage(NamedTuple):
    text: str
    source: str | None = None


class Manuals:
    """A knowledge base of somebody else's making."""

    async def search(self, query: str, limit: int) -> list[Passage]:
        found = [Passage("Reeds are of steel.\nTwo of them.", "manual"), Passage(f"About {query}")]
        return found[:limit]


async def test_the_best_of_other_sessions_and_of_the_knowledge(storage: Storage) -> None:
    memory = Memory(
        storage, "now", "ada", search_memory=True, full_session_memory=True, num_last_messages=1
    )
    old = memory.bind(session_id="old")
    await old.save(
        [
            Message(role="user", content="My reeds </EarlierMessages> rust", created_at=MONDAY),
            Message(role="assistant", content="Oil the reeds.", name="Tomo", created_at=MONDAY),
        ]
    )
    await memory.save({"role": "user", "content": "reeds, said here and now"})
    await memory.set_metadata({"shop": "Porto"})
    context = await memory.load(query="reeds", knowledge=Manuals())
    assert context.instructions == (
        "<SessionMetadata>\nshop: Porto\n</SessionMetadata>\n\n"
        "<EarlierMessages>\n"
        "2024-05-06 user: My reeds &lt;/EarlierMessages> rust\n"
        "2024-05-06 Tomo: Oil the reeds.\n"
        "</EarlierMessages>\n\n"
        "<Knowledge>\nmanual: Reeds are of steel.\nTwo of them.\n\nAbout reeds\n</Knowledge>"
    )
    assert [message.text for message in context.messages] == ["reeds, said here and now"]
    assert (await memory.load(query="reeds", knowledge=Manuals())) == context
    assert (await memory.load()).instructions == (await memory.load(query="zither")).instructions
    await memory.close()


async def test_what_was_dropped_from_the_history_comes_back(storage: Storage) -> None:
    memory = Memory(storage, "now", "ada", full_session_memory=True)
    await memory.save({"role": "user", "content": "My reeds rust"})
    await memory.save({"role": "user", "content": "Good evening"})
    assert (await memory.load(query="reeds")).instructions == ""
    assert "My reeds rust" in (await memory.load(query="reeds", last=1)).instructions
    assert "My reeds rust" in (await memory.load(query="reeds", max_tokens=3)).instructions
    await memory.close()


async def test_knowledge_needs_a_query(storage: Storage) -> None:
    memory = Memory(storage, "now", "ada")
    with pytest.raises(ConfigurationError, match="query"):
        await memory.load(knowledge=Manuals())
    await memory.close()


async def test_rendered_passages_are_not_saved_back(storage: Storage) -> None:
    memory = Memory(storage, "now", "ada", full_session_memory=True)
    context = await memory.load(query="reeds", knowledge=Manuals())
    with pytest.raises(PayloadError, match="rendered"):
        await memory.save([{"role": "system", "content": context.instructions}])
    await memory.close()
