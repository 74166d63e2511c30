"""A text in passages: nothing lost, nothing too long, cut where it hurts least."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_async.passages import split_passages

PIECES = [
    "tea", "a" * 30, ".", "! ", "\n", "\n\n", "\n \n", "\r\n\r\n", " ", "\u2029", "\u3002",
    "e\u0301", "\U0001f469\u200d\U0001f680", "\U0001f44d\U0001f3fd", "\0", "\u8336", "\u200b",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=60).map("".join)


@given(TEXTS, st.integers(1, 60))
def test_nothing_is_lost_and_nothing_too_long(text: str, size: int) -> None:
    passages = split_passages(text, size)
    at = 0
    for passage in passages:
        assert 0 < len(passage) <= size
        assert passage == passage.strip()
        start = text.index(passage, at)
        assert not text[at:start].strip()
        at = start + len(passage)
    assert not text[at:].strip()


@given(st.lists(st.text("abc .", min_size=1, max_size=40).filter(str.strip), max_size=9))
def test_paragraphs_that_fit_are_not_cut(paragraphs: list[str]) -> None:
    passages = split_passages("\n\n".join(paragraphs), 40)
    whole = [part for passage in passages for part in passage.split("\n\n")]
    assert [each.strip() for each in whole] == [each.strip() for each in paragraphs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One.\n\nTwo.\n\n\nThree.", ["One.\n\nTwo.", "Three."]),
        ("Ann left. Bob stayed.", ["Ann left.", "Bob stayed."]),
        ('"Go!" she said', ['"Go!"', "she said"]),
        ("3.14 is about pi", ["3.14 is", "about pi"]),
        ("one two three four", ["one two", "three four"]),
        ("\u8336\u3002" * 8, ["\u8336\u3002" * 6, "\u8336\u3002" * 2]),
        ("abcdefghijklmnop", ["abcdefghijkl", "mnop"]),
        ("abcdefghijke\u0301f", ["abcdefghijk", "e\u0301f"]),
        ("A\n\nlong one to cut", ["A\n\nlong one", "to cut"]),
    ],
)
def test_where_it_is_cut(text: str, expected: list[str]) -> None:
    assert split_passages(text, 12) == expected
