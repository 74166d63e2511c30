"""Appending turns: order, idempotency, and who owns a session."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from memory_async.errors import SessionOwnershipError
from memory_async.keys import Key
from memory_async.message import Message
from memory_async.records import Session
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Append,
    Delete,
    Put,
    Result,
    Storage,
    Trim,
)
from memory_async.testing.material import (
    append,
    at,
    changed,
    contents,
    fill,
    header,
    in_session,
    item,
    put,
    seqs,
    session_key,
    texts,
    unique,
)
from memory_async.testing.suite import Suite, promises
from memory_async.turns import Turn


class LogConformance(Suite):
    """`Append`: the next seq, once for each run, and only for the session's owner."""

    async def test_the_first_turn_creates_the_session(self, storage: Storage) -> None:
        s, ann = unique("session"), unique("user")
        given = Session(
            session_id=s, user_id=ann, agent_id="bot", metadata={"a": [1]}, created_at=at(7)
        )
        turn = Turn(session_id=s, user_id=ann, messages=[Message(role="user", content="hi")])
        assert await storage.get(given.key) is None
        assert await storage.apply(Append(turn, given)) == [Result(True, replace(turn, seq=1))]
        stored = await header(storage, s)
        assert (stored.user_id, stored.agent_id, stored.metadata) == (ann, "bot", {"a": [1]})
        assert (stored.last_seq, stored.trimmed, stored.jobs) == (1, 0, {})
        assert (stored.created_at, stored.version) == (at(7), given.version)
        assert not stored.keep_turns
        assert not stored.lagging

    async def test_later_turns_leave_the_header_alone(self, storage: Storage) -> None:
        s = unique("session")
        given = Session(session_id=s, agent_id="bot", metadata={"a": 1}, created_at=at(0))
        await storage.apply(replace(append(s), session=given))
        other = Session(session_id=s, agent_id="other", metadata={"b": 2}, created_at=at(9))
        await storage.apply(replace(append(s), session=other))
        stored = await header(storage, s)
        assert (stored.agent_id, stored.metadata) == ("bot", {"a": 1})
        assert (stored.version, stored.created_at) == (given.version, at(0))
        assert stored.last_seq == 2

    async def test_turns_are_numbered_from_one_in_order(self, storage: Storage) -> None:
        s = unique("session")
        assert seqs(await fill(storage, s, 5)) == [1, 2, 3, 4, 5]
        turns = await storage.history(s)
        assert seqs(turns) == [1, 2, 3, 4, 5]
        assert texts(turns) == ["1", "2", "3", "4", "5"]

    async def test_a_turn_comes_back_as_it_was_written(self, storage: Storage) -> None:
        s, ann = unique("session"), unique("user")
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        turn = Turn(
            session_id=s,
            user_id=ann,
            run_id=unique("run"),
            messages=[
                Message(role="user", content="What is it?", created_at=at(1)),
                Message.parse({"role": "assistant", "content": None, "tool_calls": [call], "x": 1}),
                Message(role="tool", tool_call_id="c1", content=[{"type": "text", "text": "42"}]),
                Message(role="assistant", content="42", name="bot"),
            ],
            usage={"input_tokens": 12, "cost": 0.1},
            created_at=at(123),
        )
        await storage.apply(Append(turn, Session(session_id=s, user_id=ann)))
        expected = replace(turn, seq=1)
        assert await storage.history(s) == [expected]
        assert await storage.get(turn.key) == expected
        assert (await storage.snapshot(s)).turns == [expected]
        assert expected.messages[1].to_openai() == {
            "role": "assistant", "content": None, "tool_calls": [call], "x": 1
        }  # fmt: skip

    async def test_a_turn_is_found_by_its_run_in_its_session_only(self, storage: Storage) -> None:
        s, other, run = unique("session"), unique("session"), unique("run")
        assert await storage.get(Key("turn", in_session(s), run)) is None
        await storage.apply(append(s, "one", run_id=run))
        await storage.apply(append(other, "two", run_id=run))
        assert await storage.get(Key("turn", in_session(s), unique("run"))) is None
        for session_id, text in ((s, "one"), (other, "two")):
            turn = await storage.get(Key("turn", in_session(session_id), run))
            assert isinstance(turn, Turn)
            assert (turn.seq, texts([turn])) == (1, [text])

    @pytest.mark.parametrize("usage", [None, {}, {"tokens": 0}])
    async def test_usage_is_kept_also_when_it_is_empty(
        self, storage: Storage, usage: dict[str, int] | None
    ) -> None:
        s = unique("session")
        await storage.apply(append(s, usage=usage))
        assert (await storage.history(s))[0].usage == usage

    # --- the same run again ---

    async def test_the_same_run_is_stored_once(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        [first] = await storage.apply(append(s, "first", run_id=run, usage={"n": 1}))
        await storage.apply(append(s, "between"))
        [again] = await storage.apply(append(s, "second", run_id=run))
        assert again == Result(False, first.turn)
        assert texts(await storage.history(s)) == ["first", "between"]
        assert (await header(storage, s)).last_seq == 2

    async def test_a_batch_with_a_known_run_counts_as_applied(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        where = in_session(s)
        stored = item(where, "stored", 1)
        await storage.apply(Put(stored, ABSENT), append(s, run_id=run))
        before = await contents(storage, s)
        results = await storage.apply(
            Put(changed(stored), "a version nobody wrote"),
            Put(item(where, "new"), ABSENT),
            append(s, "again", run_id=run, due=("job",), keep_turns=True),
            Put(Session(session_id=s, metadata={"new": 1}), ABSENT),
            Trim(s),
        )
        assert [result.created for result in results] == [False] * 5
        assert [result.turn is not None for result in results] == [False, False, True, False, False]
        assert results[2].turn == (await storage.history(s))[0]
        assert await contents(storage, s) == before

    async def test_a_run_is_known_after_it_was_trimmed(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        [first] = await storage.apply(append(s, run_id=run, usage={"tokens": 3}))
        assert first.turn is not None
        await storage.apply(Trim(s))
        [again] = await storage.apply(append(s, run_id=run))
        assert again.created is False
        assert again.turn is not None
        assert (again.turn.seq, again.turn.run_id, again.turn.messages) == (1, run, [])
        assert (again.turn.usage, again.turn.created_at) == ({"tokens": 3}, first.turn.created_at)
        assert (await header(storage, s)).last_seq == 1

    @promises("unique seq")
    async def test_the_same_run_forty_times_at_once_is_one_turn(self, storage: Storage) -> None:
        s, run = unique("session"), unique("run")
        attempts = [append(s, str(number), run_id=run) for number in range(40)]
        answers = await asyncio.gather(*map(storage.apply, attempts))
        [stored] = await storage.history(s)
        assert [result.turn for [result] in answers] == [stored] * 40
        assert sum(result.created for [result] in answers) == 1

    @promises("unique seq")
    async def test_many_writers_lose_and_double_nothing(self, storage: Storage) -> None:
        s, writers, each = unique("session"), 12 if self.thorough else 6, 10
        await storage.apply(append(s, "0"))  # so that nobody's owner check meets a missing header

        async def write(writer: int) -> list[int]:
            done = []
            for number in range(each):
                [result] = await storage.apply(append(s, f"{writer}.{number}"))
                assert result.created
                assert result.turn is not None
                done.append(result.turn.seq)
            return done

        answers = await asyncio.gather(*map(write, range(writers)))
        turns = await storage.history(s)
        assert seqs(turns) == list(range(1, 2 + writers * each))
        assert sorted(seq for answer in answers for seq in answer) == list(
            range(2, 2 + writers * each)
        )
        assert all(answer == sorted(answer) for answer in answers)
        said = texts(turns)
        assert len(set(said)) == 1 + writers * each

    @promises("unique seq")
    async def test_many_writers_may_create_one_session_together(self, storage: Storage) -> None:
        s = unique("session")
        await asyncio.gather(*[storage.apply(append(s, str(n), due=("job",))) for n in range(20)])
        assert seqs(await storage.history(s)) == list(range(1, 21))
        stored = await header(storage, s)
        assert (stored.last_seq, list(stored.jobs)) == (20, ["job"])

    # --- owners ---

    @pytest.mark.parametrize(
        ("owner", "writer"), [("ann", "bob"), ("ann", None), (None, "ann"), ("ann", "Ann")]
    )
    async def test_a_session_belongs_to_who_first_wrote_it(
        self, storage: Storage, owner: str | None, writer: str | None
    ) -> None:
        s, run = unique("session"), unique("run")
        await storage.apply(append(s, run_id=run, user_id=owner))
        stored = await header(storage, s)
        before = await contents(storage, s)
        foreign = Session(session_id=s, user_id=writer, metadata={"mine": True})
        with pytest.raises(SessionOwnershipError):
            await storage.apply(append(s, user_id=writer))
        with pytest.raises(SessionOwnershipError):  # also of a run that is known
            await storage.apply(append(s, run_id=run, user_id=writer))
        for when in (stored.version, ABSENT, ALWAYS, "another version"):
            with pytest.raises(SessionOwnershipError):
                await storage.apply(Put(foreign, when))
        with pytest.raises(SessionOwnershipError):  # also where it would be applied already
            await storage.apply(Put(replace(foreign, version=stored.version), stored.version))
        assert await contents(storage, s) == before

    async def test_the_owner_is_checked_before_any_condition(self, storage: Storage) -> None:
        s = unique("session")
        stored = item(in_session(s), "stored")
        await put(storage, stored)
        await storage.apply(append(s, user_id="ann"))
        with pytest.raises(SessionOwnershipError):
            await storage.apply(Put(changed(stored), ABSENT), append(s, user_id="bob"))

    async def test_the_owner_is_not_told_to_others(self, storage: Storage) -> None:
        s, ann = unique("session"), unique("user")
        await storage.apply(append(s, user_id=ann))
        with pytest.raises(SessionOwnershipError) as caught:
            await storage.apply(append(s, user_id="bob"))
        assert ann not in str(caught.value)
        assert s in str(caught.value)

    async def test_a_deleted_session_has_no_owner_any_more(self, storage: Storage) -> None:
        s = unique("session")
        await storage.apply(append(s, user_id="ann"))
        await storage.apply(Delete(session_key(s)))
        await storage.apply(append(s, user_id="bob"))
        assert (await header(storage, s)).user_id == "bob"
