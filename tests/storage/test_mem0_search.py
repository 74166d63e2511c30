"""What Mem0 does by itself: it finds what was said by its own search, and learns about users."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

pytest.importorskip("httpx")

from memory_async import DynamicProfile, Memory, Profile, SupportsAnalysis, SupportsSearch
from memory_async.keys import Partition
from memory_async.records import Chunk
from memory_async.storage.mem0 import Mem0Storage
from memory_async.storage.protocol import ALWAYS, Drop, Put, Storage, Trim
from memory_async.testing.material import append, changed, in_session, unique
from tests.servers import mem0

SAID = ["I have a dog called Rufus", "My sister lives in Lisbon", "Let us talk about taxes"]


@pytest_asyncio.fixture(params=["platform", "own"])
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    make = mem0.storage if request.param == "platform" else mem0.own_storage
    async with make(namespace=unique("namespace"), infer=True) as storage:
        yield storage


@pytest.fixture
def storage(made: Storage) -> Mem0Storage:
    assert isinstance(made, Mem0Storage)
    assert isinstance(made, SupportsSearch)
    assert isinstance(made, SupportsAnalysis)
    return made


async def test_what_was_said_is_found_until_it_is_gone(storage: Mem0Storage) -> None:
    s, other = unique("session"), unique("session")
    for text in SAID:
        await storage.apply(append(s, text, user_id="ada"))
    await storage.apply(append(other, "The dog of a neighbour", user_id="bob"))
    [best, *_] = await storage.search("Rufus the dog", kind="turn")
    assert (best.key.partition.id, best.seq, best.part, best.text) == (s, 1, 0, SAID[0])
    found = await storage.search("dog", kind="turn", user_id="bob")
    assert {match.key.partition.id for match in found} == {other}
    found = await storage.search("dog", kind="turn", partition=in_session(s), limit=1, around=1)
    assert [(match.seq, match.score > 0) for match in found] == [(1, True), (2, False)]
    assert await storage.search(" ", kind="turn") == []
    await storage.apply(Trim(s, 1))
    await storage.apply(Drop(in_session(other)))
    assert all("dog" not in m.text for m in await storage.search("Rufus dog", kind="turn"))


async def test_every_part_of_a_long_text_is_found(storage: Mem0Storage) -> None:
    s = unique("session")
    said = "lorem " * 1000 + "hippopotamus"
    await storage.apply(append(s, said))
    await storage.apply(append(s, "A zebra"))
    [best, *_] = await storage.search("hippopotamus", kind="turn", limit=1)
    assert (best.seq, best.text) == (1, said)


async def test_chunks_are_found_as_they_are_now(storage: Mem0Storage) -> None:
    base = unique("base")
    chunk = Chunk(knowledge_base_id=base, document_id="d", index=0, text="Penguins cannot fly")
    await storage.apply(Put(chunk, ALWAYS))
    where = Partition("knowledge", base)
    [found] = await storage.search("penguins", kind="chunk", partition=where)
    assert (found.key, found.text) == (chunk.key, chunk.text)
    await storage.apply(Put(changed(chunk, text="Ostriches run"), ALWAYS))
    found_now = await storage.search("penguins fly ostriches", kind="chunk", partition=where)
    assert [match.text for match in found_now] == ["Ostriches run"]


async def test_memory_search(storage: Mem0Storage) -> None:
    pytest.importorskip("Stemmer")
    async with Memory(storage, search_memory=True) as memory:
        chat = memory.bind(session_id=unique("session"), user_id="ada")
        for text in SAID:
            await chat.save({"role": "user", "content": text})
        await memory.drain()
        [hit, *_] = await chat.search("what is the name of my dog")
        assert (hit.text, hit.seq, hit.role) == (SAID[0], 1, "user")


async def test_the_profile_is_what_mem0_extracts(storage: Mem0Storage) -> None:
    async with Memory(storage, user_analysis_memory=True) as memory:  # and no model
        # Mem0 takes neither spaces in an id, nor more than 255 characters.
        chat = memory.bind(session_id=unique("session"), user_id="Ada Lovelace / é" * 25)
        assert await chat.profile() is None
        await chat.save(
            [
                {"role": "user", "content": "I like tea."},
                {"role": "assistant", "content": "Noted."},
            ]
        )
        await chat.save({"role": "user", "content": "I live in Turin."})
        assert await memory.drain(60)
        profile = await chat.profile()
        assert isinstance(profile, Profile)
        assert sorted(profile.facts) == ["User: I like tea", "User: I live in Turin"]
        context = await chat.load()
        assert "I live in Turin" in context.instructions
        assert await chat.turns() == []  # nothing asked for them to be kept
        assert await memory.bind(user_id="bob").profile() is None


async def test_a_forgotten_user_is_forgotten_by_mem0_too(storage: Mem0Storage) -> None:
    options = {"user_analysis_memory": True, "dynamic_user_profile": True}
    async with Memory[DynamicProfile](storage, **options) as memory:  # type: ignore[arg-type]
        chat = memory.bind(session_id=unique("session"), user_id="ada")
        await chat.save({"role": "user", "content": "I like tea."})
        assert await memory.drain(60)
        assert await chat.profile() is not None
        await chat.forget_user()
        assert await chat.profile() is None
        anew = memory.bind(session_id=unique("session"), user_id="ada")
        await anew.save({"role": "user", "content": "I like coffee."})
        assert await memory.drain(60)
        profile = await anew.profile()
        assert profile is not None
        assert profile.model_dump() == {"facts": ["User: I like coffee"]}
