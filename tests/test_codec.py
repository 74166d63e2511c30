"""The codec: payloads keep what they do not know, and refuse what would not come back."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from uuid import RFC_4122, UUID

import pytest

from memory_async import codec
from memory_async.errors import CorruptRecordError, PayloadError, SchemaTooNewError
from memory_async.keys import Key, Partition, compound_id, from_micros, new_run_id, to_micros
from memory_async.message import Message
from memory_async.records import Checkpoint, Decision, Item, JobState, Requirement, Session
from memory_async.turns import Turn, decode_turn, encode_turn

NOW = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
TURN = Turn(session_id="s", messages=[Message(role="user", content="hi")], created_at=NOW)
SESSION = Session(session_id="s", user_id="ann", metadata={"a": 1}, created_at=NOW, updated_at=NOW)
RUN = Checkpoint(session_id="s", run_id="r", created_at=NOW, updated_at=NOW)
ITEM = Item(partition=Partition("collection", "c"), id="i", value=b"\0")


def payload_of(record: Checkpoint | Item) -> dict[str, Any]:
    found = json.loads(codec.encode_record(record).payload)
    assert isinstance(found, dict)
    return found


def turn_through(messages: list[Message]) -> list[Message]:
    row = encode_turn(replace(TURN, messages=messages))
    return decode_turn("s", row).messages


class TestPayloads:
    def test_a_payload_says_its_format(self) -> None:
        for payload in (
            encode_turn(TURN).payload,
            codec.encode_session(SESSION).payload,
            codec.encode_record(RUN).payload,
        ):
            assert payload is not None
            assert json.loads(payload)["v"] == 1

    def test_a_payload_repeats_no_column(self) -> None:
        names = payload_of(replace(RUN, user_id="ann", agent_id="bot")).keys()
        assert not names & {"user_id", "status", "tags", "created_at", "updated_at", "version"}
        assert json.loads(codec.encode_session(SESSION).payload) == {"v": 1, "metadata": {"a": 1}}

    def test_text_is_stored_as_text(self) -> None:
        row = codec.encode_record(replace(RUN, state="é\U0001f600\0"))
        assert "é\U0001f600\\u0000" in row.payload

    @pytest.mark.parametrize("version", [2, 99])
    def test_a_newer_format_is_not_guessed_at(self, version: int) -> None:
        newer = json.dumps({"v": version, "metadata": {}, "messages": []})
        says = f"format {version}, this memory_async knows 1: upgrade"
        with pytest.raises(SchemaTooNewError, match=f"turn 3 of session 's' has {says}"):
            decode_turn("s", encode_turn(TURN)._replace(seq=3, payload=newer))
        with pytest.raises(SchemaTooNewError, match=f"session 's' has {says}"):
            codec.decode_session(codec.encode_session(SESSION)._replace(payload=newer))
        with pytest.raises(SchemaTooNewError, match=f"checkpoint 'r' in session/s has {says}"):
            codec.decode_record(codec.encode_record(RUN)._replace(payload=newer))

    @pytest.mark.parametrize(
        "payload",
        [
            "", "rubbish", "null", "1", "[]", '["v"]', '"v"', "{}", '{"v":1', '{"v":0}',
            '{"v":"1"}', '{"v":null}', '{"v":1,"metadata":NaN,"messages":NaN,"session_id":NaN}',
            "[" * 100_000,
        ],
        ids=lambda payload: payload[:20],
    )  # fmt: skip
    def test_what_is_no_payload_is_corrupt(self, payload: str) -> None:
        with pytest.raises(CorruptRecordError, match="turn 0 of session 's'"):
            decode_turn("s", encode_turn(TURN)._replace(payload=payload))
        with pytest.raises(CorruptRecordError, match="session 's'"):
            codec.decode_session(codec.encode_session(SESSION)._replace(payload=payload))
        with pytest.raises(CorruptRecordError, match="checkpoint 'r' in session/s"):
            codec.decode_record(codec.encode_record(RUN)._replace(payload=payload))

    @pytest.mark.parametrize(
        "messages",
        [None, 1, [1], [{}], [{"role": "robot"}], [{"role": "user", "content": 1}], [{"raw": 1}]],
        ids=str,
    )
    def test_messages_that_are_none_are_corrupt(self, messages: Any) -> None:
        for payload in ({"v": 1}, {"v": 1, "messages": messages}):
            row = encode_turn(TURN)._replace(payload=json.dumps(payload))
            with pytest.raises(CorruptRecordError):
                decode_turn("s", row)

    def test_columns_that_are_out_of_range_are_corrupt(self) -> None:
        with pytest.raises(CorruptRecordError):
            decode_turn("s", encode_turn(TURN)._replace(created_at=10**30))
        with pytest.raises(CorruptRecordError):
            decode_turn("s", encode_turn(TURN)._replace(usage="rubbish"))
        with pytest.raises(CorruptRecordError):
            codec.decode_session(codec.encode_session(SESSION)._replace(updated_at=10**30))
        with pytest.raises(CorruptRecordError):
            codec.decode_record(codec.encode_record(RUN)._replace(created_at=10**30))

    @pytest.mark.parametrize("value", [{}, {"base64": "A"}, {"base64": 1}, 1])
    def test_an_items_value_that_is_none_is_corrupt(self, value: Any) -> None:
        payload = json.dumps({**payload_of_item(), "value": value})
        with pytest.raises(CorruptRecordError, match="item 'i' in collection/c"):
            codec.decode_record(codec.encode_record(ITEM)._replace(payload=payload))


def payload_of_item() -> dict[str, Any]:
    return payload_of(ITEM)


class TestUnknownFields:
    def test_those_of_a_record_are_kept(self) -> None:
        newer = json.dumps({**payload_of(RUN), "mood": {"x": [1]}})
        found = codec.decode_record(codec.encode_record(RUN)._replace(payload=newer))
        assert isinstance(found, Checkpoint)
        assert found.extra == {"mood": {"x": [1]}}
        again = payload_of(replace(found, status="error"))
        assert again == json.loads(newer)

    def test_those_of_a_session_are_kept(self) -> None:
        newer = '{"v":1,"metadata":{},"mood":1}'
        found = codec.decode_session(codec.encode_session(SESSION)._replace(payload=newer))
        assert found.extra == {"mood": 1}
        again = json.loads(codec.encode_session(replace(found, metadata={"b": 2})).payload)
        assert again == {"v": 1, "metadata": {"b": 2}, "mood": 1}

    @pytest.mark.parametrize(
        "message",
        [
            {"role": "user", "content": "hi", "mood": 1, "created_at": to_micros(NOW)},
            {"raw": {"x": 1, "role": "user", "content": "hi"}, "mood": 1},
        ],
        ids=["plain", "with raw"],
    )
    def test_those_of_a_message_are_kept(self, message: dict[str, Any]) -> None:
        newer = json.dumps({**payload_of(RUN), "messages": [message]})
        found = codec.decode_record(codec.encode_record(RUN)._replace(payload=newer))
        assert isinstance(found, Checkpoint)
        assert "mood" not in found.messages[0].to_openai()
        assert payload_of(replace(found, status="error")) == json.loads(newer)

    def test_those_of_a_requirement_are_kept(self) -> None:
        newer = payload_of(replace(RUN, requirements=[Requirement("q", "question", prompt="?")]))
        newer["requirements"][0]["mood"] = 1
        found = codec.decode_record(codec.encode_record(RUN)._replace(payload=json.dumps(newer)))
        assert isinstance(found, Checkpoint)
        [requirement] = found.requirements
        assert (requirement.id, requirement.prompt, requirement.extra) == ("q", "?", {"mood": 1})
        assert payload_of(replace(found, status="error")) == newer

    def test_fields_an_older_version_did_not_write_have_their_defaults(self) -> None:
        older = '{"v":1,"session_id":"s","run_id":"r"}'
        found = codec.decode_record(codec.encode_record(RUN)._replace(payload=older))
        assert found == RUN

    def test_what_is_known_is_not_taken_from_the_unknown(self) -> None:
        forged = replace(RUN, extra={"run_id": "forged", "v": 99, "new": 1})
        found = codec.decode_record(codec.encode_record(forged))
        assert isinstance(found, Checkpoint)
        assert (found.run_id, found.extra) == ("r", {"new": 1})


class TestMessages:
    def test_a_message_is_stored_once(self) -> None:
        [plain, unusual] = json.loads(
            encode_turn(
                replace(
                    TURN,
                    messages=[
                        Message.parse({"role": "user", "content": "hi"}),
                        Message.parse({"content": "hi", "role": "user"}),
                    ],
                )
            ).payload
            or ""
        )["messages"]
        assert plain == {"role": "user", "content": "hi"}
        assert unusual == {"raw": {"content": "hi", "role": "user"}}

    def test_times_and_unusual_shapes_come_back(self) -> None:
        messages = [
            Message(role="user", content="hi", created_at=NOW),
            Message.parse({"x": 1, "role": "user", "content": "hi", "created_at": NOW}),
            Message.parse({"role": "user", "content": "hi", "created_at": 17}),
            Message(role="assistant"),
            Message(role="user", content="hi", raw={"role": "user", "content": "hi"}),
        ]
        assert turn_through(messages) == messages

    def test_a_raw_that_says_something_else_is_refused(self) -> None:
        message = Message.parse({"x": 1, "role": "user", "content": "my password"})
        for changed in (
            message.model_copy(update={"content": "***"}),
            Message(role="user", content="hi", raw={}),
        ):
            with pytest.raises(PayloadError, match="raw"):
                encode_turn(replace(TURN, messages=[changed]))


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (float("nan"), "checkpoint.state is nan, which JSON cannot hold"),
            ({"a": [1, float("inf")]}, r"checkpoint\.state\.a\[1\] is inf"),
            ({"a": {1: 2}}, r"checkpoint\.state\.a has the key 1; JSON keys are strings"),
            ({"a": {1, 2}}, r"checkpoint\.state\.a is a set, which is not JSON: convert it"),
            ([NOW], r"checkpoint\.state\[0\] is a datetime"),
            ("\ud800", "checkpoint holds a lone surrogate"),
            ({"\udfff": 1}, "checkpoint holds a lone surrogate"),
            (10**5000, "checkpoint: .*digits"),
        ],
        ids=lambda value: str(value)[:30] if not isinstance(value, int) else "long number",
    )
    def test_it_is_said_where_and_what_it_is(self, value: Any, says: str) -> None:
        with pytest.raises(PayloadError, match=says):
            codec.encode_record(replace(RUN, state=value))

    def test_a_value_within_itself_is_refused(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(PayloadError, match="nested deeper than 200"):
            codec.encode_record(replace(RUN, state=endless))

    def test_a_long_place_is_cut(self) -> None:
        with pytest.raises(PayloadError) as caught:
            codec.encode_record(replace(RUN, state={"x" * 10_000: NOW}))
        assert len(str(caught.value)) < 500

    def test_what_json_reads_back_as_something_equal_is_kept(self) -> None:
        class Word(str):
            __slots__ = ()

        found = codec.decode_record(codec.encode_record(replace(RUN, state=[Word("a"), True])))
        assert isinstance(found, Checkpoint)
        assert found.state == ["a", True]

    @pytest.mark.parametrize("bad", ["", "x" * 513, "\0", "\ud800", 42, b"x"], ids=ascii)
    def test_what_is_no_id_is_no_version_either(self, bad: Any) -> None:
        for record in (replace(RUN, version=bad), replace(RUN, run_id=bad)):
            with pytest.raises(PayloadError):
                codec.encode_record(record)
        with pytest.raises(PayloadError):
            codec.encode_session(replace(SESSION, version=bad))
        with pytest.raises(PayloadError):
            encode_turn(replace(TURN, run_id=bad))

    @pytest.mark.parametrize("bad", ["12 tokens", "5", 5, [1]])
    def test_usage_is_a_dict(self, bad: Any) -> None:
        with pytest.raises(PayloadError, match="usage is a dict or None"):
            encode_turn(replace(TURN, usage=bad))

    def test_the_longest_ids_are_all_taken(self) -> None:
        long = "x" * 512
        run = Checkpoint(session_id=long, run_id=long, user_id=long, agent_id=long)
        assert codec.decode_record(codec.encode_record(run)) == run
        decision = Decision(session_id=long, run_id=long, requirement_id=long)
        assert codec.decode_record(codec.encode_record(decision)) == decision


class TestHeader:
    """A header that was read is made when somebody looks at it; nothing shows it."""

    READ = replace(SESSION, last_seq=9, trimmed=3, jobs={"a": JobState(4, "x")}, keep_turns=True)

    @staticmethod
    def read() -> Session:
        row = codec.encode_session(SESSION)._replace(
            last_seq=9, trimmed=3, jobs={"a": (4, '"x"')}, keep_turns=True
        )
        return codec.decode_session(row)

    def test_it_is_the_header_written(self) -> None:
        assert self.read() == self.READ
        assert self.read() == self.READ
        assert self.read() == self.read()
        assert repr(self.read()) == repr(self.READ)
        assert asdict(self.read()) == asdict(self.READ)
        for field in fields(Session):
            assert getattr(self.read(), field.name) == getattr(self.READ, field.name)

    def test_it_can_be_replaced_copied_and_pickled(self) -> None:
        assert replace(self.read(), metadata={}) == replace(self.READ, metadata={})
        assert copy.deepcopy(self.read()) == self.READ
        assert pickle.loads(pickle.dumps(self.read())) == self.READ

    def test_it_has_nothing_else(self) -> None:
        for session in (self.read(), self.READ):
            with pytest.raises(AttributeError, match=r"'Session'.*'mesages'"):
                session.mesages  # type: ignore[attr-defined]  # noqa: B018
            assert session.lagging


class TestSalvage:
    """What is left of a session's header when some of it cannot be read."""

    ROW = codec.encode_session(SESSION)._replace(
        last_seq=9, jobs={"good": (3, '"kept"'), "none": (4, None), "bad": (5, "rubbish")}
    )

    def test_a_jobs_value_that_cannot_be_read_takes_nothing_else_along(self) -> None:
        with pytest.raises(CorruptRecordError):
            codec.decode_session(self.ROW)
        found = codec.salvage_session(self.ROW)
        assert found.metadata == {"a": 1}
        assert found.jobs == {"bad": JobState(5), "good": JobState(3, "kept"), "none": JobState(4)}

    def test_metadata_that_cannot_be_read_takes_no_job_along(self) -> None:
        found = codec.salvage_session(self.ROW._replace(payload="rubbish"))
        assert (found.metadata, found.last_seq, found.user_id) == ({}, 9, "ann")
        assert found.jobs["good"] == JobState(3, "kept")


class TestIds:
    def test_times_are_whole_microseconds(self) -> None:
        for micros in (-1, 0, 1, 10**15 + 1, 253_402_300_799_999_999):
            assert to_micros(from_micros(micros)) == micros

    def test_compound_ids_of_different_owners_share_no_prefix(self) -> None:
        assert not compound_id("a", "b").startswith(compound_id("a/", "")[:-1])
        assert compound_id("run", "q").startswith(compound_id("run", ""))
        assert len(compound_id("x" * 512, "y" * 512)) == 545

    def test_keys_and_partitions_say_what_they_are(self) -> None:
        key = Key("item", Partition("session", "a/b"), "c'd")
        assert str(key) == """item "c'd" in session/a/b"""
        assert Partition.parse(str(key.partition)) == key.partition

    def test_run_ids_are_unique_uuids_in_the_order_of_time(self) -> None:
        made = []
        for moment in range(1, 4):
            with patch("time.time_ns", return_value=moment * 1_000_000):
                made += [new_run_id() for _ in range(100)]
        assert len(set(made)) == 300
        assert [each[:13] for each in made] == sorted(each[:13] for each in made)
        for each in map(UUID, made):
            assert (each.version, each.variant) == (7, RFC_4122)
        assert UUID(made[-1]).int >> 80 == 3
