"""`Inbox`: the operator's and approver's side of runs that wait for a human."""

from __future__ import annotations

import builtins
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from memory_async.checkpoints import check_status, decide, decisions_of, discard, find_run
from memory_async.errors import ConfigurationError, RunNotFoundError
from memory_async.keys import Cursor, check_id
from memory_async.memory import Memory
from memory_async.records import Checkpoint, CheckpointStatus, Decision
from memory_async.storage.protocol import Storage
from memory_async.storage.url import open_storage

__all__ = ["Inbox"]


class Inbox:
    """Every open run of a storage, whoever's. ``storage`` is a URL, which is closed with the inbox,
    or a storage object."""

    def __init__(self, storage: str | Storage) -> None:
        self._owned = AsyncExitStack()
        if not isinstance(storage, Storage):
            storage = open_storage(storage)
            self._owned.push_async_callback(storage.close)
        self._storage = storage

    async def list(
        self,
        *,
        status: CheckpointStatus | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        limit: int = 100,
        before: Checkpoint | Cursor | None = None,
    ) -> builtins.list[Checkpoint]:
        """Open runs, newest first; ``before`` is the last one of the previous page."""
        check_status(status)
        for name, id in (("user_id", user_id), ("agent_id", agent_id)):
            if id is not None:
                check_id(name, id)
        place = before.cursor if isinstance(before, Checkpoint) else before
        if not isinstance(place, Cursor | None):
            raise ConfigurationError(f"before is a Checkpoint or its cursor, not {before!r}")
        tags = () if agent_id is None else (f"agent:{agent_id}",)
        found = await self._storage.find(
            "checkpoint", status=status, user_id=user_id, tags=tags, before=place, limit=limit
        )
        return [each for each in found if isinstance(each, Checkpoint)]

    async def get(self, run_id: str | Checkpoint) -> Checkpoint:
        """One open run. `RunNotFoundError` when there is none.

        Where several sessions have an open run of one id, here and below its `Checkpoint` (from
        `list`) says which.
        """
        if not isinstance(run_id, Checkpoint):
            return await find_run(self._storage, run_id)
        found = await self._storage.get(run_id.key)
        if not isinstance(found, Checkpoint):
            raise RunNotFoundError(f"run {run_id.run_id!r} has ended meanwhile")
        return found

    async def decisions(self, run_id: str | Checkpoint) -> dict[str, Decision]:
        """The decisions made for a run so far, by requirement id."""
        return await decisions_of(self._storage, await self.get(run_id))

    async def decide(
        self,
        run_id: str | Checkpoint,
        requirement_id: str,
        *,
        approved: bool | None = None,
        value: Any = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Decision:
        """Answer what a run waits for. The same answer again changes nothing; a different second
        one is a `ConflictError`."""
        run = await self.get(run_id)
        return await decide(
            self._storage, run, requirement_id, approved=approved, value=value, by=by, note=note
        )

    async def discard(self, run_id: str | Checkpoint) -> None:
        """Give a run up: its checkpoint and decisions are deleted, nothing enters the log."""
        await discard(self._storage, await self.get(run_id))

    async def memory_for(self, run_id: str | Checkpoint, **options: Any) -> Memory:
        """A `Memory` of the run's session and user on this storage, to resume it with; ``options``
        are those of `Memory`."""
        run = await self.get(run_id)
        return Memory(self._storage, run.session_id, run.user_id, **options)

    async def close(self) -> None:
        """Close a storage that was given as URL."""
        await self._owned.aclose()

    async def __aenter__(self) -> Self:
        await self._storage.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
