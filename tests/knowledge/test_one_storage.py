"""One storage for all: a conversation, what was learned from it, an open run, and knowledge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_async import KnowledgeBase, Memory, Requirement, RunNotFoundError, open_storage
from memory_async.storage.protocol import Storage

pytest.importorskip("Stemmer")

HANDBOOK = "The office opens at nine.\n\nRefunds take a week."


async def model(messages: list[dict[str, Any]], *, schema: object = None) -> str:
    return "Ada asked for a refund." if schema is None else json.dumps({"facts": ["has order 7"]})


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    pytest.importorskip("asyncpg")
    from tests.servers.postgres import postgres

    with postgres() as running:
        yield running.url()


@pytest.fixture(params=["sqlite", "postgres"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'all.db'}"
    else:
        url = f"{request.getfixturevalue('server')}?namespace={request.node.originalname}"
    async with open_storage(url) as made:
        yield made


def memory_of(storage: Storage) -> Memory[Any]:
    return Memory(
        storage,
        "ada",  # the same name for everything: only kinds and partitions keep them apart
        "ada",
        full_session_memory=True,
        summary_memory=True,
        user_analysis_memory=True,
        model=model,
    )


def knowledge_of(storage: Storage) -> KnowledgeBase:
    return KnowledgeBase(storage, "ada")


async def fill(storage: Storage) -> str:
    """The id of the run that is left open."""
    memory = memory_of(storage)
    await memory.save([{"role": "user", "content": "Where is my refund?"}])
    await memory.drain()
    async with memory.run("Refund order 7.") as run:
        run.pause({"order": 7}, [Requirement("ok", "approval")])
    await knowledge_of(storage).add(HANDBOOK, source="handbook")
    await memory.close()
    return run.run_id


async def check_memory(storage: Storage, run_id: str) -> None:
    memory = memory_of(storage)
    assert [each.text for each in await memory.messages()] == ["Where is my refund?"]
    assert await memory.summary() == "Ada asked for a refund."
    assert (await memory.profile()).facts == ["has order 7"]
    assert [each.run_id for each in await memory.checkpoints(status="paused")] == [run_id]
    async with memory.resume(run_id, require_decisions=False) as run:
        assert run.state == {"order": 7}
        run.pause(run.state, run.requirements)
    await memory.close()


async def check_knowledge(storage: Storage) -> None:
    knowledge = knowledge_of(storage)
    [document] = await knowledge.list()
    assert (document.source, document.status) == ("handbook", "ready")
    [hit, *_] = await knowledge.search("How long do refunds take?")
    assert (hit.text, hit.document) == (HANDBOOK, document)


async def test_they_live_side_by_side(storage: Storage) -> None:
    run_id = await fill(storage)
    await check_memory(storage, run_id)
    await check_knowledge(storage)


async def test_forgetting_the_user_leaves_the_knowledge(storage: Storage) -> None:
    run_id = await fill(storage)
    memory = memory_of(storage)
    await memory.forget_user()
    assert await memory.messages() == []
    assert (await memory.summary(), await memory.profile()) == (None, None)
    assert await memory.checkpoints() == []
    with pytest.raises(RunNotFoundError):
        async with memory.resume(run_id):
            pytest.fail("entered")
    await check_knowledge(storage)


async def test_clearing_the_knowledge_leaves_the_user(storage: Storage) -> None:
    run_id = await fill(storage)
    knowledge = knowledge_of(storage)
    await knowledge.clear()
    assert await knowledge.list() == []
    assert await knowledge.search("refunds") == []
    await check_memory(storage, run_id)
