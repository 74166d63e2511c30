"""Rows by their addresses, whatever slots they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import groupby
from typing import Any, TypeVar

from memory_async.keys import Key
from memory_async.storage.redis import scripts
from memory_async.storage.redis.keys import Keys, micros
from memory_async.storage.redis.query import Row
from memory_async.storage.redis.rows import Argument, field, record_row, session_row
from memory_async.storage.redis.wire import Wire

T = TypeVar("T")


async def fetch(wire: Wire, keys: Keys, wanted: Sequence[Key]) -> tuple[int, list[Row | None]]:
    """The rows at ``wanted``, which are all of sessions or all of records, expired ones included;
    and the time of the engine. Of one slot they are of one moment."""
    if not wanted:
        return 0, []
    sessions = wanted[0].kind == "session"
    parts = [keys.partition(str(key.partition)) for key in wanted]
    names = [each[:1] if sessions else each[4:6] for each in parts]
    places = sorted(range(len(wanted)), key=lambda n: wire.slot(names[n][0]))
    calls, groups = [], []
    for _, members in groupby(places, key=lambda n: wire.slot(names[n][0])):
        group = list(members)
        first: list[Argument] = ["session"] if sessions else ["record"]
        fields = [] if sessions else [field(wanted[n].kind, wanted[n].id) for n in group]
        flat = [name for n in group for name in names[n]]
        calls.append(wire.run(scripts.FETCH, flat, [*first, *fields], again=True))
        groups.append(group)
    rows: list[Row | None] = [None] * len(wanted)
    now = 0
    for group, (time, *replies) in zip(groups, await together(calls), strict=True):
        now = micros(time)
        for n, reply in zip(group, replies, strict=True):
            if reply is not None:
                key = wanted[n]
                rows[n] = session_row(key.id, reply) if sessions else record_row(key, *reply)
    return now, rows


async def together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    if len(calls) == 1:
        return [await calls[0]]
    return await asyncio.gather(*calls)
