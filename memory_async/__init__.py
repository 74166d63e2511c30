"""Memory for AI agents, async first: conversations, summaries and user profiles across sessions.

Importing this package imports no driver and no framework; names are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memory_async.chat_completions import OpenAIModel
    from memory_async.context import Context
    from memory_async.errors import (
        ConfigurationError,
        ConflictError,
        CorruptRecordError,
        DecisionMissingError,
        LeaseLostError,
        MemoryAsyncError,
        ModelError,
        PayloadError,
        RunAlreadyClaimedError,
        RunAlreadyCompletedError,
        RunNotFoundError,
        SchemaTooNewError,
        SessionOwnershipError,
        StorageError,
        StorageUnavailableError,
    )
    from memory_async.inbox import Inbox
    from memory_async.jobs import Job, JobQueue, Jobs
    from memory_async.keys import Cursor, Key, Partition
    from memory_async.knowledge import KnowledgeBase, KnowledgeHit
    from memory_async.memory import Memory
    from memory_async.message import Message
    from memory_async.model import Model
    from memory_async.profile import DynamicProfile, Profile
    from memory_async.records import (
        Checkpoint,
        Chunk,
        Decision,
        Document,
        Item,
        JobState,
        Lease,
        Record,
        Requirement,
        Session,
        UserProfile,
    )
    from memory_async.run import Run, RunPaused
    from memory_async.search import Hit
    from memory_async.storage.in_memory import InMemoryStorage
    from memory_async.storage.json import JSONStorage
    from memory_async.storage.mem0 import Mem0Storage
    from memory_async.storage.mongo import MongoStorage
    from memory_async.storage.postgres import PostgresStorage
    from memory_async.storage.protocol import (
        ABSENT,
        ALWAYS,
        Advance,
        Append,
        Delete,
        Drop,
        Expect,
        Match,
        Put,
        Result,
        Snapshot,
        Storage,
        SupportsAnalysis,
        SupportsSearch,
        SupportsSweep,
        SupportsTTL,
        Trim,
    )
    from memory_async.storage.redis import RedisStorage
    from memory_async.storage.sqlite import SqliteStorage
    from memory_async.storage.url import open_storage
    from memory_async.turns import Turn

# Module -> the public names it holds.
_MODULES = {
    "chat_completions": ("OpenAIModel",),
    "context": ("Context",),
    "errors": (
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
    ),
    "inbox": ("Inbox",),
    "jobs": (
        "Job",
        "JobQueue",
        "Jobs",
    ),
    "keys": (
        "Cursor",
        "Key",
        "Partition",
    ),
    "knowledge": (
        "KnowledgeBase",
        "KnowledgeHit",
    ),
    "memory": ("Memory",),
    "message": ("Message",),
    "model": ("Model",),
    "profile": (
        "DynamicProfile",
        "Profile",
    ),
    "records": (
        "Checkpoint",
        "Chunk",
        "Decision",
        "Document",
        "Item",
        "JobState",
        "Lease",
        "Record",
        "Requirement",
        "Session",
        "UserProfile",
    ),
    "run": (
        "Run",
        "RunPaused",
    ),
    "search": ("Hit",),
    "storage.in_memory": ("InMemoryStorage",),
    "storage.mongo": ("MongoStorage",),
    "storage.postgres": ("PostgresStorage",),
    "storage.json": ("JSONStorage",),
    "storage.mem0": ("Mem0Storage",),
    "storage.protocol": (
        "ABSENT",
        "ALWAYS",
        "Advance",
        "Append",
        "Delete",
        "Drop",
        "Expect",
        "Match",
        "Put",
        "Result",
        "Snapshot",
        "Storage",
        "SupportsAnalysis",
        "SupportsSearch",
        "SupportsSweep",
        "SupportsTTL",
        "Trim",
    ),
    "storage.redis": ("RedisStorage",),
    "storage.sqlite": ("SqliteStorage",),
    "storage.url": ("open_storage",),
    "turns": ("Turn",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ABSENT",
    "ALWAYS",
    "Advance",
    "Append",
    "Checkpoint",
    "Chunk",
    "ConfigurationError",
    "ConflictError",
    "Context",
    "CorruptRecordError",
    "Cursor",
    "Decision",
    "DecisionMissingError",
    "Delete",
    "Document",
    "Drop",
    "DynamicProfile",
    "Expect",
    "Hit",
    "InMemoryStorage",
    "Inbox",
    "Item",
    "JSONStorage",
    "Job",
    "JobQueue",
    "JobState",
    "Jobs",
    "Key",
    "KnowledgeBase",
    "KnowledgeHit",
    "Lease",
    "LeaseLostError",
    "Match",
    "Mem0Storage",
    "Memory",
    "MemoryAsyncError",
    "Message",
    "Model",
    "ModelError",
    "MongoStorage",
    "OpenAIModel",
    "Partition",
    "PayloadError",
    "PostgresStorage",
    "Profile",
    "Put",
    "Record",
    "RedisStorage",
    "Requirement",
    "Result",
    "Run",
    "RunAlreadyClaimedError",
    "RunAlreadyCompletedError",
    "RunNotFoundError",
    "RunPaused",
    "SchemaTooNewError",
    "Session",
    "SessionOwnershipError",
    "Snapshot",
    "SqliteStorage",
    "Storage",
    "StorageError",
    "StorageUnavailableError",
    "SupportsAnalysis",
    "SupportsSearch",
    "SupportsSweep",
    "SupportsTTL",
    "Trim",
    "Turn",
    "UserProfile",
    "open_storage",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("memory-async")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
