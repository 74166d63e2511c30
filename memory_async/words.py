"""The words of a text, as everything that searches compares them.

Upper and lower case, accents and English endings make no difference ("cafés" is "cafe"). Scripts
that put no spaces between words (Chinese, Japanese, Thai, ...) are cut into pairs of characters.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from memory_async.errors import ConfigurationError

__all__ = ["index_terms", "query_terms", "require_stemmer"]

MAX_WORD = 64  # characters of a word that count
MAX_QUERY = 64  # different words of a query that count

_PLAIN = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
)
# Letters and digits, and the signs that belong to a letter in the scripts of India and beyond.
_WORD = re.compile(r"(?:[^\W_]|[\u0900-\u0eff\u0f71-\u0f84\u102b-\u109d\u17b4-\u17d3])+")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+)"
)
_ACCENTS = re.compile("[\u0300-\u036f]")

_STOP_WORDS = frozenset(
    """
    a about after again all also am an and any are as at be because been before being both but by
    can could d did do does doing don down during each few for from further had has have having he
    her here hers him his how i if in into is it its just ll m me more most my no nor not now of off
    on once only or other our ours out over own re s same shall she should so some such t than that
    the their theirs them then there these they this those through to too under until up us ve very
    was we were what when where which while who whom whose why will with would you your yours
    """.split()  # noqa: SIM905 - a list would take a page
)

_stemmers = threading.local()  # a stemmer serves one thread at a time


def index_terms(text: str) -> list[str]:
    """Everything ``text`` can be found by, in order, as often as it is there."""
    if text.isascii():
        return list(map(_stem, text.translate(_PLAIN).split()))
    return [term for word in _words(text) for term in _index_parts(word)]


def query_terms(query: str) -> list[str]:
    """What ``query`` asks for: without the words that are everywhere, unless there are no others;
    the first `MAX_QUERY` of them, each once."""
    words = [part for word in _words(query) for part in _query_parts(word)]
    telling = [word for word in words if word not in _STOP_WORDS] or words
    return list(dict.fromkeys(map(_stem, telling)))[:MAX_QUERY]


def require_stemmer() -> None:
    """`ConfigurationError` unless the extra ``search`` is installed."""
    _stemmer()


def _words(text: str) -> list[str]:
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return _WORD.findall(unicodedata.normalize("NFC", plain))


def _index_parts(word: str) -> Iterator[str]:
    if word.isascii():
        yield _stem(word)
        return
    for number, part in enumerate(_UNSPACED.split(word)):
        if number % 2:
            yield from part
            yield from _pairs(part)
        elif part:
            yield _stem(part)


def _query_parts(word: str) -> Iterator[str]:
    for number, part in enumerate(_UNSPACED.split(word)):
        if number % 2:
            yield from _pairs(part) if len(part) > 1 else part
        elif part:
            yield part


def _pairs(text: str) -> Iterator[str]:
    return map("".join, pairwise(text))


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word[:MAX_WORD])
    return stem


def _stemmer() -> Any:
    try:
        return _stemmers.english
    except AttributeError:
        pass
    try:
        from Stemmer import Stemmer  # type: ignore[import-not-found]
    except ImportError as error:  # pragma: no cover - shown by the session without extras
        raise ConfigurationError(
            'search needs PyStemmer: pip install "memory-async[search]"'
        ) from error
    _stemmers.english = Stemmer("english")
    return _stemmers.english
