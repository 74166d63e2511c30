"""The facade in one thread: with ``with`` and bare, jobs between calls, runs, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from memory_async import (
    ConfigurationError,
    InMemoryStorage,
    KnowledgeHit,
    Message,
    PayloadError,
    Requirement,
    RunAlreadyClaimedError,
    SessionOwnershipError,
    SqliteStorage,
    StorageUnavailableError,
    sync,
)
from tests.llm import ScriptedLLM
from tests.sync.leftovers import nothing_left

HI = {"role": "user", "content": "Hi"}


class Prefs(BaseModel):
    tea: bool = False


@pytest.fixture(params=["in_memory", "sqlite"])
def storage(request: pytest.FixtureRequest, path: Path) -> Iterator[sync.Storage]:
    in_memory = request.param == "in_memory"
    with sync.Storage(InMemoryStorage() if in_memory else SqliteStorage(path)) as storage:
        yield storage


def is_closed(call: Callable[[], object]) -> bool:
    with pytest.raises(StorageUnavailableError, match="closed"):
        call()
    return True


def test_every_reader_and_writer(storage: sync.Storage) -> None:
    memory = sync.Memory(storage, "s1", "ada", full_session_memory=True, user_profile_schema=Prefs)
    turn = memory.save([HI, {"role": "assistant", "content": "Hello"}], usage={"tokens": 3})
    assert turn is not None
    assert memory.turns() == [turn]
    assert [message.text for message in memory.messages(last=1)] == ["Hi", "Hello"]
    assert memory.load(agent_metadata={"a": 1}).to_openai()[-2:] == [
        HI,
        {"role": "assistant", "content": "Hello"},
    ]
    assert memory.usage() == {"tokens": 3}
    assert memory.set_metadata({"title": "A chat"}) == memory.session()
    assert (memory.summary(), memory.profile()) == (None, None)
    assert [session.session_id for session in memory.sessions()] == ["s1"]
    assert (memory.session_id, memory.user_id) == ("s1", "ada")
    other = memory.bind(session_id="s2", user_id=None)
    assert (other.session_id, other.user_id, other.messages()) == ("s2", None, [])
    assert memory.recover() == 0
    assert memory.drain() is True
    assert memory.delete_session() is True
    assert memory.turns() == []
    memory.save(HI)
    memory.forget_user()
    assert memory.turns() == []
    memory.close()


def test_exceptions_come_as_they_are_raised(storage: sync.Storage) -> None:
    memory = sync.Memory(storage, "s1", "ada", full_session_memory=True)
    memory.save(HI)
    with pytest.raises(SessionOwnershipError):
        memory.bind(user_id="bob").load()
    with pytest.raises(PayloadError):
        memory.save([])
    with pytest.raises(ConfigurationError, match="model"):
        sync.Memory(storage, summary_memory=True)


@pytest.mark.parametrize("within", [False, True], ids=["bare", "with"])
def test_jobs_go_on_between_the_calls(url: str, llm: ScriptedLLM, within: bool) -> None:
    memory = sync.Memory(url, "s1", summary_memory=True, model="openai/scripted")
    if within:
        memory.__enter__()
    llm.hold()
    memory.save(HI)
    llm.wait_for_calls(1)
    assert (memory.summary(), memory.jobs.running, memory.jobs.lag) == (None, 1, 1)
    assert memory.drain(timeout=0) is False
    llm.release()
    assert memory.drain() is True
    assert memory.load().summary == memory.summary() == llm.answer(llm.calls[0])
    assert (memory.jobs.running, memory.jobs.queued, memory.jobs.done) == (0, 0, 1)
    assert (memory.jobs.failed, memory.jobs.lag) == (0, 0)
    assert memory.jobs.run("summary", "s1") is False
    if within:
        memory.__exit__(None, None, None)
    else:
        memory.close()


def test_an_exception_in_a_with_goes_on_after_the_jobs(url: str, llm: ScriptedLLM) -> None:
    options: dict[str, Any] = {"summary_memory": True, "model": "openai/scripted"}
    with pytest.raises(ZeroDivisionError), sync.Memory(url, "s1", **options) as memory:
        llm.hold()
        memory.save(HI)
        llm.wait_for_calls(1)
        llm.release()
        raise ZeroDivisionError
    assert is_closed(memory.load)
    with sync.Memory(url, "s1") as again:
        assert again.summary() is not None


def test_runs_are_plain_blocks(storage: sync.Storage) -> None:
    memory = sync.Memory(storage, "s1", "ada", full_session_memory=True)
    with memory.run("What is due?") as run:
        run.add({"role": "assistant", "content": "Nothing."})
        run.checkpoint({"step": 1})
    assert run.status == "completed"
    assert memory.turns() == [run.turn]

    with memory.run("Refund it", run_id="r2") as run:
        run.pause({"order": 7}, [Requirement("ok", "approval")])
        pytest.fail("a pause leaves the block at once")
    assert run.status == "paused"
    with sync.Inbox(storage) as inbox:
        assert [each.run_id for each in inbox.list(status="paused")] == ["r2"]
        inbox.decide("r2", "ok", approved=True, by="eve")
    with memory.resume("r2") as run:
        assert (run.state, run.decisions["ok"].approved) == ({"order": 7}, True)
        with pytest.raises(RunAlreadyClaimedError):
            memory.resume("r2").__enter__()
    assert [turn.run_id for turn in memory.turns()][-1] == "r2"

    with pytest.raises(KeyError), memory.run("Fail", run_id="r3"):
        raise KeyError("x")
    assert [each.status for each in memory.checkpoints()] == ["error"]


@pytest.mark.parametrize("shared", [True, False])
def test_a_knowledge_base_of_its_kind_is_searched_for_a_query(url: str, shared: bool) -> None:
    """On a loop of its own, or on the one that loads."""

    class Awaited:
        async def search(self, query: str, limit: int) -> list[KnowledgeHit]:
            return hits

    storage = sync.Storage(url)
    place = storage if shared else "memory://"
    with storage, sync.KnowledgeBase(place, "handbook") as handbook:
        handbook.add("Reeds are of steel.", name="manual")
        memory, hits = sync.Memory(storage, "s"), handbook.search("reeds")
        context = memory.load(query="reeds", knowledge=handbook)
        assert memory.load(query="reeds", knowledge=Awaited()) == context
        with pytest.raises(ConfigurationError, match="query"):
            memory.load(knowledge=handbook)
    assert context.instructions == "<Knowledge>\nmanual: Reeds are of steel.\n</Knowledge>"


class TestClosing:
    def test_twice_and_use_after(self, url: str) -> None:
        memory = sync.Memory(url, "s1", full_session_memory=True)
        view = memory.bind(session_id="s2")
        memory.save(HI)
        view.close()  # a view closes nothing
        memory.save(HI)
        memory.close()
        memory.close()
        jobs = memory.jobs
        for call in (memory.load, lambda: memory.save(HI), view.turns, memory.__enter__):
            assert is_closed(call)
        assert is_closed(lambda: jobs.run("summary", "s1"))
        assert (memory.session_id, memory.jobs.done) == ("s1", 0)

    def test_what_was_never_used_starts_no_thread(self, url: str) -> None:
        with nothing_left():
            memory, storage, inbox = sync.Memory(url), sync.Storage(url), sync.Inbox(url)
            for each in (memory, storage, inbox):
                each.close()
                each.close()
        assert is_closed(storage.open)

    def test_a_with_that_cannot_open_leaves_no_thread(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/no/such/folder.db"
        with nothing_left():
            for make in (sync.Memory, sync.Storage, sync.Inbox):
                with pytest.raises(StorageUnavailableError, match="folder"), make(url):
                    pytest.fail("it cannot open")

    def test_of_two_facades_on_one_storage_one_may_close(self, url: str) -> None:
        storage = sync.Storage(url)
        one = sync.Memory(storage, "s1", full_session_memory=True)
        other = sync.Memory(storage, "s1", full_session_memory=True)
        one.save(HI)
        one.close()
        assert is_closed(one.load)
        other.save(HI)
        assert len(storage.history("s1")) == 2
        inbox = sync.Inbox(storage)
        inbox.close()
        assert other.save(HI) is not None
        storage.close()
        for call in (other.load, inbox.list, storage.open, lambda: sync.Memory(storage).load()):
            assert is_closed(call)
        other.close()

    def test_a_storage_waits_for_the_jobs_of_its_facades(self, url: str, llm: ScriptedLLM) -> None:
        options: dict[str, Any] = {"summary_memory": True, "model": "openai/scripted"}
        llm.hold()
        with sync.Storage(url) as storage:
            for session in ("s1", "s2"):
                sync.Memory(storage, session, **options).save(HI)
            llm.wait_for_calls(2)
            llm.release()
        with sync.Memory(url) as memory:
            for session in ("s1", "s2"):
                assert memory.bind(session_id=session).summary() is not None


def test_what_is_cancelled_within_a_call_is_no_closed_facade() -> None:
    def count(messages: list[Message]) -> float:
        raise asyncio.CancelledError

    with sync.Memory("memory://", "s", full_session_memory=True, count_tokens=count) as memory:
        memory.save({"role": "user", "content": "Hi"})
        with pytest.raises(asyncio.CancelledError):
            memory.load(max_tokens=10)
        assert len(memory.turns()) == 1
