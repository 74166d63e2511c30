"""What an `Inbox` is given: a URL closes with it, a storage object does not."""

import pytest

from memory_async import (
    ConfigurationError,
    Inbox,
    InMemoryStorage,
    Memory,
    StorageUnavailableError,
    sync,
)
from memory_async.testing.run_suite import APPROVAL, pause


async def test_a_url_is_closed_with_the_inbox(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Memory(url, "s", "ada") as memory:
        run_id = await pause(memory, APPROVAL)
    async with Inbox(url) as inbox:
        assert [each.run_id for each in await inbox.list()] == [run_id]
        mine = await inbox.memory_for(run_id)
    with pytest.raises(StorageUnavailableError):
        await inbox.list()
    with pytest.raises(StorageUnavailableError):
        await mine.checkpoints()
    await inbox.close()


def test_a_url_is_closed_with_the_sync_inbox(tmp_path):
    with sync.Inbox(f"sqlite:///{tmp_path}/runs.db") as inbox:
        assert inbox.list() == []
    with pytest.raises(StorageUnavailableError):
        inbox.list()


async def test_a_storage_object_stays_open(storage):
    async with Inbox(storage) as inbox:
        assert await inbox.list() == []
        run_id = await pause(Memory(storage, "s", "ada"), APPROVAL)
        async with await inbox.memory_for(run_id) as memory:
            assert len(await memory.checkpoints()) == 1
        assert len(await inbox.list()) == 1
    assert len(await Inbox(storage).list()) == 1


def test_a_sync_storage_stays_open():
    with sync.Storage(InMemoryStorage()) as storage:
        memory = sync.Memory(storage, "s", "ada", full_session_memory=True)
        with memory.run("Hi") as run:
            run.pause({"step": 1}, [APPROVAL])
        with sync.Inbox(storage) as inbox:
            inbox.decide(run.run_id, "ok", approved=True, by="bob")
            mine = inbox.memory_for(run.run_id, full_session_memory=True)
        with mine.resume(run.run_id) as again:
            assert (again.state, again.decisions["ok"].by) == ({"step": 1}, "bob")
        assert [turn.run_id for turn in memory.turns()] == [run.run_id]


@pytest.mark.parametrize("given", ["runs.db", "", "nothing://x", None, 5, object()])
def test_anything_else_is_refused(given):
    for make in (Inbox, sync.Inbox):
        with pytest.raises((ConfigurationError, TypeError)):
            make(given)
