"""A worker that dies at any moment of a run: another one goes on from what it had stored."""

from __future__ import annotations

from typing import Any

import pytest

from memory_async.errors import (
    RunAlreadyCompletedError,
    RunNotFoundError,
    StorageUnavailableError,
)
from memory_async.memory import Memory
from memory_async.storage.protocol import Storage
from memory_async.testing.around import Dying, Later
from memory_async.testing.material import texts, unique
from memory_async.testing.run_suite import ANSWER, APPROVAL, ASK, HI, NOTHING, RunSuite, kept

# What a run's batches leave, one after the other: status and state of its checkpoint.
LIFE: list[tuple[str | None, Any]] = [
    (None, None),
    ("running", None),
    ("running", 1),
    ("paused", 2),
    ("paused", 2),  # and decided
    ("running", 2),
    ("running", 3),
    (None, None),  # and completed
]
DECIDED, COMPLETED = 4, 7


async def live(memory: Memory[Any], run_id: str) -> None:
    """A run from its beginning to its end, as `LIFE` tells it."""
    async with memory.run(HI, run_id=run_id) as run:
        await run.checkpoint(1)
        run.add(ASK)
        run.pause(2, [APPROVAL])
    await memory.decide(run_id, "ok", approved=True)
    async with memory.resume(run_id) as run:
        await run.checkpoint(3)
        run.add(ANSWER)


class CrashConformance(RunSuite):
    """Never both, never neither: a run is open with its last checkpoint, or it is completed."""

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("full", [False, True])
    async def test_a_worker_may_die_at_any_call(
        self, storage: Storage, full: bool, after: bool
    ) -> None:
        user, number, seen = unique("user"), 0, set[int]()
        while True:
            s, run_id = unique("session"), unique("run")
            dying = Dying(storage, number, after=after)
            try:
                await live(self.memory(dying, s, user, full_session_memory=full), run_id)
            except StorageUnavailableError:
                seen.add(dying.landed)
            else:
                break
            await self._is_whole(storage, s, user, run_id, dying, full=full)
            number += 1 if self.thorough else 4
        assert dying.landed == COMPLETED
        assert seen == set(range(COMPLETED + after)) or not self.thorough

    async def _is_whole(
        self, storage: Storage, s: str, user: str, run_id: str, dying: Dying, *, full: bool
    ) -> None:
        landed, where = dying.landed, dying.fatal
        found, turns = await kept(storage, s, run_id), await storage.history(s, trimmed=True)
        status, state = LIFE[landed]
        assert found.status == status, where
        assert (found.checkpoint and found.checkpoint.state) == state, where
        assert len(turns) == (landed == COMPLETED), where
        assert len(found.decisions) == (DECIDED <= landed < COMPLETED), where
        memory = self.memory(Later(storage), s, user, full_session_memory=full)
        if landed == 0:
            with pytest.raises(RunNotFoundError):
                async with memory.resume(run_id):
                    pytest.fail(f"{where}")
            assert await memory.checkpoints() == []
            return
        if landed < COMPLETED:
            async with memory.resume(run_id, require_decisions=landed >= DECIDED) as run:
                assert run.state == state, where
                run.add(ANSWER)
        with pytest.raises(RunAlreadyCompletedError):
            async with memory.resume(run_id):
                pytest.fail(f"{where}")
        [turn] = await storage.history(s, trimmed=True)
        said = [HI, ASK["content"], ANSWER["content"]]
        if landed < 3:  # the question was not asked yet
            del said[1]
        assert texts([turn]) == (said if full else []), where
        assert await kept(storage, s, run_id) == NOTHING, where
