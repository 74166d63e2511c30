"""asyncpg's exceptions as ours, and which of them leave room for another try."""

from __future__ import annotations

import asyncpg
from asyncpg import exceptions

from memory_async.errors import (
    ConfigurationError,
    MemoryAsyncError,
    PayloadError,
    StorageError,
    StorageUnavailableError,
)

THEIRS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError is one
)

UNDONE = (
    exceptions.DeadlockDetectedError,
    exceptions.SerializationError,
    exceptions.QueryCanceledError,  # pgbouncer may let somebody's cancellation hit the next query
)
"""The server has undone the call, which can be made again."""

_LOST = (
    asyncpg.PostgresConnectionError,
    exceptions.AdminShutdownError,
    exceptions.CrashShutdownError,
    exceptions.CannotConnectNowError,
    OSError,
)

# SQLSTATEs, or two characters for a class of them.
_LOGIN = "28"
_TOO_MUCH = ("22", "54")
_UNAVAILABLE = ("08", "25006", "3D000", "40", "53", "55", "57")
_NO_RIGHTS = "42501"
_MISSING = ("3F000", "42883", "42P01")
_MIXED_UP = ("26000", "42P05")


def is_lost(error: Exception) -> bool:
    """Whether the connection is gone, perhaps with an answer."""
    return isinstance(error, _LOST) and not isinstance(error, TimeoutError)


def mapped(error: Exception, where: str) -> MemoryAsyncError:
    """What a caller is told of ``error``, met at ``where``."""
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, where)
    if isinstance(error, TimeoutError):
        return StorageUnavailableError(f"{where} did not answer in time")
    return StorageUnavailableError(f"cannot reach {where}: {error}")


def _of_server(error: asyncpg.PostgresError, where: str) -> MemoryAsyncError:
    state = error.sqlstate or ""
    if state.startswith(_LOGIN):
        return StorageUnavailableError(f"{where} refused the login: {error}")
    if state.startswith(_TOO_MUCH):
        return PayloadError(f"PostgreSQL cannot take this value: {error}")
    if state.startswith(_UNAVAILABLE):
        return StorageUnavailableError(f"{where}: {error}")
    if state == _NO_RIGHTS:
        return StorageUnavailableError(f"{where}: {error}: the role needs rights it does not have")
    if state in _MISSING:
        return StorageError(f"{where}: {error}: the tables were removed while in use")
    if state in _MIXED_UP:
        return ConfigurationError(
            f"{where} mixes up prepared statements, as pgbouncer in transaction mode does: "
            "add ?pgbouncer=true to the URL (statement_cache_size=0 to a pool of your own)"
        )
    return StorageError(f"{where}: {error}")
