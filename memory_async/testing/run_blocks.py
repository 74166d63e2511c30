"""``async with memory.run(...)``: durable from its first moment, and every way to leave it."""

# What is named in a block that may swallow is "possibly unbound" after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from memory_async.errors import ConfigurationError, PayloadError, RunAlreadyCompletedError
from memory_async.run import Run
from memory_async.storage.protocol import Storage
from memory_async.testing.around import Recording
from memory_async.testing.material import header, texts, unique
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
from memory_async.testing.suite import MakeStorage, two_objects

NOT_JSON: dict[str, Any] = {
    "object": object(),
    "set": {"a": {1}},
    "NaN": [float("nan")],
    "surrogate": "\ud800",
    "number as key": {1: 2},
    "bytes": b"",
}


async def _model(messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None) -> str:
    return f"A summary of {len(messages)}." if schema is None else '{"facts": ["has an order"]}'


class BlockConformance(RunSuite):
    """Entering a run, working in it, and leaving it."""

    # --- entering ---

    @two_objects
    async def test_a_run_is_durable_as_soon_as_it_is_entered(
        self, storage: Storage, make: MakeStorage
    ) -> None:
        s, user, other = unique("session"), unique("user"), make()
        memory = self.memory(storage, s, user, agent_id="shop", lease_seconds=30)
        async with memory.run(HI) as run:
            found = await kept(other, s, run.run_id)
            assert found.checkpoint
            assert found.lease
            assert [message.text for message in found.checkpoint.input] == [HI]
            assert (found.checkpoint.status, found.checkpoint.user_id) == ("running", user)
            assert (found.checkpoint.agent_id, found.checkpoint.messages) == ("shop", [])
            left = found.lease.until - await other.now(found.lease.key.partition)
            assert 0 < left.total_seconds() <= 30
            assert await other.history(s) == []
            assert (await header(other, s)).user_id == user

    @two_objects
    async def test_a_checkpoint_keeps_state_messages_and_usage(
        self, storage: Storage, make: MakeStorage
    ) -> None:
        s, other = unique("session"), make()
        state = {"step": 1, "": ["\0 \U0001f600", -0.5, None, True, {}, []], "naïve": 2**63}
        async with self.memory(storage, s).run(HI) as run:
            run.add([ASK, ANSWER])
            run.usage = {"input_tokens": 7}
            await run.checkpoint(state)
            assert run.state == state
            found = (await kept(other, s, run.run_id)).checkpoint
            assert found
            assert (found.state, found.usage) == (state, {"input_tokens": 7})
            assert [message.to_openai() for message in found.messages] == [ASK, ANSWER]
            run.add(ANSWER)
            await run.checkpoint()
            found = (await kept(other, s, run.run_id)).checkpoint
            assert found
            assert (found.state, len(found.messages)) == (state, 3)
            await run.checkpoint(None)
            found = (await kept(other, s, run.run_id)).checkpoint
            assert found
            assert found.state is None

    async def test_ten_megabytes_of_state(self, storage: Storage) -> None:
        s, state = unique("session"), {"pages": ["é" * 1_000_000] * 5}
        memory = self.memory(storage, s, full_session_memory=True)
        id = await pause(memory, state=state)
        async with memory.resume(id) as run:
            assert run.state == state
            await run.checkpoint({**state, "more": 1})
            run.add(ANSWER)
        assert await kept(storage, s, id) == NOTHING

    @pytest.mark.parametrize("state", NOT_JSON.values(), ids=NOT_JSON)
    async def test_what_is_not_json_is_refused_at_the_call(
        self, storage: Storage, state: Any
    ) -> None:
        s = unique("session")
        async with self.memory(storage, s, full_session_memory=True).run(HI) as run:
            await run.checkpoint({"good": 1})
            before = await kept(storage, s, run.run_id)
            with pytest.raises(PayloadError, match="state"):
                await run.checkpoint(state)
            with pytest.raises(PayloadError, match="state"):
                run.pause(state, [APPROVAL])
            with pytest.raises(PayloadError, match="usage"):
                run.usage = {"tokens": state}
            message = {"role": "assistant", "content": "x", "extra": state}
            with pytest.raises(PayloadError):
                run.add([ANSWER, message])
            assert (run.state, run.messages, run.usage) == ({"good": 1}, [], None)
            assert await kept(storage, s, run.run_id) == before
            run.add(ANSWER)
        assert run.status == "completed"
        assert texts(await storage.history(s)) == [HI, ANSWER["content"]]

    # --- the normal end ---

    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("summary", [False, True])
    @pytest.mark.parametrize("analysis", [False, True])
    async def test_the_end_leaves_a_turn_and_nothing_else(
        self, storage: Storage, full: bool, summary: bool, analysis: bool
    ) -> None:
        s, user, recording = unique("session"), unique("user"), Recording(storage)
        memory = self.memory(
            recording,
            s,
            user,
            full_session_memory=full,
            summary_memory=summary,
            user_analysis_memory=analysis,
            model=_model,
            summary_every=10,  # so that the turn can be looked at before a job takes it
        )
        id = await pause(memory, APPROVAL)
        async with memory.run("and order 8") as failed:
            failed.pause()
        assert (memory.jobs.queued, memory.jobs.done, memory.jobs.running) == (0, 0, 0)
        await memory.decide(id, "ok", approved=True)
        async with memory.resume(id) as run:
            run.add(ANSWER)
            run.usage = {"input_tokens": 3}
            before = len(recording.applied)
        assert (run.status, run.turn and run.turn.seq, run.turn and run.turn.run_id) == (
            ("completed", 1, id)
        )
        end = recording.applied[before]
        assert {"Append", "Delete", "Drop"} <= {type(write).__name__ for write in end}
        assert await kept(storage, s, id) == NOTHING
        [turn] = await storage.history(s, trimmed=True)
        assert (turn.run_id, turn.usage) == (id, {"input_tokens": 3})
        said = [HI, ASK["content"], ANSWER["content"]]
        if full or summary:
            assert texts([turn]) == said
        elif not analysis:
            assert texts([turn]) == []
        due = {name for name, on in [("summary", summary), ("profile:default", analysis)] if on}
        assert set((await header(storage, s)).jobs) == due
        await memory.drain()
        assert memory.jobs.done == len(due)
        await memory.close()

    async def test_a_run_with_nothing_to_persist_is_known_to_be_completed(
        self, storage: Storage
    ) -> None:
        s, user, id = unique("session"), unique("user"), unique("run")
        memory = self.memory(storage, s, user)
        async with memory.run(HI, run_id=id) as run:
            run.add(ANSWER)
        assert await storage.history(s) == []
        assert (await header(storage, s)).trimmed == 1
        elsewhere = self.memory(storage, unique("session"), user)
        for again in (memory.resume(id), elsewhere.resume(id), memory.run(HI, run_id=id)):
            with pytest.raises(RunAlreadyCompletedError) as info:
                async with again:
                    pytest.fail("entered")
            assert (info.value.turn.run_id, info.value.turn.seq) == (id, 1)
            assert info.value.turn.user_id == user

    async def test_another_writer_may_want_the_turns_kept(self, storage: Storage) -> None:
        s, user = unique("session"), unique("user")
        await self.memory(storage, s, user, full_session_memory=True).save(ASK)
        async with self.memory(storage, s, user).run(HI) as run:
            run.add(ANSWER)
        assert texts(await storage.history(s)) == [ASK["content"], HI, ANSWER["content"]]

    async def test_two_runs_in_one_session_at_once_leave_two_turns(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run("first") as one, memory.run("second") as other:
            await one.checkpoint(1)
            await other.checkpoint(2)
        assert texts(await storage.history(s)) == ["second", "first"]

    # --- pausing ---

    async def test_a_pause_leaves_the_block_at_once(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        went_on = []

        async def tool(run: Run[Any]) -> NoReturn:
            try:
                run.pause({"step": 1}, [APPROVAL])
            except Exception:  # noqa: BLE001 - as an agent around its tools
                went_on.append("caught")
            went_on.append("charged")
            raise AssertionError("not left")

        async with memory.run(HI) as run:
            run.add(ASK)
            run.usage = {"input_tokens": 5}
            await tool(run)
        assert (run.status, went_on, run.turn) == ("paused", [], None)
        found = await kept(storage, s, run.run_id)
        assert found.checkpoint
        assert (found.status, found.lease, found.checkpoint.state) == ("paused", None, {"step": 1})
        assert found.checkpoint.requirements == [APPROVAL]
        assert found.checkpoint.usage == {"input_tokens": 5}
        assert [message.to_openai() for message in found.checkpoint.messages] == [ASK]
        assert await storage.history(s) == []

    async def test_a_pause_in_a_task_group_is_one(self, storage: Storage) -> None:
        memory = self.memory(storage, unique("session"))

        async def tool(run: Run[Any]) -> None:
            run.pause({"step": 1}, [APPROVAL])

        async with memory.run(HI) as run, asyncio.TaskGroup() as group:
            group.create_task(tool(run))
            group.create_task(asyncio.Event().wait())
        assert run.status == "paused"

    async def test_a_pause_that_was_swallowed_is_one_all_the_same(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run(HI) as run:
            try:
                run.pause({"step": 1}, [APPROVAL])
            except BaseException:  # noqa: BLE001 - as some frameworks do
                run.add(ANSWER)
        assert run.status == "paused"
        found = await kept(storage, s, run.run_id)
        assert (found.status, found.lease) == ("paused", None)
        assert await storage.history(s) == []

    async def test_the_pause_of_an_outer_run_goes_through_an_inner_one(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run("outer") as outer:
            async with memory.run("inner") as inner:
                outer.pause("state of outer", [APPROVAL])
            pytest.fail("went on")
        assert (outer.status, inner.status) == ("paused", "cancelled")
        assert (await kept(storage, s, outer.run_id)).status == "paused"
        found = await kept(storage, s, inner.run_id)
        assert (found.status, found.lease) == ("cancelled", None)
        await finish(memory, inner.run_id)
        assert texts(await storage.history(s)) == ["inner", ANSWER["content"]]

    async def test_the_pause_of_an_inner_run_leaves_the_inner_block(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        async with memory.run("outer") as outer:
            async with memory.run("inner") as inner:
                inner.pause()
            outer.add(ANSWER)
        assert (outer.status, inner.status) == ("completed", "paused")
        assert texts(await storage.history(s)) == ["outer", ANSWER["content"]]

    async def test_a_block_is_entered_once_and_over_when_it_is_left(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        block = memory.run(HI)
        async with block as run:
            with pytest.raises(ConfigurationError, match="once"):
                async with block:
                    pytest.fail("entered")
            run.add(ANSWER)
        assert run.status == "completed"
        before = await storage.history(s)
        with pytest.raises(ConfigurationError, match="completed"):
            run.add(ANSWER)
        with pytest.raises(ConfigurationError, match="completed"):
            run.pause()
        with pytest.raises(ConfigurationError, match="completed"):
            await run.checkpoint()
        assert await storage.history(s) == before
        assert await kept(storage, s, run.run_id) == NOTHING
