"""A Redis Cluster whose slots move to other nodes under load: what was saved is there, once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count

import pytest

pytest.importorskip("redis", exc_type=ImportError)

from redis.crc import key_slot

from memory_async.errors import ConflictError
from memory_async.records import Session, UserProfile
from memory_async.storage.protocol import Advance
from memory_async.storage.redis import RedisStorage
from memory_async.testing.material import append, ids, put, seqs, texts, unique
from tests.servers.redis import shared_cluster

DEADLINE = 60


async def test_slots_move_under_load() -> None:
    """The session's slot and that of the index it is listed in, to another node and back."""
    cluster, namespace, s = shared_cluster(), unique(), unique("session")
    done = asyncio.Event()
    said: list[str] = []

    async def talk(storage: RedisStorage, name: str) -> None:
        for number in count():
            if done.is_set():
                return
            text = f"{name}.{number}"
            write = append(s, text, run_id=text, user_id="ann", due=("job",), keep_turns=True)
            await storage.apply(write)
            said.append(text)
            snapshot = await storage.snapshot(s, "ann", last=1)
            assert snapshot.turns
            session = snapshot.session
            assert session is not None
            through = session.jobs["job"].through
            with suppress(ConflictError):  # another was faster
                await storage.apply(Advance(s, "job", through, session.last_seq, name))

    made = [
        RedisStorage(node.url, cluster=True, namespace=namespace)
        for node in cluster.nodes
        for _ in "ab"
    ]
    keys = made[0]._keys
    slots = [key_slot(keys.partition(f"session/{s}")[0]), key_slot(keys.index("session", "a"))]
    for each in made:
        await each.open()
    await put(made[0], UserProfile(user_id="ann"))
    talking = [asyncio.ensure_future(talk(each, f"w{n}")) for n, each in enumerate(made)]
    try:
        for slot in slots:
            first = cluster.owner(slot)
            other = next(node for node in cluster.nodes if node is not first)
            for node in (other, first):
                before = len(said)
                await cluster.move(slot, node)
                async with asyncio.timeout(DEADLINE):
                    while len(said) <= before + len(made):
                        await asyncio.sleep(0.001)
    finally:
        done.set()
    await asyncio.gather(*talking)
    turns = await made[0].history(s)
    assert sorted(texts(turns)) == sorted(said)
    assert seqs(turns) == list(range(1, len(said) + 1))
    [session] = await made[1].find("session")
    assert isinstance(session, Session)
    assert session.last_seq == len(said)
    assert ids(await made[1].find("session", user_id="ann")) == [s]
    for each in made:
        await each.close()
