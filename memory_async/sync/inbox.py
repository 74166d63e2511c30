"""`sync.Inbox`: `memory_async.Inbox` for plain callers."""

from __future__ import annotations

import builtins
from typing import Any

from memory_async import inbox
from memory_async.keys import Cursor
from memory_async.records import Checkpoint, CheckpointStatus, Decision
from memory_async.storage import protocol
from memory_async.sync.block import Block
from memory_async.sync.memory import Memory
from memory_async.sync.storage import Storage

__all__ = ["Inbox"]


class Inbox(Block):
    """See `memory_async.Inbox`. A URL or driver closes with it, a `sync.Storage` stays open."""

    def __init__(self, storage: str | protocol.Storage | Storage) -> None:
        self._owns_storage = not isinstance(storage, Storage)
        self._storage = storage if isinstance(storage, Storage) else Storage(storage)
        self._portal = self._storage._portal
        self._inbox = inbox.Inbox(self._storage._driver)

    def list(
        self,
        *,
        status: CheckpointStatus | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        limit: int = 100,
        before: Checkpoint | Cursor | None = None,
    ) -> builtins.list[Checkpoint]:
        return self._portal.call(
            self._inbox.list,
            status=status,
            user_id=user_id,
            agent_id=agent_id,
            limit=limit,
            before=before,
        )

    def get(self, run_id: str | Checkpoint) -> Checkpoint:
        return self._portal.call(self._inbox.get, run_id)

    def decisions(self, run_id: str | Checkpoint) -> dict[str, Decision]:
        return self._portal.call(self._inbox.decisions, run_id)

    def decide(
        self,
        run_id: str | Checkpoint,
        requirement_id: str,
        *,
        approved: bool | None = None,
        value: Any = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Decision:
        return self._portal.call(
            self._inbox.decide,
            run_id,
            requirement_id,
            approved=approved,
            value=value,
            by=by,
            note=note,
        )

    def discard(self, run_id: str | Checkpoint) -> None:
        self._portal.call(self._inbox.discard, run_id)

    def memory_for(self, run_id: str | Checkpoint, **options: Any) -> Memory:
        run = self.get(run_id)
        return Memory(self._storage, run.session_id, run.user_id, **options)

    def close(self) -> None:
        if self._owns_storage:
            self._storage.close()

    def _begin(self) -> None:
        self._storage.open()
