"""What of a turn is searched, and what comes back with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from memory_async.keys import from_micros, to_micros
from memory_async.message import Message
from memory_async.turns import Turn

__all__ = ["Label", "said", "searched", "speaker_of"]

MAX_TEXT = 20_000  # characters of a message that are searched
_UNSEARCHED = ("system", "developer")


class Label(NamedTuple):
    """What comes back with an indexed text: whose it is, and when it was said."""

    role: str
    name: str
    created_at: datetime

    def __str__(self) -> str:
        return f"{to_micros(self.created_at)} {self.role} {self.name}"

    @classmethod
    def parse(cls, text: str) -> Label:
        at, role, name = text.split(" ", 2)
        return cls(role, name, from_micros(int(at)))

    @classmethod
    def of(cls, turn: Turn, message: Message) -> Label:
        return cls(message.role, message.name or "", message.created_at or turn.created_at)


def said(turn: Turn) -> Iterator[tuple[str, Label]]:
    """The text of each message of a turn (empty where it is not searched), and its label."""
    for message in turn.messages:
        yield searched(message), Label.of(turn, message)


def searched(message: Message) -> str:
    """What of a message is searched."""
    return "" if message.role in _UNSEARCHED else message.text[:MAX_TEXT]


def speaker_of(label: str) -> str:
    """The name in a label, without reading all of it."""
    return "" if label.endswith(" ") else label.split(" ", 2)[-1]
