"""Turns as a storage reads them: a list of turns to whoever looks, objects only then."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from memory_async import Message, Turn
from memory_async.codec import StoredTurn, TurnRow
from memory_async.context import choose_history
from memory_async.errors import CorruptRecordError, SchemaTooNewError
from memory_async.turns import Turns, encode_turn

NOW = datetime(2024, 5, 6, tzinfo=UTC)
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOLS: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "blue ✓", "tool_call_id": "c1"},
]


def plain(number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"{number} \0✓"}, {"role": "assistant", "content": "hi"}]


def turns_of(*said: list[dict[str, Any]]) -> list[Turn]:
    return [
        Turn(
            session_id="s",
            run_id=f"r{seq}",
            user_id="ann",
            messages=[Message.parse(each) for each in messages],
            usage={"input_tokens": seq} if seq % 2 else None,
            created_at=NOW,
            seq=seq,
        )
        for seq, messages in enumerate(said, 1)
    ]


def in_utf8(row: TurnRow) -> StoredTurn:
    """As some engines give it."""
    usage, payload = (each and each.encode() for each in row[3:])
    return (*row[:3], usage, payload)


def never(error: CorruptRecordError) -> None:
    raise error


def read(turns: list[Turn]) -> Turns:
    return Turns("s", [in_utf8(encode_turn(turn)) for turn in turns], never)


def test_they_are_the_turns_that_were_written() -> None:
    turns = turns_of(plain(1), TOOLS, plain(3))
    found = read(turns)
    assert found == turns
    assert turns == found
    assert found == read(turns)
    assert (len(found), found[0], found[-1], found[1:]) == (3, turns[0], turns[2], turns[1:])
    assert [*found] == [*reversed(turns)][::-1]
    assert repr(found) == repr(turns)
    assert found[1] is found[1]
    assert found != turns[:2]
    assert turns[2] in found
    assert read([]) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"payload": b"rubbish"},
        {"payload": b'{"v":1,"messages":[{"role":"user","content":"\xff"}]}'},
        {"payload": b'{"v":1,"messages":[{"role":"user","content":"\\ud800"}]}'},
        {"payload": b"[]"},
        {"payload": b""},
        {"payload": b'{"v":0,"messages":[]}'},
        {"usage": b"rubbish"},
        {"created_at": 10**30},
    ],
)
def test_one_that_cannot_be_read_hides_no_other(broken: dict[str, Any]) -> None:
    turns = turns_of(plain(1), plain(2), plain(3))
    rows = [encode_turn(turn) for turn in turns]
    skipped: list[CorruptRecordError] = []
    found = Turns("s", [rows[0], rows[1]._replace(**broken), rows[2]], skipped.append)
    assert found == [turns[0], turns[2]]
    assert found.entries == plain(1) + plain(3)
    [error] = skipped
    assert "turn 2 of session 's'" in str(error)


def test_a_newer_format_is_no_corruption() -> None:
    [row] = [encode_turn(turn) for turn in turns_of(plain(1))]
    with pytest.raises(SchemaTooNewError, match="turn 1"):
        Turns("s", [row._replace(payload='{"v":2,"messages":[]}')], never)


@pytest.mark.parametrize("feed_tools", [True, False])
@pytest.mark.parametrize("max_tokens", [None, 1, 4, 100])
@pytest.mark.parametrize("said", [[plain(1), plain(2)], [plain(1), TOOLS, plain(3)]])
def test_a_history_of_them_is_that_of_their_list(
    said: list[list[dict[str, Any]]], max_tokens: float | None, feed_tools: bool
) -> None:
    turns = turns_of(*said)

    def chosen(given: Any) -> Any:
        entries, dropped = choose_history(
            given,
            feed_tools=feed_tools,
            max_tokens=max_tokens,
            count_tokens=len,
        )
        return [Message.parse(entry) for entry in entries], dropped

    assert chosen(read(turns)) == chosen(turns)
