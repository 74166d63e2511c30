"""The JSON-files driver."""

from memory_async.storage.json.driver import JSONStorage

__all__ = ["JSONStorage"]
