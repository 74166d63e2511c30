"""Real processes for the tests: scripts, forked copies of one, and lines with a deadline."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import memory_async

DEADLINE = 60.0  # seconds; nothing here takes ten


class Child:
    """A process whose lines can be waited for."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self) -> str:
        """The next line it prints."""
        line = self._lines.get(timeout=DEADLINE)
        if line is None:
            raise AssertionError(f"it has ended: {self.errors()}")
        return line

    def lines(self) -> list[str]:
        """All it prints until its end."""
        found = []
        while (line := self._lines.get(timeout=DEADLINE)) is not None:
            found.append(line)
        return found

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> int:
        return self.process.wait(DEADLINE)


@contextmanager
def started(script: str, *args: object) -> Iterator[Child]:
    """A Python of its own, running ``script``; killed when it is still there in the end."""
    package = Path(memory_async.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONUTF8": "1"},
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
