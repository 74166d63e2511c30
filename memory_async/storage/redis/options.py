"""What a storage is given: a URL, and a time to live."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from memory_async.errors import ConfigurationError


def milliseconds(ttl: float) -> str:
    number = isinstance(ttl, int | float) and not isinstance(ttl, bool) and math.isfinite(ttl)
    if not number or not 1 <= ttl * 1000 <= 1e14:
        raise ConfigurationError(f"ttl is in seconds, from 0.001 on (None: for ever), not {ttl!r}")
    return str(int(ttl * 1000))


def checked_url(url: str) -> tuple[str, str]:
    """The URL, and what of it may be shown. Nothing of a bad one is: a password may be in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    database = parts.path.strip("/") or "0"
    rest = parts.path + parts.query + parts.fragment
    if parts.scheme not in ("redis", "rediss") or "@" in rest or not database.isdecimal():
        raise ConfigurationError(
            "a Redis URL is redis://[user:password@]host[:port][/database] (rediss:// with TLS); "
            "in user and password, percent-encode what is neither letter nor digit"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("options in a URL are for open_storage(); here they are arguments")
    return url, f"{parts.scheme}://{host}:{port}/{database}"
