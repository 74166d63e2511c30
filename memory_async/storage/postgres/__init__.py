"""The PostgreSQL driver."""

from memory_async.errors import ConfigurationError

try:
    import asyncpg as _asyncpg  # noqa: F401 - said here, for all modules of the driver
except ImportError as error:  # pragma: no cover - shown by the session without extras
    raise ConfigurationError(
        'PostgresStorage needs asyncpg: pip install "memory-async[postgres]"'
    ) from error

from memory_async.storage.postgres.driver import PostgresStorage

__all__ = ["PostgresStorage"]
