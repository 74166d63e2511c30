"""The same names without ``await``, for scripts, threads, notebooks and Flask.

A thin facade over an event loop in a thread: every driver works both ways.
"""

from memory_async.sync.inbox import Inbox
from memory_async.sync.knowledge import KnowledgeBase
from memory_async.sync.memory import Jobs, Memory
from memory_async.sync.run import Run, RunBlock
from memory_async.sync.storage import Storage

__all__ = ["Inbox", "Jobs", "KnowledgeBase", "Memory", "Run", "RunBlock", "Storage"]
