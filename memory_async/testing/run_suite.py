"""What the parts of `memory_async.testing.RunConformance` share."""

from __future__ import annotations

from typing import Any, NamedTuple

from memory_async.inbox import Inbox
from memory_async.keys import Key
from memory_async.memory import Memory
from memory_async.records import Checkpoint, Decision, Lease, Requirement
from memory_async.storage.protocol import Storage
from memory_async.testing.material import in_session
from memory_async.testing.suite import Suite

HI = "Refund order 7"
ASK = {"role": "assistant", "content": "I would like to refund order 7. May I?"}
ANSWER = {"role": "assistant", "content": "Refunded."}
APPROVAL = Requirement("ok", "approval", "refund", {"order": 7}, "Refund order 7?")


class Kept(NamedTuple):
    """What a storage keeps for a run while it is open."""

    checkpoint: Checkpoint | None
    lease: Lease | None
    decisions: list[Decision]

    @property
    def status(self) -> str | None:
        return None if self.checkpoint is None else self.checkpoint.status


NOTHING = Kept(None, None, [])


async def kept(storage: Storage, session_id: str, run_id: str) -> Kept:
    where = in_session(session_id)
    checkpoint = await storage.get(Key("checkpoint", where, run_id))
    lease = await storage.get(Key("lease", where, run_id))
    assert isinstance(checkpoint, Checkpoint | None)
    assert isinstance(lease, Lease | None)
    found = await storage.find("decision", where)
    decisions = [each for each in found if isinstance(each, Decision) and each.run_id == run_id]
    return Kept(checkpoint, lease, decisions)


async def pause(
    memory: Memory[Any],
    *requirements: Requirement,
    said: str = HI,
    state: Any = None,
    run_id: str | None = None,
) -> str:
    """Run until a pause; the run's id."""
    async with memory.run(said, run_id=run_id) as run:
        run.add(ASK)
        run.pause(state, requirements)
    assert run.status == "paused"
    return run.run_id


async def finish(memory: Memory[Any], run_id: str) -> None:
    """Resume a run and end it."""
    async with memory.resume(run_id, require_decisions=False) as run:
        run.add(ANSWER)
    assert run.status == "completed"


class RunSuite(Suite):
    """The fixtures of `RunConformance`."""

    def memory(
        self,
        storage: Storage,
        session_id: str | None = None,
        user_id: str | None = None,
        **options: Any,
    ) -> Memory[Any]:
        """May be overridden: the `Memory`, or what behaves like one, that is tested."""
        return Memory(storage, session_id, user_id, **options)

    def inbox(self, storage: Storage) -> Inbox:
        """May be overridden: the `Inbox`, or what behaves like one."""
        return Inbox(storage)
