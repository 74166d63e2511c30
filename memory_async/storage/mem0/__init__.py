"""The Mem0 driver: the Mem0 Platform over HTTP, or a self-hosted ``AsyncMemory``."""

from memory_async.storage.mem0.driver import Mem0Storage

__all__ = ["Mem0Storage"]
