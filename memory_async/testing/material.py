"""What the tests write and compare: short ways to make records, and ids nobody else uses."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from memory_async.keys import Key, Kind, Partition, new_version
from memory_async.message import Message
from memory_async.records import Item, Record, Session
from memory_async.storage.protocol import ALWAYS, Append, Condition, Put, Storage
from memory_async.turns import Turn

START = datetime(2024, 2, 29, 23, 59, 59, 999_000, tzinfo=UTC)


def unique(what: str = "id") -> str:
    """An id no other test, and no other run of this test, uses."""
    return f"{what}-{uuid.uuid4().hex}"


def at(micros: int) -> datetime:
    """A fixed moment, ``micros`` microseconds after another."""
    return START + timedelta(microseconds=micros)


def append(
    session_id: str,
    text: str = "hello",
    *,
    run_id: str | None = None,
    user_id: str | None = None,
    due: tuple[str, ...] = (),
    keep_turns: bool = False,
    usage: dict[str, Any] | None = None,
) -> Append:
    """A turn in which a user says ``text``."""
    turn = Turn(
        session_id=session_id,
        user_id=user_id,
        run_id=run_id or unique("run"),
        messages=[Message(role="user", content=text)],
        usage=usage,
    )
    return Append(turn, Session(session_id=session_id, user_id=user_id, keep_turns=keep_turns), due)


async def fill(storage: Storage, session_id: str, turns: int, **kwargs: Any) -> list[Turn]:
    """Append so many turns, saying "1", "2" and so on, one after the other."""
    added = []
    for number in range(1, turns + 1):
        [result] = await storage.apply(append(session_id, str(number), **kwargs))
        assert result.turn is not None
        added.append(result.turn)
    return added


def in_session(session_id: str) -> Partition:
    return Partition("session", session_id)


def session_key(session_id: str) -> Key:
    return Key("session", in_session(session_id), session_id)


async def header(storage: Storage, session_id: str) -> Session:
    """The header of a session, which must exist."""
    found = await storage.get(session_key(session_id))
    assert isinstance(found, Session)
    return found


def item(where: Partition | str, id: str, value: Any = None, **kwargs: Any) -> Item:
    """An item in a partition, or in the collection of that name."""
    partition = Partition("collection", where) if isinstance(where, str) else where
    return Item(partition=partition, id=id, value=value, **kwargs)


def changed(record: Record, **kwargs: Any) -> Any:
    """``record`` with other fields, as the next writer would put it: under a new version."""
    return replace(record, **{"version": new_version(), **kwargs})


async def put(storage: Storage, *records: Record, when: Condition = ALWAYS) -> None:
    """Put the records: those of a partition that stand together in one batch."""
    for _, batch in groupby(records, lambda record: record.key.partition):
        await storage.apply(*[Put(record, when) for record in batch])


def seqs(turns: Iterable[Turn]) -> list[int]:
    return [turn.seq for turn in turns]


def texts(turns: Iterable[Turn]) -> list[str]:
    return [message.text for turn in turns for message in turn.messages]


def ids(records: Iterable[Record]) -> list[str]:
    return [record.key.id for record in records]


_IN_SESSIONS: tuple[Kind, ...] = ("checkpoint", "lease", "decision", "item")


async def contents(storage: Storage, session_id: str) -> list[Any]:
    """Everything a reader can see of a session, to compare before and after."""
    where = in_session(session_id)
    return [
        await storage.snapshot(session_id),
        await storage.history(session_id, trimmed=True),
        *[await storage.find(kind, where) for kind in _IN_SESSIONS],
    ]


async def pages(
    storage: Storage, kind: Kind, size: int, **conditions: Any
) -> AsyncIterator[list[Record]]:
    """All records that meet the conditions, ``size`` at a time."""
    before = None
    for _ in range(1000):
        page = await storage.find(kind, before=before, limit=size, **conditions)
        if not page:
            return
        assert len(page) <= size
        yield page
        before = page[-1].cursor
    raise AssertionError("the pages do not end: `before` must leave out the record it is of")
