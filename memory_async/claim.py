"""`Claim`: one worker's hold on a run. The version of the run's checkpoint is the token every write
needs; the lease beside it says until when nobody else may claim the run."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Self

from memory_async.errors import (
    ConflictError,
    LeaseLostError,
    RunAlreadyClaimedError,
    StorageUnavailableError,
)
from memory_async.keys import compound_prefix, new_version, utc_now
from memory_async.records import Checkpoint, Lease
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Append,
    Delete,
    Drop,
    Put,
    Result,
    Storage,
    Write,
)
from memory_async.turns import Turn

__all__ = ["Claim", "clear_run"]

logger = logging.getLogger("memory_async.run")


class Claim:
    """Made by `open` (a new run) or `take` (somebody left it); renews its lease until `release`."""

    def __init__(
        self, storage: Storage, checkpoint: Checkpoint, lease: Lease, seconds: float
    ) -> None:
        self._storage = storage
        self.checkpoint = checkpoint
        self._lease = lease
        self._seconds = seconds
        self._tried: set[str] = set()  # versions whose write got no answer: maybe the stored one
        self._writing = asyncio.Lock()  # two tasks of one block may both store where they are
        self._renewing = asyncio.create_task(self._renew(), name=f"lease of {checkpoint.run_id}")

    @classmethod
    async def open(
        cls, storage: Storage, checkpoint: Checkpoint, seconds: float, *first: Write
    ) -> Self:
        """Begin a run: ``first``, checkpoint and lease in one write. `ConflictError` if known."""
        lease = await _new_lease(storage, checkpoint, seconds)
        await _surely(storage, *first, Put(checkpoint, ABSENT), Put(lease, ALWAYS))
        return cls(storage, checkpoint, lease, seconds)

    @classmethod
    async def take(cls, storage: Storage, checkpoint: Checkpoint, seconds: float) -> Self:
        """Claim a run nobody works on. `RunAlreadyClaimedError` while somebody's lease holds,
        `ConflictError` when the run has moved since it was read."""
        lease = await _new_lease(storage, checkpoint, seconds)
        held = await storage.get(lease.key)
        now = lease.until - timedelta(seconds=seconds)
        if isinstance(held, Lease) and held.until > now:
            raise RunAlreadyClaimedError(
                f"run {checkpoint.run_id!r} is being worked on until {held.until.isoformat()}",
                held.until,
            )
        taken = replace(
            checkpoint, status="running", error=None, version=new_version(), updated_at=utc_now()
        )
        condition = held.version if isinstance(held, Lease) else ABSENT
        await _surely(storage, Put(taken, checkpoint.version), Put(lease, condition))
        return cls(storage, taken, lease, seconds)

    async def keep(self, checkpoint: Checkpoint) -> None:
        """Store where the run is; the lease goes on."""
        await self._write(checkpoint)

    async def leave(self, checkpoint: Checkpoint) -> None:
        """Store where the run stopped and give up the lease, for whoever resumes it."""
        await self._write(checkpoint, Delete(self._lease.key))

    async def stored(self) -> Checkpoint:
        """What is durable of the run."""
        found = await self._storage.get(self.checkpoint.key)
        if not isinstance(found, Checkpoint):
            raise self._lost()
        return found

    async def finish(self, append: Append, *more: Write) -> Turn:
        """The turn into the log and all that was kept for the run away, in one write."""

        def writes(token: str) -> list[Write]:
            return [append, *clear_run(self.checkpoint, token), *more]

        async with self._writing:
            [result, *_] = await self._guarded(writes)
        assert result.turn is not None  # noqa: S101 - an Append always has one
        if not result.created and result.turn.created_at != append.turn.created_at:
            # Not this turn, whose answer was lost, but another one of the run's id.
            try:
                await self._storage.apply(*clear_run(self.checkpoint, self.checkpoint.version))
            except ConflictError as error:
                raise self._lost() from error
        return result.turn

    async def withdraw(self) -> None:
        """Take back what `open` wrote."""
        try:
            await self._storage.apply(*clear_run(self.checkpoint, self.checkpoint.version))
        finally:
            await self.release()

    async def release(self) -> None:
        """Stop renewing."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)

    # --- inside ---

    async def _write(self, checkpoint: Checkpoint, *more: Write) -> None:
        changed = replace(checkpoint, version=new_version(), updated_at=utc_now())
        async with self._writing:
            self._tried.add(changed.version)
            await self._guarded(lambda token: [Put(changed, token), *more])
            self.checkpoint, self._tried = changed, set()

    async def _guarded(self, writes: Callable[[str], list[Write]]) -> list[Result]:
        """Apply under the token; `LeaseLostError` when another worker has taken the run over."""
        token = self.checkpoint.version
        while True:
            try:
                return await _surely(self._storage, *writes(token))
            except ConflictError as error:
                stored = await self._storage.get(self.checkpoint.key)
                if isinstance(stored, Checkpoint) and stored.version in self._tried - {token}:
                    token = stored.version  # an earlier write of ours did arrive
                    continue
                raise self._lost() from error

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(
            f"run {self.checkpoint.run_id!r} was taken over, ended or discarded by another worker: "
            "nothing of this one was stored since"
        )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                if not await self._renew_once():
                    if not self._writing.locked():  # else it may have ended just now
                        logger.warning("run %r is no longer this worker's", self.checkpoint.run_id)
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the next time may do
                logger.warning("renewing the lease of %r: %s", self.checkpoint.run_id, error)

    async def _renew_once(self) -> bool:
        fresh = await _new_lease(self._storage, self.checkpoint, self._seconds)
        fresh = replace(fresh, owner=self._lease.owner)
        try:
            await self._storage.apply(Put(fresh, self._lease.version))
        except ConflictError:
            stored = await self._storage.get(self._lease.key)
            if not isinstance(stored, Lease) or stored.owner != self._lease.owner:
                return False
            self._lease = stored  # a renewal without an answer had arrived
        else:
            self._lease = fresh
        return True


def clear_run(checkpoint: Checkpoint, version: str) -> list[Write]:
    """The writes that take a run's checkpoint, lease and decisions away."""
    partition = checkpoint.key.partition
    lease = checkpoint.key._replace(kind="lease")
    return [
        Delete(checkpoint.key, version),
        Delete(lease),
        Drop(partition, "decision", compound_prefix(checkpoint.run_id)),
    ]


async def _surely(storage: Storage, *writes: Write) -> list[Result]:
    """Apply; once more when there was no answer. Versions and the run's id make that safe: what
    has arrived already is known, and counts as applied."""
    try:
        return await storage.apply(*writes)
    except StorageUnavailableError:
        return await storage.apply(*writes)


async def _new_lease(storage: Storage, checkpoint: Checkpoint, seconds: float) -> Lease:
    now = await storage.now(checkpoint.key.partition)
    return Lease(
        session_id=checkpoint.session_id,
        run_id=checkpoint.run_id,
        owner=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
        until=now + timedelta(seconds=seconds),
    )
