"""`Context`: what it gives to a chat API, and what a turn costs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_async import Context, Message, Turn
from memory_async.context import choose_history, estimate_tokens

HISTORY = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!", "annotations": []},
]
MESSAGES = [Message.parse(each) for each in HISTORY]


@pytest.mark.parametrize(
    ("system", "instructions", "expected"),
    [
        (None, "", None),
        ("", "", None),
        ("Be brief.", "", "Be brief."),
        (None, "<UserProfile>", "<UserProfile>"),
        ("", "<UserProfile>", "<UserProfile>"),
        ("Be brief.", "<UserProfile>", "Be brief.\n\n<UserProfile>"),
    ],
)
def test_one_system_message_leads_when_there_is_anything_to_say(system, instructions, expected):
    context: Context = Context(messages=MESSAGES, instructions=instructions)
    lead = [] if expected is None else [{"role": "system", "content": expected}]
    assert context.to_openai(system) == lead + HISTORY
    assert context.to_openai(system=system) == lead + HISTORY


def test_a_fresh_context_holds_nothing():
    context: Context = Context()
    assert context.to_openai() == []
    assert (context.messages, context.summary, context.profile) == ([], None, None)
    assert (context.metadata, context.instructions, context.dropped) == ({}, "", ())


def test_what_the_caller_does_with_the_list_does_not_change_the_context():
    context: Context = Context(messages=list(MESSAGES), instructions="x")
    given = context.to_openai()
    given[1]["content"] = "changed"
    given[2]["content"] = "changed"
    given.append({"role": "user", "content": "more"})
    assert context.to_openai()[1:] == HISTORY


def test_the_same_context_gives_the_same_bytes():
    context: Context = Context(messages=MESSAGES, instructions="x")
    assert json.dumps(context.to_openai("s")) == json.dumps(context.to_openai("s"))


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"role": "user", "content": ""}, 0),
        ({"role": "user", "content": "abcd"}, 1),
        ({"role": "user", "content": "é"}, 0.5),
        ({"role": "user", "content": "🫖"}, 1),
        ({"role": "user", "content": "a\0b\n"}, 1),
    ],
)
def test_text_costs_its_utf8_bytes_over_four(message, tokens):
    assert estimate_tokens([Message.parse(message)]) == tokens
    assert estimate_tokens([Message.parse(message)] * 3) == 3 * tokens


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "x" * 1000}]},
        {"role": "user", "content": [{"type": "text", "text": "é" * 500}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x" * 1000}]},
        {"role": "assistant", "content": None, "function_call": {"arguments": "x" * 1000}},
        {"role": "assistant", "content": "", "reasoning_content": "x" * 1000},
        {"role": "tool", "tool_call_id": "c1", "content": "x" * 1000},
    ],
    ids=["parts", "accents", "tool_calls", "function_call", "unknown", "result"],
)
def test_whatever_is_sent_to_the_model_costs_about_its_size(message):
    assert 250 <= estimate_tokens([Message.parse(message)]) < 275


def test_nothing_costs_nothing():
    assert estimate_tokens([]) == 0


def turns_of(*sizes):
    return [
        Turn(session_id="s", seq=seq, messages=[Message(role="user", content="x" * size)])
        for seq, size in enumerate(sizes, 1)
    ]


def chosen(turns, max_tokens, count=estimate_tokens):
    return choose_history(turns, feed_tools=False, max_tokens=max_tokens, count_tokens=count)


def test_no_turns_are_no_history():
    assert chosen([], None) == ([], ())
    assert chosen([], 0) == ([], ())


@given(st.lists(st.integers(0, 40), max_size=10), st.floats(0, 100))
def test_kept_and_dropped_turns_together_are_all_and_in_order(sizes, budget):
    turns = turns_of(*sizes)
    messages, dropped = chosen(turns, budget)
    assert [*(each.messages[0] for each in dropped), *messages] == [
        turn.messages[0] for turn in turns
    ]
    assert estimate_tokens(messages) <= budget


def test_a_counter_that_says_infinity_drops_everything():
    assert len(chosen(turns_of(1, 1), 10, lambda messages: float("inf"))[1]) == 2


def test_an_error_of_the_counter_is_the_callers():
    def broken(messages):
        raise LookupError("no such encoding")

    with pytest.raises(LookupError, match="no such encoding"):
        chosen(turns_of(1), 10, broken)
