"""`Loop`: an event loop in a thread of its own. `Call`: work done there while a plain caller waits.

Ctrl-C is raised in the main thread between any two of its instructions. So what that thread shares
with the loop's are queues, sets and dicts, each call of which happens or does not, and what it does
may be done twice. A `threading.Event`, a `Thread.start` and a `concurrent.futures.Future` (and so
anyio's portal) are locked in Python: interrupted there they stay locked, and the loop's thread
would wait for them for ever.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from memory_async.errors import StorageUnavailableError
from memory_async.forked import REST_SECONDS, Rest

__all__ = ["GRACE", "Call", "Loop"]

logger = logging.getLogger("memory_async.sync")

T = TypeVar("T")

GRACE = 1.0  # seconds: for calls under way when their loop ends


class Call(Generic[T]):
    """``await work()`` in a loop, and its result or exception for the one thread that waits."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._answer: SimpleQueue[Callable[[], T]] = SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    def result(self) -> T:
        """Wait for it. `StorageUnavailableError` when the loop has ended before the work."""
        return self._answer.get()()

    async def run(self) -> None:
        self._task = asyncio.current_task()
        try:
            if self._given_up:
                return
            result = await self._work()
        except asyncio.CancelledError as error:
            if self._task is not None and self._task.cancelling():
                self.refuse()
                raise
            self._answer.put(_Raise(error))  # of something that was awaited
        except BaseException as error:  # noqa: BLE001 - raised in the caller, to stop no loop
            self._answer.put(_Raise(error))
        else:
            self._answer.put(lambda: result)
        finally:
            self._task = None

    def refuse(self) -> None:
        self._answer.put(_Raise(StorageUnavailableError("closed meanwhile: make a new one")))

    def give_up(self, loop: Loop) -> None:
        """Nobody waits any more: cancel what has begun, let nothing begin."""
        self._given_up = True
        if (task := self._task) is not None:
            loop.soon(task.cancel)


class _Raise:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self) -> Any:
        try:
            raise self._error
        finally:
            del self._error  # whose traceback leads to this frame


class Moment:
    """A `threading.Event`, set once, that whoever waits for it may leave at any time."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: deque[SimpleQueue[None]] = deque()

    def set(self) -> None:
        self._is_set = True
        while self._waiting:
            self._waiting.popleft().put(None)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            told: SimpleQueue[None] = SimpleQueue()
            self._waiting.append(told)
            if not self._is_set:
                with suppress(Empty):
                    told.get(timeout=timeout)
        return self._is_set


class Loop:
    """An event loop in a daemon thread, from `begin` to `stop`.

    All but `stop` may be called from any thread, and again when it was interrupted.
    """

    def __init__(self) -> None:
        self.ident: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: BaseException | None = None
        self._fate: dict[str, object] = {}  # "thread": the one that serves, or why there is none
        self._known = Moment()  # the loop runs, or has failed to
        self._stopping = asyncio.Event()
        self._ended = Moment()
        self._calls: set[Call[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rests: set[Rest] = set()
        self._executor = _Executor(thread_name_prefix="memory_async")

    @property
    def runs(self) -> bool:
        return self._loop is not None

    def begin(self) -> None:
        """Start the thread, and wait until its loop runs."""
        if self._loop is None and self._failed is None:
            start_new_thread(self._start, ())
            self._known.wait()
        if self._failed is not None:
            raise self._failed

    def begun(self) -> bool:
        """Whether it runs, after all, when `begin` was interrupted. If not it never will."""
        if self._fate.setdefault("thread", None) is not None:
            self._known.wait()
        return self.runs

    def submit(self, call: Call[Any]) -> None:
        """Have the call run; it gets an answer in any case. `StorageUnavailableError` when there is
        no loop any more."""
        self._calls.add(call)
        if not self.soon(self._spawn, call):
            self._calls.discard(call)
            raise StorageUnavailableError("closed meanwhile: make a new one")

    def soon(self, function: Callable[..., object], *args: Any) -> bool:
        """Have ``function(*args)`` called in the loop; False when that has ended."""
        assert self._loop is not None  # noqa: S101 - it has begun
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def rest(self, rest: Rest) -> bool:
        """Have the thread take it between two things it does. Not when it still has not come to the
        last one: something blocks it."""
        if self._loop is None or self.ident == threading.get_ident() or self._rests:
            return False
        self._rests.add(rest)
        return self.soon(self._take, rest)

    def stop(self) -> None:
        """In the loop: take no more calls, and end after those under way."""
        self._stopping.set()

    def wait(self, timeout: float | None = None) -> None:
        """Until the thread has ended, or for ``timeout`` seconds."""
        thread = self._fate["thread"]
        if self._ended.wait(timeout) and isinstance(thread, threading.Thread):
            thread.join()

    # --- in the thread ---

    def _start(self) -> None:
        # Thread.start() waits for an Event, so it is called in a thread that Ctrl-C never reaches.
        try:
            threading.Thread(target=self._serve, name="memory_async", daemon=True).start()
        except RuntimeError as error:  # no more threads: the interpreter ends
            if self._fate.setdefault("thread", error) is error:
                self._failed = error
                self._known.set()

    def _serve(self) -> None:
        thread = threading.current_thread()
        if self._fate.setdefault("thread", thread) is not thread:
            return  # another serves, or nobody wants it any more
        self.ident, served = thread.ident, False
        try:
            with asyncio.Runner() as runner:
                loop = runner.get_loop()
                loop.set_default_executor(self._executor)
                serving = loop.create_task(self._until_stopped(loop))
                while not serving.done():
                    try:
                        loop.run_until_complete(serving)
                    except (SystemExit, KeyboardInterrupt) as error:
                        # Raised by a job (a model, a callback): no reason to end for all others.
                        logger.warning("a background job raised %r", error)
                served = True
        except BaseException as error:
            if self._loop is None:
                self._failed = error
            elif served:  # at exit no thread can be started, to wait for others
                logger.debug("ending the event loop: %r", error)
            else:
                raise
        finally:
            self._known.set()
            while self._calls:  # they came when the loop was just gone
                with suppress(KeyError):
                    self._calls.pop().refuse()
            while self._rests:
                with suppress(KeyError):
                    self._rests.pop().cancel()
            self._ended.set()

    async def _until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known.set()
        await self._stopping.wait()
        if self._tasks:
            # A call that waits for a model, say, would keep whoever closes waiting as well.
            _, late = await asyncio.wait(self._tasks, timeout=GRACE)
            for task in late:
                task.cancel()

    def _spawn(self, call: Call[Any]) -> None:
        if self._stopping.is_set():
            self._calls.discard(call)
            call.refuse()
            return
        task = asyncio.ensure_future(call.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._calls.discard(call))

    def _take(self, rest: Rest) -> None:
        self._rests.discard(rest)
        self._executor.end_lookups()
        rest.take()


class _Executor(ThreadPoolExecutor):
    """At exit no thread can be started: what asks for one then (looking up the address of a model's
    host, for the jobs that are waited for) is done in the loop."""

    def __init__(self, thread_name_prefix: str) -> None:
        super().__init__(thread_name_prefix=thread_name_prefix)
        self._working: dict[Future[Any], Callable[..., object]] = {}

    def end_lookups(self) -> None:
        """Wait for the addresses being looked up: libc has locks for that."""
        working = self._working.copy().items()
        lookups = [each for each, function in working if function is socket.getaddrinfo]
        futures.wait(lookups, timeout=REST_SECONDS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Does not wait for good: some model's call, say, does not come back."""
        late = futures.wait(list(self._working), timeout=GRACE).not_done if wait else ()
        super().shutdown(wait and not late, cancel_futures=cancel_futures or bool(late))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        try:
            future = super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future = Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - handed on
                future.set_exception(error)
        self._working[future] = fn
        future.add_done_callback(lambda done: self._working.pop(done, None))
        return future
