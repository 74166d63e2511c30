"""`Message`: whatever a chat API says comes in, and goes out as it was."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from memory_async.errors import PayloadError
from memory_async.message import Message, parse_messages

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}

PLAIN: list[dict[str, Any]] = [
    {"role": "user", "content": "hello"},
    {"role": "user", "content": ""},
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "hello", "name": "Ann"},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]},
    {"role": "user", "content": []},
    {"role": "assistant", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, CALL]},
    {"role": "assistant", "content": "hi", "tool_calls": []},
    {"role": "tool", "content": "blue", "tool_call_id": "c1"},
    {"role": "tool", "content": [{"type": "text", "text": "blue"}], "tool_call_id": "c1"},
    {"role": "function", "content": "blue", "name": "look"},
]

UNUSUAL: list[dict[str, Any]] = [
    {"content": "hello", "role": "user"},
    {"role": "tool", "tool_call_id": "c1", "content": "blue"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "assistant", "tool_calls": [CALL], "content": None},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": None, "refusal": "I cannot."},
    {"role": "assistant", "content": "hi", "tool_calls": None, "name": None},
    {"role": "assistant", "content": None, "audio": {"id": "a1"}},
    {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}, "content": None},
    {"role": "assistant", "content": "hi", "reasoning_content": "They said hi.", "annotations": []},
    {"role": "user", "content": "hello", "x": {"y": [None, 1.5, True]}},
    {"role": "user", "content": "hello", "created_at": "yesterday"},
    {"role": "user", "content": "hello", "created_at": 1_700_000_000},
    {"role": "user", "content": "hello", "raw": "fish"},
]


class SdkFunction(BaseModel):
    name: str
    arguments: str


class SdkCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: SdkFunction


class SdkMessage(BaseModel):
    """The shape of `openai.types.chat.ChatCompletionMessage`."""

    model_config = ConfigDict(extra="allow")

    content: str | None = None
    refusal: str | None = None
    role: Literal["assistant"] = "assistant"
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: SdkFunction | None = None
    tool_calls: list[SdkCall] | None = None


def same(found: Any, given: Any) -> bool:
    """Equal in every byte a chat API would get."""
    return json.dumps(found) == json.dumps(given)


class TestOpenAI:
    @pytest.mark.parametrize("given", PLAIN, ids=str)
    def test_usual_messages_come_out_as_they_went_in(self, given: dict[str, Any]) -> None:
        message = Message.parse(given)
        assert same(message.to_openai(), given)
        assert message.raw is None

    @pytest.mark.parametrize("given", UNUSUAL, ids=str)
    def test_unusual_messages_come_out_as_they_went_in(self, given: dict[str, Any]) -> None:
        message = Message.parse(given)
        assert same(message.to_openai(), given)
        assert message.raw == given

    @settings(database=None)
    @given(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.text()},
            optional={
                "name": st.text(),
                "tool_call_id": st.text(),
                "tool_calls": st.lists(st.dictionaries(st.text(), st.integers())),
                "other": st.none() | st.text(),
            },
        ).flatmap(lambda made: st.permutations(list(made.items())).map(dict))
    )
    def test_any_order_and_any_keys_come_out_as_they_went_in(self, given: dict[str, Any]) -> None:
        assert list(Message.parse(given).to_openai().items()) == list(given.items())

    def test_the_fields_are_there_also_beside_unknown_keys(self) -> None:
        given = {"tool_calls": [CALL], "role": "assistant", "content": "hm", "x": 1}
        message = Message.parse(given)
        assert (message.role, message.content, message.tool_calls) == ("assistant", "hm", [CALL])

    def test_what_is_parsed_is_no_longer_the_callers(self) -> None:
        given = {"x": 1, "role": "user", "content": "hello"}
        message = Message.parse(given)
        given["content"] = "changed"
        message.to_openai()["content"] = "changed"
        assert message.to_openai()["content"] == message.content == "hello"

    def test_every_mapping_is_a_message(self) -> None:
        given = {"role": "user", "content": "hello"}
        for mapping in (MappingProxyType(given), OrderedDict(given)):
            assert Message.parse(mapping) == Message(role="user", content="hello")

    def test_a_message_stays_the_message_it_is(self) -> None:
        message = Message(role="user", content="hello")
        assert Message.parse(message) is message

    def test_a_time_of_its_own_is_kept_and_not_sent(self) -> None:
        now = datetime.now(UTC)
        message = Message.parse({"role": "user", "content": "hello", "created_at": now})
        assert message.created_at == now
        assert message.to_openai() == {"role": "user", "content": "hello"}
        without = Message.parse({"role": "user", "content": "hello", "created_at": None})
        assert without.created_at is None
        assert without.to_openai() == {"role": "user", "content": "hello", "created_at": None}

    def test_an_assistants_message_without_content_says_so_only_with_calls(self) -> None:
        assert Message(role="assistant").to_openai() == {"role": "assistant"}
        calls = Message(role="assistant", tool_calls=[CALL]).to_openai()
        assert calls == {"role": "assistant", "content": None, "tool_calls": [CALL]}


class TestObjects:
    def test_an_sdks_message_comes_out_without_its_nones(self) -> None:
        message = Message.parse(SdkMessage(content="hi"))
        assert message.to_openai() == {"content": "hi", "role": "assistant"}
        assert (message.role, message.content) == ("assistant", "hi")

    def test_an_sdks_tool_calls_come_out_as_dicts(self) -> None:
        function = SdkFunction(name="look", arguments="{}")
        message = Message.parse(SdkMessage(tool_calls=[SdkCall(id="c1", function=function)]))
        call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        assert message.to_openai() == {"role": "assistant", "tool_calls": [call]}
        assert message.tool_calls == [call]

    def test_an_sdks_unknown_fields_are_kept(self) -> None:
        given = SdkMessage.model_validate({"content": "hi", "reasoning_content": "They said hi."})
        assert Message.parse(given).to_openai()["reasoning_content"] == "They said hi."

    def test_anything_that_dumps_itself_is_a_message(self) -> None:
        class Duck:
            def model_dump(self) -> dict[str, Any]:
                return {"role": "user", "content": "quack"}

        assert Message.parse(Duck()) == Message(role="user", content="quack")
        assert parse_messages(Duck()) == [Message(role="user", content="quack")]


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({}, "without a role"),
            ({"content": "hello"}, r"without a role \(keys: \['content'\]\)"),
            ({1: 2}, r"without a role \(keys: \['1'\]\)"),
            ({"role": "user"}, "'user' without content"),
            ({"role": "assistant"}, "'assistant' without content"),
            ({"role": "user", "content": None}, "'user' without content"),
            ({"role": "tool", "tool_call_id": "c1"}, "'tool' without content"),
            ({"role": None, "content": None}, "None without content"),
            ({"role": "robot", "content": "hello"}, "role: .*'user'"),
            ({"role": "user", "content": 42}, "content"),
            ({"role": "user", "content": {"type": "text"}}, "content"),
            ({"role": "user", "content": ["hello"]}, "content"),
            ({"role": "user", "content": b"hello"}, "content"),
            ({"role": "user", "content": "hello", "name": 42}, "name"),
            ({"role": "assistant", "content": None, "tool_calls": CALL}, "tool_calls"),
            ({"role": "assistant", "content": None, "tool_calls": ["c1"]}, "tool_calls.0"),
            ({"role": "tool", "content": "blue", "tool_call_id": 1}, "tool_call_id"),
            ({"role": "user", "content": "x", "created_at": datetime(2024, 1, 1)}, "created_at"),  # noqa: DTZ001
            ({"role": "user", "content": "x", "created_at": 1.5}, "created_at"),
        ],
        ids=str,
    )
    def test_what_is_no_message_is_refused_with_an_example(self, given: Any, says: str) -> None:
        with pytest.raises(PayloadError, match=says) as caught:
            Message.parse(given)
        assert '{"role": "user", "content": "..."}' in str(caught.value)

    @pytest.mark.parametrize("given", ["hello", 42, None, ["role", "user"], object(), SdkMessage])
    def test_what_is_no_mapping_is_refused_by_its_type(self, given: Any) -> None:
        with pytest.raises(PayloadError, match=f"{type(given).__name__} is no message"):
            Message.parse(given)

    def test_an_object_that_dumps_something_else_is_refused(self) -> None:
        with pytest.raises(PayloadError, match=r"RootModel\S* is no message"):
            Message.parse(RootModel[list[str]](["role", "user"]))

    def test_a_message_cannot_be_changed_or_extended(self) -> None:
        message = Message(role="user", content="hello")
        with pytest.raises(ValidationError):
            message.content = "changed"
        with pytest.raises(ValidationError):
            Message(role="user", content="hello", other=1)  # type: ignore[call-arg]
        with pytest.raises(ValidationError):
            Message(role="user", content="hello", created_at=datetime(2024, 1, 1))  # noqa: DTZ001


class TestText:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ("hello", "hello"),
            ("", ""),
            (None, ""),
            ([], ""),
            ([{"type": "text", "text": "one"}, IMAGE, {"type": "text", "text": "two"}], "one\ntwo"),
            ([{"type": "text", "text": None}, {"type": "text"}], ""),
        ],
        ids=str,
    )
    def test_the_text_is_that_of_the_content(self, content: Any, text: str) -> None:
        assert Message(role="assistant", content=content).text == text


class TestMany:
    def test_one_or_many_are_a_list(self) -> None:
        given = {"role": "user", "content": "hello"}
        message = Message(role="user", content="hello")

        def one_after_the_other() -> Iterator[dict[str, Any]]:
            yield given
            yield given

        for one in (given, message, [given], (message,)):
            assert parse_messages(one) == [message]
        assert parse_messages(one_after_the_other()) == [message, message]
        assert parse_messages([given, message]) == [message, message]
        assert parse_messages(SdkMessage(content="hi"))[0].content == "hi"

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("hello", "a bare str does not say who spoke"),
            (b"hello", "a bare bytes does not say who spoke"),
            (42, "int is no message"),
            (None, "NoneType is no message"),
            (["hello"], "str is no message"),
            ([None], "NoneType is no message"),
            ([], "at least one"),
            pytest.param(iter(()), "at least one", id="an empty iterator"),
            (SdkMessage, "is no message"),
        ],
        ids=str,
    )
    def test_anything_else_is_refused(self, given: Any, says: str) -> None:
        with pytest.raises(PayloadError, match=says):
            parse_messages(given)
