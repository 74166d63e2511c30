"""`Message`: one chat message, in and out of the OpenAI chat shape without loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from memory_async.errors import PayloadError

__all__ = ["Message", "MessageLike", "MessagesLike", "parse_messages"]

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

MessageLike: TypeAlias = "Message | Mapping[str, Any] | BaseModel"
"""A `Message`, an OpenAI chat dict, or an object with ``model_dump`` (an SDK's own message)."""

MessagesLike: TypeAlias = "MessageLike | Iterable[MessageLike]"

_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name")
_SHAPE = 'a message looks like {"role": "user", "content": "..."}'


class Message(BaseModel):
    """One message of a conversation.

    ``content`` is a text or a list of OpenAI content parts. ``raw`` holds the dict a message was
    made from, only where the other fields could not give it back (unknown keys, unusual order).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    role: Role
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    created_at: AwareDatetime | None = None
    raw: dict[str, Any] | None = Field(default=None, repr=False)
    # Fields a newer version stored with this message; written back as they were.
    extra: dict[str, Any] | None = Field(default=None, repr=False)

    @classmethod
    def parse(cls, value: object) -> Message:
        """Make a message of ``value`` (see `MessageLike`); `PayloadError` when it is none."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls._of_dict(dict(value))
        if hasattr(value, "model_dump") and not isinstance(value, type):
            dumped: object = cast("BaseModel", value).model_dump()
            if isinstance(dumped, Mapping):
                # SDK objects carry every optional field as None; the chat API wants them left out.
                return cls._of_dict({k: v for k, v in dumped.items() if v is not None})
        raise PayloadError(f"{type(value).__name__} is no message: {_SHAPE}")

    @classmethod
    def _of_dict(cls, given: dict[str, Any]) -> Message:
        fields = {name: given[name] for name in _FIELDS if name in given}
        if given.get("created_at") is not None and not isinstance(given["created_at"], (str, int)):
            fields["created_at"] = given.pop("created_at")
        if "role" not in fields:
            raise PayloadError(
                f"a message without a role (keys: {sorted(map(str, given))}): {_SHAPE}"
            )
        if len(given) == 1 or (given["role"] != "assistant" and fields.get("content") is None):
            raise PayloadError(f"a message of role {given['role']!r} without content: {_SHAPE}")
        try:
            message = cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise PayloadError(f"not a message: {where}: {first['msg']}; {_SHAPE}") from error
        # Order counts too: a prompt cache compares bytes, not dicts.
        if list(message.to_openai().items()) == list(given.items()):
            return message
        return message.model_copy(update={"raw": given})

    def to_openai(self) -> dict[str, Any]:
        """The OpenAI chat dict: what the message was made from, unknown keys included."""
        if self.raw is not None:
            return dict(self.raw)
        out: dict[str, Any] = {"role": self.role}
        if self.content is not None or self.tool_calls:
            out["content"] = self.content
        for name in ("tool_calls", "tool_call_id", "name"):
            if (value := getattr(self, name)) is not None:
                out[name] = value
        return out

    @property
    def text(self) -> str:
        """The plain text of the content; parts that are not text are left out."""
        if isinstance(self.content, list):
            texts = (part.get("text") for part in self.content)
            return "\n".join(text for text in texts if isinstance(text, str))
        return self.content or ""


def parse_messages(value: object) -> list[Message]:
    """One message or many, as a list; `PayloadError` for anything else, and for none at all."""
    if isinstance(value, (str, bytes)):
        raise PayloadError(f"a bare {type(value).__name__} does not say who spoke: {_SHAPE}")
    if isinstance(value, (Message, Mapping)) or hasattr(value, "model_dump"):
        return [Message.parse(value)]
    if not isinstance(value, Iterable):
        raise PayloadError(f"{type(value).__name__} is no message: {_SHAPE}")
    messages = [Message.parse(each) for each in value]
    if not messages:
        raise PayloadError("no messages: a turn needs at least one")
    return messages
