"""Values as JSON text that reads back equal; what cannot is refused with the place where it is."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from pydantic_core import from_json, to_json

from memory_async.errors import PayloadError

__all__ = ["MAX_DEPTH", "dump_json", "dump_texts", "load_json"]

MAX_DEPTH = 200


class _UnfitError(Exception):
    """What is wrong with a value; ``path`` is where, its end first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str] = []


def _check(value: Any, depth: int) -> None:
    """Raise `_UnfitError` unless ``value`` is JSON that reads back equal."""
    if isinstance(value, (str, int)) or value is None:
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _UnfitError(f"is {value}, which JSON cannot hold: store None or a string")
    elif isinstance(value, (dict, list, tuple)):
        if depth == MAX_DEPTH:
            raise _UnfitError(f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key, each in value.items():
                if not isinstance(key, str):
                    raise _UnfitError(f"has the key {key!r}; JSON keys are strings: use str()")
                if type(each) is not str:
                    _check_within(key, each, depth)
        else:
            for index, each in enumerate(value):
                if type(each) is not str:
                    _check_within(index, each, depth)
    else:
        raise _UnfitError(
            f"is a {type(value).__name__}, which is not JSON: "
            "convert it first, e.g. with model_dump(mode='json'), isoformat() or str()"
        )


def _check_within(place: str | int, value: Any, depth: int) -> None:
    try:
        _check(value, depth + 1)
    except _UnfitError as error:
        error.path.append(f".{place}" if isinstance(place, str) else f"[{place}]")
        raise


def dump_json(value: Any, what: str) -> str:
    """``value`` as compact JSON that reads back equal, or `PayloadError` naming the place."""
    try:
        _check(value, 0)
    except _UnfitError as error:
        path = "".join((what, *reversed(error.path)))
        raise PayloadError(f"{path[:200]} {error}") from None
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError:
        raise PayloadError(
            f"{what} holds a lone surrogate, which is not valid UTF-8: "
            "clean the text with text.encode('utf-8', 'replace').decode()"
        ) from None
    except ValueError as error:  # an int of more digits than Python converts
        raise PayloadError(f"{what}: {error}") from None
    return text


def dump_texts(value: Any, what: str) -> str:
    """`dump_json` of what is made of nothing but texts and numbers known to be fit, in a tenth of
    the time."""
    try:
        return to_json(value).decode()
    except ValueError:  # a lone surrogate
        return dump_json(value, what)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def load_json(text: str | bytes) -> Any:
    """The value of what `dump_json` wrote, or of its UTF-8; `ValueError` or the like for what it
    did not write."""
    try:
        return from_json(text, allow_inf_nan=False)
    except (ValueError, TypeError):  # nested deeper than it goes, or no JSON: then it is said why
        value = _DECODER.decode(text if isinstance(text, str) else text.decode())
        json.dumps(value, ensure_ascii=False).encode()  # lone surrogates
        return value
