"""The address of a server, and what of it may be shown: everything but the password."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from memory_async.errors import ConfigurationError

LIBPQ = (
    "application_name", "gsslib", "host", "krbsrvname", "passfile", "port", "service", "sslcert",
    "sslcrl", "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "target_session_attrs",
)  # fmt: skip
"""What a URL may say in its query to asyncpg; everything else is the driver's."""

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.%~-]*)(?::\d{1,5})?"
_REST = re.compile(
    rf"(?:(?P<user>[^:@/?#\s]*)(?::[^@/?#\s]*)?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?P<path>/[^@/?#\s]*)?"
)


class Address(NamedTuple):
    """``dsn`` is for asyncpg; ``shown`` for everybody."""

    dsn: str
    shown: str

    @classmethod
    def parse(cls, url: str, options: dict[str, Any]) -> Address:
        """From a URL without a query, and those of the `LIBPQ` options that were given."""
        scheme, _, rest = url.partition("://")
        found = _REST.fullmatch(rest)
        if scheme not in ("postgresql", "postgres") or not found:
            # Nothing of it is repeated here: where the password begins and ends is not clear.
            raise ConfigurationError(
                "no PostgreSQL URL: write postgresql://user:password@host:5432/database, with "
                "special characters of user and password in percent encoding (@ as %40, / as %2F)"
            )
        user = "" if found["user"] is None else f"{found['user']}@"
        query = f"?{urlencode(options)}" if options else ""
        shown = f"{scheme}://{user}{found['hosts']}{found['path'] or ''}"
        return cls(url + query, shown)

    @classmethod
    def of(cls, url: str) -> Address:
        """From a URL that may say more to asyncpg in its query, but nothing to the driver."""
        base, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if not options.keys() <= set(LIBPQ):
            raise ConfigurationError(
                "this URL has options for the driver, or unknown ones: use open_storage(url), or "
                f"give them as arguments; PostgresStorage takes {', '.join(LIBPQ)}"
            )
        return cls.parse(base, options)
