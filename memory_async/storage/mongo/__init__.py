"""The MongoDB driver."""

from memory_async.errors import ConfigurationError

try:
    import pymongo as _pymongo  # noqa: F401 - said here, for all modules of the driver
except ImportError as error:  # pragma: no cover - shown by the session without extras
    raise ConfigurationError(
        'MongoStorage needs Motor or PyMongo: pip install "memory-async[mongo]"'
    ) from error

from memory_async.storage.mongo.driver import MongoStorage

__all__ = ["MongoStorage"]
