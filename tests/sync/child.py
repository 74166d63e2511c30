"""Processes of their own, with a deadline: what they print, how they end, and nothing on stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DEADLINE = 60.0  # seconds; most take one

PRELUDE = """
import asyncio, os, signal, sys, threading, traceback
from memory_async import *
from memory_async import sync

url = sys.argv[1]

def says(text):
    return {"role": "user", "content": text}

def said(memory):
    return [message.text for message in memory.messages()]

def tell(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()

def fork(work, *args):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid

def wait(*pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
"""

# From Python 3.12 on every fork of a process with threads warns: here that is what is tested.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


def script(*parts: str) -> str:
    """Parts of a program, one after the other, each indented as it stands in its test."""
    return "\n".join(map(textwrap.dedent, parts))


class Child:
    """A Python process that runs `PRELUDE` and a script."""

    def __init__(self, script: str, *args: object, **environment: str) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, *WARNINGS, "-X", "utf8", "-c", PRELUDE + textwrap.dedent(script)),
                *map(str, args),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._too_late = threading.Timer(DEADLINE, self._kill)
        self._too_late.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"it ended: {self._process.communicate()[1]}"
        return line.rstrip("\n")

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self, code: int = 0, errors: str = "") -> list[str]:
        """The rest of what it prints; it must end in time, with this code and these errors."""
        output, complaints = self._process.communicate()
        ended = self._process.returncode
        assert (complaints, ended) == (errors, code), f"{ended}\n{output}{complaints}"
        return output.splitlines()

    def clear(self) -> None:
        self._too_late.cancel()
        self._kill()
        self._process.communicate()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # its children, too


@contextmanager
def started(script: str, *args: object, **environment: str) -> Iterator[Child]:
    """The process; killed when it is still there in the end, or after the deadline."""
    child = Child(script, *args, **environment)
    try:
        yield child
    finally:
        child.clear()


def run(script: str, *args: object, code: int = 0, **environment: str) -> list[str]:
    """The lines the process printed; it must end well, in time and without a word on stderr."""
    with started(script, *args, **environment) as child:
        return child.end(code)
