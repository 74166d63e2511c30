"""The way to one Redis: commands in flight together share a connection and a round trip.

redis-py would repeat a command whose answer was lost. Here that is for the caller to say, since
some writes must not be repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio import ConnectionPool
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - theirs is meant
    NoScriptError,
    ResponseError,
    TimeoutError,  # noqa: A004
)

from memory_async.storage.redis.look import look
from memory_async.storage.redis.refusals import CannotConnect
from memory_async.storage.redis.rows import Argument
from memory_async.storage.redis.scripts import Script
from memory_async.storage.redis.timeouts import Timeouts

try:
    import hiredis
except ImportError:  # our extra brings it, but redis-py does without
    hiredis = None  # type: ignore[assignment]

LANES = 4
TOGETHER = 64
LOST = (ConnectionError, TimeoutError, OSError)


class Wire(Protocol):
    """To one Redis, or to a cluster."""

    async def command(self, *command: Argument, again: bool = True) -> Any:
        """The answer to a command; ``again``: it may be sent twice when its answer is lost."""

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], *, again: bool
    ) -> Any: ...

    async def at_once(self, *commands: Sequence[Argument]) -> list[Any]:
        """The answers to commands that only read, of one moment. Not on a cluster."""
        ...

    def slot(self, key: bytes) -> int:
        """What only keys with the same may be given to one script."""
        ...

    async def close(self) -> None: ...


class Call(NamedTuple):
    """Commands as bytes, and how many."""

    packed: bytes
    commands: int = 1


class PoolWire:
    """Over a few connections of a pool. One call alone goes out at once; calls that arrive while
    all connections are taken wait, and then go out together."""

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        owned: bool,
        connect_timeout: float | None,
        timeout: float | None,
    ) -> None:
        self._pool = pool
        self._owned = owned
        self._timeouts = Timeouts(timeout)
        self._connect_timeout = connect_timeout
        self._lanes = max(1, min(LANES, pool.max_connections))
        self._busy = 0
        self._idle: list[Any] = []  # kept out of the pool, when the pool is ours
        self._waiting: deque[tuple[Call, asyncio.Future[list[Any]]]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], *, again: bool
    ) -> Any:
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.command("EVALSHA", script.sha, *rest, again=again)
        except NoScriptError:
            return await self.command("EVAL", script.text, *rest, again=again)

    async def command(self, *command: Argument, again: bool = True) -> Any:
        [answer] = await self._send(Call(_pack(command)), again=again)
        return answer

    async def at_once(self, *commands: Sequence[Argument]) -> list[Any]:
        packed = b"".join((_MULTI, *map(_pack, commands), _EXEC))
        *_, answers = await self._send(Call(packed, len(commands) + 2), again=True)
        return _checked(answers)

    async def _send(self, call: Call, *, again: bool) -> list[Any]:
        try:
            return await self._once(call)
        except LOST:
            if not again:
                raise
            return await self._once(call)

    def slot(self, key: bytes) -> int:
        return 0

    async def close(self) -> None:
        self._closed = True
        if self._owned:
            # Those in use, too: whoever waits for an answer is told that it will not come.
            await self._pool.disconnect(inuse_connections=True)
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._owned:
            await self._pool.disconnect(inuse_connections=True)
        self._timeouts.close()

    async def _once(self, call: Call) -> list[Any]:
        if self._busy >= self._lanes:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((call, future))
            return _checked(await future)
        self._busy += 1
        answers: list[list[Any]] = []
        try:
            await self._exchange([call], answers)
        finally:
            self._next()
        return _checked(answers[0])

    def _next(self) -> None:
        """Pass the lane on to those who wait, or give it back."""
        if not self._waiting:
            self._busy -= 1
            return
        task = asyncio.ensure_future(self._serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                calls: list[Call] = []
                futures: list[asyncio.Future[list[Any]]] = []
                size = 0
                while self._waiting and len(calls) < TOGETHER and size < 1 << 20:
                    call, future = self._waiting.popleft()
                    if not future.done():  # else it was cancelled before it was sent
                        calls.append(call)
                        futures.append(future)
                        size += len(call.packed)
                if calls:
                    await self._answer(calls, futures)
        finally:
            self._busy -= 1

    async def _answer(self, calls: list[Call], futures: list[asyncio.Future[list[Any]]]) -> None:
        answers: list[list[Any]] = []
        lost: BaseException | None = None
        try:
            await self._exchange(calls, answers)
        except Exception as error:  # noqa: BLE001 - raised in those who wait
            lost = error
        for number, future in enumerate(futures):
            if future.done():
                continue
            if lost is None or number < len(answers):
                future.set_result(answers[number])
            else:
                future.set_exception(lost)

    async def _exchange(self, calls: Sequence[Call], answers: list[list[Any]]) -> None:
        connection = await self._connection()
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._timeouts.start(timeout)
                await connection.send_packed_command([call.packed for call in calls])
                if self._closed:
                    raise ConnectionError("the storage was closed meanwhile")
                if self._busy == 1:  # else there is something to do meanwhile
                    await look()
                for call in calls:
                    found: list[Any] = []
                    for _ in range(call.commands):
                        try:
                            found.append(await connection.read_response(disable_decoding=True))
                        except ResponseError as refused:
                            found.append(refused)
                    answers.append(found)
        except BaseException as error:
            # An answer may still come: nobody else may take it for theirs.
            await connection.disconnect(nowait=True)
            if self._closed and isinstance(error, Exception):
                raise ConnectionError("the storage was closed meanwhile") from error
            raise
        finally:
            self._timeouts.stop(timeout)
            if self._owned:
                self._idle.append(connection)
            else:
                await self._pool.release(connection)

    async def _connection(self) -> Any:
        if self._closed:
            raise ConnectionError("the storage was closed meanwhile")
        try:
            if self._idle:
                return await self._usable(self._idle.pop())
            async with asyncio.timeout(self._connect_timeout):
                return await self._new()
        except Exception as error:
            if self._closed:  # under the hands of one who was just connecting
                raise ConnectionError("the storage was closed meanwhile") from error
            if isinstance(error, (*LOST, ResponseError)):
                raise CannotConnect from error
            raise

    async def _usable(self, connection: Any) -> Any:
        try:
            if not await _is_ready(connection):
                async with asyncio.timeout(self._connect_timeout):
                    await self._pool.ensure_connection(connection)  # anew, after a restart
        except BaseException:
            await connection.disconnect(nowait=True)
            self._idle.append(connection)
            raise
        return connection

    async def _new(self) -> Any:
        # Cancelled in the middle, redis-py would keep a connection that never logged in.
        task = asyncio.ensure_future(_connected(self._pool))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._tasks.add(task)
            task.add_done_callback(self._give_back)
            raise

    def _give_back(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            return
        release = asyncio.ensure_future(self._pool.release(task.result()))
        self._tasks.add(release)
        release.add_done_callback(self._tasks.discard)


def _checked(answers: list[Any]) -> list[Any]:
    for each in answers:
        if isinstance(each, ResponseError):
            raise each
    return answers


async def _is_ready(connection: Any) -> bool:
    """Whether it is connected, with nothing left to read in it, nor its end."""
    if not connection.is_connected:
        return False
    try:
        # By the name it has since redis-py 8, or the one before.
        can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
        return not await can_read()
    except LOST:
        return False


async def _connected(pool: Any) -> Any:
    return await pool.get_connection()


def _pack_in_python(command: Sequence[Argument]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        raw = each if isinstance(each, bytes) else str(each).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


_pack: Callable[[Any], bytes] = _pack_in_python if hiredis is None else hiredis.pack_command
_MULTI, _EXEC = _pack(("MULTI",)), _pack(("EXEC",))
