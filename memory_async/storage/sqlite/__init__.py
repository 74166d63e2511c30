"""The SQLite driver."""

from memory_async.storage.sqlite.driver import SqliteStorage

__all__ = ["SqliteStorage"]
