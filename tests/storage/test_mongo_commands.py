"""How many commands a call sends to the server, as PyMongo's own monitoring counts them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("motor")

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from memory_async import Memory
from memory_async.keys import Partition, compound_prefix
from memory_async.records import Checkpoint, Lease, Session, UserProfile
from memory_async.storage.mongo import MongoStorage
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Delete,
    Drop,
    Expect,
    Put,
    Trim,
)
from memory_async.testing.material import (
    append,
    at,
    in_session,
    item,
    session_key,
    unique,
)
from tests.servers import mongo

Call = Callable[[Any, int], Awaitable[Any]]
RUN = Checkpoint(session_id="s", run_id="run", version="token")
LEASE = Lease(session_id="s", run_id="run", owner="me", until=at(0))


class Commands(CommandListener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


@pytest.fixture(params=["motor", "pymongo"])
def client_class(request: pytest.FixtureRequest) -> Any:
    return AsyncIOMotorClient if request.param == "motor" else AsyncMongoClient


@pytest.fixture(params=[True, False], ids=["transactions", "journal"])
def transactions(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def counted(
    client_class: Any, transactions: bool
) -> AsyncIterator[tuple[MongoStorage, Commands]]:
    commands = Commands()
    client = client_class(mongo.url_of(transactions=transactions), event_listeners=[commands])
    storage = mongo.storages(transactions=transactions, client=client)()
    assert isinstance(storage, MongoStorage)
    await storage.apply(append("s", due=("job",)))
    await storage.apply(Put(RUN, ABSENT), Put(LEASE, ABSENT))
    commands.names.clear()
    yield storage, commands
    await storage.close()
    closing = client.close()
    if closing is not None:
        await closing


# What each sends: in a transaction, and by the journal.
CALLS: dict[str, tuple[Call, str, str]] = {
    "append": (lambda s, n: s.apply(append("s")), "find update commitTransaction", "find update"),
    "put": (
        lambda s, n: s.apply(Put(UserProfile(user_id="u"), ALWAYS)), "find update", "find update"
    ),
    "metadata": (
        lambda s, n: s.apply(Put(Session(session_id="s", metadata={"n": n}), ALWAYS)),
        "find update",
        "find update",
    ),
    "advance": (
        lambda s, n: s.apply(Advance("s", "job", 0, 1, "summary")),
        "find update commitTransaction",
        "find update",
    ),
    "everything": (
        lambda s, n: s.apply(
            append("s", due=("new",)),
            Put(item(in_session("s"), f"{n}"), ABSENT),
            Put(Session(session_id="s", metadata={"n": n}), ALWAYS),
            Advance("s", "job", 0, 1),
            Delete(LEASE.key),
            Expect(RUN.key, "token"),
            Trim("s"),
        ),
        "find update delete commitTransaction",
        "find update",
    ),
    "finish": (
        lambda s, n: s.apply(
            append("s", run_id="run"),
            Delete(RUN.key, "token"),
            Delete(LEASE.key),
            Drop(in_session("s"), "decision", compound_prefix("run")),
        ),
        "find update delete commitTransaction",
        "find find update",
    ),
    "end a session": (
        lambda s, n: s.apply(Delete(session_key("s")), Drop(in_session("s"))),
        "find update delete commitTransaction",
        "find find update",
    ),
    "get": (lambda s, n: s.get(session_key("s")), "find", "find"),
    "find": (lambda s, n: s.find("session", user_id="u"), "find", "find find"),
    "history": (lambda s, n: s.history("s", last=2), "find find", "find find"),
    "snapshot": (
        lambda s, n: s.snapshot("s", "u", last=2, since="job"), "find find", "find find"
    ),
    "now": (lambda s, n: s.now(Partition("session", "s")), "hello", "hello"),
}  # fmt: skip


@pytest.mark.parametrize("client_class", ["pymongo"], indirect=True)
@pytest.mark.parametrize("call", CALLS)
async def test_the_commands_of_a_call(
    counted: tuple[MongoStorage, Commands], transactions: bool, call: str
) -> None:
    storage, commands = counted
    made, with_transactions, by_journal = CALLS[call]
    await made(storage, 1)
    assert commands.names == (with_transactions if transactions else by_journal).split()


async def test_a_save_and_a_load(
    counted: tuple[MongoStorage, Commands], transactions: bool
) -> None:
    storage, commands = counted
    memory = Memory(storage, unique("session"), "ann", full_session_memory=True)
    await memory.save({"role": "user", "content": "Hi"})
    for _ in range(3):
        commands.names.clear()
        await memory.save({"role": "user", "content": "Hi"})
        assert len(commands.names) == (3 if transactions else 2)
    commands.names.clear()
    await memory.load(last=2)
    assert commands.names == ["find", "find"]


@pytest.mark.parametrize("client_class", ["pymongo"], indirect=True)
@pytest.mark.parametrize("transactions", [True], indirect=True)
async def test_a_long_listing_is_read_in_one_command(
    counted: tuple[MongoStorage, Commands],
) -> None:
    storage, commands = counted
    many = 102  # the server's own batches have 101
    await storage.apply(*[Put(item("c", f"{n}"), ABSENT) for n in range(many)])
    commands.names.clear()
    assert len(await storage.find("item", limit=1000)) == many
    assert commands.names == ["find"]
