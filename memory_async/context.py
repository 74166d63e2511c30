"""What a run starts from: `Context`, and which part of the history goes into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from pydantic import BaseModel

from memory_async.message import Message
from memory_async.profile import Profile
from memory_async.stored import Entry, PutOff, build_messages, entries_of, set_now
from memory_async.turns import Turn, Turns

__all__ = ["Context", "CountTokens", "ProfileT", "choose_history", "context_of"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ProfileT = TypeVar("ProfileT", bound=BaseModel, default=Profile)
else:
    from typing import TypeVar

    ProfileT = TypeVar("ProfileT", bound=BaseModel)

CountTokens: TypeAlias = Callable[[list[Message]], float]
"""How many tokens the messages of one turn cost."""


@dataclass(frozen=True, slots=True)
class Context(PutOff, Generic[ProfileT]):
    """What memory brings into a run.

    ``messages`` is the history chosen by the load flags; ``dropped`` the whole turns that
    ``max_tokens`` left out of it, oldest first. ``instructions`` is summary, profile and metadata
    rendered for a system prompt, ``""`` when there is nothing.
    """

    messages: list[Message] = field(default_factory=list)
    summary: str | None = None
    profile: ProfileT | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    instructions: str = ""
    dropped: tuple[Turn, ...] = ()

    def _fill(self, entries: list[Entry]) -> None:
        set_now(self, "messages", build_messages(entries))

    def to_openai(self, system: str | None = None) -> list[dict[str, Any]]:
        """Chat messages: one system message (``system`` and the instructions, when there is any of
        them), then the history."""
        parts = [part for part in (system, self.instructions) if part]
        head = [{"role": "system", "content": "\n\n".join(parts)}] if parts else []
        return head + [
            entry.copy() if isinstance(entry, dict) else entry.to_openai()
            for entry in entries_of(self)
        ]


def context_of(
    entries: list[Entry],
    *,
    summary: str | None,
    profile: ProfileT | None,
    metadata: dict[str, Any],
    instructions: str,
    dropped: tuple[Turn, ...],
) -> Context[ProfileT]:
    """A context of what was read from storage, its messages put off."""
    context: Context[Any] = object.__new__(Context)
    set_now(context, "_later", (entries,))
    set_now(context, "summary", summary)
    set_now(context, "profile", profile)
    set_now(context, "metadata", metadata)
    set_now(context, "instructions", instructions)
    set_now(context, "dropped", dropped)
    return context


def estimate_tokens(messages: list[Message]) -> float:
    """UTF-8 bytes / 4 of what the messages say; the default for ``max_tokens``."""
    size = 0
    for message in messages:
        if isinstance(message.content, str):
            size += len(message.content.encode())
        rest = {k: v for k, v in message.to_openai().items() if k not in ("role", "content")}
        if not isinstance(message.content, str | None):
            rest["content"] = message.content
        if rest:
            size += len(json.dumps(rest, ensure_ascii=False).encode())
    return size / 4


def choose_history(
    turns: Sequence[Turn],
    *,
    feed_tools: bool,
    max_tokens: float | None,
    count_tokens: CountTokens,
) -> tuple[list[Entry], tuple[Turn, ...]]:
    """What the newest turns say that fit ``max_tokens``, and the turns left out."""
    if max_tokens is None:
        entries = _entries(turns)
        if set(map(type, entries)) <= {dict}:  # plain: nothing of tools about any of them
            return entries, ()
        if not feed_tools:
            return _without_tools(entries), ()
    said = turns.by_turn() if isinstance(turns, Turns) else [entries_of(turn) for turn in turns]
    if not feed_tools:
        said = [_without_tools(entries) for entries in said]
    first = 0
    if max_tokens is not None:
        first, spent = len(turns), 0.0
        while first > 0:
            messages = build_messages(said[first - 1])
            if (spent := spent + count_tokens(messages)) > max_tokens:
                break
            first -= 1
            said[first] = [*messages]
    fitting = said[first:]
    entries = _paired(fitting) if feed_tools else [each for turn in fitting for each in turn]
    return entries, tuple(turns[:first])


def _entries(turns: Sequence[Turn]) -> list[Entry]:
    if isinstance(turns, Turns):
        return turns.entries
    return [entry for turn in turns for entry in entries_of(turn)]


def _without_tools(entries: list[Entry]) -> list[Entry]:
    """The messages without tool results and tool calls; what was said beside a call stays."""
    kept: list[Entry] = []
    for message in entries:
        if isinstance(message, dict):  # plain: nothing of tools about it
            kept.append(message)
            continue
        if message.role in ("tool", "function"):
            continue
        if message.raw is None and message.tool_calls is None:
            kept.append(message)
            continue
        given = message.to_openai()
        if calls := {"tool_calls", "function_call"} & given.keys():
            said = {name: value for name, value in given.items() if name not in calls}
            if not message.content and (any(given[name] for name in calls) or len(said) == 1):
                continue
            when = {"created_at": message.created_at}
            message = Message.parse(said).model_copy(update=when)  # noqa: PLW2901
        kept.append(message)
    return kept


def _paired(turns: list[list[Entry]]) -> list[Entry]:
    """The messages without halves of tool calls, which chat APIs refuse: a result whose call was
    left out with an older turn, a call never answered (unless the answer may still come).

    An id belongs to the call that used it last: some models count from ``call_0`` in every turn.
    """
    messages = [message for turn in turns for message in turn]
    newest = len(messages) - len(turns[-1]) if turns else 0
    asker: dict[str, int] = {}
    missing: dict[int, set[str]] = {}
    halves: set[int] = set()
    answers: dict[int, int] = {}
    for index, message in enumerate(messages):
        if isinstance(message, dict):
            continue
        if asked := _calls(message):
            missing[index] = asked
            asker |= dict.fromkeys(asked, index)
        elif message.role in ("tool", "function"):
            id = str(message.tool_call_id) if message.role == "tool" else _FUNCTION
            if id in asker:
                answers[index] = asker[id]
                missing[asker[id]].discard(id)
            else:
                halves.add(index)
    unanswered = {index for index, ids in missing.items() if ids and index < newest}
    halves |= {index for index, call in answers.items() if call in unanswered}
    kept: list[Entry] = []
    for index, message in enumerate(messages):
        if index in unanswered:
            kept += _without_tools([message])
        elif index not in halves:
            kept.append(message)
    return kept


_FUNCTION = "function_call"  # the shape before tool_calls: one call at a time, without an id


def _calls(message: Message) -> set[str]:
    """What the results of this message's calls will name."""
    if message.role != "assistant":
        return set()
    legacy = {_FUNCTION} if (message.raw or {}).get(_FUNCTION) else set()
    return legacy | {str(call.get("id")) for call in message.tool_calls or ()}
