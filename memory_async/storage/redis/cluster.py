"""The way to a Redis Cluster: each command to the node that holds its first key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.client import NEVER_DECODE
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MaxConnectionsError,
    MovedError,
    NoScriptError,
    SlotNotCoveredError,
    TryAgainError,
)

from memory_async.storage.redis.refusals import CannotConnect
from memory_async.storage.redis.rows import Argument
from memory_async.storage.redis.scripts import Script
from memory_async.storage.redis.wire import LOST

AT_ONCE = 64
# Of these the command has not been carried out: a cluster that finds its feet again.
_REFUSED = (ClusterDownError, SlotNotCoveredError, MaxConnectionsError)
_MOVING = (TryAgainError, AskError, MovedError, ClusterError)  # the last: sent about in circles
_PATIENCE, _PAUSE = 5, 0.02  # seconds


class _FirstKey:
    """Says where a command's key is; redis-py would ask the server about every command there is,
    which takes longer than all else of opening."""

    async def initialize(self, node: object) -> None:
        return

    async def get_keys(self, *command: Any) -> list[Any]:
        return [command[1]]


class ClusterWire:
    """Over redis-py's cluster client, which follows what moves between nodes."""

    def __init__(self, client: RedisCluster, *, owned: bool, connect_timeout: float | None) -> None:
        self._client = client
        self._owned = owned
        if owned:
            client.commands_parser = _FirstKey()  # type: ignore[assignment]
        self._connect_timeout = connect_timeout
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closed = False

    async def run(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], *, again: bool
    ) -> Any:
        rest = (len(keys), *keys, *arguments)
        try:
            return await self._send(keys[0], ("EVALSHA", script.sha, *rest), again=again)
        except NoScriptError:
            return await self._send(keys[0], ("EVAL", script.text, *rest), again=again)

    async def command(self, *command: Argument, again: bool = True) -> Any:
        return await self._send(command[1], command, again=again)

    async def at_once(self, *commands: Sequence[Argument]) -> list[Any]:
        raise NotImplementedError("redis-py's cluster client sends one command at a time")

    def slot(self, key: bytes) -> int:
        return key_slot(key)

    async def close(self) -> None:
        self._closed = True
        for _ in range(AT_ONCE):  # until nobody is on the way any more
            await self._room.acquire()
        for _ in range(AT_ONCE):  # those who come now are told so
            self._room.release()
        if self._owned:
            await self._client.aclose()

    async def _send(self, key: Argument, command: Sequence[Argument], *, again: bool) -> Any:
        try:
            return await self._once(key, command)
        except _REFUSED:
            return await self._once(key, command)
        except _MOVING:
            return await self._when_moved(key, command)
        except LOST:
            if not again:
                raise
            return await self._once(key, command)

    async def _when_moved(self, key: Argument, command: Sequence[Argument]) -> Any:
        """While a slot is on its way, its nodes refuse a script whose keys are not all in one place
        (also keys that do not exist)."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    await asyncio.sleep(_PAUSE)
                    try:
                        return await self._once(key, command)
                    except _MOVING as error:
                        last = error
        except TimeoutError:
            if last is None:
                raise
            raise last from None

    async def _once(self, key: Argument, command: Sequence[Argument]) -> Any:
        raw = [each if isinstance(each, bytes) else str(each).encode() for each in command[1:]]
        async with self._room:
            if self._closed:
                raise ConnectionError("the storage was closed meanwhile")
            await self._connect()
            node = self._client.get_node_from_key(key)  # type: ignore[arg-type]
            # With a node named, redis-py does not repeat what may have been carried out.
            return await self._client.execute_command(
                command[0], *raw, target_nodes=node, **{NEVER_DECODE: True}
            )

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._client.initialize()  # type: ignore[unused-awaitable]
        except Exception as error:
            raise CannotConnect from error
