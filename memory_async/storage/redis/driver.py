"""`RedisStorage`: Redis, Redis Cluster or Valkey, on redis.asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar, Self

from memory_async.codec import RecordRow, SessionRow, StoredTurn
from memory_async.errors import (
    ConfigurationError,
    StorageError,
    StorageUnavailableError,
)
from memory_async.forked import keep
from memory_async.keys import Key, Partition, from_micros
from memory_async.storage.batch import (
    Batch,
)
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.redis.keys import Keys, micros

try:
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import OutOfMemoryError
except ImportError as error:
    raise ConfigurationError(
        "RedisStorage needs the package redis: pip install 'memory-async[redis]'"
    ) from error

from memory_async.storage.redis import scripts
from memory_async.storage.redis.cluster import ClusterWire
from memory_async.storage.redis.index import Index
from memory_async.storage.redis.options import checked_url, milliseconds
from memory_async.storage.redis.outcome import may_repeat, raise_conflict, raise_ownership
from memory_async.storage.redis.refusals import refusals
from memory_async.storage.redis.rows import (
    Argument,
    field,
    record_row,
    session_row,
    turn_row,
    turn_rows,
    write_arguments,
)
from memory_async.storage.redis.wire import PoolWire, Wire

_MOST = 1 << 53  # a seq is smaller


class RedisStorage(Driver):
    """A Redis, a Redis Cluster (``cluster=True``, or a ``redis+cluster://`` URL) or a Valkey, by
    its URL or as a `redis.asyncio` client of yours, which is never closed::

        RedisStorage("redis://:secret@localhost:6379/0", ttl=30 * 24 * 3600)

    With ``ttl`` a session goes so many seconds after its last write, with everything in it. What a
    returned write survives is the server's to say (``appendonly``, ``appendfsync``, ``save``).
    ``prefix`` leads every key. ``timeout`` and ``connect_timeout`` are seconds; any other option
    goes to redis-py's connections, e.g. ``ssl_ca_certs="ca.pem"``.
    """

    max_payload_bytes = (512 << 20) - 1  # proto-max-bulk-len

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "ttl": float,
        "prefix": str,
        "timeout": float,
        "connect_timeout": float,
        "ssl_ca_certs": str,
        "ssl_certfile": str,
        "ssl_keyfile": str,
    }

    def __init__(
        self,
        url_or_client: str | Redis | RedisCluster,
        *,
        namespace: str = "default",
        ttl: float | None = None,
        cluster: bool = False,
        prefix: str = "memory_async",
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(namespace=namespace)
        self.ttl = ttl
        self._ttl = "" if ttl is None else milliseconds(ttl)
        if not prefix or set(prefix) & set("{}\0"):
            raise ConfigurationError(f"{prefix!r} is no prefix: it must not hold braces")
        self._given: Redis | RedisCluster | None = None
        self._url = ""
        self._made_in = os.getpid()
        if isinstance(url_or_client, str):
            self._url, self._where = checked_url(url_or_client)
            self._options = {
                "socket_timeout": timeout,
                "socket_connect_timeout": connect_timeout,
                **options,
            }
        elif isinstance(url_or_client, Redis | RedisCluster):
            if options:
                raise ConfigurationError(f"give {', '.join(options)} to your client instead")
            self._given, self._where = url_or_client, "the Redis of your client"
        else:
            raise ConfigurationError(
                "RedisStorage takes a URL or a client of redis.asyncio, "
                f"not {type(url_or_client).__module__}.{type(url_or_client).__name__}"
            )
        self._cluster = cluster or isinstance(url_or_client, RedisCluster)
        if self._cluster and isinstance(url_or_client, Redis):
            raise ConfigurationError("to a cluster goes a redis.asyncio.RedisCluster")
        self._connect_timeout = connect_timeout if self._url else None
        self._keys = Keys(prefix, namespace, cluster=self._cluster)
        self._wire: Wire | None = None
        self._index: Index | None = None

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        cluster = scheme == "redis+cluster"
        return cls(f"{'redis' if cluster else scheme}://{rest}", cluster=cluster, **options)

    def __repr__(self) -> str:
        return f"RedisStorage({self._where!r}, namespace={self.namespace!r})"

    # --- opening and closing ---

    async def _open(self) -> None:
        if self._given is not None:
            self._check_given(self._given)
        wire = self._connect()
        try:
            with refusals(self._where):
                denied = await wire.run(scripts.PROBE, [self._keys.probe()], [], again=True)
                if not denied and not self._cluster:
                    await wire.at_once(("HGETALL", self._keys.probe()))
            if denied:
                raise StorageError(f"{self._where} does not let this user use {denied.decode()}")
        except BaseException:
            await wire.close()
            raise
        self._wire = wire
        self._index = Index(wire, self._keys, cluster=self._cluster)

    def _connect(self) -> Wire:
        owned = self._given is None
        try:
            if self._cluster:
                client = self._given or RedisCluster.from_url(
                    self._url,
                    retry=Retry(NoBackoff(), 0),
                    require_full_coverage=False,
                    reinitialize_steps=0,  # else slots that move cost others their connections
                    protocol=2,
                    **self._options,
                )
                assert isinstance(client, RedisCluster)  # noqa: S101 - checked when given
                return ClusterWire(client, owned=owned, connect_timeout=self._connect_timeout)
            if isinstance(self._given, Redis):
                pool, timeout = self._given.connection_pool, None
            else:
                options = {"retry": Retry(NoBackoff(), 0), "protocol": 2, **self._options}
                # Several timers and a task for each call, where one timer does.
                timeout = options.pop("socket_timeout")
                options["socket_timeout"] = None
                pool = ConnectionPool.from_url(self._url, **options)
                pool.connection_class(**pool.connection_kwargs)  # which checks the options
            return PoolWire(
                pool, owned=owned, connect_timeout=self._connect_timeout, timeout=timeout
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"redis-py refuses these options: {error}") from None

    def _check_given(self, client: Any) -> None:
        if os.getpid() != self._made_in:
            raise ConfigurationError(
                "this process is a fork of the one the Redis client was made in, which still uses "
                "its connections: make a client and a storage in each process"
            )
        pools = client.get_nodes() if self._cluster else [client.connection_pool]
        for pool in pools:
            names = ("_available_connections", "_connections")
            for connection in [each for name in names for each in getattr(pool, name, ())]:
                loop = getattr(getattr(connection, "_reader", None), "_loop", None)
                if loop not in (None, asyncio.get_running_loop()):
                    raise ConfigurationError(
                        "the Redis client given was used in another event loop: make one per loop"
                    )

    async def _close(self) -> None:
        wire, index = self._opened()
        self._wire, self._index = None, None
        await index.finish()
        with refusals(self._where):
            await wire.close()

    def _abandon(self) -> None:
        keep(self._wire, self._index)
        self._wire, self._index = None, None

    def _opened(self) -> tuple[Wire, Index]:
        if self._wire is None or self._index is None:
            raise StorageUnavailableError(f"{self!r} was closed meanwhile")
        return self._wire, self._index

    # --- writing ---

    async def _apply(self, batch: Batch) -> Applied:
        wire, index = self._opened()
        partition = str(batch.partition)
        parts = self._keys.partition(partition)
        ttl = self._ttl if batch.partition.space == "session" else ""
        ops = [each for op in batch.ops for each in write_arguments(op)]
        again = may_repeat(batch)

        async def write(ensured: Sequence[bytes], until: str) -> Any:
            arguments = (partition, ttl, until, len(ensured), *ensured, *ops)
            return await wire.run(scripts.APPLY, parts, arguments, again=again)

        with refusals(self._where):
            if index.upkeep is not None:
                reply = await index.upkeep.apply(batch.ops, write)
            else:
                parts.append(self._keys.index("session", "a"))
                reply = await write((), "")
        match reply:
            case [b"ok", seq, did, *_]:
                return Applied([each == 1 for each in did], seq)
            case [b"known", seq, packed, *_]:
                return Applied((), known=turn_row(seq, packed))
            case [b"owner", owner]:
                raise_ownership(batch, owner.decode() or None)
            case [b"conflict", number, stored]:
                raise_conflict(batch.ops[number - 1], stored and stored.decode())
        raise StorageError(f"{self._where} answered {reply!r:.200}")

    # --- reading ---

    async def _run(self, script: scripts.Script, keys: list[bytes], *arguments: Any) -> Any:
        wire, _ = self._opened()
        with refusals(self._where):
            return await wire.run(script, keys, arguments, again=True)

    async def _get(self, key: Key) -> SessionRow | RecordRow | StoredTurn | None:
        _, index = self._opened()
        if key.kind == "turn":
            parts = self._keys.partition(str(key.partition))
            reply = await self._run(scripts.TURN, parts[:4], key.id)
            return None if reply is None else turn_row(*reply)
        with refusals(self._where):
            return await index.get(key)

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        _, index = self._opened()
        with refusals(self._where):
            return await index.find(query)

    async def _history(self, session_id: str, span: Span) -> Iterable[StoredTurn]:
        if (span.newest or span.limit is None) and span[:2] == (0, None) and not span.trimmed:
            return (await self._snapshot(session_id, None, span.limit, None)).turns
        keys = self._keys.partition(f"session/{session_id}")[:3]
        before = "" if span.before is None else min(span.before, _MOST)
        limit = "" if span.limit is None else min(span.limit, _MOST)
        arguments = (min(span.after, _MOST), before, limit, int(span.newest), int(span.trimmed))
        first, heads, turns = await self._run(scripts.HISTORY, keys, *arguments)
        return turn_rows(first, chain(heads, turns))

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        wire, index = self._opened()
        keys = self._keys.partition(f"session/{session_id}")[:2]
        at: tuple[bytes, ...] = ()
        found: Any = None
        if profile is not None and not self._cluster:
            keys += self._keys.partition(str(profile.partition))[4:6]
            at = (field(profile.kind, profile.id),)
        wanted = "" if last is None else min(last, _MOST), since or "", *at
        with refusals(self._where):
            if since is None and not self._cluster:
                reply = await self._plainly(wire, keys, wanted)
            else:
                call = wire.run(scripts.SNAPSHOT, keys, wanted, again=True)
                if profile is None or at:
                    reply = await call
                else:
                    reply, found = await asyncio.gather(call, index.get(profile))
        header, turns, *record = reply
        if profile is not None and record and record[0] is not None:
            found = record_row(profile, *record)
        session = session_row(session_id, header)
        first = 1 if session is None else session.last_seq - len(turns) + 1
        return View(session, turn_rows(first, turns), found)

    async def _plainly(self, wire: Wire, keys: list[bytes], wanted: tuple[Any, ...]) -> Any:
        """What `snapshot.lua` gives, by commands: payloads that pass through a script take it many
        times as long."""
        last, _, *at = wanted
        bounds = (0, -1) if last == "" else (-last, -1) if last else (1, 0)
        commands: list[tuple[Argument, ...]] = [
            ("HGETALL", keys[0]),
            ("LRANGE", keys[1], *bounds),
        ]
        if at:
            commands += [("HGET", key, *at) for key in keys[2:]]
        try:
            return await wire.at_once(*commands)
        except OutOfMemoryError:  # a full Redis queues no commands, but runs scripts that read
            return await wire.run(scripts.SNAPSHOT, keys, wanted, again=True)

    async def now(self, partition: Partition) -> datetime:
        """The clock of the node that holds the partition."""
        await self.open()
        keys = self._keys.partition(str(partition))[4:6]
        [time, *_] = await self._run(scripts.FETCH, keys, "record", "")
        return from_micros(micros(time))
