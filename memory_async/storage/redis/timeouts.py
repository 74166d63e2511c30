"""`Timeouts`: many `asyncio.timeout` of one length, with one timer between them.

A timer of its own costs each of them more than sending a command and reading its answer does.
"""

from __future__ import annotations

import asyncio


class Timeouts:
    """Lets each timeout expire ``seconds`` after its `start`; never, when that is None."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._running: dict[asyncio.Timeout, float] = {}  # when each is over; the first is first
        self._timer: asyncio.TimerHandle | None = None

    def start(self, timeout: asyncio.Timeout) -> None:
        """From now on. It was entered as ``asyncio.timeout(None)``; `stop` it when it is left."""
        if self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        over = self._running[timeout] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(over, self._expire)

    def stop(self, timeout: asyncio.Timeout) -> None:
        self._running.pop(timeout, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for timeout, over in [*self._running.items()]:
            if over > loop.time():
                self._timer = loop.call_at(over, self._expire)
                return
            self.stop(timeout)
            timeout.reschedule(over)  # which is past: it expires at once
