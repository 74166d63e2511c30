"""`open_storage`: from a URL to a driver, importing only the one that is asked for."""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from memory_async.errors import ConfigurationError
from memory_async.storage.driver import Driver
from memory_async.storage.protocol import Storage

__all__ = ["open_storage"]

DRIVERS: dict[str, tuple[str, str]] = {
    "json": ("memory_async.storage.json", "JSONStorage"),
    "mem0": ("memory_async.storage.mem0", "Mem0Storage"),
    "memory": ("memory_async.storage.in_memory", "InMemoryStorage"),
    "mongodb": ("memory_async.storage.mongo", "MongoStorage"),
    "mongodb+srv": ("memory_async.storage.mongo", "MongoStorage"),
    "redis": ("memory_async.storage.redis", "RedisStorage"),
    "redis+cluster": ("memory_async.storage.redis", "RedisStorage"),
    "rediss": ("memory_async.storage.redis", "RedisStorage"),
    "postgres": ("memory_async.storage.postgres", "PostgresStorage"),
    "postgresql": ("memory_async.storage.postgres", "PostgresStorage"),
    "sqlite": ("memory_async.storage.sqlite", "SqliteStorage"),
}
_EXAMPLES = "sqlite:///chat.db, sqlite:////var/lib/chat.db or memory://"


def open_storage(url: str) -> Storage:
    """The storage a URL names, not connected yet.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``memory://`` (each a new private store);
    options follow as in ``?namespace=app&durability=normal``. `ConfigurationError` for a bare path,
    an unknown scheme or an option the driver does not have.
    """
    if isinstance(url, os.PathLike) or (isinstance(url, str) and "://" not in url):
        path = os.fsdecode(url)
        # What means something else in a URL is escaped; `file_path` takes it back.
        escaped = re.sub("[%?]", lambda match: quote(match[0]), path)
        right = "sqlite://" if path == ":memory:" else "sqlite:///" + escaped
        raise ConfigurationError(f"{path!r} is a path, not a URL: write {right!r}")
    if not isinstance(url, str):
        raise ConfigurationError(
            f"storage is a URL or a storage object, not {type(url).__name__}: e.g. {_EXAMPLES}"
        )
    address, _, query = url.partition("?")
    scheme, _, rest = address.partition("://")
    if scheme not in DRIVERS:
        raise ConfigurationError(
            f"no driver for {scheme!r} URLs; there are: {', '.join(sorted(DRIVERS))} "
            f"(e.g. {_EXAMPLES})"
        )
    module, name = DRIVERS[scheme]
    driver: type[Driver] = getattr(import_module(module), name)
    return driver.from_url(scheme, rest, _options(driver, scheme, query))


def file_path(scheme: str, rest: str) -> str:
    """The path in ``scheme://`` + ``rest``: after three slashes relative, after four absolute."""
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            f"'{scheme}://{rest}' has two slashes: write '{scheme}:///{rest}' for a relative path, "
            f"'{scheme}:////{rest}' for an absolute one"
        )
    return unquote(rest[1:])


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _options(driver: type[Driver], scheme: str, query: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in given:
            raise ConfigurationError(f"the option {name}= stands twice in the {scheme} URL")
        if name not in driver.url_options:
            reason = ": its sessions do not expire" if name == "ttl" else ""
            raise ConfigurationError(
                f"{driver.__name__} has no option {name}={reason}; "
                f"it has {', '.join(sorted(driver.url_options))}"
            )
        try:
            given[name] = driver.url_options[name](text)
        except ValueError:
            raise ConfigurationError(
                f"{name}={text} in the {scheme} URL is no {driver.url_options[name].__name__}"
            ) from None
    return given
