"""Every error this library raises, under one root.

MemoryAsyncError
├── ConfigurationError (ValueError)      wrong options, URL, flags; use in the wrong place
├── StorageError
│   ├── StorageUnavailableError          closed, unreachable, locked or refused
│   ├── ConflictError                    somebody else wrote first
│   ├── CorruptRecordError               stored bytes that cannot be read back
│   ├── SchemaTooNewError                written by a newer memory_async
│   └── PayloadError (ValueError)        what was to be stored cannot be stored
├── SessionOwnershipError
├── RunNotFoundError (LookupError)
├── RunAlreadyClaimedError               .until
├── RunAlreadyCompletedError             .turn
├── LeaseLostError
├── DecisionMissingError
└── ModelError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from memory_async.turns import Turn

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "CorruptRecordError",
    "DecisionMissingError",
    "LeaseLostError",
    "MemoryAsyncError",
    "ModelError",
    "PayloadError",
    "RunAlreadyClaimedError",
    "RunAlreadyCompletedError",
    "RunNotFoundError",
    "SchemaTooNewError",
    "SessionOwnershipError",
    "StorageError",
    "StorageUnavailableError",
]


class MemoryAsyncError(Exception):
    """The root of all errors raised by memory_async."""


class ConfigurationError(MemoryAsyncError, ValueError):
    """Options, a URL or flags that cannot work, or a call in a place where it cannot work."""


class StorageError(MemoryAsyncError):
    """A storage engine failed; the engine's own exception is the ``__cause__``."""


class StorageUnavailableError(StorageError):
    """The storage is closed, unreachable, busy beyond its timeout, or refused the connection."""


class ConflictError(StorageError):
    """A compare-and-set failed: somebody else wrote first. Read again, then decide."""


class CorruptRecordError(StorageError):
    """A stored record cannot be read back; the message names its key."""


class SchemaTooNewError(StorageError):
    """The data was written by a newer memory_async: upgrade this one. Nothing was changed."""


class PayloadError(StorageError, ValueError):
    """What was to be stored cannot be stored as it is. Nothing was written."""


class SessionOwnershipError(MemoryAsyncError):
    """The session belongs to another user (or to nobody, while a user asked for it)."""


class RunNotFoundError(MemoryAsyncError, LookupError):
    """No such run, or it belongs to somebody else."""


class RunAlreadyClaimedError(MemoryAsyncError):
    """Another worker holds the run until ``until``."""

    def __init__(self, message: str, until: datetime) -> None:
        super().__init__(message)
        self.until = until


class RunAlreadyCompletedError(MemoryAsyncError):
    """The run has ended; ``turn`` is what it left in the log."""

    def __init__(self, message: str, turn: Turn) -> None:
        super().__init__(message)
        self.turn = turn


class LeaseLostError(MemoryAsyncError):
    """This worker no longer owns the run: it can neither finish nor overwrite it."""


class DecisionMissingError(MemoryAsyncError):
    """The run waits for a decision nobody has made yet."""


class ModelError(MemoryAsyncError):
    """The model failed, or answered something that cannot be used.

    ``permanent``: trying again cannot help; ``retry_after``: seconds its server asked to wait.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
