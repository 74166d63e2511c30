"""PyMongo's exceptions, which are Motor's too, as ours."""

from __future__ import annotations

from pymongo import errors
from pymongo.errors import PyMongoError

from memory_async.errors import (
    ConfigurationError,
    MemoryAsyncError,
    PayloadError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.storage.mongo.commit import TRANSIENT

_LOGIN = (18, 11)
_NO_RIGHTS = 13
_TOO_LARGE = (10334, 17280, 17419, 17420, 2)
_TAKEN = (85, 86)
_NO_TRANSACTIONS = (20, 263)
_UNAVAILABLE = (6, 7, 24, 46, 50, 64, 89, 91, 100, 189, 202, 262, 317, 9001, 10107, 11600, 11602,
                13388, 13435, 13436, 14031)  # fmt: skip


def is_cut(error: PyMongoError) -> bool:
    """Whether a connection broke, perhaps with an answer, and another may do."""
    slow = (errors.ServerSelectionTimeoutError, errors.NetworkTimeout)
    return isinstance(error, errors.AutoReconnect) and not isinstance(error, slow)


def is_undone(error: PyMongoError) -> bool:
    """Whether the server has nothing of it."""
    return error.has_error_label(TRANSIENT)


def mapped(error: PyMongoError, where: str) -> MemoryAsyncError:
    """What a caller is told of ``error``, met at ``where``."""
    if isinstance(error, errors.DocumentTooLarge):
        return PayloadError(f"MongoDB cannot take this: {error}")
    if isinstance(error, errors.NetworkTimeout):
        return StorageUnavailableError(f"{where} did not answer in time")
    if isinstance(error, errors.ConnectionFailure):
        reason = str(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0]
        return StorageUnavailableError(f"cannot reach {where}: {reason}")
    if isinstance(error, (errors.ConfigurationError, errors.InvalidURI, errors.InvalidName)):
        return ConfigurationError(f"{where}: {error}")
    if isinstance(error, errors.OperationFailure):
        return _of_server(error, where)
    if isinstance(error, errors.InvalidOperation):
        return StorageUnavailableError(f"{where}: {error}")
    return StorageError(f"{where}: {error}")


def _of_server(error: errors.OperationFailure, where: str) -> MemoryAsyncError:
    details = error.details or {}
    first = (details.get("writeErrors") or details.get("writeConcernErrors") or [details])[0]
    code, text = first.get("code", error.code), first.get("errmsg", str(error))
    if code in _LOGIN:
        return StorageUnavailableError(f"{where} refused the login: {text}")
    if code == _NO_RIGHTS:
        return StorageUnavailableError(f"{where}: {text}: the user needs the role readWrite")
    if code in _TOO_LARGE and "larg" in text:
        return PayloadError(f"MongoDB cannot take this: {text}")
    if code in _TAKEN:
        return StorageError(f"{where}: {text}: name another collection= for memory_async")
    if code in _NO_TRANSACTIONS and "ransaction" in text:
        return ConfigurationError(f"{where}: {text}: use MongoStorage(..., transactions=False)")
    if code in _UNAVAILABLE or isinstance(error, (errors.WTimeoutError, errors.ExecutionTimeout)):
        return StorageUnavailableError(f"{where}: {text}")
    return StorageError(f"{where}: {text}")
