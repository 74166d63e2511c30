"""Ten megabytes of state: kept, and not written again by renewing the lease."""

from __future__ import annotations

import asyncio

from memory_async import Checkpoint, Lease, Memory, SqliteStorage

STATE = {"pages": ["x" * 1_000_000] * 10}


async def test_renewing_a_lease_leaves_a_large_state_alone() -> None:
    async with SqliteStorage() as storage:
        memory = Memory(storage, "s", "ada", full_session_memory=True, lease_seconds=0.3)
        async with memory.run("Go") as run:
            await run.checkpoint(STATE)
            [kept] = await memory.checkpoints()
            lease = await storage.get(kept.key._replace(kind="lease"))
            async with asyncio.timeout(20):
                while await storage.get(kept.key._replace(kind="lease")) == lease:
                    await asyncio.sleep(0.01)  # until it was renewed
            renewed = await storage.get(kept.key._replace(kind="lease"))
            assert isinstance(renewed, Lease)
            assert isinstance(lease, Lease)
            assert renewed.until > lease.until
            after = await storage.get(kept.key)
            assert isinstance(after, Checkpoint)
            assert (after.version, after.state) == (kept.version, STATE)
            run.pause()
        async with memory.resume(run.run_id) as run:
            assert run.state == STATE
        assert run.status == "completed"
