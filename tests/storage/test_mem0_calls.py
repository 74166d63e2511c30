"""The requests are those that Mem0's own client sends for the same operations; and nothing is lost
where there are many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("httpx")

from memory_async import ConfigurationError, Memory, StorageUnavailableError, open_storage
from memory_async.records import Checkpoint
from memory_async.storage.mem0 import Mem0Storage
from memory_async.storage.mem0.platform import PAGE, Platform
from memory_async.storage.mem0.rows import scope_of
from memory_async.storage.protocol import ABSENT, Put, Storage
from memory_async.testing.material import append, item, texts, unique
from tests.servers import mem0
from tests.servers.mem0_app import KEY, Mem0App, Refused, Request

SCOPE, METADATA = {"agent_id": "shapes"}, {"kind": "turn", "part": 0}
SAID = [{"role": "user", "content": "I like tea."}]
FILTERS = {"AND": [SCOPE, {"metadata": {"kind": "turn"}}]}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Mem0App, str]]:
    with mem0.serving() as (app, url):
        yield app, url


Call = Callable[[Any, str], Awaitable[Any]]
OPERATIONS: dict[str, tuple[Call, Call]] = {
    "add": (
        lambda ours, it: ours.add(SCOPE, SAID, METADATA, infer=False),
        lambda theirs, it: theirs.add(SAID, **SCOPE, metadata=METADATA, infer=False),
    ),
    "extract": (
        lambda ours, it: ours.add({"user_id": "ada"}, SAID, {}, infer=True),
        lambda theirs, it: theirs.add(SAID, user_id="ada", metadata={}, infer=True),
    ),
    "list": (
        lambda ours, it: ours.read_all(SCOPE, {"kind": "turn"}),
        lambda theirs, it: theirs.get_all(filters=FILTERS, page=1, page_size=PAGE),
    ),
    "search": (
        lambda ours, it: ours.search("tea", SCOPE, {"kind": "turn"}, 5),
        lambda theirs, it: theirs.search("tea", filters=FILTERS, top_k=5),
    ),
    "update": (
        lambda ours, it: ours.update(it, "I like coffee.", METADATA),
        lambda theirs, it: theirs.update(it, text="I like coffee.", metadata=METADATA),
    ),
    "delete": (
        lambda ours, it: ours.delete(it),
        lambda theirs, it: theirs.delete(it),
    ),
}


def shape(request: Request) -> tuple[Any, ...]:
    """All of a request but the headers that say which client it is."""
    return (
        request.method,
        request.path,
        request.query,
        request.body,
        request.headers["authorization"],
        request.headers.get("content-type"),
    )


@pytest.mark.parametrize("name", ["ping", *OPERATIONS])
async def test_requests_are_those_of_mem0_s_own_client(
    served: tuple[Mem0App, str], name: str
) -> None:
    from mem0 import AsyncMemoryClient

    app, url = served
    ours = Platform(KEY, base_url=url)
    start = len(app.requests)
    await ours.open()
    theirs = await asyncio.to_thread(AsyncMemoryClient, api_key=KEY, host=url)
    if name != "ping":
        ids = await ours.add(SCOPE, [{"role": "user", "content": unique()}], METADATA, infer=False)
        start = len(app.requests)
        by_us, by_them = OPERATIONS[name]
        await by_us(ours, ids[0])
        after = len(app.requests)
        if name == "delete":  # it is gone: their request, not its answer, is looked at
            with pytest.raises(Exception, match="not found"):
                await by_them(theirs, ids[0])
        else:
            await by_them(theirs, ids[0])
        mine, [their] = app.requests[start:after], app.requests[after:]
    else:
        *mine, their = app.requests[start:]
    await ours.close()
    await theirs.async_client.aclose()
    first, *polls = mine
    assert shape(first) == shape(their)
    assert all(each.path.startswith("/v1/event/") for each in polls)
    assert bool(polls) == (name == "extract")


@pytest.mark.parametrize("make", [mem0.storage, mem0.own_storage])
@pytest.mark.parametrize("count", [25, pytest.param(250, marks=pytest.mark.slow)])
async def test_a_session_of_several_pages_is_whole_and_in_order(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("memory_async.storage.mem0.platform.PAGE", count * 2 // 5)
    async with make(namespace=unique("namespace")) as storage:
        memory = Memory(storage, "s", "ada", full_session_memory=True)
        for number in range(count):
            await memory.save({"role": "user", "content": f"message {number}"})
        turns = await memory.turns()
        assert [turn.seq for turn in turns] == list(range(1, count + 1))
        assert [turn.messages[0].text for turn in turns] == [f"message {n}" for n in range(count)]
        context = await memory.load(last=3)
        last = range(count - 3, count)
        assert [each.text for each in context.messages] == [f"message {n}" for n in last]


@pytest.mark.parametrize("count", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sessions", [1, 25])
async def test_many_saves_at_once_lose_nothing(sessions: int, count: int) -> None:
    """From two objects, as in two processes: of one session some may share a seq."""
    namespace = unique("namespace")
    async with (
        mem0.storage(namespace=namespace) as one,
        mem0.storage(namespace=namespace) as other,
    ):
        memories = [Memory(each, full_session_memory=True) for each in (one, other)]
        saved = await asyncio.gather(
            *(
                memories[n % 2]
                .bind(session_id=f"s{n % sessions}", user_id="ada")
                .save({"role": "user", "content": f"{n}"})
                for n in range(count)
            )
        )
        found = [
            turn
            for n in range(sessions)
            for turn in await memories[1].bind(session_id=f"s{n}", user_id="ada").turns()
        ]
        assert sorted(int(turn.messages[0].text) for turn in found) == list(range(count))
        assert {turn.run_id for turn in found} == {turn.run_id for turn in saved if turn}
        places = [(turn.seq, turn.created_at, turn.run_id) for turn in found]
        assert sessions > 1 or places == sorted(places)


@pytest.mark.parametrize("end", ["delete_session", "forget_user"])
async def test_pieces_of_what_was_never_written_to_its_end_go_with_the_session(
    served: tuple[Mem0App, str], end: str
) -> None:
    app, url = served
    storage = Mem0Storage(KEY, base_url=url, namespace=unique("namespace"))
    memory = Memory(storage, "s", "ada", full_session_memory=True)
    await memory.save({"role": "user", "content": "Hi"})
    secret = "the secret of ada " * 500

    def fail(request: Request) -> None:
        metadata = (request.body or {}).get("metadata", {})
        if metadata.get("part") == 0 and metadata["kind"] != "session":
            raise Refused(413, "before the head")

    app.fail = fail
    state = "".join(map(chr, range(0x4E00, 0x6000)))  # which no packing makes small
    run = Checkpoint(session_id="s", run_id="run", user_id="ada", state=state)
    for write in (append("s", secret, user_id="ada"), Put(run, ABSENT)):
        with pytest.raises(StorageUnavailableError):
            await storage.apply(write)
    app.fail = None

    async def texts_kept() -> list[str]:
        kept = await mem0.own().get_all(filters=scope_of(storage.namespace), top_k=100)
        return [each["memory"] for each in kept["results"]]

    kept = await texts_kept()
    assert sum("secret" in text for text in kept) > 3
    assert sum("[checkpoint" in text for text in kept) > 3
    assert texts(await storage.history("s")) == ["Hi"]
    assert await storage.find("checkpoint") == []
    assert {match.text for match in await storage.search("secret", kind="turn")} <= {"Hi"}
    assert storage.corrupt_rows == 0
    await getattr(memory, end)()
    assert [text for text in await texts_kept() if "[profile" not in text] == []
    await storage.close()


async def test_a_url_names_it(served: tuple[Mem0App, str], monkeypatch: pytest.MonkeyPatch) -> None:
    app, url = served
    monkeypatch.setenv("MEM0_API_KEY", KEY)
    options = f"base_url={url}&infer=true&org_id=o&project_id=p&namespace=n"
    async with open_storage(f"mem0://?{options}") as storage:
        assert isinstance(storage, Mem0Storage)
        assert (storage.analyses_users, storage.namespace) == (True, "n")
        assert url in repr(storage)
        assert app.requests[-1].query == {"org_id": "o", "project_id": "p"}


@pytest.mark.parametrize("base_url", ["api.mem0.ai", "ftp://mem0", ""])
def test_an_address_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        Mem0Storage(KEY, base_url=base_url)


def test_without_a_key_it_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEM0_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="MEM0_API_KEY"):
        Mem0Storage()
    with pytest.raises(ConfigurationError, match="printable"):
        Mem0Storage("kéy")
    with pytest.raises(ConfigurationError, match="AsyncMemory"):
        Mem0Storage(memory=object())


async def test_an_own_memory_stays_in_its_process_and_open() -> None:
    storage = Mem0Storage(memory=mem0.own(), namespace=unique("namespace"))
    await storage.apply(append("s"))
    await storage.close()
    assert (await mem0.own().get_all(filters=scope_of(storage.namespace)))["results"]
    child = Mem0Storage(memory=mem0.own())
    child._forked()  # as in a child
    with pytest.raises(ConfigurationError, match="forked"):
        await child.open()


async def test_a_deletion_between_two_pages_hides_nothing(
    served: tuple[Mem0App, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, url = served
    monkeypatch.setattr("memory_async.storage.mem0.platform.PAGE", 2)
    where = unique("collection")
    serve, gone = app._list, list[str]()

    async def serve_pages(request: Request) -> object:
        if request.query["page"] == "2" and not gone:
            newest = (await serve(replace(request, query={"page": "1"})))["results"][0]
            gone.append(newest["id"])
            await mem0.own().delete(newest["id"])  # which moves up all that follow
        return await serve(request)

    monkeypatch.setattr(app, "_list", serve_pages)
    async with Mem0Storage(KEY, base_url=url, namespace=unique("namespace")) as storage:
        for number in range(6):
            await storage.apply(Put(item(where, f"{number}"), ABSENT))
        assert {each.key.id for each in await storage.find("item")} == set("01234")
    assert gone
