"""Vectors of what was said: kept as Items in the session, scanned a page at a time."""

from __future__ import annotations

import asyncio
import heapq
import struct
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, NamedTuple

from memory_async.errors import CorruptRecordError
from memory_async.keys import Partition
from memory_async.message import Message
from memory_async.records import Item, Session
from memory_async.searchable import searched
from memory_async.storage.protocol import Storage
from memory_async.turns import Turn
from memory_async.vectors import Embed, Vector, cosine, embed_texts, pack, unpack

__all__ = ["Line", "Place", "lines_of", "nearest", "vectors_of"]

TAG = "search-vectors"
PAGE = 4  # Items held at once, of a block of turns each
_COUNT = struct.Struct("<I")
_PLACE = struct.Struct("<QI")


class Place(NamedTuple):
    """Where a message stands."""

    session_id: str
    seq: int
    part: int


class Line(NamedTuple):
    """A message as it is embedded: after the one before it, to which it may be the answer."""

    place: Place
    text: str


def lines_of(turns: Sequence[Turn], before: Turn | None = None) -> list[Line]:
    """What is embedded of ``turns``, which follow ``before``."""
    lines: list[Line] = []
    last = ""
    for turn in ([before] if before is not None else []) + list(turns):
        for index, message in enumerate(turn.messages):
            if text := searched(message):
                line = f"{_speaker(message)}{text}"
                if turn is not before:
                    place = Place(turn.session_id, turn.seq, index)
                    lines.append(Line(place, f"{last}\n{line}" if last else line))
                last = line
    return lines


async def vectors_of(
    embed: Embed, session: Session, after: int, lines: Sequence[Line]
) -> Item | None:
    """The record of the vectors of ``lines``, which come after turn ``after``."""
    if not lines:
        return None
    vectors = await embed_texts(embed, [line.text for line in lines])
    places = b"".join(_PLACE.pack(line.place.seq, line.place.part) for line in lines)
    whose = TAG if session.user_id is None else f"{TAG}:{session.user_id}"
    return Item(
        partition=session.key.partition,
        id=f"{TAG}/{after}",
        tags=(whose,),
        value=_COUNT.pack(len(lines)) + places + pack(vectors),
    )


async def nearest(
    storage: Storage,
    vector: Vector,
    *,
    user_id: str | None,
    session_id: str | None,
    limit: int,
    also: Collection[Place],
) -> dict[Place, float]:
    """The cosines of the ``limit`` messages that mean most alike, and of those in ``also``."""
    best: list[tuple[float, Place]] = []
    known: dict[Place, float] = {}
    async for block in _blocks(storage, user_id, session_id):
        for place, other in _unpack(block):
            value = cosine(vector, other)
            if place in also:
                known[place] = value
            if len(best) < limit:
                heapq.heappush(best, (value, place))
            elif value > best[0][0]:
                heapq.heapreplace(best, (value, place))
        await asyncio.sleep(0)  # a block takes a millisecond or two
    return known | {place: value for value, place in best}


async def _blocks(
    storage: Storage, user_id: str | None, session_id: str | None
) -> AsyncIterator[Item]:
    where = None if session_id is None else Partition("session", session_id)
    tags = (TAG if user_id is None else f"{TAG}:{user_id}",)
    before = None
    while page := await storage.find("item", where, tags=tags, before=before, limit=PAGE):
        for item in page:
            if isinstance(item, Item):
                yield item
        before = page[-1].cursor


def _unpack(item: Item) -> list[tuple[Place, Vector]]:
    packed: Any = item.value
    if not isinstance(packed, bytes) or len(packed) < _COUNT.size:
        raise CorruptRecordError(f"{item.key} holds no vectors")
    [count] = _COUNT.unpack_from(packed)
    start = _COUNT.size + count * _PLACE.size
    places = _PLACE.iter_unpack(packed[_COUNT.size : start])
    vectors = unpack(packed[start:])
    session_id = item.partition.id
    return [
        (Place(session_id, seq, index), vector)
        for (seq, index), vector in zip(places, vectors, strict=True)
    ]


def _speaker(message: Message) -> str:
    return f"{message.name}: " if message.name else ""
