"""Forks: what they must not cut in two, and what a child inherits and must not touch."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import _bootstrap
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol, runtime_checkable
from weakref import WeakSet

__all__ = ["Forkable", "Rest", "SupportsRest", "Whole", "keep", "watch"]

logger = logging.getLogger("memory_async")

IMPORT_SECONDS = 1.0  # a fork waits for the imports of other threads, which may be whole programs
REST_SECONDS = 5.0  # and for our own threads, in which somebody's code may block for good

_inherited: list[object] = []
_making = threading.Lock()
_wholes: WeakSet[Whole] = WeakSet()
_watched: WeakSet[Forkable] = WeakSet()

# Of the one that forks:
_forking = threading.Lock()
_held: list[threading.Lock] = []
_rests: list[Rest] = []
_endless: set[str] = set()  # modules whose import was not waited for to the end


def keep(*things: object) -> None:
    """Keep ``things`` for good, past the interpreter's end. Collecting them would close sockets
    and files, or say goodbye over them, while the parent is still using them."""
    if not _inherited:
        with suppress(ImportError):
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_inherited))
    _inherited.extend(things)


class Forkable(Protocol):
    """What has something to leave behind in a forked child."""

    def _forked(self) -> None:
        """Called in the child before anything else runs there; no other thread exists."""


class Rest:
    """Where a thread stands while it is forked from another one. So it is in the middle of nothing,
    and holds no lock of anybody's: a child is left with those of OpenSSL, say, for good."""

    def __init__(self) -> None:
        self._reached: SimpleQueue[None] = SimpleQueue()
        self._over: SimpleQueue[None] = SimpleQueue()

    def take(self) -> None:
        """In that thread: until the fork is over, or too long to be waited for."""
        self.cancel()
        with suppress(Empty):
            self._over.get(timeout=2 * REST_SECONDS)

    def cancel(self) -> None:
        """Nobody need wait for that thread."""
        self._reached.put(None)

    def wait(self, timeout: float) -> None:
        """Until it is reached, for ``timeout`` seconds."""
        with suppress(Empty):
            self._reached.get(timeout=timeout)

    def end(self) -> None:
        self._over.put(None)


@runtime_checkable
class SupportsRest(Protocol):
    """What has a thread of its own, and is watched."""

    def _rest(self, rest: Rest) -> bool:
        """Have the thread take it as soon as it can; False when there is nothing to wait for."""
        ...


def watch(thing: Forkable) -> None:
    """Have ``thing._forked()`` called in every child, and `SupportsRest` before, as long as it
    lives."""
    with _making:
        _watched.add(thing)


class Whole:
    """``with`` it, around a short piece of work in another thread that a fork must not cut in two:
    a fork waits for its end. Make none, and `watch` nothing, within such a block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.cut = False
        """In a child: this was under way when it was forked, for nobody waited (a fork from C)."""
        with _making:
            _wholes.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


def _before_fork() -> None:
    # In this order: who imports or works may need a loop of ours, and any of them a `Whole`.
    until = time.monotonic() + IMPORT_SECONDS
    while (importing := set(_importing())) and time.monotonic() < until:
        time.sleep(0.001)
    _hold(_forking)
    _endless.update(importing)
    with _making:
        watched = list(_watched)
    for thing in watched:
        rest = Rest()
        if isinstance(thing, SupportsRest) and thing._rest(rest):
            _rests.append(rest)
    until = time.monotonic() + REST_SECONDS
    for rest in _rests:
        rest.wait(max(0.0, until - time.monotonic()))
    _hold(_making)
    for each in list(_wholes):
        _hold(each._lock)


def _hold(lock: threading.Lock) -> None:
    lock.acquire()
    _held.append(lock)


def _after_fork_in_parent() -> None:
    _endless.clear()
    while _rests:
        _rests.pop().end()
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    global _forking, _making
    try:
        _import_anew()
    except Exception:  # Python's own insides: whatever has become of them, the rest must be done
        logger.exception("imports in a forked child")
    for each in list(_wholes):
        each.cut = each._lock.locked() and each._lock not in _held
        each._lock = threading.Lock()
    _forking, _making = threading.Lock(), threading.Lock()
    _rests.clear()
    _held.clear()
    for thing in list(_watched):
        try:
            thing._forked()
        except Exception:
            logger.exception("%r in a forked child", thing)


# --- imports: each holds the lock of its module, from finding it to its end ---


def _importing() -> Iterator[str]:
    """The modules that other threads are importing."""
    for name, reference in _module_locks().copy().items():
        if getattr(reference(), "owner", None) not in (None, threading.get_ident()):
            yield name


def _import_anew() -> None:
    """In a child: nobody ends the imports of the other threads. Their modules could never be
    imported here, for the locks. Those that had just begun (the others were waited for) are."""
    for name in list(_importing()):
        if name not in _endless:
            sys.modules.pop(name, None)
        _module_locks().pop(name, None)
    getattr(_bootstrap, "_blocking_on", {}).clear()
    _endless.clear()


def _module_locks() -> dict[str, Callable[[], object]]:
    return getattr(_bootstrap, "_module_locks", {})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
