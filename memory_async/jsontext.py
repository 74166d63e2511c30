"""Values as JSON text that reads back equal; what cannot is refused with the place where it is."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from pydantic_core import from_json

from memory_async.errors import PayloadError

__all__ = ["MAX_DEPTH", "dump_json", "load_json"]

MAX_DEPTH = 200


def _check(value: Any, path: list[str], depth: int) -> None:
    """Raise unless ``value`` is JSON that reads back equal; ``path`` then says where it is not."""
    if isinstance(value, (str, int)) or value is None:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PayloadError(f"is {value}, which JSON cannot hold: store None or a string")
    elif isinstance(value, (dict, list, tuple)):
        if depth == MAX_DEPTH:
            raise PayloadError(f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise PayloadError(f"has the key {key!r}; JSON keys are strings: use str()")
                path.append(f".{key}")
                _check(each, path, depth + 1)
                path.pop()
        else:
            for index, each in enumerate(value):
                path.append(f"[{index}]")
                _check(each, path, depth + 1)
                path.pop()
    else:
        raise PayloadError(
            f"is a {type(value).__name__}, which is not JSON: "
            "convert it first, e.g. with model_dump(mode='json'), isoformat() or str()"
        )


def dump_json(value: Any, what: str) -> str:
    """``value`` as compact JSON that reads back equal, or `PayloadError` naming the place."""
    path = [what]
    try:
        _check(value, path, 0)
    except PayloadError as error:
        raise PayloadError(f"{''.join(path)[:200]} {error}") from None
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:
        raise PayloadError(
            f"{what} holds a lone surrogate, which is not valid UTF-8: "
            "clean the text with text.encode('utf-8', 'replace').decode()"
        ) from None
    except ValueError as error:  # an int of more digits than Python converts
        raise PayloadError(f"{what}: {error}") from None
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def load_json(text: str) -> Any:
    """The value of what `dump_json` wrote; `ValueError` or the like for what it did not write."""
    try:
        return from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError):  # nested deeper than it goes, or no JSON: then it is said why
        value = _DECODER.decode(text)
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
        return value
