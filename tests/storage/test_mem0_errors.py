"""What Mem0 refuses, loses or forgets to answer: clear errors, and nothing reported that is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest
import pytest_asyncio
import stamina
import stamina.instrumentation

pytest.importorskip("httpx")

from memory_async import Memory, PayloadError, StorageUnavailableError
from memory_async.errors import StorageError
from memory_async.keys import Key
from memory_async.records import Checkpoint, Item
from memory_async.storage.mem0 import Mem0Storage
from memory_async.storage.mem0.rows import scope_of
from memory_async.storage.protocol import ABSENT, Delete, Put, Write
from memory_async.testing.material import append, fill, in_session, item, seqs, texts, unique
from tests.servers import mem0
from tests.servers.mem0_app import KEY, Mem0App, Refused, Request
from tests.servers.postgres import free_port

HI = {"role": "user", "content": "Hi"}


class Served(NamedTuple):
    app: Mem0App
    url: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with mem0.serving() as (app, url):
        yield Served(app, url)


@pytest.fixture(autouse=True)
def _as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "served" in request.fixturenames:
        app = request.getfixturevalue("served").app
        app.fail, app.late = None, False


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """How long stamina was about to wait, each time; it does not."""
    found: list[float] = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: found.append(details.wait_for)])
    with stamina.set_testing(True, attempts=100, cap=True):
        yield found
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest_asyncio.fixture
async def storage(served: Served, waits: list[float]) -> AsyncIterator[Mem0Storage]:
    async with Mem0Storage(KEY, base_url=served.url, namespace=unique("namespace")) as storage:
        yield storage


def times(count: int, status: int, what: str = "", **headers: str) -> Callable[[Request], None]:
    """Refuse the next so many requests whose path ends so."""
    left = [count]

    def fail(request: Request) -> None:
        if request.path.endswith(what) and left[0]:
            left[0] -= 1
            raise Refused(status, f"refused with {status}", **headers)

    return fail


# --- refusals ---


async def test_a_service_that_is_down_says_so(waits: list[float]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    memory = Memory(Mem0Storage(KEY, base_url=url), "s", full_session_memory=True)
    with pytest.raises(StorageUnavailableError, match=f"cannot reach Mem0 at {url}") as raised:
        await memory.save(HI)
    assert raised.value.__cause__ is not None
    assert len(waits) == 3


async def test_a_wrong_key_says_so_and_is_not_shown(served: Served, waits: list[float]) -> None:
    key = "m0-another-key"
    storage = Mem0Storage(key, base_url=served.url)
    with pytest.raises(StorageUnavailableError, match="MEM0_API_KEY") as raised:
        await storage.open()
    assert key not in str(raised.value)
    assert not waits


async def test_413_is_not_tried_again(
    served: Served, storage: Mem0Storage, waits: list[float]
) -> None:
    s = unique("session")
    served.app.fail = times(100, 413, "/add/")
    with pytest.raises(StorageUnavailableError, match="quota"):
        await storage.apply(append(s))
    assert not waits
    served.app.fail = None
    assert await storage.history(s) == []


async def test_429_is_honoured(served: Served, storage: Mem0Storage, waits: list[float]) -> None:
    s = unique("session")
    served.app.fail = times(2, 429, "/add/", Retry_After="7")
    assert seqs(await fill(storage, s, 1)) == [1]
    assert waits == [0, 0]  # in tests stamina waits for nothing
    served.app.fail = times(100, 429, "/add/", Retry_After="3600")
    with pytest.raises(StorageUnavailableError, match="rate limit"):
        await storage.apply(append(s))
    assert len(waits) == 2  # nobody waits for an hour
    served.app.fail = times(100, 429, "/add/")
    with pytest.raises(StorageUnavailableError, match="rate limit"):
        await storage.apply(append(s))
    assert len(waits) == 2 + 3
    served.app.fail = None
    assert seqs(await storage.history(s)) == [1]


async def test_the_wait_is_the_one_asked_for(served: Served, storage: Mem0Storage) -> None:
    s = unique("session")
    loop = asyncio.get_running_loop()
    with stamina.set_testing(False):
        served.app.fail = times(1, 429, "/add/", Retry_After="0.3")
        start = loop.time()
        await storage.apply(append(s))
    assert loop.time() - start >= 0.3


@pytest.mark.parametrize("read", ["get", "history", "snapshot", "find"])
@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_failed_look_up_is_never_not_found(
    served: Served, storage: Mem0Storage, read: str, status: int
) -> None:
    s = unique("session")
    await storage.apply(append(s))
    calls = {
        "get": lambda: storage.get(Key("session", in_session(s), s)),
        "history": lambda: storage.history(s),
        "snapshot": lambda: storage.snapshot(s),
        "find": lambda: storage.find("session"),
    }
    served.app.fail = times(100, status, "/v3/memories/")
    with pytest.raises(StorageError, match=str(status)):
        await calls[read]()
    with pytest.raises(StorageError, match=str(status)):
        await storage.apply(append(s, "not written over what could not be read"))
    served.app.fail = None
    assert texts(await storage.history(s)) == ["hello"]


async def test_an_answer_that_is_no_json_is_not_mem0(storage: Mem0Storage, tmp_path) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StorageUnavailableError, match="base_url"):
            await Mem0Storage(KEY, base_url=f"http://127.0.0.1:{port}").open()


# --- failures amid a save ---


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_a_500_in_the_middle_of_a_save(
    served: Served, storage: Mem0Storage, late: bool
) -> None:
    """Header and turn are two calls; each may fail, served already or not."""
    for number in range(2):
        s, run = unique("session"), unique("run")
        served.app.late = late
        skipped = [number]

        def fail(request: Request, skipped: list[int] = skipped) -> None:
            if request.path.endswith("/add/"):
                if not skipped[0]:
                    raise Refused(500, "in the middle")
                skipped[0] -= 1

        served.app.fail = fail
        with pytest.raises(StorageUnavailableError, match="500"):
            await storage.apply(append(s, run_id=run))
        served.app.fail = None
        saved = await storage.history(s)
        assert len(saved) == (1 if late and number else 0)
        [again] = await storage.apply(append(s, run_id=run))
        assert again.created is not bool(saved)
        assert again.turn is not None
        assert [turn.run_id for turn in await storage.history(s)] == [run]


async def test_a_lost_answer_doubles_nothing(served: Served, storage: Mem0Storage) -> None:
    s = unique("session")
    served.app.late = True
    served.app.fail = times(2, 502, "/add/")  # of the header, and of its second try
    await storage.apply(append(s, "once"))
    assert texts(await storage.history(s)) == ["once"]
    memories = await mem0.own().get_all(filters=scope_of(storage.namespace), top_k=100)
    assert len(memories["results"]) == 2


async def test_a_run_written_twice_is_one_turn(served: Served, storage: Mem0Storage) -> None:
    """A duplicate that got past Mem0, as where the same text may be kept twice."""
    s = unique("session")
    await fill(storage, s, 2)
    scope = scope_of(storage.namespace)
    [first] = [
        each
        for each in (await mem0.own().get_all(filters=scope, top_k=100))["results"]
        if each["metadata"]["seq"] == 1
    ]
    message = [{"role": "user", "content": first["memory"]}]
    await mem0.own().add(message, **scope, metadata=first["metadata"], infer=False)
    assert seqs(await storage.history(s)) == [1, 2]
    assert texts(await storage.history(s)) == ["1", "2"]


async def test_an_end_of_a_run_that_was_interrupted_is_finished_by_trying_again(
    served: Served, storage: Mem0Storage
) -> None:
    s, run = unique("session"), unique("run")
    checkpoint = Checkpoint(session_id=s, run_id=run)
    await storage.apply(append(s), Put(checkpoint, ABSENT))
    batch: list[Write] = [append(s, "done", run_id=run), Delete(checkpoint.key, checkpoint.version)]

    def fail(request: Request) -> None:
        if request.method == "DELETE":
            raise Refused(500, "no deleting")

    served.app.fail = fail
    with pytest.raises(StorageUnavailableError):
        await storage.apply(*batch)
    served.app.fail = None
    assert texts(await storage.history(s)) == ["hello", "done"]
    [again, _] = await storage.apply(*batch)
    assert not again.created
    assert await storage.get(checkpoint.key) is None
    assert texts(await storage.history(s)) == ["hello", "done"]


async def test_what_mem0_did_not_keep_is_not_reported(
    served: Served, storage: Mem0Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(body: object) -> object:
        return {"results": []}

    monkeypatch.setattr(served.app, "_add", nothing)
    with pytest.raises(StorageUnavailableError, match="not kept"):
        await storage.apply(append(unique("session")))


async def test_a_row_cut_short_is_unreadable_and_not_half_read(
    served: Served, storage: Mem0Storage, caplog: pytest.LogCaptureFixture
) -> None:
    where, value = unique("collection"), "".join(map(chr, range(0x4E00, 0x6000)))
    await storage.apply(Put(item(where, "long", value), ABSENT), Put(item(where, "short"), ABSENT))
    memories = await mem0.own().get_all(filters=scope_of(storage.namespace), top_k=100)
    parts = [each for each in memories["results"] if each["metadata"]["parts"] > 1]
    assert len(parts) > 3
    assert isinstance(await storage.get(item(where, "long").key), Item)
    await mem0.own().delete(next(e["id"] for e in parts if e["metadata"]["part"] == 2))
    caplog.set_level(logging.ERROR)
    with pytest.raises(StorageError, match="lacks some of its pieces"):
        await storage.get(item(where, "long").key)
    assert [each.key.id for each in await storage.find("item")] == ["short"]
    assert storage.corrupt_rows == 1
    await storage.apply(Delete(item(where, "long").key))


async def test_more_than_mem0_could_take_is_refused_before_it_is_written(
    served: Served, storage: Mem0Storage
) -> None:
    import random

    s = unique("session")
    noise = random.Random(8).randbytes(2_000_000)
    before = len(served.app.requests)
    with pytest.raises(PayloadError, match="memories of Mem0"):
        await storage.apply(append(s), Put(item(in_session(s), "large", noise), ABSENT))
    sent = served.app.requests[before:]
    assert {request.path for request in sent} == {"/v3/memories/"}  # it was only read


async def test_a_cancelled_save_is_whole(served: Served, storage: Mem0Storage) -> None:
    for steps in (0, 5, 20, 60):
        s = unique("session")
        task = asyncio.ensure_future(storage.apply(append(s)))
        for _ in range(steps):
            await asyncio.sleep(0.001 if steps > 10 else 0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        session = await storage.get(Key("session", in_session(s), s))
        assert (session is not None) == (len(await storage.history(s)) == 1)


# --- what else may come in between ---


async def test_a_failed_extraction_is_reported_and_done_later(
    served: Served, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = served.app._extract

    async def failing(event: str, *rest: object) -> None:
        served.app.events[event] = {"id": event, "status": "FAILED"}

    errors: list[Exception] = []
    async with Mem0Storage(
        KEY, base_url=served.url, namespace=unique("namespace"), infer=True
    ) as storage:
        memory = Memory(
            storage,
            "s",
            "ada",
            user_analysis_memory=True,
            on_job_error=lambda job, session_id, error: errors.append(error),
        )
        monkeypatch.setattr(served.app, "_extract", failing)
        assert await memory.save({"role": "user", "content": "I like tea."})
        assert await memory.drain(60)
        assert ["could not add" in str(error) for error in errors] == [True]
        monkeypatch.setattr(served.app, "_extract", extract)
        assert await memory.recover() == 1
        profile = await memory.profile()
        assert profile is not None
        assert profile.model_dump(exclude_defaults=True) == {"facts": ["User: I like tea"]}
        await memory.close()


async def test_memories_of_others_in_the_same_scope_are_left_alone(
    served: Served, storage: Mem0Storage
) -> None:
    s = unique("session")
    await fill(storage, s, 2)
    scope = scope_of(storage.namespace)
    for metadata in ({}, {"memory_async": 1}, {"memory_async": 1, "kind": "turn", "key": 7}):
        note = [{"role": "user", "content": unique("a note")}]
        await mem0.own().add(note, **scope, metadata=metadata, infer=False)
    assert seqs(await storage.history(s)) == [1, 2]
    assert await storage.search("note", kind="turn") is not None
    assert storage.corrupt_rows == 0
