"""`MongoStorage`: MongoDB, on Motor or on PyMongo's own asyncio client."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from pymongo.errors import PyMongoError

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.forked import keep
from memory_async.keys import Key, Partition, utc_now
from memory_async.shield import to_the_end
from memory_async.storage.batch import Batch, PutOp, PutSessionOp
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.engine import start_of_view
from memory_async.storage.mongo import documents, reads
from memory_async.storage.mongo.address import THEIRS, Address, check_collection, check_database
from memory_async.storage.mongo.client import Collection, is_client, loop_of, open_motor
from memory_async.storage.mongo.commit import Commit, LostError
from memory_async.storage.mongo.documents import Document, Names, belongs, is_live
from memory_async.storage.mongo.failures import is_cut, is_undone, mapped
from memory_async.storage.mongo.indexes import INDEXES
from memory_async.storage.mongo.journal import ByJournal
from memory_async.storage.mongo.plan import needed, plan
from memory_async.storage.mongo.reads import Turns
from memory_async.storage.mongo.sweep import sweep
from memory_async.storage.mongo.transaction import ByTransaction

TRIES = 60
"""How often a batch is tried that others were faster than, within some seconds."""

READS = 5
"""How often turns are read again that were trimmed or dropped while they were read."""

_MOST = (1 << 31) - 1


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


class MongoStorage(Driver):
    """A collection of a MongoDB database, created at first use; safe for many processes::

        MongoStorage("mongodb://ann:secret@localhost:27017/app", ttl=30 * 24 * 3600)

    A URL opens Motor. A client of yours, Motor's or a `pymongo.AsyncMongoClient` (Motor's
    successor, which works as well), is never closed. ``database`` stands in for that of the URL;
    without any it is ``memory_async``. ``connect_timeout`` and ``timeout``, of one command, are
    seconds; a client of yours has its own.

    With ``ttl`` a session goes so many seconds after its last write: its header by an index of
    MongoDB's, and with that its turns and records can no longer be read; what is left of them is
    taken away by `sweep`, which `Memory.recover` calls.

    Batches are transactions where the deployment has them (a replica set, or shards), and go
    through a journal where it has not; ``transactions=False`` says that it has not, for all
    processes alike. To shard the collection use the key ``{ns: 1, p: 1}``, which is namespace and
    partition: each partition is on one shard then, and every unique index begins with it.
    """

    max_payload_bytes = (16 << 20) - (1 << 16)  # of a document, less its names and ids

    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "ttl": float,
        "database": str,
        "collection": str,
        "transactions": boolean,
        "timeout": float,
        "connect_timeout": float,
        **dict.fromkeys(THEIRS, str),
    }

    def __init__(
        self,
        url_or_client: Any,
        *,
        database: str | None = None,
        collection: str = "memory_async",
        namespace: str = "default",
        ttl: float | None = None,
        transactions: bool | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
    ) -> None:
        super().__init__(namespace=namespace)
        self.ttl = None if ttl is None else _seconds("ttl", ttl)
        self._transactions = transactions
        self._collection_name = check_collection(collection)
        self._made_in = os.getpid()
        self._names = Names(namespace)
        self._database = check_database(database)
        self._given: Any = None
        self._address: Address | None = None
        self._options = {
            "serverSelectionTimeoutMS": round(1000 * _seconds("connect_timeout", connect_timeout)),
            "connectTimeoutMS": round(1000 * connect_timeout),
            "socketTimeoutMS": round(1000 * _seconds("timeout", timeout)),
        }
        if isinstance(url_or_client, str):
            self._address = Address.of(url_or_client)
            self._database = self._database or self._address.database or "memory_async"
            self._where = self._address.shown
        elif is_client(url_or_client):
            self._given, self._where = url_or_client, "the MongoDB of your client"
        else:
            kind = type(url_or_client)
            raise ConfigurationError(
                "MongoStorage takes a URL, Motor's AsyncIOMotorClient or PyMongo's "
                f"AsyncMongoClient, not {kind.__module__}.{kind.__name__}"
            )
        self._client: Collection | None = None
        self._commit: Commit | None = None
        self._ahead = timedelta(0)  # of the host's clock the server's is
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        theirs = {name: options.pop(name) for name in THEIRS if name in options}
        return cls(Address.parse(f"{scheme}://{rest}", theirs).url, **options)

    def __repr__(self) -> str:
        return f"MongoStorage({self._where!r}, namespace={self.namespace!r})"

    # --- opening and closing ---

    async def _open(self) -> None:
        with self._errors():
            client = self._connect() if self._given is None else self._check_given(self._given)
        collection = Collection(client, self._database, self._collection_name)
        try:
            with self._errors():
                await self._prepare(collection)
        except BaseException:
            if self._given is None:
                await collection.close()
            raise
        self._client = collection

    def _connect(self) -> Any:
        assert self._address is not None  # noqa: S101 - for the type
        said = self._address.url.lower()  # which goes before the driver's own
        options = {name: value for name, value in self._options.items() if name.lower() not in said}
        return open_motor(self._address.url, **options)

    def _check_given(self, client: Any) -> Any:
        if os.getpid() != self._made_in:
            raise ConfigurationError(
                "this process is a fork of the one the MongoDB client was made in, which still "
                "uses its connections: make a client and a storage in each process"
            )
        if loop_of(client) not in (None, asyncio.get_running_loop()):
            raise ConfigurationError(
                "the MongoDB client given belongs to another event loop: make one per loop"
            )
        return client

    async def _prepare(self, collection: Collection) -> None:
        hello = await collection.hello()
        self._ahead = _local_time(hello) - utc_now()
        await collection.create_indexes(INDEXES)
        shared = collection, self._names, self._clock
        has = "setName" in hello or hello.get("msg") == "isdbgrid"
        has = has if self._transactions is None else self._transactions
        self._commit = ByTransaction(*shared) if has else ByJournal(*shared)
        await ByJournal(*shared).settle()  # also where there are transactions now

    async def _close(self) -> None:
        collection, self._client = self._client, None
        if collection is not None and self._given is None:
            with self._errors():
                await collection.close()

    def _abandon(self) -> None:
        keep(self._client, self._given, self._writing)
        self._client, self._writing = None, WeakValueDictionary()

    def _opened(self) -> tuple[Collection, Commit]:
        if self._client is None or self._commit is None:
            raise StorageUnavailableError(f"{self!r} was closed meanwhile")
        return self._client, self._commit

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Exceptions of PyMongo as ours."""
        try:
            yield
        except PyMongoError as error:
            raise mapped(error, self._where) from error

    def _clock(self) -> datetime:
        """About the server's time, without asking it."""
        return utc_now() + self._ahead

    async def now(self, partition: Partition) -> datetime:
        """The primary's clock."""
        await self.open()
        collection, _ = self._opened()
        with self._errors():
            return _local_time(await collection.hello())

    # --- writing ---

    async def _apply(self, batch: Batch) -> Applied:
        partition = str(batch.partition)
        lock = self._writing.setdefault(partition, asyncio.Lock())
        async with lock:  # batches of this process need not race each other
            return await to_the_end(self._apply_whole(batch, partition))

    async def _apply_whole(self, batch: Batch, partition: str) -> Applied:
        again = _may_repeat(batch)
        with self._errors():
            for number in range(TRIES):
                try:
                    applied = await self._try(batch, partition)
                    if applied is not None:
                        return applied
                except LostError:
                    pass
                except PyMongoError as error:
                    if not is_cut(error) or not (again or is_undone(error)):
                        raise
                    again = False
                    continue
                await asyncio.sleep(random.uniform(0, min(0.1, 0.001 * 2**number)))  # noqa: S311
        raise StorageUnavailableError(f"others kept writing to {batch.partition}: try again")

    async def _try(self, batch: Batch, partition: str) -> Applied | None:
        collection, commit = self._opened()
        found, token = await commit.read(partition, *needed(self._names, batch))
        made = plan(self._names, batch, found, self._clock(), self.ttl)
        if made.known is not None:
            turns = await collection.find(self._names.of(partition, made.known))
            return Applied((), known=documents.turn_row(turns[0], 0)) if turns else None
        await commit.make(partition, made.changes, token)
        return Applied(made.did, made.seq)

    async def sweep(self) -> int:
        """Take away what is left of sessions that have expired; how many those were."""
        await self.open()
        collection, _ = self._opened()
        with self._errors():
            return await sweep(collection, self.namespace, self._clock())

    # --- reading ---

    async def _read(self, ids: list[str], *partitions: str) -> dict[str, Document]:
        """What is live of the documents, by id; and done, if any of it is promised."""
        collection, commit = self._opened()
        of = {"ns": self.namespace, "p": {"$in": partitions}}
        with self._errors():
            while True:
                wanted = [*commit.guards(*partitions), *ids]
                found = await collection.find({"_id": {"$in": wanted}, **of})
                if await commit.settled(found):
                    break
        now = self._clock()
        return {each["_id"]: each for each in found if "run" in each or is_live(each, now)}

    async def _get(self, key: Key) -> SessionRow | RecordRow | TurnRow | None:
        partition = str(key.partition)
        is_turn = key.kind == "turn"
        id = self._names.turn(partition, key.id) if is_turn else self._names.record(key)
        # Of a partition that has none this finds nothing, which is as quick as not to ask.
        head = self._names.header(key.partition.id)
        found = await self._read([head, id], partition)
        stored, header = found.get(id), found.get(head)
        if is_turn:
            if header is None or stored is None or stored["log"] != header["log"]:
                return None
            return documents.turn_row(stored, header["trimmed"])
        return documents.row(stored) if stored and belongs(stored, header) else None

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        collection, commit = self._opened()
        rows: list[SessionRow | RecordRow] = []
        with self._errors():
            await commit.settle(query.partition)
            while query.limit > 0:
                found = await collection.find(
                    reads.find(self.namespace, query, self._clock()),
                    sort=reads.NEWEST_FIRST,
                    limit=min(query.limit, _MOST),
                )
                headers = await self._headers(found)
                living = [each for each in found if belongs(each, headers.get(each.get("head")))]
                rows += map(documents.row, living)
                if len(found) < query.limit:
                    break
                query = reads.after(query, found[-1], len(living))
        return rows

    async def _headers(self, found: Sequence[Document]) -> dict[str | None, Document]:
        """The live ones by id, of the records that go with their session."""
        collection, _ = self._opened()
        tied = {each["head"]: each["p"] for each in found if "head" in each}
        if not tied:
            return {}
        of = {"ns": self.namespace, "p": {"$in": list({*tied.values()})}}
        where = {"_id": {"$in": list(tied)}, **of}
        headers = await collection.find(where, {"kind": 1, "log": 1, "expires": 1})
        now = self._clock()
        return {each["_id"]: each for each in headers if is_live(each, now)}

    async def _history(self, session_id: str, span: Span) -> Sequence[TurnRow]:
        id, partition = self._names.header(session_id), f"session/{session_id}"
        rows: Sequence[TurnRow] = []
        for _ in range(READS):
            header = (await self._read([id], partition)).get(id)
            if header is None:
                return []
            whole, rows = await self._turns(header, Turns.within(header, span), span.trimmed)
            if whole:
                break
        return rows

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        id = self._names.header(session_id)
        ids, partitions = [id], [f"session/{session_id}"]
        if profile is not None:
            ids.append(self._names.record(profile))
            partitions.append(str(profile.partition))
        view = View(None, [], None)
        for _ in range(READS):
            found = await self._read(ids, *partitions)
            header = found.pop(id, None)
            record = next(map(documents.record_row, found.values()), None)
            if header is None:
                return View(None, [], record)
            row = documents.session_row(header)
            turns = Turns(header["log"], start_of_view(row, last, since), row.last_seq)
            whole, rows = await self._turns(header, turns, trimmed=False)
            view = View(row, rows, record)
            if whole:
                break
        return view

    async def _turns(
        self, header: Document, turns: Turns, trimmed: bool
    ) -> tuple[bool, list[TurnRow]]:
        """The rows; and whether it is as the header said, or has been trimmed or dropped since."""
        if turns.first >= turns.last:
            return True, []
        collection, _ = self._opened()
        with self._errors():
            found = await collection.find(
                turns.query(self.namespace, header["p"]), sort=[("at", 1)]
            )
        readable = [each for each in found if trimmed or "payload" in each]
        rows = [documents.turn_row(each, header["trimmed"]) for each in readable]
        return len(rows) == turns.last - turns.first, rows


def _may_repeat(batch: Batch) -> bool:
    """Whether applying the batch twice is applying it once."""
    return batch.append is not None or all(isinstance(op, PutOp | PutSessionOp) for op in batch.ops)


def _local_time(hello: Mapping[str, Any]) -> datetime:
    time: datetime = hello["localTime"]
    return time.replace(tzinfo=UTC)


def _seconds(name: str, value: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.001 <= value <= 1e9:
        raise ConfigurationError(f"{name} is in seconds, from 0.001 on, not {value!r}")
    return value
