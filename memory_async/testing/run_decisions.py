"""What a run waits for, who decides it, and who may see it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from memory_async.errors import (
    ConflictError,
    DecisionMissingError,
    PayloadError,
    RunAlreadyCompletedError,
    RunNotFoundError,
)
from memory_async.records import Decision, Requirement
from memory_async.storage.protocol import Storage, Write
from memory_async.testing.around import Around
from memory_async.testing.material import seqs, unique
from memory_async.testing.run_suite import (
    ANSWER,
    APPROVAL,
    NOTHING,
    RunSuite,
    finish,
    kept,
    pause,
)

TOOL = Requirement("call-1", "external_tool", "ship", {"to": "Ω", "n": [1, {"a": None}]})
QUESTION = Requirement("q", "question", prompt="Which order? \0 “7” or “8”?")
STRANGE = Requirement("a/b %{} é\u200b\U0001f600", "approval", "", {}, "")

HI = {"role": "user", "content": "Hi"}


class DecisionConformance(RunSuite):
    """Requirements, decisions, `Inbox`, and whose run it is."""

    async def test_a_run_waits_for_all_kinds_of_answers(self, storage: Storage) -> None:
        s, user = unique("session"), unique("user")
        memory, inbox = self.memory(storage, s, user), self.inbox(storage)
        id = await pause(memory, APPROVAL, TOOL, QUESTION, STRANGE, run_id=unique("Ω"))
        waiting = [APPROVAL, TOOL, QUESTION, STRANGE]
        assert (await inbox.get(id)).requirements == waiting
        for number, each in enumerate(waiting):
            assert set(await inbox.decisions(id)) == {one.id for one in waiting[:number]}
            with pytest.raises(DecisionMissingError, match="waits for") as info:
                async with memory.resume(id):
                    pytest.fail("entered")
            assert repr(each.id) in str(info.value)
            approval = each.kind == "approval"
            made = await (memory, inbox)[number % 2].decide(
                id,
                each.id,
                approved=not number if approval else None,
                value=None if approval else {"tracking": ["é", 1, {}]},
                by="bob \0",
                note="",
            )
            assert (made.requirement_id, made.by, made.note) == (each.id, "bob \0", "")
        async with memory.resume(id) as run:
            assert run.requirements == waiting
            assert run.decisions == await inbox.decisions(id)
            assert (run.decisions["ok"].approved, run.decisions[STRANGE.id].approved) == (
                (True, False)
            )
            assert run.decisions["q"].value == {"tracking": ["é", 1, {}]}
            assert run.decisions["q"].created_at.tzinfo
            run.add(ANSWER)
        assert await kept(storage, s, id) == NOTHING

    async def test_a_run_may_be_resumed_before_it_is_decided(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        id = await pause(memory, APPROVAL, QUESTION)
        await memory.decide(id, "q", value="7")
        async with memory.resume(id, require_decisions=False) as run:
            assert list(run.decisions) == ["q"]
            await memory.decide(id, "ok", approved=False)  # late, but it is still asked for
            run.add(ANSWER)
        assert await kept(storage, s, id) == NOTHING

    async def test_a_resumed_run_may_ask_again(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        id = await pause(memory, APPROVAL, QUESTION)
        await memory.decide(id, "ok", approved=True, by="bob")
        async with memory.resume(id, require_decisions=False) as run:
            with pytest.raises(PayloadError, match="decided before"):
                run.pause(1, [APPROVAL])
            other = Requirement("q", "question", prompt="And which card?")
            with pytest.raises(PayloadError, match="another question"):
                run.pause(1, [other])
            assert (run.state, run.requirements) == (None, [APPROVAL, QUESTION])
            run.pause(2, [QUESTION, TOOL])
        for requirement in ("ok", "x"):
            with pytest.raises(RunNotFoundError, match="waits for 'q', 'call-1'"):
                await memory.decide(id, requirement, approved=True)
        await memory.decide(id, "q", value=["7"])
        await memory.decide(id, "call-1", value={"shipped": True})
        async with memory.resume(id) as run:
            assert (run.state, run.requirements) == (2, [QUESTION, TOOL])
            assert {name: made.by for name, made in run.decisions.items()} == (
                {"ok": "bob", "q": None, "call-1": None}
            )
            run.pause(3)
        async with memory.resume(id) as run:
            run.add(ANSWER)
        assert seqs(await storage.history(s)) == [1]
        assert await kept(storage, s, id) == NOTHING

    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
    async def test_a_resumed_run_may_fail_and_keeps_its_decisions(
        self, storage: Storage, failure: type[BaseException]
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        id = await pause(memory, APPROVAL)
        await memory.decide(id, "ok", approved=True)
        with pytest.raises(failure):
            async with memory.resume(id) as run:
                raise failure
        async with memory.resume(id) as run:
            assert run.decisions["ok"].approved
            run.add(ANSWER)
        assert run.turn

    # --- the same decision, and another one ---

    async def test_the_first_decision_counts(self, storage: Storage) -> None:
        memory = self.memory(storage, unique("session"))
        id = await pause(memory, APPROVAL, QUESTION)
        first = await memory.decide(id, "ok", approved=True, by="bob", note="fine")
        again = await memory.decide(id, "ok", approved=True, by="eve", note="me too")
        assert again == first
        with pytest.raises(ConflictError) as info:
            await self.inbox(storage).decide(id, "ok", approved=False, by="eve")
        assert "bob" in str(info.value)
        assert first.created_at.isoformat() in str(info.value)
        value = {"a": (1, 2)}
        answer = await memory.decide(id, "q", value=value)
        assert (await memory.decide(id, "q", value=value)).created_at == answer.created_at
        for other in ({"a": [1, 2, 3]}, "1", 0, False):
            with pytest.raises(ConflictError, match="somebody"):
                await memory.decide(id, "q", value=other)
        assert (await self.inbox(storage).decisions(id))["ok"] == first

    async def test_of_many_decisions_at_once_one_counts(self, storage: Storage) -> None:
        memory = self.memory(storage, unique("session"))
        id = await pause(memory, APPROVAL)
        answers = await asyncio.gather(
            *[memory.decide(id, "ok", approved=bool(n % 2), by=f"{n}") for n in range(10)],
            return_exceptions=True,
        )
        made = {each.by: each.approved for each in answers if isinstance(each, Decision)}
        assert len(made) == 1
        assert sum(isinstance(each, ConflictError) for each in answers) == 5
        stored = (await self.inbox(storage).decisions(id))["ok"]
        assert made == {stored.by: stored.approved}

    # --- ends that come in between ---

    @pytest.mark.parametrize("end", ["completed", "discarded", "forgotten", "deleted", "re-asked"])
    async def test_a_decision_in_the_last_moment_leaves_nothing_behind(
        self, storage: Storage, end: str
    ) -> None:
        s, user = unique("session"), unique("user")
        memory = self.memory(storage, s, user, full_session_memory=True)
        id = await pause(memory, APPROVAL)

        async def come_in_between() -> None:
            if end == "completed":
                await finish(memory, id)
            elif end == "discarded":
                await self.inbox(storage).discard(id)
            elif end == "forgotten":
                await memory.forget_user()
            elif end == "deleted":
                assert await memory.delete_session()
            else:
                async with memory.resume(id, require_decisions=False) as run:
                    run.pause(1, [QUESTION])

        class Late(Around):
            async def apply(self, *writes: Write) -> Any:
                await come_in_between()
                self.apply = self.storage.apply  # type: ignore[method-assign]
                return await self.storage.apply(*writes)

        with pytest.raises(RunNotFoundError):
            await self.inbox(Late(storage)).decide(id, "ok", approved=True)
        found = await kept(storage, s, id)
        assert found.decisions == []
        assert found.lease is None
        assert (found.checkpoint is not None) == (end == "re-asked")
        assert len(await storage.history(s)) == (end == "completed")

    async def test_a_run_that_ends_meanwhile_does_not_wait_for_a_decision(
        self, storage: Storage
    ) -> None:
        s = unique("session")
        memory = self.memory(storage, s, full_session_memory=True)
        id = await pause(memory, APPROVAL)
        await memory.decide(id, "ok", approved=True)

        class Late(Around):
            async def find(self, *args: Any, **kwargs: Any) -> Any:
                if args[0] == "decision":
                    await finish(memory, id)
                return await super().find(*args, **kwargs)

        with pytest.raises(RunAlreadyCompletedError):
            async with self.memory(Late(storage), s).resume(id):
                pytest.fail("entered")

    async def test_a_run_that_moves_is_decided_all_the_same(self, storage: Storage) -> None:
        s = unique("session")
        memory = self.memory(storage, s)
        id = await pause(memory, APPROVAL)

        class Late(Around):
            moves = 3

            async def apply(self, *writes: Write) -> Any:
                if self.moves:
                    self.moves -= 1
                    with pytest.raises(KeyError):
                        async with memory.resume(id, require_decisions=False):
                            raise KeyError
                return await super().apply(*writes)

        made = await self.inbox(Late(storage)).decide(id, "ok", approved=True)
        assert (await kept(storage, s, id)).decisions == [made]
