"""The address of a deployment, and what of it may be shown: everything but the password."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

from pymongo.errors import PyMongoError
from pymongo.uri_parser import validate_options

from memory_async.errors import ConfigurationError

THEIRS = (
    "appName", "authMechanism", "authMechanismProperties", "authSource", "compressors",
    "connectTimeoutMS", "directConnection", "heartbeatFrequencyMS", "journal", "loadBalanced",
    "localThresholdMS", "maxConnecting", "maxIdleTimeMS", "maxPoolSize", "minPoolSize",
    "proxyHost", "proxyPassword", "proxyPort", "proxyUsername", "replicaSet", "retryReads",
    "retryWrites", "serverMonitoringMode", "serverSelectionTimeoutMS", "socketTimeoutMS",
    "srvMaxHosts", "srvServiceName", "ssl", "timeoutMS", "tls", "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames", "tlsCAFile", "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword", "tlsCRLFile", "tlsDisableOCSPEndpointCheck", "tlsInsecure",
    "w", "waitQueueTimeoutMS", "wTimeoutMS", "zlibCompressionLevel",
)  # fmt: skip
"""What a URL may say in its query to MongoDB's client; everything else is the driver's."""

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.%~-]+)(?::\d{1,5})?"
_REST = re.compile(
    rf"(?:(?P<user>[^:@/?#\s]*)(?::[^@/?#\s]*)?@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?:/(?P<database>[^@/?#\s.]*))?"
)
_IN_NO_DATABASE = set('/\\. "$*<>:|?\0')


class Address(NamedTuple):
    """``url`` is for the client; ``shown`` for everybody."""

    url: str
    shown: str
    database: str | None

    @classmethod
    def parse(cls, url: str, options: dict[str, Any]) -> Address:
        """From a URL without a query, and those of `THEIRS` that were given."""
        scheme, _, rest = url.partition("://")
        found = _REST.fullmatch(rest)
        if scheme not in ("mongodb", "mongodb+srv") or not found:
            # Nothing of it is repeated here: where the password begins and ends is not clear.
            raise ConfigurationError(
                "no MongoDB URL: write mongodb://user:password@host:27017/database, with special "
                "characters of user and password in percent encoding (@ as %40, / as %2F)"
            )
        user = "" if found["user"] is None else f"{found['user']}@"
        path = f"/{found['database'] or ''}"
        query = f"?{urlencode(options, quote_via=quote)}" if options else ""
        try:
            validate_options(dict(options), warn=False)  # the client would only warn
        except (ValueError, TypeError, PyMongoError) as error:
            raise ConfigurationError(f"no option for MongoDB: {error}") from None
        bare = rest if found["database"] is not None else f"{rest}/"
        shown = f"{scheme}://{user}{found['hosts']}{path.rstrip('/')}"
        database = unquote(found["database"]) if found["database"] else None
        return cls(f"{scheme}://{bare}{query}", shown, check_database(database))

    @classmethod
    def of(cls, url: str) -> Address:
        """From a URL that may say more to the client in its query, but nothing to the driver."""
        base, _, query = url.partition("?")
        known = {name.lower() for name in THEIRS}
        options = dict(parse_qsl(query, keep_blank_values=True))
        if not {name.lower() for name in options} <= known:
            raise ConfigurationError(
                "this URL has options for the driver, or unknown ones: use open_storage(url), or "
                f"give them as arguments; MongoStorage takes {', '.join(THEIRS)}"
            )
        return cls.parse(base, options)


def check_database(name: str | None) -> str | None:
    if name is not None and (not name or len(name.encode()) > 63 or set(name) & _IN_NO_DATABASE):
        raise ConfigurationError(f"{name!r} is no name of a database")
    return name


def check_collection(name: str) -> str:
    if (
        not name
        or "$" in name
        or "\0" in name
        or name[0] == "."
        or name[-1] == "."
        or (name.startswith("system.") or ".." in name or len(name.encode()) > 200)
    ):
        raise ConfigurationError(f"{name!r} is no name of a collection")
    return name
