"""`Portal`: one event loop in a thread of its own, and the one guard of all plain calls into it."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.forked import keep, watch

__all__ = ["EXIT_SECONDS", "Portal"]

logger = logging.getLogger("memory_async.sync")

P = ParamSpec("P")
T = TypeVar("T")

EXIT_SECONDS = 5.0
GRACE = 1.0  # seconds: for calls under way when their loop is closed


class _Serving(NamedTuple):
    portal: BlockingPortal
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread


class _Raised(NamedTuple):
    """A BaseException on its way out of the loop, which it must not stop."""

    error: BaseException


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
        self._serving: _Serving | None = None
        self._entering: set[object] = set()
        self._ending = False

    @property
    def running(self) -> bool:
        """Whether there is a loop (in this process) that takes calls."""
        return self._serving is not None and not self._closed

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
        interrupted = False

        async def run() -> T | _Raised:
            if interrupted:
                raise asyncio.CancelledError
            try:
                return await function(*args, **kwargs)
            except (Exception, asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                return _Raised(error)

        self.refuse_own_thread()
        if not self._warned and _in_running_loop():
            self._warned = True
            warnings.warn(
                "a plain call from inside a running event loop blocks that loop until it returns: "
                "prefer `await` with memory_async.Memory there",
                RuntimeWarning,
                stacklevel=_levels_to_the_caller(),
            )
        entering = object()
        self._entering.add(entering)  # before looking for the portal: see close()
        try:
            serving = self._serving
            portal = (self._start() if serving is None or self._closed else serving).portal
            try:
                future = portal.start_task_soon(run)
            except RuntimeError as error:
                raise StorageUnavailableError("closed meanwhile: make a new one") from error
        except BaseException:
            interrupted = True
            raise
        finally:
            self._entering.discard(entering)
        try:
            result = future.result()
        except CancelledError:
            raise StorageUnavailableError("closed meanwhile: make a new one") from None
        finally:
            if not future.done():  # interrupted: it must not go on behind the caller's back
                future.cancel()
        if isinstance(result, _Raised):
            raise result.error
        return result

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Let calls under way end, for a moment, await ``last`` in the loop, whatever interrupts
        this, and stop the thread. Idempotent, final."""
        self.refuse_own_thread()
        with self._starting:
            self._closed = True
            serving = self._serving
        if serving is not None:
            # Whoever has found the loop just now must get in before it ends, or wait for ever.
            until = time.monotonic() + GRACE
            while self._entering and time.monotonic() < until:
                time.sleep(0.0005)
            failed: BaseException | None = None
            try:
                ending = serving.portal.start_task_soon(self._end, serving, last)
            except RuntimeError:
                pass  # it has ended: at exit, or for somebody who was interrupted then
            else:
                failed = ending.exception()
            serving.thread.join()
            self._serving = None
            _live.discard(self)
            if failed is not None:
                raise failed

    async def _end(
        self, serving: _Serving, last: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        if self._ending:
            return
        self._ending = True
        try:
            if last is not None:
                await last()
        finally:
            await serving.portal.stop()
            # A call that waits for a model, say, would keep whoever closes waiting as well.
            stop = partial(serving.portal.stop, cancel_remaining=True)
            serving.loop.call_later(GRACE, lambda: serving.loop.create_task(stop()))

    def refuse_own_thread(self) -> None:
        serving = self._serving
        if serving is not None and threading.current_thread() is serving.thread:
            raise ConfigurationError(
                "this call came from the facade's own event loop (a callback, a model?) and would "
                "wait for itself: use the async API there"
            )

    def _forked(self) -> None:
        _live.discard(self)
        keep(self._serving)
        self._begin()

    def _start(self) -> _Serving:
        with self._starting:
            if self._closed:
                raise StorageUnavailableError("this facade is closed: make a new one")
            if self._serving is None:
                _live.add(self)
                ready: Future[tuple[BlockingPortal, asyncio.AbstractEventLoop]] = Future()
                thread = threading.Thread(
                    target=_serve, args=(ready,), name="memory_async", daemon=True
                )
                try:
                    thread.start()
                    self._serving = _Serving(*ready.result(), thread)
                except BaseException:
                    if self._serving is None and not ready.cancel() and not ready.exception():
                        portal, loop = ready.result()  # interrupted when it was just there
                        asyncio.run_coroutine_threadsafe(portal.stop(), loop)
                    raise
            return self._serving

    def end(self) -> threading.Thread | None:
        """At exit: have the loop end, all being closed, and wait for none of it."""
        self._closed = True
        serving = self._serving
        if serving is None:
            return None

        async def end() -> None:
            try:
                await self._end(serving, self.at_exit)
            except Exception:
                logger.exception("closing at exit failed")

        ending = end()
        try:
            asyncio.run_coroutine_threadsafe(ending, serving.loop)
        except RuntimeError:  # the loop is closed
            ending.close()
        return serving.thread


def _serve(ready: Future[tuple[BlockingPortal, asyncio.AbstractEventLoop]]) -> None:
    async def serve() -> None:
        async with BlockingPortal() as portal:
            if ready.set_running_or_notify_cancel():
                ready.set_result((portal, asyncio.get_running_loop()))
                await portal.sleep_until_stopped()

    ended = False
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.set_default_executor(_Executor(thread_name_prefix="memory_async"))
            serving = loop.create_task(serve())
            while not serving.done():
                try:
                    loop.run_until_complete(serving)
                except (SystemExit, KeyboardInterrupt) as error:
                    # Raised by a job (a model, a callback): no reason to end for all others.
                    logger.warning("a background job raised %r", error)
            serving.result()
            ended = True
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        elif ended:  # at exit no thread can be started, to wait for others
            logger.debug("ending the event loop: %r", error)
        else:
            raise


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


# Imported by anyio when the first loop begins, in its thread: a child forked in the middle of that
# could never import it.
importlib.import_module("anyio._backends._asyncio")


# --- the end of the interpreter ---

# Strong references: a facade that was never closed is closed at exit, after its jobs.
_live: set[Portal] = set()


class _Executor(ThreadPoolExecutor):
    """At exit no thread can be started: what asks for one then (looking up the address of a model's
    host, for the jobs that are waited for) is done in the loop."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future: Future[T] = Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - handed on
                future.set_exception(error)
            return future


def _at_exit() -> None:
    until = time.monotonic() + EXIT_SECONDS + 2 * GRACE
    try:
        for thread in [thread for portal in list(_live) if (thread := portal.end())]:
            thread.join(max(0.0, until - time.monotonic()))
    except KeyboardInterrupt:
        pass  # no more waiting: what is not done is done after the next turn, or by recover()


atexit.register(_at_exit)
