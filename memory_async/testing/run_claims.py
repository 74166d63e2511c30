"""Who works on a run: one worker at a time, and what another one may do when it is gone."""

# ruff: noqa: PT012 - a run's block has a middle, and is left from there
# What is named in a block that may swallow is "possibly unbound" after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory_async.errors import (
    ConflictError,
    LeaseLostError,
    RunAlreadyClaimedError,
    RunAlreadyCompletedError,
)
from memory_async.run import RunBlock, RunPaused
from memory_async.storage.protocol import Put, Storage, Write
from memory_async.testing.around import Clock, Later
from memory_async.testing.material import append, changed, seqs, texts, unique
from memory_async.testing.run_suite import (
    ANSWER,
    APPROVAL,
    ASK,
    HI,
    NOTHING,
    RunSuite,
    kept,
    pause,
)
from memory_async.testing.suite import MakeStorage, promises


class ClaimConformance(RunSuite):
    """Claims: leases, and the checkpoint's version as token."""

    async def test_a_run_is_one_worker_s_at_a_time(self, storage: Storage) -> None:
        s, user = unique("session"), unique("user")
        memory = self.memory(storage, s, user, full_session_memory=True, lease_seconds=40)
        elsewhere = self.memory(storage, unique("session"), user)
        id = await pause(memory)
        for block in (memory.run(HI, run_id=unique("run")), memory.resume(id)):
            async with block as run:
                before = await kept(storage, s, run.run_id)
                assert before.lease
                for other in (memory, elsewhere):
                    with pytest.raises(RunAlreadyClaimedError) as info:
                        async with other.resume(run.run_id):
                            pytest.fail("entered")
                    assert info.value.until == before.lease.until
                    assert str(info.value.until.year) in str(info.value)
                assert await kept(storage, s, run.run_id) == before
                run.add(ANSWER)
            assert run.status == "completed"
        assert seqs(await storage.history(s)) == [1, 2]

    @pytest.mark.parametrize("end", ["checkpoint", "pause", "end", "error", "cancelled"])
    @pytest.mark.parametrize("meanwhile", ["working", "paused", "completed", "discarded"])
    async def test_a_worker_that_lost_its_lease_can_do_nothing(
        self, storage: Storage, end: str, meanwhile: str
    ) -> None:
        s = unique("session")
        mine = self.memory(storage, s, full_session_memory=True)
        theirs = self.memory(Later(storage), s, full_session_memory=True)
        gone = KeyError("mine") if end == "error" else asyncio.CancelledError("mine")
        expected = type(gone) if end in ("error", "cancelled") else LeaseLostError
        before: Any = None
        other = theirs.resume("")
        with pytest.raises(expected) as info:
            async with mine.run(HI) as run:
                await run.checkpoint("mine")
                other = theirs.resume(run.run_id)
                if meanwhile == "discarded":
                    await self.inbox(storage).discard(run.run_id)
                else:
                    await self._take_over(other, meanwhile)
                before = await kept(storage, s, run.run_id), await storage.history(s)
                run.add({"role": "assistant", "content": "mine"})
                if end == "checkpoint":
                    with pytest.raises(LeaseLostError, match="taken over"):
                        await run.checkpoint("again mine")
                    assert (await kept(storage, s, run.run_id), await storage.history(s)) == before
                elif end == "pause":
                    run.pause("again mine")
                elif end != "end":
                    raise gone
        if end in ("error", "cancelled"):
            assert info.value is gone
        assert run.status in ("error", "cancelled")
        assert (await kept(storage, s, run.run_id), await storage.history(s)) == before
        if meanwhile == "working":  # and the other one goes on as if nothing had been
            await other.__aexit__(None, None, None)
        assert len(await storage.history(s)) == (meanwhile in ("completed", "working"))

    async def _take_over(self, block: RunBlock[Any], until: str) -> None:
        run = await block.__aenter__()
        assert run.state == "mine"
        await run.checkpoint("theirs")
        if until == "completed":
            await block.__aexit__(None, None, None)
        elif until == "paused":
            with pytest.raises(RunPaused) as paused:
                run.pause("theirs", [APPROVAL])
            assert await block.__aexit__(RunPaused, paused.value, None)

    @pytest.mark.parametrize("meanwhile", ["claimed", "renewed", "moved", "completed"])
    async def test_what_comes_in_between_a_look_and_a_claim(
        self, storage: Storage, meanwhile: str
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        left = memory.run(HI)  # by a worker whose lease has run out for those who look later
        run = await left.__aenter__()
        await run.checkpoint("first")
        other = self.memory(Later(storage), s, full_session_memory=True).resume(run.run_id)

        async def come_in_between() -> None:
            if meanwhile == "renewed":
                lease = (await kept(storage, s, run.run_id)).lease
                assert lease
                until = lease.until + timedelta(days=1)
                await storage.apply(Put(changed(lease, until=until), lease.version))
            elif meanwhile == "moved":
                await run.checkpoint("second")
            else:
                await other.__aenter__()
                if meanwhile == "completed":
                    await other.__aexit__(None, None, None)

        class Late(Later):
            async def apply(self, *writes: Write) -> Any:
                self.apply = super().apply  # type: ignore[method-assign]
                await come_in_between()
                return await super().apply(*writes)

        late = self.memory(Late(storage), s, full_session_memory=True)
        errors: dict[str, type[Exception]] = {
            "claimed": RunAlreadyClaimedError,
            "renewed": RunAlreadyClaimedError,
            "completed": RunAlreadyCompletedError,
        }
        if meanwhile == "moved":
            async with late.resume(run.run_id) as again:
                assert again.state == "second"
        else:
            with pytest.raises(errors[meanwhile]):
                async with late.resume(run.run_id):
                    pytest.fail("entered")
        if meanwhile == "renewed":
            await left.__aexit__(None, None, None)
        else:
            with pytest.raises(LeaseLostError):
                await left.__aexit__(None, None, None)
        if meanwhile == "claimed":
            await other.__aexit__(None, None, None)
        assert seqs(await storage.history(s)) == [1]

    async def test_a_claim_lasts_by_the_clock_of_the_storage(self, storage: Storage) -> None:
        s = unique("session")
        clock = Clock(storage, datetime(2001, 1, 1, tzinfo=UTC))
        memory = self.memory(clock, s, full_session_memory=True, lease_seconds=10)
        waiting = memory.run(HI, run_id=unique("run"))
        run = await waiting.__aenter__()
        found = await kept(storage, s, run.run_id)
        assert found.lease
        assert found.lease.until == clock.time + timedelta(seconds=10)
        clock.time += timedelta(seconds=9.999999)
        with pytest.raises(RunAlreadyClaimedError):
            async with memory.resume(run.run_id):
                pytest.fail("entered")
        clock.time += timedelta(microseconds=1)
        async with memory.resume(run.run_id) as again:
            again.add(ANSWER)
        with pytest.raises(LeaseLostError):
            await waiting.__aexit__(None, None, None)
        assert texts(await storage.history(s)) == [HI, ANSWER["content"]]

    # --- ids that are known ---

    async def test_a_run_id_is_used_once(self, storage: Storage) -> None:
        s, user, id = unique("session"), unique("user"), unique("run")
        memory = self.memory(storage, s, user, full_session_memory=True)
        async with memory.run(HI, run_id=id) as run:
            before = await kept(storage, s, id)
            with pytest.raises(ConflictError, match="open"):
                async with memory.run(HI, run_id=id):
                    pytest.fail("entered")
            with pytest.raises(ConflictError):
                await memory.save(ASK, run_id=id)
            assert await kept(storage, s, id) == before
            run.add(ANSWER)
        with pytest.raises(RunAlreadyCompletedError) as info:
            async with memory.run(HI, run_id=id):
                pytest.fail("entered")
        [turn] = await storage.history(s)
        assert info.value.turn == turn
        assert await kept(storage, s, id) == NOTHING
        saved = await memory.save(ASK, run_id=unique("run"))
        assert saved
        with pytest.raises(RunAlreadyCompletedError):
            async with memory.run(HI, run_id=saved.run_id):
                pytest.fail("entered")

    async def test_the_same_run_id_elsewhere_is_another_run(self, storage: Storage) -> None:
        ann, bob, id = unique("ann"), unique("bob"), unique("run")
        places = [(unique("session"), user) for user in (ann, ann, bob, None)]
        memories = [self.memory(storage, *place, full_session_memory=True) for place in places]
        for number, memory in enumerate(memories):
            await pause(memory, said=f"{number}", run_id=id)
        for number, memory in enumerate(memories):
            async with memory.resume(id) as run:
                assert [message.text for message in run.input] == [f"{number}"]
        for number, (session_id, _) in enumerate(places):
            assert texts(await storage.history(session_id))[0] == f"{number}"

    async def test_a_run_completed_while_one_of_its_id_begins_is_not_begun_again(
        self, storage: Storage
    ) -> None:
        s, id = unique("session"), unique("run")
        memory = self.memory(storage, s, full_session_memory=True)
        await memory.save(ASK)

        class Slow(Later):
            """After the look for a completed run, and before the write: another one completes."""

            async def apply(self, *writes: Write) -> Any:
                async with memory.run(HI, run_id=id):
                    pass
                self.apply = self.storage.apply  # type: ignore[method-assign]
                return await self.storage.apply(*writes)

        with pytest.raises(RunAlreadyCompletedError):
            async with self.memory(Slow(storage, 0), s).run(HI, run_id=id):
                pytest.fail("entered")
        assert await kept(storage, s, id) == NOTHING
        assert seqs(await storage.history(s)) == [1, 2]

    async def test_a_run_whose_turn_was_saved_apart_tidies_up(self, storage: Storage) -> None:
        s, id = unique("session"), unique("run")
        async with self.memory(storage, s, full_session_memory=True).run(HI, run_id=id) as run:
            await storage.apply(append(s, "apart", run_id=id))
        assert run.turn
        assert [message.text for message in run.turn.messages] == ["apart"]
        assert texts(await storage.history(s)) == ["apart"]
        assert await kept(storage, s, id) == NOTHING

    # --- resuming ---

    @pytest.mark.parametrize("end", ["paused", "error", "cancelled", "dead"])
    async def test_a_run_is_resumed_from_any_session_of_its_user(
        self, storage: Storage, end: str
    ) -> None:
        s, user = unique("session"), unique("user")
        memory = self.memory(storage, s, user, full_session_memory=True)
        await memory.save(ASK)
        block = memory.run(HI)
        run = await block.__aenter__()
        run.add(ANSWER)
        await run.checkpoint({"step": 1})
        if end == "paused":
            with pytest.raises(BaseException, match="paused") as info:
                run.pause()
            await block.__aexit__(info.type, info.value, info.tb)
        elif end == "error":
            await block.__aexit__(KeyError, KeyError("x"), None)
        elif end == "cancelled":
            await block.__aexit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        elsewhere = self.memory(
            Later(storage) if end == "dead" else storage,
            unique("session"),
            user,
            full_session_memory=True,
        )
        [found] = await elsewhere.checkpoints()
        assert found.status == ("running" if end == "dead" else end)
        async with elsewhere.resume(run.run_id) as again:
            assert (again.session_id, again.user_id, again.state) == (s, user, {"step": 1})
            assert [each["content"] for each in again.to_openai("Be kind.")] == [
                "Be kind.", ASK["content"], HI, ANSWER["content"]
            ]  # fmt: skip
        assert again.turn
        assert (again.turn.session_id, again.turn.seq) == (s, 2)
        assert await elsewhere.turns() == []
        if end == "dead":
            with pytest.raises(LeaseLostError):
                await block.__aexit__(None, None, None)
        for memory_of in (memory, elsewhere):
            with pytest.raises(RunAlreadyCompletedError) as completed:
                async with memory_of.resume(run.run_id):
                    pytest.fail("entered")
            assert completed.value.turn == replace(again.turn)

    @promises("compare-and-set")
    async def test_many_workers_complete_each_run_once(
        self, storage: Storage, make: MakeStorage
    ) -> None:
        user = unique("user")
        sessions = [unique("session") for _ in range(5 if self.thorough else 2)]
        runs = [
            await pause(self.memory(storage, session_id, user), run_id=unique("run"))
            for session_id in sessions
            for _ in range(3)
        ]
        other = make() if self.shared else storage
        completed: list[str] = []

        async def work(place: Storage) -> None:
            memory = self.memory(place, unique("session"), user, full_session_memory=True)
            for run_id in runs:
                try:
                    async with memory.resume(run_id) as run:
                        await run.checkpoint("mine")
                        run.add(ANSWER)
                except (RunAlreadyClaimedError, RunAlreadyCompletedError):
                    continue
                completed.append(run.run_id)

        await asyncio.gather(*[work(place) for place in (storage, other) * 3])
        assert sorted(completed) == sorted(runs)
        turns = [turn for session_id in sessions for turn in await storage.history(session_id)]
        assert sorted(turn.run_id for turn in turns) == sorted(runs)
        assert await self.memory(storage, sessions[0], user).checkpoints() == []
