"""Namespaces: they share tables and never see each other."""

from __future__ import annotations

import pytest

from memory_async.errors import MemoryAsyncError
from memory_async.keys import Key, Partition
from memory_async.records import Checkpoint, Item, UserProfile
from memory_async.storage.protocol import ABSENT, Drop, Put, Storage
from memory_async.testing.material import append, ids, in_session, item, put, texts, unique
from memory_async.testing.names import IMPOSSIBLE
from memory_async.testing.suite import MakeStorage, Suite, two_objects
from memory_async.turns import Turn


class NamespaceConformance(Suite):
    """What the namespace of a storage keeps apart."""

    @pytest.mark.parametrize("bad", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
    async def test_an_impossible_namespace_is_refused(self, make: MakeStorage, bad: str) -> None:
        with pytest.raises(MemoryAsyncError):
            await make(namespace=bad).open()

    @two_objects
    async def test_namespaces_never_see_each_other(self, make: MakeStorage) -> None:
        s, ann, run = unique("session"), unique("user"), unique("run")
        here, there = make(namespace=unique("here")), make(namespace=unique("there"))
        for storage, name in ((here, "here"), (there, "there")):
            await storage.apply(
                append(s, name, run_id=run, user_id=ann, due=("job",)),
                Put(Checkpoint(session_id=s, run_id=run, user_id=ann, error=name), ABSENT),
                Put(item(in_session(s), "a", name, tags=("t",)), ABSENT),
            )
            await put(storage, UserProfile(user_id=ann, traits={"name": name}))
        await self._holds(here, "here", s, ann, run)
        await self._holds(there, "there", s, ann, run)
        await here.apply(Drop(in_session(s)))
        await here.apply(Drop(Partition("user", ann)))
        assert await here.snapshot(s, ann) == (None, [], None)
        assert await here.find("session") == await here.find("item") == []
        await self._holds(there, "there", s, ann, run)

    async def _holds(self, storage: Storage, name: str, s: str, ann: str, run: str) -> None:
        view = await storage.snapshot(s, ann)
        assert view.profile is not None
        assert (texts(view.turns), view.profile.traits) == ([name], {"name": name})
        assert texts(await storage.history(s)) == [name]
        turn = await storage.get(Key("turn", in_session(s), run))
        assert isinstance(turn, Turn)
        assert texts([turn]) == [name]
        [found] = await storage.find("item", tags=["t"])
        assert isinstance(found, Item)
        assert found.value == name
        [checkpoint] = await storage.find("checkpoint", user_id=ann, status="running")
        assert isinstance(checkpoint, Checkpoint)
        assert checkpoint.error == name
        assert len(await storage.find("profile")) == 1
        assert ids(await storage.find("session")) == [s]
        assert ids(await storage.find("session", user_id=ann, lagging="job", id=s)) == [s]

    @two_objects
    async def test_odd_namespaces_stay_apart(self, make: MakeStorage) -> None:
        mine = unique()
        names = [
            f"{mine}{odd}"
            for odd in (
                "",
                ":",
                ":a",
                "/",
                "/a",
                ".a",
                "a",
                "A",
                "{}",
                "%",
                "_",
                "*",
                "é",
                "e\u0301",
            )
        ]
        pairs = [(name, id) for name in names for id in ("s", "a:s", ":s")]
        for name, id in pairs:
            storage = make(namespace=name)
            await storage.apply(append(id, f"{id} in {name}"))
            await storage.close()
        for name in names:
            storage = make(namespace=name)
            assert set(ids(await storage.find("session"))) == {"s", "a:s", ":s"}
            for id in ("s", "a:s", ":s"):
                assert texts(await storage.history(id)) == [f"{id} in {name}"]
            await storage.close()
