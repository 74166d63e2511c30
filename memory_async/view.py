"""`View`: one session of one user: who may look, and the readers."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Generic, cast

from pydantic import BaseModel

from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.jobs import Jobs
from memory_async.message import Message
from memory_async.profile import Profile, read_traits
from memory_async.records import Cursor, Key, Partition, Session, Turn, UserProfile
from memory_async.settings import Settings
from memory_async.storage.batch import check_owner
from memory_async.storage.protocol import Storage
from memory_async.summary import summary_of
from memory_async.usage import add_usage

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ProfileT = TypeVar("ProfileT", bound=BaseModel, default=Profile)
else:
    from typing import TypeVar

    ProfileT = TypeVar("ProfileT", bound=BaseModel)

__all__ = ["ProfileT", "Shared", "View"]

logger = logging.getLogger("memory_async")


class Shared:
    """What all views of one `Memory` have in common."""

    def __init__(self, storage: Storage, jobs: Jobs, owned: AsyncExitStack) -> None:
        self.storage = storage
        self.jobs = jobs
        self.owned = owned  # closes what the Memory opened itself
        self.closed = False


class View(Generic[ProfileT]):
    """What can be read of a session, by its owner only. `Memory` adds the writing."""

    session_id: str
    user_id: str | None
    _settings: Settings
    _shared: Shared
    _named: bool  # a session_id was given
    _anonymous: bool  # user_id=None was given to bind
    _bound_elsewhere: bool

    # --- readers: a missing session reads as None or empty, and is not created ---

    async def messages(self, *, last: int | None = None) -> list[Message]:
        """The stored messages, all or those of the ``last`` so many turns, tools included."""
        return [message for turn in await self.turns(last=last) for message in turn.messages]

    async def turns(
        self,
        *,
        last: int | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> list[Turn]:
        """The stored turns in order: all, the ``last`` so many, or those ``after`` a seq, the first
        ``limit`` of them."""
        turns = await self._use().history(self.session_id, last=last, after=after, limit=limit)
        if turns:
            check_owner(self.session_id, turns[0].user_id, self.user_id)
        else:
            await self.session()
        return turns

    async def session(self) -> Session | None:
        """The session's header: owner, metadata, how far each job is."""
        session = await self._use().get(self._session_key)
        if not isinstance(session, Session):
            return None
        check_owner(self.session_id, session.user_id, self.user_id)
        return session

    async def summary(self) -> str | None:
        """The session's summary so far."""
        return summary_of(await self.session())

    async def profile(self) -> ProfileT | None:
        """What is known of the user, as an instance of the schema; None without a user or traits.

        `ConfigurationError` when what is stored does not fit the schema.
        """
        storage = self._use()
        if self.user_id is None:
            return None
        name = self._settings.profile_name
        found = await storage.get(Key("profile", Partition("user", self.user_id), name))
        return self._read_profile(found if isinstance(found, UserProfile) else None)

    async def sessions(
        self, *, limit: int = 100, before: Session | Cursor | None = None
    ) -> list[Session]:
        """The user's sessions, newest first; ``before`` is the last one of the previous page. For
        nobody: their own session, if it exists."""
        if self.user_id is None:
            own = await self.session()
            return [own] if own is not None and limit and before is None else []
        place = before.cursor if isinstance(before, Session) else before
        found = await self._use().find("session", user_id=self.user_id, before=place, limit=limit)
        return [each for each in found if isinstance(each, Session)]

    async def usage(self) -> dict[str, Any]:
        """The sum of the usage of all turns, also of those whose messages were trimmed."""
        turns = await self._use().history(self.session_id, trimmed=True)
        await self.session()
        total: dict[str, Any] = {}
        for turn in turns:
            add_usage(total, turn.usage or {})
        return total

    # --- inside ---

    def _use(self) -> Storage:
        """The storage, after checking that this view may be used."""
        if self._shared.closed:
            raise StorageUnavailableError("this Memory is closed: make a new one")
        if self._bound_elsewhere and not self._named:
            raise ConfigurationError(
                "this Memory was made without a session_id and is bound per request: "
                "use the view that bind(session_id=...) returned"
            )
        self._require_user()
        return self._shared.storage

    def _require_user(self) -> None:
        wanted = self._settings.user_analysis_memory and not self._anonymous
        if wanted and self.user_id is None:
            raise ConfigurationError(
                "user_analysis_memory needs a user_id: whom is there to learn about? "
                "(bind(user_id=None) is anonymous, without analysis)"
            )

    @property
    def _session_key(self) -> Key:
        return Key("session", Partition("session", self.session_id), self.session_id)

    def _read_profile(self, found: UserProfile | None, *, lenient: bool = False) -> ProfileT | None:
        if found is None or not found.traits:
            return None
        try:
            profile = read_traits(self._settings.schema, found.traits, found.name)
        except ConfigurationError as error:
            if not lenient:
                raise
            logger.warning("loaded without a profile object: %s", error)
            return None
        return cast("ProfileT", profile)
