"""The indexes: finding by them, and taking out what leads nowhere.

On one Redis an entry is written with its record, in one script; for a cluster see `Upkeep`. Records
may end without a script (`ttl`), so entries of what is gone or expired are filtered, and taken out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from memory_async.keys import Key, Partition
from memory_async.storage.driver import Query, place_of
from memory_async.storage.redis import scripts
from memory_async.storage.redis.fetch import fetch, together
from memory_async.storage.redis.keys import Entry, Keys, all_entries, micros, place, stamp
from memory_async.storage.redis.query import Row, family, is_impossible, matches, visible
from memory_async.storage.redis.rows import Argument, field, record_row
from memory_async.storage.redis.upkeep import Upkeep
from memory_async.storage.redis.wire import Wire

PAGE = 100


class Index:
    """The indexes of one namespace."""

    def __init__(self, wire: Wire, keys: Keys, *, cluster: bool) -> None:
        self._wire = wire
        self._keys = keys
        self.upkeep = Upkeep(wire, keys, self._start) if cluster else None
        self._work: set[asyncio.Task[None]] = set()

    # --- reading ---

    async def find(self, query: Query) -> list[Row]:
        if query.limit == 0 or is_impossible(query):
            return []
        if query.kind == "session" and query.partition is not None:
            key = Key("session", Partition.parse(query.partition), query.partition[8:])
            _, [row] = await fetch(self._wire, self._keys, [key])
            return [row] if row is not None and matches(row, query) else []
        walked, whole = family(query)
        found: list[Row] = []
        start = None
        if query.before is not None:
            start = place(stamp(query.before[0]), *query.before[1:])
        while True:
            page = min(query.limit, PAGE)
            entries, rows = await self._page(query, walked, whole, start, page)
            stale = []
            for entry, row in zip(entries, rows, strict=True):
                if not entry.id.startswith(query.prefix or ""):
                    continue  # its row was not even read
                if row is None or entry not in set(all_entries(row)):
                    stale.append((entry, row))
                elif matches(row, query):
                    found.append(row)
            if stale:
                self._start(self._repair(stale))
            if not whole:
                return sorted(found, key=place_of, reverse=True)[: query.limit]
            if len(found) >= query.limit or len(entries) < page:
                return found[: query.limit]
            last = entries[-1]
            start = place(last.created, last.id, last.partition)

    async def _page(
        self, query: Query, family: str, whole: bool, start: str | None, size: int
    ) -> tuple[list[Entry], list[Row | None]]:
        """A page of entries, newest first, with their rows; of ids with a prefix all of them."""
        head = f"{query.kind}:{family}"
        if whole:
            bounds = f"[{head}\0".encode(), (f"({head}" + (start or "\1")).encode()
        else:
            bounds = f"[{head}".encode(), f"({head}".encode() + b"\xff"
            size = -1
        if query.partition is None:
            key = self._keys.index(query.kind, family)
            found = await self._wire.command(
                *("ZREVRANGEBYLEX", key, bounds[1], bounds[0], "LIMIT", 0, size)
            )
            entries = [Entry.parse(member) for member in found]
            wanted = [each for each in entries if each.id.startswith(query.prefix or "")]
            now, some = await fetch(self._wire, self._keys, [each.key for each in wanted])
            by_entry = dict(zip(wanted, some, strict=True))
            return entries, [visible(by_entry.get(each), now) for each in entries]
        parts = self._keys.partition(query.partition)
        arguments = (query.kind, *bounds, size)
        now, *flat = await self._wire.run(scripts.FIND, parts[4:7], arguments, again=True)
        entries = [Entry.parse(member) for member in flat[::3]]
        rows = [
            None if meta is None else record_row(entry.key, meta, payload)
            for entry, meta, payload in zip(entries, flat[1::3], flat[2::3], strict=True)
        ]
        return entries, [visible(row, micros(now)) for row in rows]

    async def get(self, key: Key) -> Row | None:
        now, [row] = await fetch(self._wire, self._keys, [key])
        return visible(row, now)

    # --- repairing ---

    async def _repair(self, stale: list[tuple[Entry, Row | None]]) -> None:
        gone = [entry for entry, _ in stale]
        if self.upkeep is not None:
            await self.upkeep.settle(gone)
        else:
            await self._repair_here(gone)
        await together([self._purge(entry) for entry, _ in stale if entry.kind != "session"])

    async def _repair_here(self, gone: list[Entry]) -> None:
        names = [self._keys.index(gone[0].kind, gone[0].family)]
        arguments: list[Argument] = []
        for entry in gone:
            parts = self._keys.partition(entry.partition)
            session = entry.kind == "session"
            names.append(parts[0] if session else parts[4])
            at = "h" if session else field(entry.kind, entry.id)
            arguments += [bytes(entry), at, entry.created]
        await self._wire.run(scripts.REPAIR, names, arguments, again=True)

    async def _purge(self, entry: Entry) -> None:
        parts = self._keys.partition(entry.partition)
        if self.upkeep is None:
            parts.append(self._keys.index(entry.kind, entry.family))
        arguments = (entry.partition, "", "", 0, "purge", entry.kind, entry.id)
        reply = await self._wire.run(scripts.APPLY, parts, arguments, again=True)
        if self.upkeep is not None and reply[0] == b"ok":
            await self.upkeep.settle(Entry.parse(member) for member in reply[3])

    # --- work in the background ---

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # what is left is repaired when it is next seen

    async def finish(self) -> None:
        """Wait for the work in the background."""
        while self._work:
            await asyncio.wait(self._work)
