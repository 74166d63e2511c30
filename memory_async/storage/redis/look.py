"""`look`: looking for an answer a moment before waiting for it.

A Redis nearby answers in some 40 µs. Who waits for it at once puts their core to sleep, and waking
it takes as long again: in between, the loop may as well turn.
"""

from __future__ import annotations

import asyncio
import os

LOOK = 25e-6  # seconds


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_alone = _cores() == 1  # then it would be Redis that waits


async def look() -> None:
    """Let the loop turn for a moment, for other tasks too."""
    if _alone:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + LOOK
    while loop.time() < until:  # noqa: ASYNC110 - there is nothing that could be waited for
        await asyncio.sleep(0)
