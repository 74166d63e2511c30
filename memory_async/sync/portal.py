"""`Portal`: the one guard of all plain calls into an event loop of their own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.forked import Rest, keep, watch
from memory_async.sync.loop import GRACE, Call, Loop

__all__ = ["EXIT_SECONDS", "Portal"]

logger = logging.getLogger("memory_async.sync")

P = ParamSpec("P")
T = TypeVar("T")

EXIT_SECONDS = 5.0


class Portal:
    """Runs coroutine functions for plain callers, from any thread.

    The thread starts with the first call and ends with `close`; a daemon thread, so that a program
    that forgets `close` still ends: ``at_exit`` is run there first. A forked child gets a loop of
    its own.
    """

    def __init__(self) -> None:
        self._closed = False
        self._warned = False
        self.at_exit: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._begin()
        watch(self)

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._loop: Loop | None = None
        self._ending = False

    @property
    def running(self) -> bool:
        """Whether there is a loop (in this process) that takes calls."""
        return self._loop is not None and self._loop.runs and not self._closed

    def call(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The result of ``await function(...)`` in the loop; its exceptions as raised there.

        An interrupted call (Ctrl-C) is cancelled in the loop too. `ConfigurationError` from the
        loop's own thread, which would wait for itself.
        """
        self.refuse_own_thread()
        if not self._warned and _in_running_loop():
            self._warned = True
            warnings.warn(
                "a plain call from inside a running event loop blocks that loop until it returns: "
                "prefer `await` with memory_async.Memory there",
                RuntimeWarning,
                stacklevel=_levels_to_the_caller(),
            )
        loop = self._loop
        if loop is None or not loop.runs or self._closed:
            loop = self._start()
        call = Call(partial(function, *args, **kwargs))
        try:
            loop.submit(call)
            return call.result()
        except Exception:
            raise
        except BaseException:  # interrupted: it must not go on behind the caller's back
            call.give_up(loop)
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Let calls under way end, for a moment, await ``last`` in the loop, whatever interrupts
        this, and stop the thread. Idempotent, final."""
        self.refuse_own_thread()
        with self._starting:
            self._closed = True
            loop = self._loop
        failed = None
        if loop is not None and loop.begun():
            ending = Call(partial(self._end, loop, last))
            try:
                loop.submit(ending)
                failed = ending.result()
            except StorageUnavailableError:
                pass  # it has ended: at exit, or for somebody who was interrupted then
            loop.wait()
        self._loop = None
        _live.discard(self)
        if failed is not None:
            raise failed

    def end(self) -> Loop | None:
        """At exit: have the loop end, all being closed, and wait for none of it."""
        self._closed = True
        loop = self._loop
        if loop is not None and loop.runs:
            with suppress(StorageUnavailableError):
                loop.submit(Call(partial(self._end_at_exit, loop)))
            return loop
        return None

    async def _end_at_exit(self, loop: Loop) -> None:
        if (failed := await self._end(loop, self.at_exit)) is not None:
            logger.error("closing at exit failed", exc_info=failed)

    async def _end(
        self, loop: Loop, last: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> Exception | None:
        """Returns what fails in ``last``."""
        if self._ending:
            return None
        self._ending = True
        try:
            if last is not None:
                await last()
        except Exception as error:  # noqa: BLE001 - raised by whoever closes
            return error
        finally:
            loop.stop()
        return None

    def refuse_own_thread(self) -> None:
        loop = self._loop
        if loop is not None and loop.ident == threading.get_ident():
            raise ConfigurationError(
                "this call came from the facade's own event loop (a callback, a model?) and would "
                "wait for itself: use the async API there"
            )

    def _rest(self, rest: Rest) -> bool:
        loop = self._loop
        return loop is not None and loop.rest(rest)

    def _forked(self) -> None:
        _live.discard(self)
        keep(self._loop)
        self._begin()

    def _start(self) -> Loop:
        with self._starting:
            if self._closed:
                raise StorageUnavailableError("this facade is closed: make a new one")
            if self._loop is None:
                _live.add(self)
                self._loop = Loop()
            loop = self._loop
            try:
                loop.begin()
            except Exception:  # no thread, no file: the next call tries again
                self._loop = None
                _live.discard(self)
                raise
            return loop


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _levels_to_the_caller() -> int:
    frame, levels = sys._getframe(1), 1
    while frame.f_globals.get("__name__", "").startswith("memory_async.") and frame.f_back:
        frame, levels = frame.f_back, levels + 1
    return levels


# --- the end of the interpreter ---

# Strong references: a facade that was never closed is closed at exit, after its jobs.
_live: set[Portal] = set()


def _at_exit() -> None:
    until = time.monotonic() + EXIT_SECONDS + 2 * GRACE
    try:
        for loop in [loop for portal in list(_live) if (loop := portal.end())]:
            loop.wait(max(0.0, until - time.monotonic()))
    except KeyboardInterrupt:
        pass  # no more waiting: what is not done is done after the next turn, or by recover()


atexit.register(_at_exit)
