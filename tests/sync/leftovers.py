"""What facades leave behind: threads and open files."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE = 10.0  # seconds
FILES = Path("/proc/self/fd")


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no open file more in the end. What is just ending is waited for: the thread of
    a connection says that it is closed a moment before it is gone."""
    threads, files = set(threading.enumerate()), _files()
    yield
    until = time.monotonic() + DEADLINE
    while (left := set(threading.enumerate()) - threads) or _files() > files:
        assert time.monotonic() < until, (left, files, _files())
        time.sleep(0.001)


def _files() -> int:
    return len(list(FILES.iterdir())) if FILES.exists() else 0
