"""Background jobs. State, not a queue, says what is to be done: a job is due while its cursor is
behind the log, so a process that dies loses nothing, and whoever comes next goes on."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from memory_async.errors import ConflictError, MemoryAsyncError
from memory_async.forget import finish_forgetting
from memory_async.forked import keep
from memory_async.keys import Cursor, Key, Kind, Partition
from memory_async.records import Record, Session, UserProfile
from memory_async.settings import check_count
from memory_async.storage.protocol import Advance, Storage, SupportsSweep
from memory_async.transcript import MAX_TURNS
from memory_async.turns import Turn

__all__ = ["Job", "JobQueue", "Jobs", "OnJobError"]

logger = logging.getLogger("memory_async.jobs")

PAGE = 100
MAX_CONFLICTS = 20
MAX_CURSORS = 10_000
CANCEL_GRACE = 1.0  # seconds a cancelled job has to end

# What is wanted of a job, the more the higher: the turns that are due; also those that it would
# still wait for; and all that by this process, even if there is a queue.
DUE, REST, HERE = range(3)

OnJobError: TypeAlias = Callable[[str, str, Exception], Awaitable[None] | None]
"""Called with (job, session_id, error) when a job has failed; sync or async."""


class Job(Protocol):
    """One kind of background work on a session's log: due when ``every`` turns have come, or when
    ``idle`` seconds have passed since the last one (None: only `Jobs.drain` takes fewer)."""

    name: str
    every: int
    idle: float | None

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Take the first of ``turns`` and advance the cursor; False when there is no more to do.
        `ConflictError` when somebody else was first."""
        ...


class JobQueue(Protocol):
    """An existing task queue, to run jobs elsewhere: its worker calls `Jobs.run`. What it loses is
    done when the job is due again, or by `recover`."""

    async def submit(self, job: str, session_id: str) -> None: ...


class Jobs:
    """The jobs of one `Memory`, one at a time per session and kind.

    ``queued`` and ``running`` count jobs of this process, ``done`` and ``failed`` those that have
    ended (not those that found nothing to do), ``lag`` the turns known here that some job has not
    taken yet.
    """

    def __init__(
        self,
        storage: Storage,
        jobs: Iterable[Job] = (),
        *,
        concurrency: int = 4,
        on_error: OnJobError | None = None,
        queue: JobQueue | None = None,
    ) -> None:
        check_count("max_jobs", concurrency, least=1)
        self._storage = storage
        self._jobs = {job.name: job for job in jobs}
        self._concurrency = concurrency
        self._on_error = on_error
        self._queue = queue
        self._closed = False
        self._begin(None)

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._slots = asyncio.Semaphore(self._concurrency)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._wanted: dict[tuple[str, str], int] = {}
        self._behind: dict[tuple[str, str], int] = {}
        self._cursors: dict[tuple[str, str], int] = {}  # taken or handed over, as is known here
        self._idle: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self.running = self.done = self.failed = 0

    @property
    def queued(self) -> int:
        return len(self._tasks) - self.running

    @property
    def lag(self) -> int:
        return sum(self._behind.values())

    def wake(self, session_id: str, names: Iterable[str], seq: int) -> None:
        """Turn ``seq`` has been saved: start the jobs that may be due, never wait for them."""
        self._enter_loop()
        for name in names:
            if name not in self._jobs:
                continue
            key, job = (session_id, name), self._jobs[name]
            self._behind[key] = self._behind.get(key, 0) + 1
            if seq == 1:
                self._know(key, 0)
            through = self._cursors.get(key)
            if through is None or not 0 < seq - through < job.every:
                self._start(session_id, name, DUE)
            elif job.idle is not None and not self._closed:
                self._start_when_idle(key, job.idle)

    async def run(self, name: str, session_id: str, *, rest: bool = True) -> bool:
        """Bring one job of one session up to date, here and now; with ``rest`` also the turns it
        would still wait for. Whether there were any. Raises what fails (`ModelError`,
        `StorageError`)."""
        job, key = self._jobs[name], (session_id, name)
        stuck, found = 0, False
        while True:
            session = await self._storage.get(_header(session_id))
            if not isinstance(session, Session) or name not in session.jobs:
                self._behind.pop(key, None)
                return found
            through = session.jobs[name].through
            self._behind[key] = session.last_seq - through
            self._know(key, through)
            if not self._behind[key]:
                del self._behind[key]
            if session.last_seq - through < (1 if rest else job.every):
                return found
            found = True
            turns = await self._storage.history(session_id, after=through, limit=MAX_TURNS)
            try:
                if turns:
                    more = await job.step(self._storage, session, turns)
                else:  # none of the next can be read: go past them
                    more = await self._skip(session, name, through)
            except ConflictError:
                stuck += 1  # somebody else was first: see what is left
                if stuck > MAX_CONFLICTS:
                    raise
                continue
            stuck = 0
            if not more:
                self._behind.pop(key, None)
                return found

    async def drain(self, timeout: float | None = None) -> bool:
        """Bring every session this process has saved to up to date, rests included. False when that
        took longer than ``timeout`` seconds; the jobs go on then."""
        self._enter_loop()
        for session_id, name in list(self._behind):
            self._start(session_id, name, HERE)
        return await self._settle(timeout)

    async def recover(self) -> int:
        """Bring every lagging session of the storage up to date, whoever left it behind, finish
        interrupted forgetting, and sweep. Returns the number of sessions and users it found."""
        self._enter_loop()
        found = await self._storage.sweep() if isinstance(self._storage, SupportsSweep) else 0
        async for profile in self._all("profile", tags=("forgetting",)):
            if isinstance(profile, UserProfile):
                await finish_forgetting(self._storage, profile)
                found += 1
        for name in self._jobs:
            keys: set[tuple[str, str]] = set()
            async for session in self._all("session", lagging=name):
                assert isinstance(session, Session)  # noqa: S101 - what was asked for
                keys.add((session.session_id, name))
                self._start(session.session_id, name, HERE)
                while len(self._tasks) >= PAGE:
                    await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            found += len(keys)
            while tasks := [self._tasks[key] for key in keys & self._tasks.keys()]:
                await asyncio.wait(tasks)
        return found

    async def close(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for what is due, then cancel what is left."""
        self._enter_loop()
        for session_id, name in list(self._idle):
            self._start(session_id, name, REST)
        self._closed = True
        try:
            if not await self._settle(timeout):
                logger.warning(
                    "%d jobs did not end in %g s: they are done after the next turn or recover()",
                    len(self._tasks),
                    timeout,
                )
        finally:
            if tasks := list(self._tasks.values()):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=CANCEL_GRACE)

    # --- inside ---

    async def _settle(self, timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(self._tasks.values())
        except TimeoutError:
            return False
        return True

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                keep(self._loop, self._tasks)  # of the process this one was forked from
            self._begin(loop)

    def _start(self, session_id: str, name: str, wanted: int) -> None:
        if self._closed:
            return
        key = (session_id, name)
        if (timer := self._idle.pop(key, None)) is not None:
            timer.cancel()
        # One that runs looks again when it is through: twenty turns, one more call.
        self._wanted[key] = max(wanted, self._wanted.get(key, DUE))
        if key not in self._tasks:
            task = asyncio.create_task(self._work(key), name=f"{name} of {session_id}")
            self._tasks[key] = task
            task.add_done_callback(functools.partial(self._ended, key))

    def _start_when_idle(self, key: tuple[str, str], seconds: float) -> None:
        if (timer := self._idle.pop(key, None)) is not None:
            timer.cancel()
        start = functools.partial(self._start, *key, REST)
        self._idle[key] = asyncio.get_running_loop().call_later(seconds, start)

    def _know(self, key: tuple[str, str], through: int) -> None:
        self._cursors.pop(key, None)
        self._cursors[key] = through
        if len(self._cursors) > MAX_CURSORS:
            del self._cursors[next(iter(self._cursors))]

    async def _work(self, key: tuple[str, str]) -> None:
        try:
            while key in self._wanted:
                async with self._slots:
                    await self._work_once(key, self._wanted.pop(key))
        finally:
            self._wanted.pop(key, None)
            del self._tasks[key]

    def _ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:  # cancelled before it began
            self._wanted.pop(key, None)
            del self._tasks[key]

    async def _work_once(self, key: tuple[str, str], wanted: int) -> None:
        self.running += 1
        try:
            await self._take(key, wanted)
            await self._see_to_the_rest(key)
        except Exception as error:  # noqa: BLE001 - reported
            self.failed += 1
            await self._report(key, error)
        finally:
            self.running -= 1

    async def _take(self, key: tuple[str, str], wanted: int) -> None:
        if self._queue is not None and wanted < HERE:
            await self._hand_over(self._queue, key, rest=wanted == REST)
        else:
            found = await self.run(key[1], key[0], rest=wanted > DUE)
            self.done += found  # not before: others end meanwhile

    async def _see_to_the_rest(self, key: tuple[str, str]) -> None:
        """Fewer turns than are due were left: taken after a pause, or now when there is none."""
        idle = self._jobs[key[1]].idle
        if idle is None or key not in self._behind or key in self._wanted:
            return
        if self._closed:
            await self._take(key, REST)
        else:
            self._start_when_idle(key, idle)

    async def _hand_over(self, queue: JobQueue, key: tuple[str, str], *, rest: bool) -> None:
        session_id, name = key
        session = await self._storage.get(_header(session_id))
        if not isinstance(session, Session) or name not in session.jobs:
            self._behind.pop(key, None)
            return
        through, handed = session.jobs[name].through, self._cursors.get(key, 0)
        if through < handed <= session.last_seq:  # its worker has not come to that yet
            through = handed
        self._know(key, through)
        self._behind[key] = turns = session.last_seq - through
        if turns < (1 if rest else self._jobs[name].every):
            if not turns:
                del self._behind[key]
            return
        await queue.submit(name, session_id)
        self._know(key, session.last_seq)
        if turns < self._behind.get(key, 0):  # more have come meanwhile
            self._behind[key] -= turns
        else:
            self._behind.pop(key, None)

    async def _report(self, key: tuple[str, str], error: Exception) -> None:
        session_id, name = key
        known = isinstance(error, MemoryAsyncError)
        logger.error("job %r of session %r failed: %s", name, session_id, error, exc_info=not known)
        if self._on_error is not None:
            try:
                called = self._on_error(name, session_id, error)
                if inspect.isawaitable(called):
                    await called
            except Exception:
                logger.exception("on_job_error failed itself")

    async def _skip(self, session: Session, name: str, through: int) -> bool:
        born = session.created_at
        past = min(through + MAX_TURNS, session.last_seq)
        await self._storage.apply(Advance(session.session_id, name, through, past, created_at=born))
        return True

    async def _all(self, kind: Kind, **conditions: Any) -> AsyncIterator[Record]:
        before: Cursor | None = None
        while page := await self._storage.find(kind, before=before, limit=PAGE, **conditions):
            for record in page:
                yield record
            before = page[-1].cursor


def _header(session_id: str) -> Key:
    return Key("session", Partition("session", session_id), session_id)
