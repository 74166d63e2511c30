"""`RunConformance`: runs that wait for a human, through `Memory` on any storage."""

from __future__ import annotations

from memory_async.testing.run_blocks import BlockConformance
from memory_async.testing.run_claims import ClaimConformance
from memory_async.testing.run_crashes import CrashConformance
from memory_async.testing.run_decisions import DecisionConformance
from memory_async.testing.run_failures import FailureConformance
from memory_async.testing.run_inbox import InboxConformance
from memory_async.testing.run_leases import LeaseConformance

__all__ = ["RunConformance"]


class RunConformance(
    BlockConformance,
    FailureConformance,
    ClaimConformance,
    LeaseConformance,
    DecisionConformance,
    InboxConformance,
    CrashConformance,
):
    """What `Memory.run` and `Memory.resume` promise, over a storage of yours. Subclass it as
    `StorageConformance`, with the same fixture ``storages``::

        class TestRunsOnMyStorage(RunConformance):
            @pytest.fixture
            def storages(self, tmp_path):
                def make(namespace="default"):
                    return MyStorage(tmp_path / "memory.db", namespace=namespace)

                return make

    ``memory`` and ``inbox`` may be overridden, to test something else that behaves like `Memory`
    and `Inbox`. They are given storages that wrap those of the fixture: with another clock, or with
    calls that fail.
    """
