"""Token usage: whatever numbers the caller reports of a turn, and their sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from pydantic import BaseModel

from memory_async.errors import PayloadError

__all__ = ["add_usage", "parse_usage"]


def parse_usage(usage: object) -> dict[str, Any] | None:
    """A mapping, dataclass or SDK object (``model_dump``) as a plain dict; else `PayloadError`."""
    if usage is None:
        return None
    if isinstance(usage, Mapping):
        return dict(usage)
    if hasattr(usage, "model_dump") and not isinstance(usage, type):
        return cast("BaseModel", usage).model_dump()
    if is_dataclass(usage) and not isinstance(usage, type):
        return asdict(usage)
    raise PayloadError(
        f'usage is a mapping such as {{"input_tokens": 12}}, not {type(usage).__name__}'
    )


def add_usage(total: dict[str, Any], usage: Mapping[str, Any]) -> None:
    """Add the numbers of ``usage`` to ``total``, nested mappings level by level."""
    for name, value in usage.items():
        if isinstance(value, Mapping):
            nested = total.setdefault(name, {})
            if isinstance(nested, dict):
                add_usage(nested, value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            before = total.get(name, 0)
            if not isinstance(before, dict):
                total[name] = before + value
