"""`Runs`: beginning, resuming and completing runs; the middle part of `Memory`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memory_async.checkpoints import check_status, decide, decisions_of, find_run
from memory_async.claim import Claim
from memory_async.errors import ConflictError, DecisionMissingError, RunAlreadyCompletedError
from memory_async.keys import Partition, check_id, new_run_id, utc_now
from memory_async.learning import job_names
from memory_async.message import Message, MessagesLike, parse_messages
from memory_async.records import Checkpoint, CheckpointStatus, Decision, Session
from memory_async.render import refuse_rendered
from memory_async.run import Run, RunBlock
from memory_async.shield import to_the_end
from memory_async.storage.protocol import ABSENT, Append, Expect, Put, Trim, Write
from memory_async.turns import Turn
from memory_async.usage import parse_usage
from memory_async.view import ProfileT, View

__all__ = ["Runs"]


class Runs(View[ProfileT]):
    """Runs of the session's owner; see `Memory`."""

    def run(self, input: MessagesLike | str, *, run_id: str | None = None) -> RunBlock[ProfileT]:
        """``async with memory.run(input) as run:`` keeps a run durable from its first moment.

        Nothing is executed: the block is yours. Its normal end puts the turn into the log; `pause`,
        an exception or a cancellation keep the run, to be resumed. A str is what the user said.
        `RunAlreadyCompletedError` or `ConflictError` when ``run_id`` is known already.
        """
        said = parse_messages(
            {"role": "user", "content": input} if isinstance(input, str) else input
        )
        refuse_rendered(said)
        if run_id is not None:
            check_id("run_id", run_id)
        return RunBlock(lambda: self._begin_run(said, run_id), self._complete_run)

    def resume(self, run_id: str, *, require_decisions: bool = True) -> RunBlock[ProfileT]:
        """``async with memory.resume(run_id) as run:`` goes on with a run of this user, whichever
        session and process it comes from, claiming it for as long as the block lasts.

        `DecisionMissingError` while a requirement has no decision (unless ``require_decisions`` is
        False), `RunAlreadyClaimedError` while another worker has it, `RunAlreadyCompletedError`
        with its turn when it is done, `RunNotFoundError` for anybody else's.
        """
        return RunBlock(lambda: self._begin_resumed(run_id, require_decisions), self._complete_run)

    async def checkpoints(
        self, *, status: CheckpointStatus | None = None, limit: int = 100
    ) -> list[Checkpoint]:
        """The user's open runs, newest first; for nobody: those of their own session."""
        storage = self._use()
        check_status(status)
        where = Partition("session", self.session_id) if self.user_id is None else None
        found = await storage.find(
            "checkpoint", where, user_id=self.user_id, status=status, limit=limit
        )
        return [c for c in found if isinstance(c, Checkpoint) and c.user_id == self.user_id]

    async def decide(
        self,
        run_id: str,
        requirement_id: str,
        *,
        approved: bool | None = None,
        value: Any = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Decision:
        """Answer what a run of this user waits for. The same answer again changes nothing; a
        different second one is a `ConflictError`."""
        run = await self._find_run(run_id)
        return await decide(
            self._use(), run, requirement_id, approved=approved, value=value, by=by, note=note
        )

    # --- inside ---

    async def _find_run(self, run_id: str) -> Checkpoint:
        return await find_run(self._use(), run_id, user_id=self.user_id, session_id=self.session_id)

    async def _begin_run(self, said: list[Message], run_id: str | None) -> Run[ProfileT]:
        storage = self._use()
        checkpoint = Checkpoint(
            session_id=self.session_id,
            run_id=run_id or new_run_id(),
            user_id=self.user_id,
            agent_id=self._settings.agent_id,
            input=said,
        )
        while True:
            snapshot = await self._snapshot()
            if run_id is not None:
                done = await storage.get(checkpoint.key._replace(kind="turn"))
                if isinstance(done, Turn):
                    raise self._completed(done)
            context = self._context(snapshot)
            # Without its header, forgetting the user would not find the session.
            begin: Write = Put(self._new_header(), ABSENT)
            if snapshot.session is not None:
                begin = Expect(snapshot.session.key, snapshot.session.version)
            seconds = self._settings.lease_seconds
            try:
                claim = await Claim.open(storage, checkpoint, seconds, begin)
            except ConflictError:
                if await storage.get(checkpoint.key) is not None:
                    raise ConflictError(f"run {run_id!r} is open already: resume it") from None
                continue  # the session began, changed or went meanwhile
            if run_id is not None:
                await self._refuse_completed(claim)
            return Run(claim, context, {})

    async def _refuse_completed(self, claim: Claim) -> None:
        """Somebody else's run of this id may have ended since it was looked for."""
        try:
            done = await self._use().get(claim.checkpoint.key._replace(kind="turn"))
        except BaseException:
            await to_the_end(claim.release())
            raise
        if isinstance(done, Turn):
            await to_the_end(claim.withdraw())
            raise self._completed(done)

    def _completed(self, turn: Turn) -> RunAlreadyCompletedError:
        owned = replace(turn, user_id=self.user_id)  # a trimmed turn no longer says whose it was
        return RunAlreadyCompletedError(f"run {turn.run_id!r} is completed", owned)

    async def _begin_resumed(self, run_id: str, require_decisions: bool) -> Run[ProfileT]:
        storage = self._use()
        while True:
            kept = await self._find_run(run_id)
            decisions = await decisions_of(storage, kept)
            missing = [each.id for each in kept.requirements if each.id not in decisions]
            if missing and require_decisions:
                now = await storage.get(kept.key)
                if not isinstance(now, Checkpoint) or now.version != kept.version:
                    continue  # with its end the decisions went, too
                raise DecisionMissingError(
                    f"run {run_id!r} waits for {', '.join(map(repr, missing))}: decide() first"
                )
            context = await self._view(kept.session_id).load()
            try:
                claim = await Claim.take(storage, kept, self._settings.lease_seconds)
            except ConflictError:
                continue  # it has moved: see what became of it
            return Run(claim, context, decisions)

    async def _complete_run(self, run: Run[ProfileT], claim: Claim) -> Turn:
        turn = Turn(
            session_id=run.session_id,
            user_id=run.user_id,
            messages=[*run.input, *run.messages],
            usage=parse_usage(run.usage),
            run_id=run.run_id,
        )
        due = job_names(self._settings, run.user_id)
        keep = self._settings.keeps_turns or due
        # With nothing to persist the turn leaves only its run_id: that it was completed.
        trim = [] if keep else [Trim(run.session_id)]
        header = replace(self._new_header(), session_id=run.session_id)
        stored = await claim.finish(Append(turn, header, due), *trim)
        self._shared.jobs.wake(run.session_id, due, stored.seq)
        return stored

    def _new_header(self) -> Session:
        now = utc_now()
        return Session(
            created_at=now,
            updated_at=now,
            session_id=self.session_id,
            user_id=self.user_id,
            agent_id=self._settings.agent_id,
            keep_turns=self._settings.keeps_turns,
        )
