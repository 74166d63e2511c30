"""`Portal`: one event loop in a thread of its own, and the one guard of all plain calls into it."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.forked import keep

__all__ = ["Portal"]

logger = logging.getLogger("memory_async.sync")

P = ParamSpec("P")
T = TypeVar("T")

EXIT_SECONDS = 5.0


class Portal:
    """Runs coroutine functions for plain callers, from any thread.

    The thread starts with the first call and ends with `close`; a daemon thread, so that a program
    that forgets `close` still ends: ``at_exit`` is called first then. A forked
    child gets a loop of its own.
    """

    def __init__(self) -> None:
        self._closed = False
        self._warned = False
        self.at_exit: Callable[[], None] | None = None
        self._reset()
        _live.add(self)

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether there is a loop (in this process) that may have something to close."""
        return self._portal is not None

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
        portal = self._portal or self._start()
        self._refuse_own_thread()
        if not self._warned and _in_running_loop():
            self._warned = True
            warnings.warn(
                "a plain call from inside a running event loop blocks that loop until it returns: "
                "prefer `await` with memory_async.Memory there",
                RuntimeWarning,
                stacklevel=3,
            )
        try:
            future = portal.start_task_soon(partial(function, *args, **kwargs))
        except RuntimeError as error:
            raise StorageUnavailableError("closed meanwhile: make a new one") from error
        try:
            result: T = future.result()
        except CancelledError:
            raise StorageUnavailableError("closed meanwhile: make a new one") from None
        finally:
            if not future.done():  # interrupted: it must not go on behind the caller's back
                future.cancel()
        return result

    def close(self) -> None:
        """Let calls under way end, and stop the thread. Idempotent, final."""
        self._refuse_own_thread()
        with self._starting:
            self._closed = True
            portal, self._portal = self._portal, None
        if portal is not None and self._thread is not None:
            portal.start_task_soon(portal.stop).result()
            self._thread.join()
        _live.discard(self)

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "this call came from the facade's own event loop (a callback, a model?) and would "
                "wait for itself: use the async API there"
            )

    def _start(self) -> BlockingPortal:
        with self._starting:
            if self._closed:
                raise StorageUnavailableError("this facade is closed: make a new one")
            if self._portal is None:
                ready: Future[BlockingPortal] = Future()
                self._thread = threading.Thread(
                    target=_serve, args=(ready,), name="memory_async", daemon=True
                )
                self._thread.start()
                self._portal = ready.result()
            return self._portal


def _serve(ready: Future[BlockingPortal]) -> None:
    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# Strong references: a facade that was never closed is closed at exit, after its jobs.
_live: set[Portal] = set()


def _after_fork() -> None:
    for portal in _live:
        keep(portal._portal, portal._thread)
        portal._reset()


def _at_exit() -> None:
    for portal in list(_live):
        if portal.running and portal.at_exit is not None:
            try:
                portal.at_exit()
            except Exception:
                logger.exception("closing at exit failed")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
