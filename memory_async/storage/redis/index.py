"""The indexes: finding by them, and keeping them true.

An entry is added before its record is written and removed after: what exists is always found. On
one Redis that is one script; on a cluster the index is in other slots. There, whoever changes an
entry looks at the record again afterwards (`Index.settle`), so that of two who change it at once
the later puts it right. Entries of records that are gone or expired are filtered, and taken out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from memory_async.codec import SessionRow
from memory_async.keys import Key, Partition
from memory_async.storage.batch import AppendOp, Op, PutOp, PutSessionOp
from memory_async.storage.driver import Query, place_of
from memory_async.storage.redis import scripts
from memory_async.storage.redis.keys import (
    Entry,
    Keys,
    all_entries,
    families,
    from_stamp,
    place,
    stamp,
)
from memory_async.storage.redis.query import Row, family, is_impossible, matches, visible
from memory_async.storage.redis.rows import Argument, field, record_row, session_row
from memory_async.storage.redis.wire import Wire

PAGE = 100
_REMEMBERED = 10_000


class Index:
    """The indexes of one namespace."""

    def __init__(self, wire: Wire, keys: Keys, *, cluster: bool) -> None:
        self._wire = wire
        self._keys = keys
        self._cluster = cluster
        self._known: OrderedDict[tuple[str, str, str], frozenset[str]] = OrderedDict()
        self._work: set[asyncio.Task[None]] = set()

    # --- reading ---

    async def find(self, query: Query) -> list[Row]:
        if query.limit == 0 or is_impossible(query):
            return []
        if query.kind == "session" and query.partition is not None:
            key = Key("session", Partition.parse(query.partition), query.partition[8:])
            _, [row] = await self.rows([key])
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
            now, some = await self.rows([_key(each) for each in wanted])
            by_entry = dict(zip(wanted, some, strict=True))
            return entries, [visible(by_entry.get(each), now) for each in entries]
        parts = self._keys.partition(query.partition)
        arguments = (query.kind, *bounds, size)
        now, *flat = await self._wire.run(scripts.FIND, parts[6:9], arguments, again=True)
        entries = [Entry.parse(member) for member in flat[::3]]
        rows = [
            None if meta is None else record_row(_key(entry), meta, payload)
            for entry, meta, payload in zip(entries, flat[1::3], flat[2::3], strict=True)
        ]
        return entries, [visible(row, from_stamp(now)) for row in rows]

    async def get(self, key: Key) -> Row | None:
        now, [row] = await self.rows([key])
        return visible(row, now)

    async def rows(self, keys: Sequence[Key]) -> tuple[int, list[Row | None]]:
        """The rows at ``keys``, which are all of sessions or all of records, expired ones included;
        and the time of the engine. Of one slot they are of one moment."""
        if not keys:
            return 0, []
        sessions = keys[0].kind == "session"
        parts = [self._keys.partition(str(key.partition)) for key in keys]
        names = [each[:5] if sessions else each[6:8] for each in parts]
        places = sorted(range(len(keys)), key=lambda n: self._wire.slot(names[n][0]))
        calls, groups = [], []
        for _, members in groupby(places, key=lambda n: self._wire.slot(names[n][0])):
            group = list(members)
            first: list[Argument] = ["session"] if sessions else ["record"]
            fields = [] if sessions else [field(keys[n].kind, keys[n].id) for n in group]
            flat = [name for n in group for name in names[n]]
            calls.append(self._wire.run(scripts.FETCH, flat, [*first, *fields], again=True))
            groups.append(group)
        rows: list[Row | None] = [None] * len(keys)
        now = 0
        for group, (time, *replies) in zip(groups, await _all(calls), strict=True):
            now = from_stamp(time)
            for n, reply in zip(group, replies, strict=True):
                if reply is not None:
                    key = keys[n]
                    rows[n] = session_row(key.id, reply) if sessions else record_row(key, *reply)
        return now, rows

    # --- writing, on a cluster ---

    def guess(self, ops: Iterable[Op]) -> Iterator[Entry]:
        """The entries a batch may need that are not known to be there."""
        for op in ops:
            for entry in self._of(op, ""):
                known = self._known.get((entry.kind, entry.id, entry.partition), frozenset())
                if entry.created + entry.family not in known:
                    yield entry

    def learn(self, ops: Iterable[Op], born: str) -> None:
        """Remember what is there after a batch, in a session that began at ``born``."""
        for op in ops:
            there: dict[tuple[str, str, str], set[str]] = {}
            for entry in self._of(op, born):
                place = (entry.kind, entry.id, entry.partition)
                there.setdefault(place, set()).add(entry.created + entry.family)
            for where, words in there.items():
                before = self._known.pop(where, frozenset()) if where[0] == "session" else ()
                self._known[where] = frozenset(words.union(before))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _of(self, op: Op, born: str) -> Iterator[Entry]:
        match op:
            case PutOp(row=row):
                yield from all_entries(row)
            case PutSessionOp(row=header) | AppendOp(session=header):
                id, where = header.session_id, f"session/{header.session_id}"
                known = self._known.get(("session", id, where))
                created = born or (next(iter(known))[:18] if known else stamp(header.created_at))
                due = op.due if isinstance(op, AppendOp) else ()
                for family in (*families(header), *(f"l{job}" for job in due)):
                    yield Entry("session", family, created, id, where)

    def forget(self, entry: Entry) -> None:
        where = (entry.kind, entry.id, entry.partition)
        if known := self._known.get(where):
            self._known[where] = known - {entry.created + entry.family}

    async def change(self, command: str, changed: Iterable[Entry]) -> None:
        """Add (``ZADD``) or take out (``ZREM``) entries of the namespace's index."""
        by_key: dict[bytes, list[bytes]] = {}
        for entry in changed:
            by_key.setdefault(self._keys.index(entry.kind, entry.family), []).append(bytes(entry))
        calls = []
        for key, members in by_key.items():
            for n in range(0, len(members), 500):
                some: list[Argument] = []
                for member in members[n : n + 500]:
                    some += [0, member] if command == "ZADD" else [member]
                calls.append(self._wire.command(command, key, *some))
        await _all(calls)

    def settle(self, changed: Iterable[Entry]) -> None:
        """In the background: make these entries be what their records say."""
        if todo := list(changed):
            self._start(self._settle(todo))

    async def _settle(self, todo: list[Entry]) -> None:
        right = await self._which_hold(todo)
        await self.change("ZADD", (each for each in todo if each in right))
        wrong = [each for each in todo if each not in right]
        await self.change("ZREM", wrong)
        # Whoever wrote such a record meanwhile may have found its entry still there.
        await self.change("ZADD", await self._which_hold(wrong))

    async def _which_hold(self, todo: list[Entry]) -> set[Entry]:
        held: set[Entry] = set()
        for session in (True, False):
            some = [each for each in todo if (each.kind == "session") is session]
            _, rows = await self.rows([_key(each) for each in some])
            for row in rows:
                held |= set() if row is None else set(all_entries(row))
        return held

    # --- repairing ---

    async def _repair(self, stale: list[tuple[Entry, Row | None]]) -> None:
        gone = [entry for entry, _ in stale]
        if self._cluster:
            await self._settle(gone)
        else:
            await self._repair_here(gone)
        await _all([self._purge(entry) for entry, _ in stale if entry.kind != "session"])

    async def _repair_here(self, gone: list[Entry]) -> None:
        for session in (True, False):
            some = [each for each in gone if (each.kind == "session") is session]
            _, rows = await self.rows([_key(each) for each in some])
            names: list[bytes] = []
            arguments: list[Argument] = []
            for entry, row in zip(some, rows, strict=True):
                if row is not None and entry in set(all_entries(row)):
                    continue
                parts = self._keys.partition(entry.partition)
                if session:
                    job = entry.family[1:] if entry.family[0] == "l" else ""
                    names += [parts[0], parts[1], parts[3]]
                    arguments += [bytes(entry), "", job, _seen(row, job)]
                elif row is None:
                    names += [parts[6]] * 3
                    arguments += [bytes(entry), field(entry.kind, entry.id), "", ""]
            if arguments:
                key = self._keys.index(some[0].kind, some[0].family)
                await self._wire.run(scripts.REPAIR, [key, *names], arguments, again=True)

    async def _purge(self, entry: Entry) -> None:
        parts = self._keys.partition(entry.partition)
        if not self._cluster:
            parts.append(self._keys.index(entry.kind, entry.family))
        arguments = (entry.partition, "", 0, "purge", entry.kind, entry.id)
        reply = await self._wire.run(scripts.APPLY, parts, arguments, again=True)
        if reply[0] == b"ok":
            await self.change("ZREM", [Entry.parse(member) for member in reply[3]])

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


def _key(entry: Entry) -> Key:
    return Key(entry.kind, Partition.parse(entry.partition), entry.id)


def _seen(row: Row | None, job: str) -> str:
    """A session as `repair.lua` sees it."""
    if not isinstance(row, SessionRow):
        return "//0"
    cursor = f"{row.jobs[job][0]}" if job in row.jobs else ""
    return f"{stamp(row.created_at)}/{cursor}/{row.last_seq}"


async def _all(calls: Sequence[Any]) -> list[Any]:
    if len(calls) == 1:
        return [await calls[0]]
    return await asyncio.gather(*calls)
