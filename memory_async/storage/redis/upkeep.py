"""The indexes of a cluster, which are in other slots than the records they lead to.

An entry is added before its record is written, and taken out after: what exists is always found.
Whoever adds one leaves a line in the index's slot until the record is written, and whoever takes
one out does it in three steps: mark the entry there, which fails while anybody is adding it; look
at the record; take the entry out, unless it was added since it was marked. So whoever dies between
two steps, no entry of a record is lost. An adder that is late (`GRACE`) may have been given up: the
node of the record refuses its write, and it adds the entry again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from memory_async.storage.batch import AppendOp, Op, PutOp, PutSessionOp
from memory_async.storage.redis import scripts
from memory_async.storage.redis.fetch import fetch, together
from memory_async.storage.redis.keys import (
    Entry,
    Keys,
    all_entries,
    families,
    from_stamp,
    stamp,
)
from memory_async.storage.redis.wire import Wire

GRACE = 60  # seconds an entry may wait for its record; also bounds how far nodes' clocks may differ
_REMEMBERED = 10_000
_SOME = 500

Write = Callable[[Sequence[bytes], str], Awaitable[Any]]
"""Runs `apply.lua`, given the entries that are in the index and until when that is sure."""


class _Added(NamedTuple):
    until: str
    lines: dict[bytes, list[bytes]]


class Upkeep:
    """Adds and takes out the entries of one namespace."""

    def __init__(
        self, wire: Wire, keys: Keys, start: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._wire = wire
        self._keys = keys
        self._start = start
        self._known: OrderedDict[tuple[str, str, str], frozenset[str]] = OrderedDict()

    async def apply(self, ops: Sequence[Op], write: Write) -> Any:
        """The reply to a batch. What the index lacks is added first, mostly guessed and at once."""
        needed: Sequence[bytes] = ()
        done: list[_Added] = []
        there = set(self._guess(ops))
        if there:
            reply, first = await asyncio.gather(write((), ""), self._add(there))
            done.append(first)
        else:
            reply = await write((), "")
        for attempt in range(8):
            if reply[0] != b"need":
                break
            needed = reply[1]
            wanted = {Entry.parse(member) for member in needed}
            # Those that were not guessed; later on all, for they were too long without a record.
            if missing := (wanted if attempt else wanted - there):
                done.append(await self._add(missing))
            there |= wanted
            reply = await write(needed, min(each.until for each in done[-1 if attempt else 0 :]))
        wrong = set(there)
        if reply[0] == b"ok":
            gone = [Entry.parse(member) for member in reply[3]]
            self._learn(ops, reply[4].decode())
            for entry in gone:
                self._forget(entry)
            wrong = wrong.difference(map(Entry.parse, needed)).union(gone)
        elif reply[0] == b"need":
            reply = [b"conflict", 1, None]
        if done or wrong:
            self._start(self._finish(done, wrong))
        return reply

    async def settle(self, entries: Iterable[Entry]) -> None:
        """Take out those of these entries that no record has, and that nobody is adding."""
        mark = secrets.token_hex(8)
        marking = [
            self._wire.run(scripts.MARK, [adding, removing], [mark, GRACE, *some], again=True)
            for (_, adding, removing), some in self._by_index(entries)
        ]
        marked = [Entry.parse(member) for each in await together(marking) for member in each]
        held = await self._which_hold(marked)
        wrong = [each for each in marked if each not in held]
        removing = [
            self._wire.run(scripts.REMOVE, [index, removing], [mark, *some], again=True)
            for (index, _, removing), some in self._by_index(wrong)
        ]
        # A mark less only means that an entry stays.
        unmarking = [
            self._wire.command("HDEL", removing, *some)
            for (_, _, removing), some in self._by_index(held)
        ]
        await together([*removing, *unmarking])

    async def _add(self, entries: Iterable[Entry]) -> _Added:
        mark = secrets.token_hex(8)
        groups = list(self._by_index(entries))
        times = await together(
            [self._wire.run(scripts.ADD, keys, [mark, *some], again=True) for keys, some in groups]
        )
        lines: dict[bytes, list[bytes]] = {}
        for ((_, adding, _), some), time in zip(groups, times, strict=True):
            end = b"\0" + time + mark.encode()
            lines.setdefault(adding, []).extend(each + end for each in some)
        return _Added(stamp(from_stamp(min(times)) + GRACE * 500_000), lines)

    async def _finish(self, done: Iterable[_Added], wrong: Iterable[Entry]) -> None:
        """The record is written, or it will not be."""
        calls = [
            self._wire.command("ZREM", adding, *lines[n : n + _SOME])
            for each in done
            for adding, lines in each.lines.items()
            for n in range(0, len(lines), _SOME)
        ]
        await together(calls)
        await self.settle(wrong)

    async def _which_hold(self, entries: Sequence[Entry]) -> set[Entry]:
        held: set[Entry] = set()
        for session in (True, False):
            some = [each.key for each in entries if (each.kind == "session") is session]
            _, rows = await fetch(self._wire, self._keys, some)
            for row in rows:
                held |= set() if row is None else set(all_entries(row))
        return held.intersection(entries)

    def _by_index(self, entries: Iterable[Entry]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The three keys of an index, and its members among these, some at a time."""
        by_key: dict[bytes, list[bytes]] = {}
        for entry in entries:
            by_key.setdefault(self._keys.index(entry.kind, entry.family), []).append(bytes(entry))
        for key, members in by_key.items():
            for n in range(0, len(members), _SOME):
                yield [key, key + b":adding", key + b":removing"], members[n : n + _SOME]

    # --- what is known to be there ---

    def _guess(self, ops: Iterable[Op]) -> Iterator[Entry]:
        """The entries a batch may need that are not known to be there."""
        for op in ops:
            for entry in self._of(op, ""):
                known = self._known.get((entry.kind, entry.id, entry.partition), frozenset())
                if entry.created + entry.family not in known:
                    yield entry

    def _learn(self, ops: Iterable[Op], born: str) -> None:
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

    def _forget(self, entry: Entry) -> None:
        where = (entry.kind, entry.id, entry.partition)
        if known := self._known.get(where):
            self._known[where] = known - {entry.created + entry.family}
