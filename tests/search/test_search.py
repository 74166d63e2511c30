"""`memory.search`: whose words are found, when, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("Stemmer")

from memory_async import (
    ConfigurationError,
    Hit,
    Memory,
    Message,
    ModelError,
    SessionOwnershipError,
    SqliteStorage,
    Storage,
    sync,
)
from memory_async.search import UNINDEXED


def say(text: str, answer: str = "I see.") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def texts(hits: Sequence[Hit]) -> list[str]:
    return [hit.text for hit in hits]


async def test_a_hit_says_where_it_stands(storage: Storage) -> None:
    memory = Memory(storage, "s1", "ada", search_memory=True)
    when = datetime(2024, 5, 8, tzinfo=UTC)
    turn = await memory.save(
        [
            Message(role="system", content="Mind the accordion."),
            Message(role="user", content="My accordion squeaks", name="Ada Y.", created_at=when),
            Message(role="assistant", content=[{"type": "text", "text": "Which key of it?"}]),
        ]
    )
    for _ in range(2):  # before it is indexed, and after
        [hit, near] = await memory.search("accordions")
        where = (hit.session_id, hit.seq, hit.run_id, hit.index)
        assert where == ("s1", 1, turn.run_id, 1)
        assert (hit.role, hit.name, hit.created_at) == ("user", "Ada Y.", when)
        assert hit.text == "My accordion squeaks"
        assert (near.index, near.role, near.name) == (2, "assistant", None)
        assert near.created_at == turn.created_at
        assert hit.score > near.score > 0
        await memory.drain()
    await memory.close()


async def test_all_sessions_of_the_user_or_one(storage: Storage) -> None:
    memory = Memory(storage, search_memory=True)
    one, two = (memory.bind(session_id=name, user_id="ada") for name in ("one", "two"))
    bob = memory.bind(session_id="three", user_id="bob")
    await one.save({"role": "user", "content": "a boat in spring"})
    await two.save({"role": "user", "content": "a boat in autumn"})
    await bob.save({"role": "user", "content": "a boat of Bob's"})
    for _ in range(2):
        assert set(texts(await one.search("boat"))) == {"a boat in spring", "a boat in autumn"}
        assert texts(await one.search("boat", session_id="two")) == ["a boat in autumn"]
        assert texts(await one.search("boat", 1, "one")) == ["a boat in spring"]
        assert await one.search("boat", session_id="missing") == []
        assert texts(await bob.search("boat")) == ["a boat of Bob's"]
        with pytest.raises(SessionOwnershipError):
            await bob.search("boat", session_id="one")
        await memory.drain()
    await memory.close()


async def test_nobody_finds_their_own_session_only(storage: Storage) -> None:
    memory = Memory(storage, search_memory=True)
    one, two = (memory.bind(session_id=name, user_id=None) for name in ("one", "two"))
    await one.save({"role": "user", "content": "a boat in spring"})
    await two.save({"role": "user", "content": "a boat in autumn"})
    await memory.drain()
    assert texts(await one.search("boat")) == ["a boat in spring"]
    assert texts(await one.search("boat", session_id="two")) == ["a boat in autumn"]
    owned = memory.bind(session_id="three", user_id="ada")
    await owned.save({"role": "user", "content": "a boat of Ada's"})
    with pytest.raises(SessionOwnershipError):
        await one.search("boat", session_id="three")
    await memory.close()


async def test_what_was_saved_without_an_index_is_found(storage: Storage) -> None:
    plain = Memory(storage, "s1", "ada", full_session_memory=True)
    for number in range(3):
        await plain.save(say(f"boat number {number}"))
    assert len(await plain.search("boat")) == 6
    indexing = Memory(storage, "s1", "ada", search_memory=True)
    await indexing.save(say("the last boat"))
    assert "the last boat" in texts(await plain.search("boat"))
    await indexing.drain()
    session = await plain.session()
    assert session.jobs["search"].through == 4
    assert session.keep_turns
    assert len(await plain.search("boat")) == 8
    await indexing.close()
    await plain.close()


async def test_a_reply_is_found_by_what_it_replies_to(storage: Storage) -> None:
    memory = Memory(storage, "s1", "ada", search_memory=True)
    await memory.save(say("What is your favourite instrument?", "The hurdy-gurdy."))
    await memory.save(say("Where do you live?", "In Porto."))
    await memory.drain()
    hits = texts(await memory.search("favourite instrument"))
    assert hits[:2] == ["What is your favourite instrument?", "The hurdy-gurdy."]
    await memory.close()


async def test_what_is_deleted_or_forgotten_is_gone(storage: Storage) -> None:
    memory = Memory(storage, search_memory=True)
    one, two = (memory.bind(session_id=name, user_id="ada") for name in ("one", "two"))
    await one.save({"role": "user", "content": "a boat in spring"})
    await two.save({"role": "user", "content": "a boat in autumn"})
    await memory.drain()
    await one.delete_session()
    assert texts(await two.search("boat")) == ["a boat in autumn"]
    await two.forget_user()
    assert await two.search("boat") == []
    await memory.close()


async def test_of_what_is_not_indexed_the_newest_are_looked_at(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.search.UNINDEXED", 2)
    assert UNINDEXED == 1000
    memory = Memory(storage, "s1", "ada", full_session_memory=True)
    for number in range(3):
        await memory.save({"role": "user", "content": f"boat {number}"})
    assert set(texts(await memory.search("boat"))) == {"boat 1", "boat 2"}
    await memory.close()


async def test_arguments(storage: Storage) -> None:
    memory = Memory(storage, "s1", "ada", search_memory=True)
    await memory.save(say("a boat"))
    with pytest.raises(ConfigurationError, match="limit"):
        await memory.search("boat", -1)
    assert await memory.search("boat", 0) == []
    assert await memory.search("") == []
    with pytest.raises(ConfigurationError, match="embed"):
        Memory(storage, embed="a model")  # type: ignore[arg-type]
    await memory.close()


# --- by meaning ---

SEA, LAND = [1.0, 0.0], [0.0, 1.0]


async def embed(given: list[str]) -> list[list[float]]:
    sea = ("sail", "ship", "vessel")
    return [
        SEA if any(word in text.lower().splitlines()[-1] for word in sea) else LAND
        for text in given
    ]


async def test_meaning_finds_what_words_do_not(storage: Storage) -> None:
    memory = Memory(storage, search_memory=True, embed=embed)
    chat = memory.bind(session_id="s1", user_id="ada")
    bob = memory.bind(session_id="s2", user_id="bob")
    await chat.save(say("We went sailing", "Nice"))
    await chat.save(say("We cooked rice", "Tasty"))
    await bob.save(say("Bob has a ship", "Oh"))
    for _ in range(2):
        hits = await chat.search("vessel", 1)
        assert texts(hits) == ["We went sailing"]
        assert "Bob has a ship" not in texts(await chat.search("vessel", 50))
        await memory.drain()
    words = Memory(storage, "s1", "ada")
    assert await words.search("vessel") == []
    await words.close()
    await chat.delete_session()
    assert await chat.search("vessel") == []
    await memory.close()


async def test_a_model_that_fails_is_told_of(storage: Storage) -> None:
    failed: list[Exception] = []

    async def broken(given: list[str]) -> list[list[float]]:
        return [[1.0]] * (len(given) + 1)

    memory = Memory(
        storage,
        "s1",
        "ada",
        search_memory=True,
        embed=broken,
        on_job_error=lambda job, session, error: failed.append(error),
    )
    await memory.save(say("We went sailing"))
    await memory.drain()
    assert [type(each) for each in failed] == [ModelError]
    with pytest.raises(ModelError):
        await memory.search("sailing")
    plain = Memory(storage, "s1", "ada")
    assert texts(await plain.search("sailing"))[0] == "We went sailing"
    await plain.close()
    await memory.close()


# --- the job ---


async def test_a_pause_is_enough_to_be_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.indexing.SearchJob.idle", 0.05)
    async with Memory(SqliteStorage(tmp_path / "a.db"), "s1", "ada", search_memory=True) as memory:
        await memory.save(say("We went sailing"))
        async with asyncio.timeout(20):
            while (await memory.session()).jobs["search"].through < 1:
                await asyncio.sleep(0.01)
        await memory._shared.storage.close()


async def test_closing_indexes_what_waits(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "a.db")
    memory = Memory(storage, "s1", "ada", search_memory=True)
    await memory.save(say("We went sailing"))
    await memory.close()
    session = await Memory(storage, "s1", "ada").session()
    assert session.jobs["search"].through == 1
    await storage.close()


async def test_a_burst_of_saves_costs_few_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_async.indexing.SearchJob.idle", 600.0)
    storage = SqliteStorage(tmp_path / "a.db", durability="normal")
    calls: list[str] = []
    for name in ("apply", "get", "index"):
        real = getattr(storage, name)

        async def counted(*given: object, name: str = name, real=real, **named: object) -> object:
            calls.append(name)
            return await real(*given, **named)

        monkeypatch.setattr(storage, name, counted)
    memory = Memory(storage, "s1", "ada", search_memory=True)
    for number in range(19):
        await memory.save(say(f"boat {number}"))
    assert calls == ["apply"] * 19  # not even a look whether the job is due
    await memory.save(say("the twentieth"))
    await memory.close()
    assert calls.count("apply") == 21
    assert calls.count("index") == 20
    await storage.close()


def test_sync(tmp_path: Path) -> None:
    with sync.Memory(f"sqlite:///{tmp_path}/a.db", "s1", "ada", search_memory=True) as memory:
        memory.save(say("We went sailing"))
        assert texts(memory.search("sailing", 1)) == ["We went sailing"]
        assert memory.load(query="sailing", last=0).instructions
