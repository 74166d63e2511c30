"""The two clients, Motor's and PyMongo's own, and all that differs between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.read_concern import ReadConcern

from memory_async.errors import ConfigurationError
from memory_async.shield import to_the_end

LARGE = 10_000
"""Documents in a reply, as far as its 16 MB allow: the fewer the replies the better."""


def open_motor(url: str, **options: Any) -> Any:
    try:
        from motor.motor_asyncio import AsyncIOMotorClient
    except ImportError as error:  # pragma: no cover - shown by the session without extras
        raise ConfigurationError(
            'a URL needs Motor: pip install "memory-async[mongo]", or give MongoStorage a '
            "pymongo.AsyncMongoClient"
        ) from error
    return AsyncIOMotorClient(url, io_loop=asyncio.get_running_loop(), **options)


def is_client(client: Any) -> bool:
    return isinstance(client, AsyncMongoClient) or _is_motor(client)


def _is_motor(client: Any) -> bool:
    """Of Motor's for asyncio; without importing Motor, which need not be there."""
    return any(
        (base.__module__, base.__name__) == ("motor.motor_asyncio", "AsyncIOMotorClient")
        for base in type(client).__mro__
    )


def loop_of(client: Any) -> asyncio.AbstractEventLoop | None:
    """The loop that a client is bound to already."""
    # There is no public way to ask without binding it.
    loop = client._io_loop if _is_motor(client) else client._loop
    assert loop is None or isinstance(loop, asyncio.AbstractEventLoop)  # noqa: S101 - for the type
    return loop


async def _all(cursor: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await cursor.to_list(None)
    return found


class Collection:
    """One collection by either client: read from the primary, and durable when written."""

    def __init__(self, client: Any, database: str | None, collection: str) -> None:
        self._client = client
        self._motor = _is_motor(client)
        found = (
            client[database]
            if database
            else client.get_default_database("memory_async")  # the one of the client's URL
        )
        given = found.write_concern
        self._durable = WriteConcern("majority", j=True) if given.is_server_default else given
        self._collection = found.get_collection(
            collection,
            CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern(),
            write_concern=self._durable,
        )
        self.name = collection

    async def hello(self) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self._client.admin.command("hello")
        return answer

    async def create_indexes(self, indexes: Sequence[Any]) -> None:
        await self._collection.create_indexes(list(indexes))

    async def find(
        self,
        where: Mapping[str, Any],
        fields: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
    ) -> list[dict[str, Any]]:
        """Documents; a ``limit`` of 0 is none."""
        cursor = self._collection.find(
            where,
            fields,
            sort=list(sort) or None,
            limit=limit,
            batch_size=limit or LARGE,
        )
        return await to_the_end(_all(cursor))  # PyMongo leaves the connection open when cancelled

    async def aggregate(self, *stages: Mapping[str, Any]) -> list[dict[str, Any]]:
        cursor = self._collection.aggregate(list(stages), batchSize=LARGE)
        if not self._motor:
            cursor = await cursor
        found: list[dict[str, Any]] = await cursor.to_list(None)
        return found

    async def write(
        self, statements: Sequence[Any], session: Any = None, *, ordered: bool = True
    ) -> Any:
        """Neighbours of one kind, updates or deletions, travel in one command."""
        return await self._collection.bulk_write(list(statements), ordered=ordered, session=session)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A session in a transaction, which is undone unless it is committed."""
        session = self._client.start_session()
        if self._motor:
            session = await session
        async with session:
            begun = session.start_transaction(write_concern=self._durable)
            if not self._motor:
                await begun
            yield session  # ending it aborts what is not committed

    async def close(self) -> None:
        if self._motor:
            await asyncio.to_thread(self._client.close)  # it says goodbye over the network
        else:
            await self._client.close()
