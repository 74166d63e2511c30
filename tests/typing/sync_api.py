"""What type checkers infer for the sync facade: what the async one gives, without Awaitable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel

from memory_async import (
    Checkpoint,
    Context,
    Decision,
    Document,
    KnowledgeHit,
    Message,
    Profile,
    Record,
    Result,
    Session,
    Snapshot,
    Storage,
    Turn,
    sync,
)
from memory_async.keys import Key, Partition


class Prefs(BaseModel):
    tea: bool = True


def memories(driver: Storage) -> None:
    plain = sync.Memory("memory://", "s", "ada")
    assert_type(plain, sync.Memory[Profile])
    memory = sync.Memory(sync.Storage(driver), "s", "ada", user_profile_schema=Prefs)
    assert_type(memory, sync.Memory[Prefs])
    assert_type(memory.bind(session_id="t"), sync.Memory[Prefs])
    assert_type(memory.load(), Context[Prefs])
    assert_type(memory.load().profile, Prefs | None)
    with sync.KnowledgeBase(sync.Storage(driver), "handbook") as handbook:
        memory.load(query="tea", knowledge=handbook)
    assert_type(memory.save({"role": "user", "content": "Hi"}), Turn | None)
    assert_type(memory.messages(), list[Message])
    assert_type(memory.turns(), list[Turn])
    assert_type(memory.session(), Session | None)
    assert_type(memory.sessions(), list[Session])
    assert_type(memory.summary(), str | None)
    assert_type(memory.profile(), Prefs | None)
    assert_type(memory.usage(), dict[str, Any])
    assert_type(memory.set_metadata({}), Session)
    assert_type(memory.delete_session(), bool)
    assert_type(memory.drain(1.0), bool)
    assert_type(memory.recover(), int)
    assert_type(memory.checkpoints(), list[Checkpoint])
    assert_type(memory.decide("r", "ok", approved=True), Decision)
    with memory.run("Hi") as run:
        assert_type(run, sync.Run[Prefs])
        assert_type(run.context, Context[Prefs])
    with memory.resume("r") as run:
        assert_type(run.turn, Turn | None)


def storages(driver: Storage, key: Key, partition: Partition) -> None:
    with sync.Storage(driver) as storage:
        assert_type(storage, sync.Storage)
        assert_type(storage.apply(), list[Result])
        assert_type(storage.get(key), Record | Turn | None)
        assert_type(storage.find("item", partition), list[Record])
        assert_type(storage.history("s"), list[Turn])
        assert_type(storage.snapshot("s"), Snapshot)


def inboxes(driver: Storage) -> None:
    with sync.Inbox(driver) as inbox:
        assert_type(inbox.list(), list[Checkpoint])
        assert_type(inbox.get("r"), Checkpoint)
        assert_type(inbox.decide("r", "ok", approved=True), Decision)


def knowledge_bases(driver: Storage) -> None:
    with sync.KnowledgeBase(sync.Storage(driver), "handbook") as knowledge:
        assert_type(knowledge, sync.KnowledgeBase)
        assert_type(knowledge.add("text", metadata={}), Document)
        assert_type(knowledge.add_many([Path("a.md"), "text"]), list[Document])
        assert_type(knowledge.get("d"), Document | None)
        assert_type(knowledge.list(status="ready"), list[Document])
        assert_type(knowledge.count(), int)
        assert_type(knowledge.search("text"), list[KnowledgeHit])
        assert_type(knowledge.delete("d"), bool)
