"""Whose run it is, the inbox over all of them, and what forgetting does to them."""

# ruff: noqa: PT012 - a run's block has a middle, and is left from there
# What is named in a block that may swallow is "possibly unbound" after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import Any, get_args

import pytest

from memory_async.errors import (
    ConfigurationError,
    LeaseLostError,
    RunAlreadyCompletedError,
    RunNotFoundError,
)
from memory_async.records import Checkpoint, CheckpointStatus
from memory_async.storage.protocol import Storage, Write
from memory_async.testing.around import Around
from memory_async.testing.material import in_session, seqs, unique
from memory_async.testing.run_suite import (
    ANSWER,
    APPROVAL,
    ASK,
    HI,
    NOTHING,
    RunSuite,
    finish,
    kept,
    pause,
)


class InboxConformance(RunSuite):
    """Who sees a run."""

    # --- whose run it is ---

    @pytest.mark.parametrize("owned", [True, False])
    async def test_anybody_else_s_run_is_not_found(self, storage: Storage, owned: bool) -> None:
        s, user = unique("session"), unique("user") if owned else None
        mine = self.memory(storage, s, user)
        id = await pause(mine, APPROVAL)
        before = await kept(storage, s, id)
        others = [
            self.memory(storage, s, unique("other")),
            self.memory(storage, unique("session"), unique("other")),
            self.memory(storage, unique("session")),
            self.memory(storage, s, None if owned else unique("other")),
        ]
        for other in others:
            for _ in range(2):
                with pytest.raises(RunNotFoundError):
                    async with other.resume(id, require_decisions=False):
                        pytest.fail("entered")
                with pytest.raises(RunNotFoundError):
                    await other.decide(id, "ok", approved=True)
                assert await other.checkpoints() == []
            assert await kept(storage, s, id) == before
        assert [each.run_id for each in await mine.checkpoints()] == [id]
        await finish(mine, id)
        for other in others:
            with pytest.raises(RunNotFoundError):
                async with other.resume(id):
                    pytest.fail("entered")

    async def test_unknown_runs_are_not_found(self, storage: Storage) -> None:
        memory, id = self.memory(storage, unique("session"), unique("user")), unique("run")
        inbox = self.inbox(storage)
        for call in (inbox.get, inbox.decisions, inbox.discard, inbox.memory_for):
            with pytest.raises(RunNotFoundError):
                await call(id)
        for decide in (memory.decide, inbox.decide):
            with pytest.raises(RunNotFoundError):
                await decide(id, "ok", approved=True)
        with pytest.raises(RunNotFoundError):
            async with memory.resume(id):
                pytest.fail("entered")
        assert await memory.session() is None

    async def test_a_user_s_own_runs_in_all_sessions(self, storage: Storage) -> None:
        user, id = unique("user"), unique("run")
        memories = [self.memory(storage, unique("session"), user) for _ in range(3)]
        runs = [await pause(memory, APPROVAL) for memory in memories]
        assert [each.run_id for each in await memories[1].checkpoints()] == runs[::-1]
        assert len(await memories[1].checkpoints(limit=2)) == 2
        assert await memories[1].checkpoints(status="error") == []
        await memories[2].decide(runs[0], "ok", approved=True)
        async with memories[1].resume(runs[0]) as run:
            run.add(ANSWER)
        found = await memories[0].checkpoints(status="paused")
        assert [each.run_id for each in found] == runs[:0:-1]
        for memory in memories[:2]:
            await pause(memory, APPROVAL, run_id=id)
        with pytest.raises(ConfigurationError, match="several sessions"):
            await memories[2].decide(id, "ok", approved=True)
        await memories[0].decide(id, "ok", approved=True)
        found = await memories[1].checkpoints()
        assert [each.run_id for each in found].count(id) == 2

    # --- the inbox ---

    async def test_the_inbox_lists_what_it_is_asked_for_newest_first(self, fresh: Storage) -> None:
        runs: list[tuple[str, str, str, str]] = []
        for number in range(12):
            user, agent = f"user {number % 2}", f"agent {number % 3}"
            memory = self.memory(fresh, f"s{number % 5}", f"user {number % 2}", agent_id=agent)
            memory = memory.bind(session_id=f"s{number}")
            ends = "error" if number % 4 == 0 else "paused"
            if ends == "paused":
                id = await pause(memory, APPROVAL)
            else:
                with pytest.raises(ZeroDivisionError):
                    async with memory.run(HI) as run:
                        raise ZeroDivisionError
                id = run.run_id
            runs.insert(0, (id, user, agent, ends))
        inbox = self.inbox(fresh)
        for status in (None, *get_args(CheckpointStatus)):
            for user_id in (None, "user 0", "user 1", "nobody"):
                for agent_id in (None, "agent 0", "agent 2", "none"):
                    expected = [
                        run[0]
                        for run in runs
                        if user_id in (None, run[1])
                        and agent_id in (None, run[2])
                        and status in (None, run[3])
                    ]
                    found: list[Checkpoint] = []
                    while page := await inbox.list(
                        status=status,
                        user_id=user_id,
                        agent_id=agent_id,
                        limit=2,
                        before=found[-1] if found else None,
                    ):
                        assert len(page) <= 2
                        found += page
                    assert [each.run_id for each in found] == expected
        assert await inbox.list(limit=0) == []
        everything = await inbox.list()
        place = everything[3].cursor
        assert await inbox.list(before=place) == everything[4:]

    async def test_runs_of_one_id_are_told_apart_by_their_checkpoint(
        self, storage: Storage
    ) -> None:
        inbox, id, sessions = self.inbox(storage), unique("run"), [unique("s"), unique("s")]
        for session_id in sessions:
            await pause(self.memory(storage, session_id, unique("user")), APPROVAL, run_id=id)
        for call in (inbox.get, inbox.discard):
            with pytest.raises(ConfigurationError, match="several sessions"):
                await call(id)
        one, other = [(await kept(storage, each, id)).checkpoint for each in sessions]
        assert one
        assert other
        await inbox.decide(one, "ok", approved=True)
        assert list(await inbox.decisions(one)) == ["ok"]
        assert list(await inbox.decisions(other)) == []
        memory = await inbox.memory_for(one)
        assert (memory.session_id, memory.user_id) == (one.session_id, one.user_id)
        await inbox.discard(other)
        assert await kept(storage, sessions[1], id) == NOTHING
        for call in (inbox.get, inbox.discard):
            with pytest.raises(RunNotFoundError):
                await call(other)
        assert (await inbox.get(id)).session_id == sessions[0]

    @pytest.mark.parametrize("owned", [True, False])
    async def test_the_inbox_gives_a_memory_to_resume_with(
        self, storage: Storage, owned: bool
    ) -> None:
        s, user = unique("session"), unique("user") if owned else None
        id = await pause(self.memory(storage, s, user), APPROVAL)
        inbox = self.inbox(storage)
        await inbox.decide(id, "ok", approved=True)
        memory = await inbox.memory_for(id, full_session_memory=True)
        assert (memory.session_id, memory.user_id) == (s, user)
        async with memory.resume(id) as run:
            run.add(ANSWER)
        await memory.close()
        assert seqs(await storage.history(s)) == [1]
        with pytest.raises((RunNotFoundError, RunAlreadyCompletedError)):
            await inbox.get(id)

    async def test_a_discarded_run_is_gone(self, storage: Storage) -> None:
        s = unique("session")
        memory, inbox = self.memory(storage, s, full_session_memory=True), self.inbox(storage)
        id, other = await pause(memory, APPROVAL), await pause(memory, APPROVAL)
        for run_id in (id, other):
            await memory.decide(run_id, "ok", approved=True)
        await inbox.discard(id)
        assert await kept(storage, s, id) == NOTHING
        assert len((await kept(storage, s, other)).decisions) == 1
        assert await storage.history(s, trimmed=True) == []
        with pytest.raises(RunNotFoundError):
            async with memory.resume(id):
                pytest.fail("entered")
        async with memory.run("again", run_id=id) as run:  # it was never completed
            pass
        assert run.turn

    # --- forgetting ---

    @pytest.mark.parametrize("how", ["forget", "delete"])
    @pytest.mark.parametrize("end", ["end", "pause", "error", "checkpoint"])
    async def test_a_run_does_not_bring_back_what_was_forgotten(
        self, storage: Storage, how: str, end: str
    ) -> None:
        s, user = unique("session"), unique("user")
        memory = self.memory(storage, s, user, full_session_memory=True)
        await memory.save(ASK)
        expected = ZeroDivisionError if end == "error" else LeaseLostError
        with pytest.raises(expected):
            async with memory.run(HI) as run:
                run.add(ANSWER)
                await run.checkpoint(1)
                await (memory.forget_user() if how == "forget" else memory.delete_session())
                if end == "pause":
                    run.pause(2, [APPROVAL])
                elif end == "checkpoint":
                    await run.checkpoint(2)
                elif end == "error":
                    raise ZeroDivisionError
        for kind in ("checkpoint", "lease", "decision"):
            assert await storage.find(kind, in_session(s)) == []
        assert await storage.history(s, trimmed=True) == []
        assert await memory.session() is None
        assert await memory.sessions() == []
        assert await memory.checkpoints() == []
        await memory.save(ASK)  # a new start
        assert seqs(await storage.history(s)) == [1]

    async def test_a_run_that_begins_while_its_session_is_deleted_is_found_when_forgetting(
        self, storage: Storage
    ) -> None:
        s, user = unique("session"), unique("user")
        memory = self.memory(storage, s, user, full_session_memory=True)
        await memory.save(ASK)

        class Late(Around):
            async def apply(self, *writes: Write) -> Any:
                await memory.delete_session()
                self.apply = self.storage.apply  # type: ignore[method-assign]
                return await self.storage.apply(*writes)

        with pytest.raises(LeaseLostError):
            async with self.memory(Late(storage), s, user, full_session_memory=True).run(HI):
                assert len(await memory.sessions()) == 1
                await memory.forget_user()
        assert await storage.find("checkpoint", in_session(s)) == []
        assert await memory.session() is None
