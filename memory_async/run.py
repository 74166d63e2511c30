"""`Run`: one run of an agent, kept durable from its first moment to its end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Literal, NoReturn

from pydantic import BaseModel

from memory_async.claim import Claim
from memory_async.context import Context
from memory_async.errors import ConfigurationError, LeaseLostError, PayloadError
from memory_async.jsontext import dump_json
from memory_async.keys import check_id
from memory_async.message import Message, MessagesLike, parse_messages
from memory_async.records import Checkpoint, Decision, Requirement, Turn
from memory_async.render import refuse_rendered
from memory_async.shield import to_the_end
from memory_async.usage import parse_usage
from memory_async.view import ProfileT

__all__ = ["KEEP", "Keep", "Run", "RunBlock", "RunPaused", "RunStatus"]

logger = logging.getLogger("memory_async.run")

RunStatus = Literal["running", "completed", "paused", "error", "cancelled"]


class Keep(Enum):
    KEEP = "keep"


KEEP: Final = Keep.KEEP


class RunPaused(BaseException):
    """Raised by `Run.pause` to leave the block at once; the block's end swallows it. A
    `BaseException`, so that an agent's own ``except Exception`` does not go on after a pause."""

    def __init__(self, run: object) -> None:
        super().__init__("the run is paused")
        self.run = run


class Run(Generic[ProfileT]):
    """A run in flight, inside ``async with memory.run(...)`` or ``memory.resume(...)``.

    ``input`` is what it began with, ``messages`` what was added since, ``state`` what the last
    checkpoint or pause kept, ``decisions`` the answers to its requirements by id. ``usage`` may be
    set. After the block ``status`` says how it ended, and ``turn`` is what it left in the log.
    """

    def __init__(
        self, claim: Claim, context: Context[ProfileT], decisions: Mapping[str, Decision]
    ) -> None:
        kept = claim.checkpoint
        self._claim = claim
        self.run_id = kept.run_id
        self.session_id = kept.session_id
        self.user_id = kept.user_id
        self.context = context
        self.input: list[Message] = list(kept.input)
        self.messages: list[Message] = list(kept.messages)
        self.state: Any = kept.state
        self.requirements: list[Requirement] = list(kept.requirements)
        self.decisions: dict[str, Decision] = dict(decisions)
        self.usage: Mapping[str, Any] | BaseModel | None = kept.usage
        self.status: RunStatus = "running"
        self.turn: Turn | None = None

    def add(self, messages: MessagesLike) -> None:
        """Add what was said, called or answered. Durable with the next checkpoint, pause or end."""
        self._check_open()
        said = parse_messages(messages)
        refuse_rendered(said)
        self.messages += said

    def to_openai(self, system: str | None = None) -> list[dict[str, Any]]:
        """Chat messages: the context, the input and what was added."""
        own = [message.to_openai() for message in (*self.input, *self.messages)]
        return self.context.to_openai(system) + own

    async def checkpoint(self, state: Any = KEEP) -> None:
        """Make the messages so far and ``state`` (JSON) durable. `LeaseLostError` when another
        worker has taken the run over."""
        self._check_open()
        self._set_state(state)
        await self._claim.keep(self._kept("running"))

    def pause(self, state: Any = KEEP, requirements: Iterable[Requirement] = ()) -> NoReturn:
        """Leave the block at once and keep the run, to be resumed when the requirements are met."""
        self._check_open()
        wanted = list(requirements)
        for each in wanted:
            if not isinstance(each, Requirement):
                raise PayloadError(f"{each!r} is no Requirement(id, kind, ...)")
            check_id("a requirement's id", each.id)
            if each.kind not in ("approval", "external_tool", "question"):
                raise PayloadError(f"{each.kind!r} is no kind of requirement")
            if each.id in self.decisions:
                raise PayloadError(f"{each.id!r} was decided before: use a new id to ask again")
            dump_json(each.arguments, "arguments")
        if len({each.id for each in wanted}) < len(wanted):
            raise PayloadError("two requirements of one id: nobody could answer them apart")
        self._set_state(state)
        self.requirements = wanted
        raise RunPaused(self)

    # --- inside ---

    def _check_open(self) -> None:
        if self.status != "running":
            raise ConfigurationError(f"run {self.run_id!r} is {self.status}: resume it to go on")

    def _set_state(self, state: Any) -> None:
        if state is not KEEP:
            dump_json(state, "state")  # refused here, where it was given
            self.state = state

    def _kept(
        self, status: Literal["running", "paused", "error", "cancelled"], error: str | None = None
    ) -> Checkpoint:
        return replace(
            self._claim.checkpoint,
            status=status,
            messages=list(self.messages),
            state=self.state,
            requirements=self.requirements,
            usage=parse_usage(self.usage),
            error=error,
        )


class RunBlock(Generic[ProfileT]):
    """The block of a run: ``begin`` claims it, ``complete`` writes its turn."""

    def __init__(
        self,
        begin: Callable[[], Awaitable[Run[ProfileT]]],
        complete: Callable[[Run[ProfileT], Claim], Awaitable[Turn]],
    ) -> None:
        self._begin = begin
        self._complete = complete
        self._run: Run[ProfileT] | None = None

    @property
    def begun(self) -> bool:
        return self._run is not None

    async def begin(self) -> Run[ProfileT]:
        if self._run is not None:
            raise ConfigurationError("a run's block is entered once: call run() or resume() again")
        self._run = await self._begin()
        return self._run

    async def close(self, error: BaseException | None) -> bool:
        """Store how the block ended, also when this is cancelled; whether ``error`` is swallowed.
        Never raises it itself."""
        return await to_the_end(self._end(error))

    async def _end(self, error: BaseException | None) -> bool:
        run = self._run
        assert run is not None  # noqa: S101 - begin() was called
        try:
            if error is None:
                await self._end_well(run)
            elif isinstance(error, RunPaused) and error.run is run:
                await run._claim.leave(run._kept("paused"))
                run.status = "paused"
                return True
            else:
                await self._keep_failed(run, error)
        finally:
            if run.status == "running":
                run.status = "error"
            await run._claim.release()
        return False

    async def _end_well(self, run: Run[ProfileT]) -> None:
        try:
            run.turn = await self._complete(run, run._claim)
        except LeaseLostError:
            raise
        except Exception as error:
            await self._keep_failed(run, error)
            raise
        run.status = "completed"

    async def _keep_failed(self, run: Run[ProfileT], error: BaseException) -> None:
        run.status = "error" if isinstance(error, Exception) else "cancelled"
        said = f"{type(error).__name__}: {error}"
        clean = said.encode("utf-8", "replace").decode()
        try:
            await run._claim.leave(run._kept(run.status, clean))
        except Exception as problem:
            # What went wrong in the block is what the caller must see.
            logger.exception("run %r ended (%s), which could not be stored", run.run_id, said)
            error.add_note(f"memory_async could not store the end of the run: {problem!r}")

    async def __aenter__(self) -> Run[ProfileT]:
        return await self.begin()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return await self.close(exc)
