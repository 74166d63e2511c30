"""What Redis and its client refuse, as errors of ours. Passwords are in none of them."""

from __future__ import annotations

from collections.abc import Iterator

import redis.exceptions as theirs

from memory_async.errors import (
    ConfigurationError,
    MemoryAsyncError,
    PayloadError,
    StorageError,
    StorageUnavailableError,
)

# What Redis says, or redis-py calls it -> what that means. A script's error has it anywhere.
_UNAVAILABLE = {
    "invalid username-password": "refused the login: check user name and password",
    "invalid password": "refused the login: check user name and password",
    "uthentication required": "asks for a password: write redis://:password@host",
    "without any password configured": "has no password set, but was given one",
    "BusyLoadingError": "is still loading its data: try again soon",
    "OutOfMemoryError": "is out of memory (maxmemory): nothing was written",
    "OOM command": "is out of memory (maxmemory): nothing was written",
    "ReadOnlyError": "is a read-only replica: connect to its primary",
    "READONLY": "is a read-only replica: connect to its primary",
    "MISCONF": "does not write, as it cannot save to its disk",
    "NOREPLICAS": "does not write, as too few replicas are connected",
    "MasterDownError": "is a replica that has lost its primary",
    "ClusterDownError": "does not serve this part of the cluster: a node is down",
    "SlotNotCoveredError": "does not serve this part of the cluster: a node is down",
    "TryAgainError": "is moving this part of the cluster: try again soon",
    "BUSY Redis": "is busy with somebody's script",
    "max number of clients": "has no room for another client (maxclients)",
}
_CLUSTER = "is part of a Redis Cluster: write redis+cluster://, or cluster=True"
_NO_CLUSTER = "is no Redis Cluster: write redis://, or leave out cluster=True"
_WRONG = {
    "MovedError": _CLUSTER,
    "ClusterCrossSlotError": _CLUSTER,
    "hash to the same slot": _CLUSTER,
    "cluster support disabled": _NO_CLUSTER,
    "Cluster mode is not enabled": _NO_CLUSTER,
    "DB index is out of range": "has no database of that number",
}
_RIGHTS = ("NoPermissionError", "NOPERM", "ACL failure", "can't run this command", "permissions to")


_THEIRS = (theirs.RedisError, theirs.RedisClusterException, OSError, RuntimeError)


class CannotConnect(Exception):  # noqa: N818 - only ever seen here
    """No connection, so nothing was sent; the cause says why."""


class refusals:  # noqa: N801 - as `contextlib.suppress`: each call has one, and it costs nothing
    """Exceptions of redis-py as ours, with what they were as ``__cause__``."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, CannotConnect):
            error = error.__cause__
            assert error is not None  # noqa: S101 - raised with one
        elif isinstance(error, MemoryAsyncError) or not isinstance(error, _THEIRS):
            return
        raise _mapped(error, self._where) from error


def _mapped(error: BaseException, where: str) -> MemoryAsyncError:
    text = " ".join(map(str, _chain(error)))
    named = " ".join([text, *(type(each).__name__ for each in _chain(error))])
    for said, meaning in _WRONG.items():
        if said in named:
            return ConfigurationError(f"{where} {meaning}")
    for said, meaning in _UNAVAILABLE.items():
        if said in named:
            return StorageUnavailableError(f"{where} {meaning}")
    if any(said in named for said in _RIGHTS):
        return StorageError(f"{where} does not let this user do that: {text[:300]}")
    if isinstance(error, RuntimeError):
        if "loop" in text:
            return ConfigurationError(
                f"the client of {where} belongs to another event loop: make one per loop"
            )
        return StorageError(f"{where}: {text}")
    if isinstance(error, theirs.DataError):
        return PayloadError(f"{where} cannot take this value: {text}")
    if isinstance(error, theirs.TimeoutError | TimeoutError):
        return StorageUnavailableError(f"{where} did not answer in time")
    if isinstance(
        error, theirs.ConnectionError | theirs.RedisClusterException | theirs.ClusterError | OSError
    ):
        return StorageUnavailableError(f"no connection to {where}: {text[:300]}")
    return StorageError(f"{where}: {text[:300]}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(4):
        if error is None:
            return
        yield error
        error = error.__cause__
