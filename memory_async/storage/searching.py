"""What the drivers with a full text of their own share: what is asked of them, checked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from memory_async.errors import ConfigurationError, PayloadError
from memory_async.keys import MAX_KEY_BYTES, Key, Kind, Partition, check_id, to_micros
from memory_async.storage.batch import IndexOp
from memory_async.storage.driver import Driver, check_counts
from memory_async.storage.protocol import Match
from memory_async.words import index_terms, query_terms

__all__ = ["SearchDriver", "Wanted", "check_conditions", "distinct_terms"]


MAX_TERMS = 10_000


class Wanted(NamedTuple):
    """The conditions of one `search`; ``terms`` are those of `query_terms`, at least one."""

    terms: tuple[str, ...]
    kind: Kind
    partition: Partition | None
    user_id: str | None
    limit: int
    around: int


def distinct_terms(text: str) -> list[str]:
    """What a text is indexed by: each word once, and of a very long one not all."""
    return list(dict.fromkeys(index_terms(text)))[:MAX_TERMS]


def check_conditions(
    partition: Partition | None, user_id: str | None, *, limit: int, around: int
) -> None:
    """`ConfigurationError` for what no `search` can be asked for."""
    check_counts(limit=limit, around=around)
    for id in (partition and partition.id, user_id):
        if id:
            check_id("a condition of search()", id, MAX_KEY_BYTES)


class SearchDriver(Driver):
    """A `Driver` that meets `SupportsSearch`."""

    @abstractmethod
    async def _index(self, op: IndexOp) -> None: ...

    @abstractmethod
    async def _search(self, wanted: Wanted) -> list[Match]: ...

    async def index(
        self,
        key: Key,
        text: str | Sequence[str],
        labels: Sequence[str] = (),
        *,
        created_at: datetime | None = None,
    ) -> None:
        key.check()
        if key.kind == "session":
            raise ConfigurationError(f"a session is found by its turns: {key}")
        texts = (text,) if isinstance(text, str) else tuple(text)
        if labels and len(labels) != len(texts):
            raise ConfigurationError(f"{len(labels)} labels for {len(texts)} texts")
        for each in (*texts, *labels):
            try:
                each.encode()
            except UnicodeEncodeError:
                raise PayloadError("a text to index holds a lone surrogate") from None
        born = None if created_at is None else to_micros(created_at)
        await self.open()
        await self._index(IndexOp(key, texts, tuple(labels) or ("",) * len(texts), born))

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
        terms = tuple(query_terms(query))
        await self.open()
        if not terms or not limit:
            return []
        return await self._search(Wanted(terms, kind, partition, user_id, limit, around))
