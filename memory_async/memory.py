"""`Memory`: what an agent holds on to. Saving is separate from loading."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel

from memory_async.context import CountTokens, estimate_tokens
from memory_async.errors import ConfigurationError, ConflictError
from memory_async.forget import delete_session, forget_user
from memory_async.jobs import JobQueue, Jobs, OnJobError
from memory_async.keys import Key, check_id, new_run_id, new_version, utc_now
from memory_async.learning import job_names, make_jobs
from memory_async.message import MessagesLike
from memory_async.model import ModelLike
from memory_async.records import Session
from memory_async.render import refuse_rendered
from memory_async.runs import Runs
from memory_async.settings import Settings, UserMemoryMode
from memory_async.storage.protocol import (
    ABSENT,
    Append,
    Expect,
    Put,
    Storage,
    SupportsAnalysis,
    Write,
)
from memory_async.storage.url import open_storage
from memory_async.stored import parse_entries
from memory_async.turns import Turn
from memory_async.usage import parse_usage
from memory_async.vectors import Embed
from memory_async.view import INHERIT, Inherit, ProfileT, Shared, given_or_new_id, logger

__all__ = ["Memory"]


class Memory(Runs[ProfileT]):
    """The memory of one conversation of one user.

    ``storage`` is a URL (see `open_storage`) or a storage object. Save flags say what is persisted:
    ``full_session_memory`` the whole history, ``summary_memory`` a summary of the session,
    ``user_analysis_memory`` what is learned of the user; ``search_memory`` keeps the whole history
    too, and indexes it for `search`. Load flags say what is injected into later
    runs; left at None they mirror the save flags. ``num_last_messages`` bounds the loaded history,
    in turns. One `Memory` per process, one `bind` per request:

        async with Memory("sqlite:///chat.db", full_session_memory=True) as memory:
            chat = memory.bind(session_id="s1", user_id="ada")
            context = await chat.load()
            await chat.save([{"role": "user", "content": "Hi!"}, ...])
    """

    def __init__(
        self,
        storage: str | Storage,
        session_id: str | None = None,
        user_id: str | None = None,
        *,
        full_session_memory: bool = False,
        summary_memory: bool = False,
        user_analysis_memory: bool = False,
        search_memory: bool = False,
        load_full_session_memory: bool | None = None,
        load_summary_memory: bool | None = None,
        load_user_analysis_memory: bool | None = None,
        num_last_messages: int | None = None,
        feed_tool_call_results: bool = False,
        user_profile_schema: type[ProfileT] | None = None,
        dynamic_user_profile: bool = False,
        user_memory_mode: UserMemoryMode = "update",
        profile_name: str = "default",
        model: ModelLike | None = None,
        embed: Embed | None = None,
        summary_every: int = 1,
        summary_prompt: str | None = None,
        analysis_prompt: str | None = None,
        agent_id: str | None = None,
        count_tokens: CountTokens = estimate_tokens,
        on_job_error: OnJobError | None = None,
        job_queue: JobQueue | None = None,
        max_jobs: int = 4,
        lease_seconds: float = 60.0,
        debug: bool = False,
    ) -> None:
        self._settings = Settings(
            full_session_memory=full_session_memory,
            summary_memory=summary_memory,
            user_analysis_memory=user_analysis_memory,
            search_memory=search_memory,
            load_full_session_memory=load_full_session_memory,
            load_summary_memory=load_summary_memory,
            load_user_analysis_memory=load_user_analysis_memory,
            num_last_messages=num_last_messages,
            feed_tool_call_results=feed_tool_call_results,
            user_profile_schema=user_profile_schema,
            dynamic_user_profile=dynamic_user_profile,
            user_memory_mode=user_memory_mode,
            profile_name=profile_name,
            model=model,
            embed=embed,
            summary_every=summary_every,
            summary_prompt=summary_prompt,
            analysis_prompt=analysis_prompt,
            agent_id=agent_id,
            count_tokens=count_tokens,
            lease_seconds=lease_seconds,
        )
        self._named = session_id is not None
        self.session_id = given_or_new_id(session_id)
        self.user_id = None if user_id is None else check_id("user_id", user_id)
        self._anonymous = False
        if self._named:
            self._require_user()
        owned = AsyncExitStack()
        if not isinstance(storage, Storage):
            storage = open_storage(storage)
            owned.push_async_callback(storage.close)
        analyses = isinstance(storage, SupportsAnalysis) and storage.analyses_users
        self._settings.require_model(storage_analyses=analyses)
        jobs = Jobs(
            storage,
            make_jobs(self._settings, owned, storage_analyses=analyses),
            concurrency=max_jobs,
            on_error=on_job_error,
            queue=job_queue,
        )
        self._shared = Shared(storage, jobs, owned)
        self._root = True
        self._bound_elsewhere = False
        if debug:
            _log_to_stderr()

    def bind(
        self,
        *,
        session_id: str | None | Literal[Inherit.INHERIT] = INHERIT,
        user_id: str | None | Literal[Inherit.INHERIT] = INHERIT,
    ) -> Self:
        """A view of another session or user, sharing storage, model and jobs. Owns nothing.

        What is left out is inherited. ``session_id=None`` is a new session; ``user_id=None`` is
        nobody: the view is anonymous and learns nothing of its user.
        """
        self._bound_elsewhere = True
        return self._view(session_id, user_id)

    # --- the way into a run and out of it ---

    async def save(
        self,
        messages: MessagesLike,
        *,
        run_id: str | None = None,
        usage: Mapping[str, Any] | BaseModel | None = None,
    ) -> Turn | None:
        """Save one finished turn; it is durable when this returns. Jobs start, nobody waits.

        ``run_id`` makes it safe to repeat: the same run is stored once, and comes back as stored.
        None when the flags persist nothing. `PayloadError` for what is no message, cannot be stored
        or was rendered by memory itself; `ConflictError` when the run is open as a checkpoint.
        """
        storage, settings = self._use(), self._settings
        said = parse_entries(messages)
        refuse_rendered(said)
        turn = Turn.of_entries(
            said,
            session_id=self.session_id,
            user_id=self.user_id,
            usage=parse_usage(usage),
            run_id=new_run_id() if run_id is None else check_id("run_id", run_id),
        )
        due = job_names(settings, self.user_id)
        if not settings.keeps_turns and not due:
            return None
        writes: list[Write] = [Append(turn, self._new_header(), due)]
        if run_id is not None:
            # The checkpoint of an open run must not be left behind.
            writes.append(Expect(Key("checkpoint", turn.key.partition, run_id), ABSENT))
        [result, *_] = await storage.apply(*writes)
        assert result.turn is not None  # noqa: S101 - an Append always has one
        if due:
            self._shared.jobs.wake(self.session_id, due, result.turn.seq)
        logger.debug("saved turn %d of session %r", result.turn.seq, self.session_id)
        return result.turn

    # --- writers ---

    async def set_metadata(self, metadata: Mapping[str, Any]) -> Session:
        """Replace the session's metadata (JSON), creating the session if need be."""
        storage = self._use()
        while True:
            session = await self.session()
            changed = replace(
                session or self._new_header(),
                metadata=dict(metadata),
                updated_at=utc_now(),
                version=new_version(),
            )
            try:
                await storage.apply(Put(changed, ABSENT if session is None else session.version))
            except ConflictError:
                continue  # somebody else changed it: what they know of it is read again
            return changed

    async def delete_session(self) -> bool:
        """Delete the session and all that belongs to it; False when there is none."""
        session = await self.session()
        return session is not None and await delete_session(self._use(), session)

    async def forget_user(self) -> None:
        """Drop everything of the user: sessions, turns, profiles, open runs. Safe to repeat; a
        later `save` starts anew."""
        if self.user_id is None:
            raise ConfigurationError("nobody to forget: bind(user_id=...) first")
        await forget_user(self._use(), self.user_id, self._settings.profile_name)

    # --- lifecycle ---

    @property
    def jobs(self) -> Jobs:
        """The background jobs: what is queued, running, done, failed, and how far they lag."""
        return self._shared.jobs

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until the jobs have taken every turn this process saved, those that still wait for
        ``summary_every`` too. False when that took longer than ``timeout`` seconds."""
        return await self._shared.jobs.drain(timeout)

    async def recover(self) -> int:
        """Finish what any process left behind: lagging jobs (of the kinds this Memory has) and
        interrupted forgetting, of all sessions in the storage; and sweep away what expired sessions
        left in it. Returns how many it found."""
        self._check_open()
        return await self._shared.jobs.recover()

    async def close(self, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for jobs that are due, cancel the rest (the next process
        does them), and close what this Memory opened itself. Views close nothing."""
        if self._root and not self._shared.closed:
            self._shared.closed = True
            async with self._shared.owned:
                await self._shared.jobs.close(timeout)

    def abandon(self) -> None:
        """Close without waiting for anything, where no event loop is left to wait in."""
        self._shared.closed = self._shared.closed or self._root

    async def __aenter__(self) -> Self:
        if self._root:
            await self._shared.storage.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Memory(session_id={self.session_id!r}, user_id={self.user_id!r})"

    # --- inside ---


def _log_to_stderr() -> None:
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
