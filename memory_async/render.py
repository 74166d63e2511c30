"""The blocks that carry memory into a prompt: stable bytes, text that cannot close its block."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memory_async.errors import PayloadError
from memory_async.stored import Entry

__all__ = ["refuse_rendered", "render"]

TAGS = (
    "SessionSummary",
    "UserProfile",
    "SessionMetadata",
    "AgentMetadata",
    "EarlierMessages",
    "Knowledge",
)
_NAMES = "|".join(TAGS)
_ANY_TAG = re.compile(rf"<(?=\s*/?\s*(?:{_NAMES})\b)", re.IGNORECASE)
_BLOCK = re.compile(rf"^<({_NAMES})>\n.*\n</\1>$", re.DOTALL | re.MULTILINE)


def render(
    *,
    summary: str | None = None,
    traits: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    agent_metadata: Mapping[str, Any] | None = None,
    earlier: Sequence[str] = (),
    knowledge: Sequence[str] = (),
) -> str:
    """The blocks for what there is, always in the same order; ``""`` when there is nothing.

    Names are sorted and empty values left out, so that the same memory gives the same bytes: that
    is what prompt caches compare. What depends on a query comes last, so that all before it stays.
    """
    if not (summary or traits or metadata or agent_metadata or earlier or knowledge):
        return ""
    bodies = (
        summary,
        _lines(traits),
        _lines(metadata),
        _lines(agent_metadata),
        "\n".join(earlier),
        "\n\n".join(knowledge),
    )
    return "\n\n".join(
        f"<{tag}>\n{_ANY_TAG.sub('&lt;', body)}\n</{tag}>"
        for tag, body in zip(TAGS, bodies, strict=True)
        if body
    )


def refuse_rendered(messages: Iterable[Entry]) -> None:
    """`PayloadError` for a system message that holds a rendered block: what was loaded is being
    saved back, which would feed memory to itself. Other roles may quote the same words."""
    for each in messages:
        if isinstance(each, dict):
            role, text = each["role"], each["content"]
        else:
            role, text = each.role, each.text
        if role in ("system", "developer") and _BLOCK.search(text):
            raise PayloadError(
                "this system message holds instructions that memory itself rendered: save only "
                "what is new in this turn (the user's messages and the answers)"
            )


def _lines(values: Mapping[str, Any] | None) -> str:
    if not values:
        return ""
    lines = []
    for name in sorted(values):
        value = values[name]
        if value is None or value in ([], {}, ""):
            continue
        plain = isinstance(value, str) and "\n" not in value
        text = (
            value if plain else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        )
        lines.append(f"{name}: {text}")
    return "\n".join(lines)
