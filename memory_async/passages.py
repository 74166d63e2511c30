"""Cutting a text into passages: at borders of paragraphs, else of sentences, else of words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeAlias

__all__ = ["split_passages"]

Span: TypeAlias = tuple[int, int]

_PARAGRAPH_ENDS = re.compile(r"(?:\n[^\S\n]*\n|\u2029)\s*")
_SENTENCE_ENDS = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)|[。！？]|\n")  # noqa: RUF001 - full stops elsewhere
_JOINER = "\u200d"
_LONGEST_CLUSTER = 32  # characters that are one to the eye; a longer one is cut nevertheless


def split_passages(text: str, size: int) -> list[str]:
    """``text`` in passages of at most ``size`` characters, none blank.

    As many paragraphs together as fit; one that is too long is cut where a sentence ends, else
    between words, else anywhere but within what is one character to the eye. Only white space
    between passages is left out. They do not overlap: a border is where the subject changes, and
    what stands in two passages would be found twice.
    """
    passages: list[Span] = []
    open_: Span | None = None  # what the next paragraph may still join
    for begin, end in _paragraphs(text):
        start = least = begin
        if open_ is not None:
            # A heading stays with a paragraph that is to be cut anyway.
            heads = end - begin > size and open_[1] - open_[0] < size // 4
            if heads or end - open_[0] <= size:
                start = open_[0]
            else:
                passages.append(open_)
        *whole, open_ = _cut(text, start, end, size, least)
        passages += whole
    if open_ is not None:
        passages.append(open_)
    return [text[start:end] for start, end in passages]


def _paragraphs(text: str) -> Iterator[Span]:
    ends = [match.span() for match in _PARAGRAPH_ENDS.finditer(text)]
    for (_, start), (end, _) in pairwise([(0, 0), *ends, (len(text), len(text))]):
        span = _strip(text, start, end)
        if span[0] < span[1]:
            yield span


def _cut(text: str, start: int, end: int, size: int, least: int) -> list[Span]:
    """The parts, of at most ``size``, of a span that is not blank at either end; the first one, if
    it can be, reaches beyond ``least``."""
    parts = []
    while end - start > size:
        border = _border(text, start, start + size, max(start, least))
        parts.append(_strip(text, start, border))
        start, _ = _strip(text, border, end)
    return [*parts, (start, end)]


def _border(text: str, start: int, most: int, least: int) -> int:
    """Where to cut after ``start``, at ``most`` at the latest; there is text on both sides."""
    # One more character is looked at: the space after a sentence that just fits.
    ends = [match.end() for match in _SENTENCE_ENDS.finditer(text, start, most + 1)]
    for border in reversed(ends):
        if least < border <= most:
            return border
    for border in range(most, start, -1):
        if text[border].isspace():
            return border
    for border in range(most, max(start, most - _LONGEST_CLUSTER), -1):
        if not _is_within_cluster(text, border):
            return border
    return most


def _is_within_cluster(text: str, at: int) -> bool:
    """Whether the character at ``at`` belongs to the one before it: a mark, or joined by one."""
    category = unicodedata.category(text[at])
    joined = _JOINER in text[at - 1 : at + 1] or "\U0001f3fb" <= text[at] <= "\U0001f3ff"
    return category in ("Mn", "Me", "Mc") or joined


def _strip(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
