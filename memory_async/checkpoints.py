"""Runs that are not done: finding them, and deciding what they wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from memory_async.claim import clear_run
from memory_async.errors import (
    ConfigurationError,
    ConflictError,
    RunAlreadyCompletedError,
    RunNotFoundError,
)
from memory_async.jsontext import dump_json, load_json
from memory_async.keys import Key, Partition, check_id, compound_prefix
from memory_async.records import Checkpoint, CheckpointStatus, Decision, Session
from memory_async.storage.protocol import ABSENT, Expect, Put, Storage
from memory_async.turns import Turn

__all__ = ["check_status", "decide", "decisions_of", "discard", "find_run"]


def check_status(status: object) -> None:
    """`ConfigurationError` unless it is None or one an open run can have."""
    if status is not None and status not in get_args(CheckpointStatus):
        known = ", ".join(get_args(CheckpointStatus))
        raise ConfigurationError(f"an open run is {known}; none is {status!r}")


async def find_run(
    storage: Storage,
    run_id: str,
    *,
    user_id: str | None = None,
    session_id: str | None = None,
) -> Checkpoint:
    """The open run ``run_id``: of the session, else of the user in any session; with neither, of
    anybody. `RunAlreadyCompletedError` when it is in a log, else `RunNotFoundError`."""
    check_id("run_id", run_id)
    if session_id is not None:
        found = await storage.get(Key("checkpoint", Partition("session", session_id), run_id))
        if isinstance(found, Checkpoint) and found.user_id == user_id:
            return found
    if session_id is None or user_id is not None:
        open_runs = await storage.find("checkpoint", id=run_id, user_id=user_id, limit=2)
        if len(open_runs) > 1:
            raise ConfigurationError(
                f"several sessions have an open run {run_id!r}: bind the session it belongs to, "
                "or give the inbox its Checkpoint"
            )
        for run in open_runs:
            if isinstance(run, Checkpoint):
                return run
    if turn := await _completed(storage, run_id, user_id, session_id):
        raise RunAlreadyCompletedError(f"run {run_id!r} is completed", turn)
    raise RunNotFoundError(f"there is no run {run_id!r} here")


async def _completed(
    storage: Storage, run_id: str, user_id: str | None, session_id: str | None
) -> Turn | None:
    """The turn a run left in the session, else in any session of the user, newest first."""
    if session_id is not None:
        session = await storage.get(Key("session", Partition("session", session_id), session_id))
        # Not the turn's own user: of a trimmed one that is gone.
        own = session if isinstance(session, Session) and session.user_id == user_id else None
        if own and (turn := await _turn(storage, own, run_id)):
            return turn
    if user_id is None:
        return None
    before = None
    while page := await storage.find("session", user_id=user_id, before=before, limit=500):
        for session in page:
            assert isinstance(session, Session)  # noqa: S101 - what was asked for
            if turn := await _turn(storage, session, run_id):
                return turn
        before = page[-1].cursor
    return None


async def _turn(storage: Storage, session: Session, run_id: str) -> Turn | None:
    found = await storage.get(Key("turn", session.key.partition, run_id))
    return replace(found, user_id=session.user_id) if isinstance(found, Turn) else None


async def decisions_of(storage: Storage, run: Checkpoint) -> dict[str, Decision]:
    """The decisions made so far, by requirement id."""
    found = await storage.find(
        "decision", run.key.partition, prefix=compound_prefix(run.run_id), limit=10_000
    )
    return {each.requirement_id: each for each in found if isinstance(each, Decision)}


async def decide(
    storage: Storage,
    run: Checkpoint,
    requirement_id: str,
    *,
    approved: bool | None,
    value: Any,
    by: str | None,
    note: str | None,
) -> Decision:
    """Store a human's answer. The same answer again changes nothing; another one is a
    `ConflictError`, and the first stays."""
    decision = Decision(
        session_id=run.session_id,
        run_id=run.run_id,
        requirement_id=check_id("requirement_id", requirement_id),
        approved=approved,
        value=value,
        by=by,
        note=note,
    )
    while True:
        _check_answer(run, decision)
        try:
            # The run must still be there: a decision of a forgotten user must not outlive it.
            await storage.apply(Expect(run.key, run.version), Put(decision, ABSENT))
        except ConflictError:
            made = await storage.get(decision.key)
            if isinstance(made, Decision):
                if (made.approved, made.value) == (approved, load_json(dump_json(value, "value"))):
                    return made
                raise ConflictError(
                    f"{requirement_id!r} of run {run.run_id!r} was decided by "
                    f"{made.by or 'somebody'} at {made.created_at.isoformat()}: "
                    f"approved={made.approved}, value={made.value!r}"
                ) from None
            stored = await storage.get(run.key)
            if not isinstance(stored, Checkpoint):
                raise RunNotFoundError(f"run {run.run_id!r} has ended meanwhile") from None
            run = stored
        else:
            return decision


async def discard(storage: Storage, run: Checkpoint) -> None:
    """Take an open run away with its decisions. A worker that is at it gets a `LeaseLostError`."""
    while True:
        try:
            await storage.apply(*clear_run(run, run.version))
        except ConflictError:
            stored = await storage.get(run.key)
            if not isinstance(stored, Checkpoint):
                return
            run = stored
        else:
            return


def _check_answer(run: Checkpoint, decision: Decision) -> None:
    waiting = {each.id: each.kind for each in run.requirements}
    id, approved, value = decision.requirement_id, decision.approved, decision.value
    if id not in waiting:
        names = ", ".join(map(repr, waiting)) or "nothing"
        raise RunNotFoundError(f"run {run.run_id!r} waits for {names}, not for {id!r}")
    for name, said in (("by", decision.by), ("note", decision.note)):
        if not isinstance(said, str | None):
            raise ConfigurationError(f"{name} is a str, not {type(said).__name__}")
    answers = (True, False) if waiting[id] == "approval" else (True, False, None)
    if not any(approved is each for each in answers):
        raise ConfigurationError(f"{id!r} waits for approved=True or False, not {approved!r}")
    if waiting[id] != "approval" and value is None and approved is not False:
        raise ConfigurationError(f"{id!r} ({waiting[id]}) waits for a value= (or approved=False)")
