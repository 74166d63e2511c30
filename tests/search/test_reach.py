"""How far `memory.search` reaches: what the index has not taken, many hits, one session of many."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("Stemmer")

from memory_async import InMemoryStorage, Memory, Session, SqliteStorage, Storage
from memory_async.testing.around import Around


async def indexed(memory: Memory) -> int:
    session = await memory.session()
    assert isinstance(session, Session)
    return session.jobs["search"].through


async def test_a_later_process_takes_what_its_first_save_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/chat.db"
    for number in (1, 2, 3):
        async with Memory(url, "s", "ada", search_memory=True) as memory:
            await memory.save({"role": "user", "content": f"coffee {number}"})
            await memory.jobs._settle(10)  # it has looked, and fewer are there than it waits for
        async with Memory(url, "s", "ada") as memory:
            assert await indexed(memory) == number


async def test_as_many_as_are_asked_for(storage: Storage) -> None:
    memory = Memory(storage, "s", "ada", search_memory=True)
    for number in range(80):
        await memory.save({"role": "user", "content": f"coffee {number}"})
    await memory.drain()
    assert len(await memory.search("coffee", limit=70)) == 70
    await memory.close()


async def test_newer_sessions_do_not_hide_the_one_asked_for(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path / "chat.db", durability="normal") as storage:
        memory = Memory(storage, search_memory=True)
        old = memory.bind(session_id="old", user_id="ada")
        await old.save({"role": "user", "content": "coffee, long ago"})
        new = memory.bind(session_id="new", user_id="ada")
        for number in range(310):
            await new.save({"role": "user", "content": f"coffee {number}"})
        await memory.drain()
        [hit] = await new.search("coffee", session_id="old")
        assert hit.text == "coffee, long ago"
        await memory.close()


class Stolen(Around):
    """The session is deleted and begun anew by somebody else, right after it was listed."""

    async def call(self, name: str, *args: object, **kwargs: object) -> object:
        found = await super().call(name, *args, **kwargs)
        if name == "find" and found:
            await Memory(self.storage, "s", "ada").delete_session()
            bob = Memory(self.storage, "s", "bob", full_session_memory=True)
            await bob.save({"role": "user", "content": "the secret of bob"})
        return found


async def test_a_session_that_changes_hands_meanwhile_tells_nothing() -> None:
    storage = InMemoryStorage()
    ada = Memory(storage, "s", "ada", full_session_memory=True)
    await ada.save({"role": "user", "content": "a secret"})
    assert await Memory(Stolen(storage), "other", "ada").search("secret") == []
