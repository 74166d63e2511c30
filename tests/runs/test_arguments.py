"""What is no run, requirement or answer is refused clearly, before anything is written."""

import math
from typing import Any

import pytest

from memory_async import (
    ConfigurationError,
    Inbox,
    Memory,
    Message,
    PayloadError,
    Requirement,
    RunNotFoundError,
    StorageUnavailableError,
    sync,
)
from memory_async.records import RECORDS
from memory_async.testing.run_suite import APPROVAL, ASK, kept, pause

TOOL = Requirement("tool", "external_tool")
Bad: Any = Requirement  # as somebody without a type checker would call it
BAD_IDS = {
    "empty": "",
    "number": 5,
    "bytes": b"r",
    "None": None,
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "long": "x" * 513,
}
REFUSED = (PayloadError, ConfigurationError, RunNotFoundError)


@pytest.fixture
def memory(storage):
    return Memory(storage, "s", "ada", full_session_memory=True)


@pytest.fixture
def contents(storage):
    async def read():
        found = {kind: await storage.find(kind) for kind in RECORDS}
        return found, await storage.history("s", trimmed=True)

    return read


@pytest.fixture
async def run_id(memory):
    return await pause(memory, APPROVAL, TOOL, run_id="r")


@pytest.mark.parametrize(
    "said",
    [
        *(None, 5, b"Hi", [], {}, object(), [None], ["Hi"]),
        *({"role": "user"}, {"content": "Hi"}, {"role": "king", "content": "x"}),
        *({"role": "user", "content": 5}, {"role": "user", "content": {1}}),
    ],
)
async def test_what_a_run_begins_with_is_messages(memory, contents, said):
    before = await contents()
    with pytest.raises(PayloadError):
        memory.run(said)
    with pytest.raises(PayloadError):
        sync.Memory("memory://").run(said)
    assert await contents() == before
    async with memory.run("Hi") as run:
        with pytest.raises(PayloadError):
            run.add(said)
        with pytest.raises(PayloadError):
            run.add("Hi")  # who said it?
        run.add(ASK)
    assert [message.text for message in run.turn.messages] == ["Hi", ASK["content"]]


@pytest.mark.parametrize("said", ["\ud800", [{"role": "user", "content": "x", "n": math.nan}]])
async def test_what_cannot_be_stored_does_not_begin_a_run(memory, contents, said):
    before = await contents()
    with pytest.raises(PayloadError):
        async with memory.run(said):
            pytest.fail("entered")
    assert await contents() == before


async def test_what_memory_rendered_is_not_said_again(memory):
    context = "<SessionSummary>\nx\n</SessionSummary>"
    with pytest.raises(PayloadError, match="rendered"):
        memory.run([{"role": "system", "content": context}, ASK])
    async with memory.run(context) as run:
        with pytest.raises(PayloadError, match="rendered"):
            run.add({"role": "system", "content": context})
    assert run.turn.messages[0].text == context


@pytest.mark.parametrize("said", ["", " ", "\0", "é\u2028\U0001f600", "x" * 100_000])
async def test_any_text_may_be_said(memory, said):
    async with memory.run(said) as run:
        run.add(Message(role="assistant", content=said))
    assert [message.text for message in (await memory.turns())[0].messages] == [said, said]


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
async def test_ids_are_checked(memory, storage, contents, run_id, bad):
    inbox, before = Inbox(storage), await contents()
    if bad is not None:
        with pytest.raises(PayloadError, match="run_id"):
            memory.run("Hi", run_id=bad)
        for name in ("user_id", "agent_id"):
            with pytest.raises(PayloadError, match=name):
                await inbox.list(**{name: bad})
    with pytest.raises(PayloadError, match="run_id"):
        async with memory.resume(bad):
            pytest.fail("entered")
    for call in (inbox.get, inbox.decisions, inbox.discard, inbox.memory_for):
        with pytest.raises(PayloadError, match="run_id"):
            await call(bad)
    for decide in (memory.decide, inbox.decide):
        with pytest.raises(PayloadError, match="run_id"):
            await decide(bad, "ok", approved=True)
        with pytest.raises(PayloadError, match="requirement_id"):
            await decide(run_id, bad, approved=True)
    async with memory.run("Hi") as run:
        with pytest.raises(PayloadError, match="id"):
            run.pause(1, [Requirement(bad, "approval")])
        run.pause()
    assert (await kept(storage, "s", run.run_id)).checkpoint.requirements == []
    await inbox.discard(run.run_id)
    assert await contents() == before


@pytest.mark.parametrize("id", ["a", "é" * 256, "/", "{}%*?", "..", " ", "a\nb", "r\U0001f600"])
async def test_any_other_text_is_an_id(storage, memory, id):
    memory = Memory(storage, id, id, full_session_memory=True, agent_id=id)
    assert await pause(memory, Requirement(id, "question"), run_id=id) == id
    inbox = Inbox(storage)
    [found] = await inbox.list(user_id=id, agent_id=id)
    assert (found.run_id, found.requirements) == (id, [Requirement(id, "question")])
    await inbox.decide(id, id, value="")
    async with (await inbox.memory_for(id)).resume(id) as run:
        assert run.decisions[id].value == ""
    assert run.turn.run_id == id


@pytest.mark.parametrize(
    "bad",
    [
        Bad("x", "maybe"),
        Bad("x", None),
        Bad("x", "approval", tool_name=5),
        Bad("x", "approval", prompt=["a"]),
        Bad("x", "approval", arguments=["a"]),
        Bad("x", "approval", arguments={"a": {1}}),
        Bad("x", "approval", arguments={1: 1}),
        Bad("x", "approval", prompt="\ud800"),
        {"id": "x", "kind": "approval"},
        "approval",
        None,
    ],
    ids=repr,
)
async def test_a_requirement_is_checked_where_it_is_given(memory, storage, bad):
    async with memory.run("Hi") as run:
        before = await kept(storage, "s", run.run_id)
        for given in ([bad], [APPROVAL, bad], (each for each in [bad])):
            with pytest.raises(PayloadError):
                run.pause(1, given)
        with pytest.raises(PayloadError, match="one id"):
            run.pause(1, [APPROVAL, APPROVAL])
        for single in (APPROVAL, 5, None):
            with pytest.raises(PayloadError, match="requirements are"):
                run.pause(1, single)
        assert (run.state, run.requirements, run.status) == (None, [], "running")
        assert await kept(storage, "s", run.run_id) == before
        run.add(ASK)
    assert run.status == "completed"


@pytest.mark.parametrize(
    ("requirement", "answer"),
    [
        ("ok", {}),
        ("ok", {"approved": None}),
        ("ok", {"approved": "yes"}),
        ("ok", {"approved": 1}),
        ("ok", {"value": True}),
        ("ok", {"approved": True, "by": 5}),
        ("ok", {"approved": True, "note": ["x"]}),
        ("ok", {"approved": True, "by": "\ud800"}),
        ("ok", {"approved": True, "value": {1}}),
        ("tool", {}),
        ("tool", {"approved": True}),
        ("tool", {"value": None}),
        ("tool", {"value": math.nan}),
        ("tool", {"value": object()}),
        ("tool", {"value": 1, "approved": "yes"}),
        ("unknown", {"approved": True}),
        ("OK", {"approved": True}),
    ],
)
async def test_an_answer_is_checked(memory, storage, contents, run_id, requirement, answer):
    before = await contents()
    for decide in (memory.decide, Inbox(storage).decide):
        with pytest.raises(REFUSED):
            await decide(run_id, requirement, **answer)
    assert await contents() == before


EMPTY = [{"value": 0}, {"value": ""}, {"value": []}, {"value": False}, {"approved": False}]


@pytest.mark.parametrize("answer", EMPTY, ids=repr)
async def test_an_empty_answer_is_one(memory, run_id, answer):
    made = await memory.decide(run_id, "tool", **answer)
    assert (made.value, made.approved) == (answer.get("value"), answer.get("approved"))


@pytest.mark.parametrize("usage", [5, "x", [1], object(), {"n": math.inf}, {1: 1}, dict])
async def test_usage_is_numbers_by_name(memory, usage):
    async with memory.run("Hi") as run:
        with pytest.raises(PayloadError, match="usage"):
            run.usage = usage
        run.usage = {"input_tokens": 1}
    assert run.turn.usage == {"input_tokens": 1}


@pytest.mark.parametrize(
    "conditions",
    [
        *({"status": "pausd"}, {"status": ""}, {"status": 5}),
        *({"limit": -1}, {"limit": "5"}, {"limit": True}),
        *({"before": "x"}, {"before": APPROVAL}),
    ],
)
async def test_a_listing_says_what_it_does_not_know(storage, memory, conditions):
    with pytest.raises(ConfigurationError):
        await Inbox(storage).list(**conditions)
    if "before" not in conditions:
        with pytest.raises(ConfigurationError):
            await memory.checkpoints(**conditions)


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_lease_lasts_some_time(seconds):
    with pytest.raises(ConfigurationError, match="lease_seconds"):
        Memory("memory://", lease_seconds=seconds)


async def test_a_closed_memory_begins_nothing(storage):
    memory = Memory(storage, "s")
    run_id = await pause(memory, APPROVAL)
    await memory.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        async with memory.run("Hi"):
            pytest.fail("entered")
    with pytest.raises(StorageUnavailableError, match="closed"):
        async with memory.resume(run_id):
            pytest.fail("entered")
    for call in (memory.checkpoints(), memory.decide(run_id, "ok", approved=True)):
        with pytest.raises(StorageUnavailableError, match="closed"):
            await call


async def test_a_memory_that_is_bound_per_request_runs_nothing_itself(storage):
    memory = Memory(storage)
    view = memory.bind(session_id="s", user_id="ada")
    with pytest.raises(ConfigurationError, match="bind"):
        async with memory.run("Hi"):
            pytest.fail("entered")
    async with view.run("Hi") as run:
        assert run.user_id == "ada"
