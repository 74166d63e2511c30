"""`Run`: one run of an agent, kept durable from its first moment to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Literal, NoReturn, get_args

from pydantic import BaseModel

from memory_async.claim import Claim
from memory_async.context import Context
from memory_async.errors import ConfigurationError, LeaseLostError, PayloadError
from memory_async.jsontext import dump_json, load_json
from memory_async.keys import check_id
from memory_async.message import Message, MessagesLike, parse_messages
from memory_async.records import Checkpoint, Decision, Requirement, RequirementKind
from memory_async.render import refuse_rendered
from memory_async.shield import to_the_end
from memory_async.turns import Turn
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
        self._usage: Mapping[str, Any] | BaseModel | None = kept.usage
        self._pausing = False
        self.status: RunStatus = "running"
        self.turn: Turn | None = None

    @property
    def usage(self) -> Mapping[str, Any] | BaseModel | None:
        return self._usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | BaseModel | None) -> None:
        dump_json(parse_usage(usage), "usage")  # refused here, where it was given
        self._usage = usage

    def add(self, messages: MessagesLike) -> None:
        """Add what was said, called or answered. Durable with the next checkpoint, pause or end."""
        self._check_open()
        said = parse_messages(messages)
        refuse_rendered(said)
        dump_json([message.to_openai() for message in said], "messages")
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
        if not isinstance(requirements, Iterable):
            raise PayloadError("requirements are a list of Requirement(id, kind, ...)")
        wanted = list(requirements)
        asked = {each.id: each for each in self.requirements}
        for each in wanted:
            _check_requirement(each)
            if each.id in self.decisions:
                raise PayloadError(f"{each.id!r} was decided before: use a new id to ask again")
            if each.id in asked and _words(each) != _words(asked[each.id]):
                # Who is just answering the other question must not have answered this one.
                raise PayloadError(f"{each.id!r} was another question before: use a new id")
        if len({each.id for each in wanted}) < len(wanted):
            raise PayloadError("two requirements of one id: nobody could answer them apart")
        self._set_state(state)
        self.requirements, self._pausing = wanted, True
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


def _check_requirement(given: object) -> None:
    if not isinstance(given, Requirement):
        raise PayloadError(f"{given!r} is no Requirement(id, kind, ...)")
    check_id("a requirement's id", given.id)
    if given.kind not in get_args(RequirementKind):
        raise PayloadError(f"{given.kind!r} is no kind of requirement")
    if not isinstance(given.arguments, dict | None):
        raise PayloadError(f"the arguments of {given.id!r} are no dict")
    for text in (given.tool_name, given.prompt):
        if not isinstance(text, str | None):
            raise PayloadError(f"{text!r} is no text: tool_name and prompt are")
    dump_json([given.tool_name, given.prompt, given.extra], "a requirement")
    dump_json(given.arguments, "arguments")


def _words(asked: Requirement) -> Any:
    words = [asked.kind, asked.tool_name, asked.arguments, asked.prompt]
    return load_json(dump_json(words, "a requirement"))


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
        self._ended = False
        self._moving = asyncio.Lock()  # an interrupted thread closes what may still be beginning

    async def begin(self) -> Run[ProfileT]:
        async with self._moving:
            if self._run is not None:
                raise ConfigurationError("a run's block is entered once: call run() again")
            self._run = await self._begin()
            return self._run

    async def close(self, error: BaseException | None) -> bool:
        """Store how the block ended, also when this is cancelled; whether ``error`` is swallowed.
        Never raises it itself. A second call only waits for the first."""
        async with self._moving:
            if self._run is None or self._ended:
                return False
            self._ended = True
            return await to_the_end(self._end(self._run, error))

    async def _end(self, run: Run[ProfileT], error: BaseException | None) -> bool:
        # A pause that something in the block has swallowed is one all the same.
        paused = run._pausing if error is None else _is_pause(error, run)
        try:
            if error is not None and not paused:
                await self._keep_failed(run, error)
            else:
                await self._end_well(run, paused)
        finally:
            if run.status == "running":
                run.status = "error"
            await run._claim.release()
        return paused

    async def _end_well(self, run: Run[ProfileT], paused: bool) -> None:
        try:
            if paused:
                await run._claim.leave(run._kept("paused"))
            else:
                run.turn = await self._complete(run, run._claim)
        except LeaseLostError:
            raise
        except Exception as error:
            await self._keep_failed(run, error)
            raise
        run.status = "paused" if paused else "completed"

    async def _keep_failed(self, run: Run[ProfileT], error: BaseException) -> None:
        run.status = "error" if isinstance(error, Exception) else "cancelled"
        said = _said(error)
        try:
            try:
                kept = run._kept(run.status, said)
                await run._claim.leave(kept)
            except PayloadError:  # then at least what is durable already
                durable = await run._claim.stored()
                await run._claim.leave(replace(durable, status=run.status, error=said))
                raise
        except Exception as problem:
            if isinstance(error, LeaseLostError) and isinstance(problem, LeaseLostError):
                return  # as the error says
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


def _is_pause(error: BaseException, run: Run[Any]) -> bool:
    """Whether the run was paused; a task group wraps what its tasks raise."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_pause(each, run) for each in error.exceptions)
    return isinstance(error, RunPaused) and error.run is run


def _said(error: BaseException) -> str:
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ is broken
        said = type(error).__name__
    return said.encode("utf-8", "replace").decode()
