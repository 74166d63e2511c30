"""`View`: one session of one user: who may look, and the readers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from enum import Enum
from typing import Any, Final, Generic, Literal, Self, cast

from memory_async.context import Context, ProfileT, choose_history, context_of
from memory_async.errors import ConfigurationError, StorageUnavailableError
from memory_async.jobs import Jobs
from memory_async.keys import Cursor, Key, Partition, check_id
from memory_async.message import Message
from memory_async.profile import read_traits
from memory_async.recall import (
    RECALLED,
    Knowledge,
    KnowledgePassage,
    recall_lines,
    source_lines,
)
from memory_async.records import Session, UserProfile
from memory_async.render import render
from memory_async.search import Hit, search_turns
from memory_async.settings import Settings, check_count
from memory_async.storage.batch import check_owner
from memory_async.storage.protocol import Snapshot, Storage
from memory_async.summary import SUMMARY_JOB, summary_of
from memory_async.turns import Turn
from memory_async.usage import add_usage
from memory_async.words import require_stemmer

__all__ = ["INHERIT", "Inherit", "ProfileT", "Shared", "View", "given_or_new_id"]

logger = logging.getLogger("memory_async")


class Inherit(Enum):
    INHERIT = "inherit"


INHERIT: Final = Inherit.INHERIT


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
    _root: bool
    _named: bool  # a session_id was given
    _anonymous: bool  # user_id=None was given to bind
    _bound_elsewhere: bool

    async def load(
        self,
        *,
        last: int | None = None,
        max_tokens: float | None = None,
        agent_metadata: Mapping[str, Any] | None = None,
        query: str | None = None,
        knowledge: Knowledge | None = None,
    ) -> Context[ProfileT]:
        """What the load flags say to bring into the next run, in one read.

        ``last`` (turns) stands in for ``num_last_messages``; ``max_tokens`` bounds the history, the
        oldest whole turns are dropped. Turns the summary has not taken are always in the history.
        ``query`` (say, the user's next message) adds the messages of the user's own turns that fit
        it best and are not in that history, as `search` finds them, and the best passages of
        ``knowledge`` (a `KnowledgeBase`) to the instructions, five of each at most.
        """
        check_count("last", last)
        if knowledge is not None and query is None:
            raise ConfigurationError("knowledge is searched for a query: give load(query=...) too")
        snapshot = await self._snapshot(last)
        context = self._context(snapshot, max_tokens=max_tokens, agent_metadata=agent_metadata)
        if query is None:
            return context
        turns = snapshot.turns[len(context.dropped) :]
        loaded = {(turn.session_id, turn.seq) for turn in turns}
        room = RECALLED + sum(len(turn.messages) for turn in turns)
        hits, passages = await asyncio.gather(self.search(query, room), _passages(knowledge, query))
        found = render(earlier=recall_lines(hits, loaded), knowledge=source_lines(passages))
        parts = [part for part in (context.instructions, found) if part]
        return replace(context, instructions="\n\n".join(parts))

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

    async def search(self, query: str, limit: int = 10, session_id: str | None = None) -> list[Hit]:
        """The messages of the user's own turns that fit ``query`` best, best first; of all their
        sessions, or of one. For nobody: of their own session only.

        A turn is found as soon as it is saved. Words are compared without case, accents and English
        endings. What no engine has indexed (a session saved without ``search_memory``, or an engine
        without full text) is looked at in the user's 20 newest sessions, up to 1,000 turns.
        """
        storage = self._use()
        require_stemmer()
        check_count("limit", limit)
        session = None
        if session_id is not None or self.user_id is None:
            view = self if session_id is None else self._view(session_id)
            session = await view.session()
            if session is None:
                return []
        return await search_turns(
            storage,
            query,
            user_id=self.user_id,
            session=session,
            limit=limit,
            embed=self._settings.embed,
        )

    async def usage(self) -> dict[str, Any]:
        """The sum of the usage of all turns, also of those whose messages were trimmed."""
        turns = await self._use().history(self.session_id, trimmed=True)
        await self.session()
        total: dict[str, Any] = {}
        for turn in turns:
            add_usage(total, turn.usage or {})
        return total

    # --- inside ---

    def _view(
        self,
        session_id: str | None | Literal[Inherit.INHERIT],
        user_id: str | None | Literal[Inherit.INHERIT] = INHERIT,
    ) -> Self:
        view = object.__new__(type(self))
        view._settings, view._shared = self._settings, self._shared
        view._root, view._bound_elsewhere, view._named = False, False, True
        if session_id is INHERIT:
            view.session_id = self.session_id
        else:
            view.session_id = given_or_new_id(session_id)
        if user_id is INHERIT:
            view.user_id, view._anonymous = self.user_id, self._anonymous
        else:
            view.user_id = None if user_id is None else check_id("user_id", user_id)
            view._anonymous = user_id is None
        return view

    async def _snapshot(self, last: int | None = None) -> Snapshot:
        storage, settings = self._use(), self._settings
        bound = settings.num_last_messages if last is None else last
        snapshot = await storage.snapshot(
            self.session_id,
            self.user_id if settings.load_profile else None,
            last=bound if settings.load_full else 0,
            since=SUMMARY_JOB if settings.load_summary else None,
            profile=settings.profile_name,
        )
        if snapshot.session is not None:
            check_owner(self.session_id, snapshot.session.user_id, self.user_id)
        return snapshot

    def _context(
        self,
        snapshot: Snapshot,
        *,
        max_tokens: float | None = None,
        agent_metadata: Mapping[str, Any] | None = None,
    ) -> Context[ProfileT]:
        session, turns, found = snapshot
        settings = self._settings
        summary = summary_of(session) if settings.load_summary else None
        traits = found.traits if found is not None else {}
        metadata = session.metadata if session is not None else {}
        entries, dropped = choose_history(
            turns,
            feed_tools=settings.feed_tool_call_results,
            max_tokens=max_tokens,
            count_tokens=settings.count_tokens,
        )
        logger.debug("loaded session %r: %d turns", self.session_id, len(turns))
        return context_of(
            entries,
            summary=summary,
            profile=self._read_profile(found, lenient=True),
            metadata=metadata,
            instructions=render(
                summary=summary,
                traits=traits,
                metadata=metadata,
                agent_metadata=agent_metadata,
            ),
            dropped=dropped,
        )

    def _use(self) -> Storage:
        """The storage, after checking that this view may be used."""
        self._check_open()
        if self._bound_elsewhere and not self._named:
            raise ConfigurationError(
                "this Memory was made without a session_id and is bound per request: "
                "use the view that bind(session_id=...) returned"
            )
        self._require_user()
        return self._shared.storage

    def _check_open(self) -> None:
        if self._shared.closed:
            raise StorageUnavailableError("this Memory is closed: make a new one")

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


async def _passages(knowledge: Knowledge | None, query: str) -> Sequence[KnowledgePassage]:
    return () if knowledge is None else await knowledge.search(query, RECALLED)


def given_or_new_id(given: str | None) -> str:
    return str(uuid.uuid4()) if given is None else check_id("session_id", given)
