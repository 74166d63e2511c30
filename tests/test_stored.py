"""Messages put off until somebody asks for them: nobody can tell, but by the time it takes."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest

from memory_async import Context, InMemoryStorage, Memory, Message, Turn, stored
from memory_async.errors import CorruptRecordError, PayloadError
from memory_async.jsontext import MAX_DEPTH
from memory_async.message import parse_messages
from memory_async.turns import decode_turn, encode_turn

NOW = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
PLAIN: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": ""},
    {"role": "user", "content": "hello \0\U0001f600"},
    {"role": "assistant", "content": "hi"},
]
OTHERS: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "blue", "tool_call_id": "c1"},
    {"role": "function", "content": "blue"},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}]},
    {"role": "user", "content": "hello", "name": "Ann"},
    {"role": "assistant", "content": "hi", "created_at": NOW},
    {"content": "hello", "role": "user"},
    {"role": "assistant", "content": "hi", "annotations": []},
]
SAID = {"plain": PLAIN, "others": OTHERS, "mixed": PLAIN + OTHERS, "nothing": []}


def made_of(said: list[dict[str, Any]]) -> Turn:
    messages = [Message.parse(each) for each in said]
    return Turn(session_id="s", run_id="r", user_id="u", messages=messages, created_at=NOW, seq=7)


def read(turn: Turn) -> Turn:
    return decode_turn(turn.session_id, encode_turn(turn))


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
class TestTurn:
    def test_a_turn_read_is_the_turn_written(self, said: list[dict[str, Any]]) -> None:
        turn = made_of(said)
        assert read(turn) == turn
        assert turn == read(turn)
        assert read(turn) == read(turn)
        assert repr(read(turn)) == repr(turn)
        assert asdict(read(turn)) == asdict(turn)
        assert type(read(turn)) is Turn
        assert read(turn).key == turn.key
        assert encode_turn(read(turn)) == encode_turn(turn)

    def test_it_differs_where_a_message_does(self, said: list[dict[str, Any]]) -> None:
        turn = made_of(said)
        assert read(turn) != made_of([*said, {"role": "user", "content": "more"}])

    def test_its_messages_are_made_once(self, said: list[dict[str, Any]]) -> None:
        turn = read(made_of(said))
        assert turn.messages is turn.messages
        assert all(type(each) is Message for each in turn.messages)
        turn.messages.clear()
        assert turn.messages == []

    def test_it_can_be_replaced_copied_and_pickled(self, said: list[dict[str, Any]]) -> None:
        turn = made_of(said)
        assert replace(read(turn), seq=8) == replace(turn, seq=8)
        assert read(turn).numbered(8) == replace(turn, seq=8)
        assert replace(read(turn), messages=[]) == replace(turn, messages=[])
        for again in (copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))):
            assert again(read(turn)) == turn
            assert again(again(read(turn))) == turn

    def test_it_is_as_frozen_as_any(self, said: list[dict[str, Any]]) -> None:
        turn = read(made_of(said))
        for name in ("messages", "seq"):
            with pytest.raises(FrozenInstanceError):
                setattr(turn, name, [])
        with pytest.raises(TypeError, match="unhashable"):
            hash(turn)

    def test_threads_see_the_same(self, said: list[dict[str, Any]]) -> None:
        turn = made_of(said)
        many = [read(turn) for _ in range(200)]
        start = Barrier(4)

        def look() -> bool:
            start.wait(60)
            return all(each.messages == turn.messages for each in many)

        with ThreadPoolExecutor(4) as pool:
            assert all(list(pool.map(lambda _: look(), range(4))))


def test_a_name_that_does_not_exist_is_said_so() -> None:
    for holder in (made_of(PLAIN), read(made_of(PLAIN)), Context()):
        with pytest.raises(AttributeError, match=f"'{type(holder).__name__}'.*'mesages'"):
            holder.mesages  # noqa: B018
        assert not hasattr(holder, "__array__")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "robot", "content": "hi"},
        {"role": ["user"], "content": "hi"},
        {"role": "user", "content": 1},
        {"role": "user", "content": "\ud800"},
        {"role": "user", "content": [1]},
        ["role", "content"],
        "ab",
    ],
    ids=ascii,
)
def test_what_is_no_message_is_found_when_it_is_read(message: Any) -> None:
    payload = json.dumps({"v": 1, "messages": [*PLAIN, message]})
    with pytest.raises(CorruptRecordError, match="turn 7 of session 's'"):
        decode_turn("s", encode_turn(made_of([]))._replace(payload=payload))


def test_the_deepest_that_is_taken_comes_back() -> None:
    deep: Any = "bottom"
    for _ in range(MAX_DEPTH - 6):
        deep = [deep]
    turn = made_of([{"role": "user", "content": [{"type": "x", "x": deep}]}])
    assert read(turn) == turn
    usage = replace(turn, usage={"x": [[[[deep]]]]})
    assert read(usage) == usage


class Text(str):
    __slots__ = ()


GIVEN: list[Any] = [
    *PLAIN,
    *OTHERS,
    *SAID.values(),
    tuple(PLAIN),
    Message(role="user", content="hi"),
    [Message(role="user", content="hi"), PLAIN[0]],
    OrderedDict(PLAIN[0]),
    {"role": Text("user"), "content": "hi"},
    {"role": "user", "content": Text("hi")},
    {"role": "robot", "content": "hi"},
    {"role": ["user"], "content": "hi"},
    {"role": "user", "content": 1},
    {"role": "user", "content": None},
    {"role": "user"},
    [PLAIN[0], {"role": "user"}],
    {},
    "hi",
    None,
]


class TestSaved:
    @pytest.mark.parametrize("given", GIVEN, ids=ascii)
    def test_it_is_taken_or_refused_as_messages_are(self, given: Any) -> None:
        try:
            messages = parse_messages(given)
        except PayloadError as refused:
            with pytest.raises(PayloadError, match=re.escape(str(refused))):
                stored.parse_entries(given)
            return
        turn = Turn(session_id="s", run_id="r", messages=messages, created_at=NOW)
        entries = stored.parse_entries(given)
        saved = Turn.of_entries(
            entries, session_id="s", run_id="r", user_id=None, usage=None, created_at=NOW
        )
        assert encode_turn(saved) == encode_turn(turn)
        assert saved.numbered(3) == replace(turn, seq=3)
        assert saved == turn
        assert saved.numbered(3) == replace(turn, seq=3)

    def test_a_lone_surrogate_is_named(self) -> None:
        entries = stored.parse_entries({"role": "user", "content": "\ud800"})
        turn = Turn.of_entries(entries, session_id="s", run_id="r", user_id=None, usage=None)
        with pytest.raises(PayloadError, match="turn holds a lone surrogate"):
            encode_turn(turn)

    async def test_what_the_caller_changes_later_is_not_in_the_turn(self) -> None:
        memory = Memory(InMemoryStorage(), "s", full_session_memory=True)
        given = copy.deepcopy(PLAIN)
        turn = await memory.save(given)
        given[2]["content"] = "changed"
        assert turn is not None
        assert [each.to_openai() for each in turn.messages] == PLAIN
        assert (await memory.turns()) == [turn]

    async def test_plain_messages_are_saved_without_making_objects(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory = Memory(InMemoryStorage(), "s", full_session_memory=True)
        with monkeypatch.context() as patch:
            patch.setattr(stored, "_MESSAGES", None)
            patch.setattr(Message, "parse", None)
            turn = await memory.save(PLAIN)
        assert turn is not None
        assert [each.to_openai() for each in turn.messages] == PLAIN


class TestContext:
    @pytest.fixture
    async def memory(self) -> Memory:
        memory = Memory(InMemoryStorage(), "s", full_session_memory=True)
        await memory.set_metadata({"place": "Lima"})
        for said in SAID.values():
            if said:
                await memory.save(said)
        return memory

    async def test_a_context_says_the_same_however_it_is_asked(self, memory: Memory) -> None:
        asked, other = await memory.load(), await memory.load()
        head, *rest = asked.to_openai("Hi.")
        assert head["content"].startswith("Hi.")
        assert rest == [message.to_openai() for message in other.messages]
        assert asked.to_openai("Hi.") == other.to_openai("Hi.")
        assert asked == other
        assert repr(asked) == repr(other)
        again = Context(other.messages, metadata=other.metadata, instructions=other.instructions)
        assert await memory.load() == again
        assert pickle.loads(pickle.dumps(await memory.load())) == again

    async def test_a_budget_and_tools_choose_as_ever(self, memory: Memory) -> None:
        fed = memory.bind()
        fed._settings = replace(memory._settings, feed_tool_call_results=True)
        assert [each.to_openai() for each in (await fed.load()).messages] == [
            message.to_openai()
            for message in await memory.messages()
            if message.role != "function"  # nobody called it
        ]
        assert not any(
            each["role"] in ("tool", "function") or "tool_calls" in each
            for each in (await memory.load()).to_openai()
        )
        some = await memory.load(max_tokens=40)
        assert [turn.seq for turn in some.dropped] == [1, 2]
        assert some.to_openai()[1:] == [each.to_openai() for each in some.messages]

    async def test_what_the_caller_changes_does_not_reach_the_context(self, memory: Memory) -> None:
        context = await memory.load()
        before = copy.deepcopy(context.to_openai())
        for each in context.to_openai():
            each["content"] = "changed"
        assert context.to_openai() == before
        assert [each.to_openai() for each in context.messages] == before[1:]

    async def test_what_the_caller_adds_to_its_messages_is_said_too(self, memory: Memory) -> None:
        context = await memory.load()
        context.messages.append(Message(role="user", content="more"))
        assert context.to_openai()[-1] == {"role": "user", "content": "more"}

    async def test_passing_plain_messages_on_makes_no_objects_of_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory = Memory(InMemoryStorage(), "s", full_session_memory=True)
        await memory.save(PLAIN)
        with monkeypatch.context() as patch:
            patch.setattr(stored, "_MESSAGES", None)
            context = await memory.load()
            assert context.to_openai() == PLAIN
        assert [each.to_openai() for each in context.messages] == PLAIN
