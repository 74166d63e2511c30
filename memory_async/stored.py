"""Messages as they are stored, and put off until somebody asks for them as `Message` objects.

Most runs only pass on what was said: chat dicts in, chat dicts out. So what is read from storage
stays a plain dict where it is one, and `Turn.messages` and `Context.messages` make `Message`
objects of it when they are first looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pydantic import TypeAdapter

from memory_async.errors import PayloadError
from memory_async.keys import from_micros, to_micros
from memory_async.message import Message, parse_messages

__all__ = [
    "Entry",
    "FilledLater",
    "PutOff",
    "build_messages",
    "dump_entries",
    "dump_messages",
    "entries_of",
    "load_entries",
    "parse_entries",
    "set_now",
]

Plain: TypeAlias = dict[str, Any]
"""A message that is a role and a text, nothing else: as stored, as `Message` and as chat dict."""

Entry: TypeAlias = "Message | Plain"

_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")
_PLAIN = ["role", "content"]
_SPEAKERS = ("user", "assistant", "system", "developer")  # whose plain messages have no tools' part
set_now = object.__setattr__  # past `frozen`, in what is just being made

_KNOWN = frozenset(Message.model_fields)
_MESSAGES = TypeAdapter(list[Message])


class FilledLater:
    """For frozen dataclasses with a slot ``_later``, whose fields may be set later, all or some of
    them: until somebody looks at one of those, ``_later`` holds what its `_fill` takes. Nothing of
    this is to be seen outside."""

    __slots__ = ()

    if TYPE_CHECKING:
        _later: tuple[Any, ...] | None
    else:  # or every name would do

        def __getattr__(self, name: str) -> Any:
            if name == "_later":
                return None
            if (later := self._later) is not None:
                self._fill(*later)
                set_now(self, "_later", None)
            return object.__getattribute__(self, name)


class PutOff(FilledLater):
    """The base of what has messages; the first that its `_fill` takes are their entries."""

    __slots__ = ("_later",)


class _Said(Protocol):
    @property
    def _later(self) -> tuple[Any, ...] | None: ...

    @property
    def messages(self) -> list[Message]: ...


def entries_of(holder: _Said) -> list[Entry]:
    """What is said there, as cheaply as it is to be had. Not to be changed."""
    later = holder._later
    return list(holder.messages) if later is None else later[0]


def load_entries(stored: Any) -> list[Entry]:
    """What of ``stored`` is plain as it is, the rest as messages; raises where one is none."""
    if type(stored) is not list:
        raise TypeError(f"messages are a list, not {stored!r:.100}")
    for each in stored:
        # As `_is_plain` says; spelt out, for a call would take longer than all of it.
        if (
            len(each) != 2
            or each.get("role") not in _SPEAKERS
            or type(each.get("content")) is not str
        ):
            return [each if _is_plain(each) else _load_message(each) for each in stored]
    return stored


def _is_plain(data: dict[str, Any]) -> bool:
    return (
        len(data) == 2
        and data.get("role") in _SPEAKERS
        and type(data.get("content")) is str  # not a subclass: this came from JSON
    )


def build_messages(entries: list[Entry]) -> list[Message]:
    return _MESSAGES.validate_python(entries)


def _load_message(data: dict[str, Any]) -> Message:
    source = data.get("raw", data)
    known = {name: source[name] for name in _FIELDS if name in source}
    if "raw" in data:
        known["raw"] = source
    if "created_at" in data:
        known["created_at"] = from_micros(data["created_at"])
    if unknown := {name: value for name, value in data.items() if name not in _KNOWN}:
        known["extra"] = unknown
    return Message(**known)


def parse_entries(given: object) -> list[Entry]:
    """As `parse_messages`, which takes and refuses the same; what is plain stays so."""
    several = [given] if type(given) is dict else given
    if type(several) is list and several:
        return [_parse_plain(each) or Message.parse(each) for each in several]
    return [*parse_messages(given)]


def _parse_plain(given: Any) -> Plain | None:
    """A copy of a chat dict that is plain, in the order a `Message` gives it back."""
    if type(given) is dict and [*given] == _PLAIN:
        role, content = given.values()
        if type(role) is str and role in _SPEAKERS and type(content) is str:
            return {"role": role, "content": content}
    return None


def dump_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [_dump_message(message) for message in messages]


def dump_entries(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [each if isinstance(each, dict) else _dump_message(each) for each in entries]


def _dump_message(message: Message) -> dict[str, Any]:
    out = dict(message.extra or {})
    if message.raw is not None:
        if any(message.raw.get(name) != getattr(message, name) for name in _FIELDS):
            raise PayloadError("a message's raw differs from it: use Message.parse() of a dict")
        out["raw"] = message.raw
    else:
        out.update({n: value for n in _FIELDS if (value := getattr(message, n)) is not None})
    if message.created_at is not None:
        out["created_at"] = to_micros(message.created_at)
    return out
