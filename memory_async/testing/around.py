"""Storages around a storage: with another clock, with calls that fail, with a record of writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from memory_async.errors import StorageUnavailableError
from memory_async.keys import Cursor, Key, Kind, Partition
from memory_async.records import Record
from memory_async.storage.protocol import Result, Snapshot, Storage, Write
from memory_async.turns import Turn


class Around:
    """Passes every call on, through `call`. Closing is left to whoever made the inner storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.namespace = storage.namespace
        self.unpromised = storage.unpromised
        self.corrupt_rows = 0

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.storage, name)(*args, **kwargs)

    async def open(self) -> None:
        await self.storage.open()

    async def close(self) -> None:
        return

    async def apply(self, *writes: Write) -> list[Result]:
        done: list[Result] = await self.call("apply", *writes)
        return done

    async def get(self, key: Key) -> Record | Turn | None:
        found: Record | Turn | None = await self.call("get", key)
        return found

    async def find(
        self,
        kind: Kind,
        partition: Partition | None = None,
        *,
        id: str | None = None,
        prefix: str | None = None,
        tags: Iterable[str] = (),
        user_id: str | None = None,
        status: str | None = None,
        lagging: str | None = None,
        before: Cursor | None = None,
        limit: int = 100,
    ) -> list[Record]:
        found: list[Record] = await self.call(
            "find",
            kind,
            partition,
            id=id,
            prefix=prefix,
            tags=tags,
            user_id=user_id,
            status=status,
            lagging=lagging,
            before=before,
            limit=limit,
        )
        return found

    async def history(
        self,
        session_id: str,
        *,
        last: int | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
        trimmed: bool = False,
    ) -> list[Turn]:
        found: list[Turn] = await self.call(
            "history",
            session_id,
            last=last,
            after=after,
            before=before,
            limit=limit,
            trimmed=trimmed,
        )
        return found

    async def snapshot(
        self,
        session_id: str,
        user_id: str | None = None,
        *,
        last: int | None = None,
        since: str | None = None,
        profile: str = "default",
    ) -> Snapshot:
        found: Snapshot = await self.call(
            "snapshot", session_id, user_id, last=last, since=since, profile=profile
        )
        return found

    async def now(self, partition: Partition) -> datetime:
        found: datetime = await self.call("now", partition)
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return


class Later(Around):
    """Its clock is so many ``seconds`` ahead: what is past for it, others still hold."""

    def __init__(self, storage: Storage, seconds: float = 3600.0) -> None:
        super().__init__(storage)
        self.seconds = seconds

    async def now(self, partition: Partition) -> datetime:
        return await super().now(partition) + timedelta(seconds=self.seconds)


class Clock(Around):
    """A clock that stands still until it is moved."""

    def __init__(self, storage: Storage, now: datetime) -> None:
        super().__init__(storage)
        self.time = now

    async def now(self, partition: Partition) -> datetime:
        return self.time


class Dying(Around):
    """The process dies before or ``after`` its ``number``-th call (from 0): nothing works then.

    ``fatal`` names that call; ``landed`` counts the batches that were applied.
    """

    def __init__(self, storage: Storage, number: int, *, after: bool) -> None:
        super().__init__(storage)
        self._left, self._after = number, after
        self.fatal: str | None = None
        self.landed = 0

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0 and (self._left < -1 or not self._after):
            self.fatal = self.fatal or f"before {name}"
            raise StorageUnavailableError("this process is dead")
        answer = await super().call(name, *args, **kwargs)
        self.landed += name == "apply"
        if self._left < 0:
            self.fatal = f"after {name}"
            raise StorageUnavailableError("this process is dead")
        return answer


Matches = Callable[[tuple[Write, ...]], bool]


class Failing(Around):
    """So many ``times`` a batch that ``matches`` fails; with ``lost``, after it was applied, so
    that only the answer is missing."""

    def __init__(
        self, storage: Storage, matches: Matches, *, times: int = 1, lost: bool = False
    ) -> None:
        super().__init__(storage)
        self._matches, self._lost = matches, lost
        self.left = times

    async def apply(self, *writes: Write) -> list[Result]:
        fails = self.left > 0 and self._matches(writes)
        self.left -= fails
        if fails and not self._lost:
            raise StorageUnavailableError("not applied")
        done = await super().apply(*writes)
        if fails:
            raise StorageUnavailableError("the answer is lost")
        return done


class Recording(Around):
    """Keeps what was ``applied``."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.applied: list[tuple[Write, ...]] = []

    async def apply(self, *writes: Write) -> list[Result]:
        done = await super().apply(*writes)
        self.applied.append(writes)
        return done
