"""Forks: what they must not cut in two, and what a child inherits and must not touch."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forkable", "Whole", "keep", "watch"]

logger = logging.getLogger("memory_async")

IMPORT_SECONDS = 1.0  # a fork waits for imports: bounded, for the one that forks may be importing

_inherited: list[object] = []
_making = threading.Lock()
_wholes: WeakSet[Whole] = WeakSet()
_watched: WeakSet[Forkable] = WeakSet()
_held: list[threading.Lock] = []


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


def watch(thing: Forkable) -> None:
    """Have ``thing._forked()`` called in every child, as long as it lives."""
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
    _making.acquire()
    _held.append(_making)
    for each in list(_wholes):
        each._lock.acquire()
        _held.append(each._lock)
    # A module that another thread has half imported could never be imported in the child.
    until = time.monotonic() + IMPORT_SECONDS
    while threading.active_count() > 1 and _importing() and time.monotonic() < until:
        time.sleep(0.001)


def _importing() -> bool:
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            # Not as an attribute: that would import a lazy one.
            spec = object.__getattribute__(module, "__dict__").get("__spec__")
            if getattr(spec, "_initializing", False):
                return True
    return False


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    global _making  # noqa: PLW0603
    for each in list(_wholes):
        each.cut = each._lock.locked() and each._lock not in _held
        each._lock = threading.Lock()
    _making = threading.Lock()
    _held.clear()
    for thing in list(_watched):
        try:
            thing._forked()
        except Exception:
            logger.exception("%r in a forked child", thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
