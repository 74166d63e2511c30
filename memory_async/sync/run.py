"""`sync.Run` and its block: a run kept durable, for plain callers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, NoReturn

from pydantic import BaseModel

from memory_async import run
from memory_async.context import Context
from memory_async.message import Message, MessagesLike
from memory_async.records import Decision, Requirement
from memory_async.run import KEEP, RunStatus
from memory_async.sync.portal import Portal
from memory_async.turns import Turn
from memory_async.view import ProfileT

__all__ = ["Run", "RunBlock"]

PATIENCE = 3  # how often Ctrl-C is pressed before the end of a run goes on in the background only


class Run(Generic[ProfileT]):
    """See `memory_async.Run`. Its methods run where they are called: a pause leaves the caller's
    own block."""

    def __init__(self, of: run.Run[ProfileT], portal: Portal) -> None:
        self._run = of
        self._portal = portal

    @property
    def run_id(self) -> str:
        return self._run.run_id

    @property
    def session_id(self) -> str:
        return self._run.session_id

    @property
    def user_id(self) -> str | None:
        return self._run.user_id

    @property
    def context(self) -> Context[ProfileT]:
        return self._run.context

    @property
    def input(self) -> list[Message]:
        return self._run.input

    @property
    def messages(self) -> list[Message]:
        return self._run.messages

    @property
    def state(self) -> Any:
        return self._run.state

    @property
    def requirements(self) -> list[Requirement]:
        return self._run.requirements

    @property
    def decisions(self) -> dict[str, Decision]:
        return self._run.decisions

    @property
    def usage(self) -> Mapping[str, Any] | BaseModel | None:
        return self._run.usage

    @usage.setter
    def usage(self, usage: Mapping[str, Any] | BaseModel | None) -> None:
        self._run.usage = usage

    @property
    def status(self) -> RunStatus:
        return self._run.status

    @property
    def turn(self) -> Turn | None:
        return self._run.turn

    def add(self, messages: MessagesLike) -> None:
        self._run.add(messages)

    def to_openai(self, system: str | None = None) -> list[dict[str, Any]]:
        return self._run.to_openai(system)

    def checkpoint(self, state: Any = KEEP) -> None:
        self._portal.call(self._run.checkpoint, state)

    def pause(self, state: Any = KEEP, requirements: Iterable[Requirement] = ()) -> NoReturn:
        self._run.pause(state, requirements)


class RunBlock(Generic[ProfileT]):
    """What ``with memory.run(...)`` and ``with memory.resume(...)`` enter and leave."""

    def __init__(self, block: run.RunBlock[ProfileT], portal: Portal) -> None:
        self._block = block
        self._portal = portal

    def __enter__(self) -> Run[ProfileT]:
        try:
            run = Run(self._portal.call(self._block.begin), self._portal)
        except Exception:
            raise
        except BaseException as error:  # interrupted, maybe on the way back: do not keep the lease
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return run

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # The exception is told to the loop, never raised there: a BaseException would stop it.
        interrupt: BaseException | None = None
        for _ in range(PATIENCE):
            try:
                swallowed = self._portal.call(self._block.close, exc)
            except Exception:
                raise
            except BaseException as again:  # noqa: BLE001 - raised below, when the end is stored
                interrupt = again
            else:
                if interrupt is None:
                    return swallowed
                break
        assert interrupt is not None  # noqa: S101 - else it has returned
        raise interrupt
