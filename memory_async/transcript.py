"""Turns as text for a model: every word once, in bounded calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memory_async.message import Message
from memory_async.turns import Turn

__all__ = ["MAX_CHARACTERS", "MAX_TURNS", "take", "turn_text", "user_text"]

MAX_TURNS = 50
MAX_CHARACTERS = 100_000


def turn_text(turn: Turn) -> str:
    """All that was said in a turn, a line each message, texts byte for byte."""
    return "\n".join(line for message in turn.messages for line in _lines(message))


def user_text(turn: Turn) -> str:
    """What the user said in a turn, byte for byte."""
    return "\n".join(message.text for message in turn.messages if message.role == "user")


def take(turns: Sequence[Turn], render: Callable[[Turn], str]) -> tuple[str, int]:
    """The text of as many of the first turns as one call may hold, and the seq of the last taken.

    At least one is taken: a single text longer than a call is cut in the middle, with a mark.
    """
    texts: list[str] = []
    size, through = 0, turns[0].seq
    for turn in turns[:MAX_TURNS]:
        text = _cut(render(turn))
        size += len(text)
        if texts and size > MAX_CHARACTERS:
            break
        texts.append(text)
        through = turn.seq
    return "\n\n".join(text for text in texts if text), through


def _lines(message: Message) -> list[str]:
    lines = [f"{message.name or message.role}: {message.text}"] if message.text else []
    for call in message.tool_calls or ():
        function = call.get("function") or {}
        lines.append(f"{message.role} called {function.get('name')}({function.get('arguments')})")
    return lines


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2 - 50
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
