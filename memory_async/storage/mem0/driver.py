"""`Mem0Storage`: sessions, records and what is learned of users, as memories of Mem0."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from memory_async.codec import RecordRow, SessionRow, TurnRow
from memory_async.errors import ConfigurationError, CorruptRecordError
from memory_async.keys import Key, Kind, Partition, check_id
from memory_async.shield import to_the_end
from memory_async.storage.batch import Batch
from memory_async.storage.driver import Applied, Driver, Query, Span, View
from memory_async.storage.engine import is_expired, scan, start_of_view
from memory_async.storage.mem0.learned import Learned
from memory_async.storage.mem0.log import Log
from memory_async.storage.mem0.own import OwnMemory
from memory_async.storage.mem0.rows import Entry, key_of, log_of, owned_by, records_of
from memory_async.storage.mem0.search import search
from memory_async.storage.mem0.service import Service
from memory_async.storage.mem0.shelf import Shelf
from memory_async.storage.mem0.writes import apply_batch
from memory_async.storage.protocol import Match
from memory_async.storage.searching import check_conditions
from memory_async.storage.url import boolean
from memory_async.turns import Turn

__all__ = ["Mem0Storage"]


HOST = "https://api.mem0.ai"


class Mem0Storage(Driver):
    """The Mem0 Platform (``api_key``, or ``MEM0_API_KEY``), or a ``memory`` of the caller's own: a
    ``mem0ai`` ``AsyncMemory``, which is never closed here.

    Turns and records are memories: the text is the real one, the metadata carries the record. Mem0
    has no transactions, no compare-and-set and no sequences (`unpromised`): writers in several
    processes may give two turns of a session one ``seq``, but lose none. It can neither order nor
    bound a listing, so a session is read as a whole, 200 memories a call.

    With ``infer=True`` the analysis of users is Mem0's: a `Memory` with ``user_analysis_memory``
    hands it the turns, needs no model, and reads what it extracted as the trait ``facts``.
    `search` is Mem0's own.
    """

    searches_by_meaning = True  # and not by words, so it is not held to the tests of a full text
    unpromised = frozenset({"compare-and-set", "transactions", "unique seq"})
    url_options: ClassVar[dict[str, Callable[[str], Any]]] = {
        **Driver.url_options,
        "org_id": str,
        "project_id": str,
        "base_url": str,
        "infer": boolean,
    }

    def __init__(
        self,
        api_key: str | None = None,
        *,
        org_id: str | None = None,
        project_id: str | None = None,
        base_url: str = HOST,
        memory: Any = None,
        infer: bool = False,
        namespace: str = "default",
        timeout: float = 60.0,
    ) -> None:
        super().__init__(namespace=namespace)
        if memory is not None:
            service: Service = OwnMemory(memory)
        else:
            service = _platform(
                api_key,
                base_url=base_url,
                org_id=org_id,
                project_id=project_id,
                timeout=timeout,
            )
        self._service = service
        self.analyses_users = infer
        self._shelf = Shelf(service, self.namespace)
        self._learned = Learned(service, self.namespace)
        self._writing: WeakValueDictionary[Partition, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    def from_url(cls, scheme: str, rest: str, options: dict[str, Any]) -> Self:
        if rest.strip("/"):
            raise ConfigurationError(
                f"write {scheme}://, without {rest!r}: the key is taken from MEM0_API_KEY, the "
                "address of another server from base_url="
            )
        return cls(**options)

    def __repr__(self) -> str:
        return f"Mem0Storage({self._service!r}, namespace={self.namespace!r})"

    async def _open(self) -> None:
        await self._service.open()

    async def _close(self) -> None:
        await self._service.close()

    def _abandon(self) -> None:
        self._service.abandon()
        self._shelf = Shelf(self._service, self.namespace)
        self._writing = WeakValueDictionary()

    async def _apply(self, batch: Batch) -> Applied:
        lock = self._writing.setdefault(batch.partition, asyncio.Lock())
        async with lock:  # one after the other within this process; Mem0 itself has no locks
            return await to_the_end(apply_batch(self._shelf, batch))

    # --- what Mem0 does by itself: searching and learning ---

    async def index(
        self,
        key: Key,
        text: str | Sequence[str],
        labels: Sequence[str] = (),
        *,
        created_at: datetime | None = None,
    ) -> None:
        """Nothing to do: Mem0 indexes what it keeps."""
        key.check()
        await self.open()

    async def search(
        self,
        query: str,
        *,
        kind: Kind,
        partition: Partition | None = None,
        user_id: str | None = None,
        limit: int = 10,
        around: int = 0,
    ) -> list[Match]:
        check_conditions(partition, user_id, limit=limit, around=around)
        await self.open()
        return await search(
            self._shelf, query, kind, partition, user_id=user_id, limit=limit, around=around
        )

    async def analyse(self, user_id: str, turns: Sequence[Turn]) -> None:
        """Have Mem0 extract what the user told. Returns when it has."""
        await self.open()
        await self._learned.analyse(check_id("user_id", user_id), turns)

    async def unlearn(self, user_id: str) -> None:
        """Delete what Mem0 has extracted of the user."""
        await self.open()
        await self._learned.unlearn(check_id("user_id", user_id))

    # --- reading ---

    async def _get(self, key: Key) -> SessionRow | RecordRow | TurnRow | None:
        if key.kind == "session":
            return (await self._log(key.id)).header
        if key.kind == "profile" and self.analyses_users:
            stored = await self._stored(key)
            row = stored if isinstance(stored, RecordRow) else None
            return await self._learned.profile(key, row)
        return await self._stored(key)

    async def _stored(self, key: Key) -> RecordRow | TurnRow | None:
        for entry in await self._shelf.read({"key": key_of(key)}):
            if isinstance(entry.row, TurnRow):
                return entry.row
            if isinstance(entry.row, RecordRow):
                return None if is_expired(entry.row) else entry.row
            raise CorruptRecordError(f"cannot read {key}: {_what_is_wrong(entry)}")
        return None

    async def _find(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        if query.kind == "session":
            return await self._find_sessions(query)
        where: dict[str, str] = {"kind": query.kind}
        if query.partition is not None:
            where |= records_of(query.partition)
            if query.id is not None:
                partition = Partition.parse(query.partition)
                where = {"key": key_of(Key(query.kind, partition, query.id))}
        if query.user_id is not None:
            where |= owned_by(query.user_id)
        return scan(self._readable(await self._shelf.read(where)), query)

    async def _find_sessions(self, query: Query) -> Sequence[SessionRow | RecordRow]:
        where: dict[str, str] = {"kind": "session"}
        if query.partition is not None:
            space, id = Partition.parse(query.partition)
            if space != "session":
                return []
            where |= log_of(id)
        if query.id is not None:
            where |= log_of(query.id)
        if query.user_id is not None:
            where |= owned_by(query.user_id)
        entries = await self._shelf.read(where)
        headers = [entry.row for entry in entries if isinstance(entry.row, SessionRow)]
        # What only the log tells is read for those that may be among the found.
        limit = query.limit if query.lagging is None else max(len(headers), 1)
        likely = scan(headers, query._replace(lagging=None, limit=limit))
        logs = await self._shelf.gather(
            self._log(row.session_id) for row in likely if isinstance(row, SessionRow)
        )
        return scan((log.header for log in logs if log.header is not None), query)

    async def _history(self, session_id: str, span: Span) -> Sequence[TurnRow]:
        turns = await self._shelf.read(log_of(session_id), {"kind": "turn"})
        return Log(turns).read(span)

    async def _snapshot(
        self, session_id: str, profile: Key | None, last: int | None, since: str | None
    ) -> View:
        log, row = await asyncio.gather(self._log(session_id), self._profile(profile))
        header = log.header
        if header is None:
            return View(None, [], row)
        start = start_of_view(header, last, since)
        turns = log.read(Span(start, None, None, newest=False, trimmed=False))
        # Where writers gave one seq to several turns, there are more than numbers.
        return View(header, turns, row)

    async def _profile(self, key: Key | None) -> RecordRow | None:
        if key is None:
            return None
        entries = await self._shelf.read({"key": key_of(key)})
        rows = self._readable(entries)
        row = rows[0] if rows else None
        return await self._learned.profile(key, row) if self.analyses_users else row

    async def _log(self, session_id: str) -> Log:
        return Log(await self._shelf.read(log_of(session_id)))

    def _readable(self, entries: Iterable[Entry]) -> list[RecordRow]:
        rows = []
        for entry in entries:
            if isinstance(entry.row, RecordRow):
                rows.append(entry.row)
            else:
                self._count_corrupt(CorruptRecordError(_what_is_wrong(entry)))
        return rows


def _what_is_wrong(entry: Entry) -> str:
    wrong = "is no row of ours" if entry.whole else "lacks some of its pieces"
    return f"the {entry.kind} in memory {entry.head} {wrong}"


def _platform(api_key: str | None, **options: Any) -> Service:
    key = (api_key or os.environ.get("MEM0_API_KEY") or "").strip()
    if not key:
        raise ConfigurationError(
            "Mem0Storage needs an API key: set MEM0_API_KEY, or give memory=, an AsyncMemory"
        )
    try:
        from memory_async.storage.mem0.platform import Platform
    except ImportError as error:
        raise ConfigurationError(
            'Mem0Storage needs httpx: pip install "memory-async[mem0]"'
        ) from error
    return Platform(key, **options)
