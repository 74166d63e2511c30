"""`sync.Memory`: `memory_async.Memory` for plain callers."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, Generic, Literal, Self

from pydantic import BaseModel

from memory_async import memory
from memory_async.context import Context, CountTokens, estimate_tokens
from memory_async.jobs import JobQueue, OnJobError
from memory_async.keys import Cursor
from memory_async.message import Message, MessagesLike
from memory_async.model import ModelLike
from memory_async.recall import Knowledge
from memory_async.records import Checkpoint, CheckpointStatus, Decision, Session
from memory_async.search import Hit
from memory_async.settings import UserMemoryMode
from memory_async.storage import protocol
from memory_async.sync.block import Block
from memory_async.sync.recall import PlainKnowledge, searched
from memory_async.sync.run import RunBlock
from memory_async.sync.storage import Storage
from memory_async.turns import Turn
from memory_async.vectors import Embed
from memory_async.view import INHERIT, Inherit, ProfileT

__all__ = ["Jobs", "Memory"]


class Memory(Block, Generic[ProfileT]):
    """`memory_async.Memory` without ``await``, from any thread. Background jobs go on between the
    calls.

    ``storage`` is a `sync.Storage`, which stays open, or a URL or driver, which belongs to this
    Memory and closes with it.
    """

    def __init__(
        self,
        storage: str | protocol.Storage | Storage,
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
        self._owns_storage = not isinstance(storage, Storage)
        self._storage = storage if isinstance(storage, Storage) else Storage(storage)
        self._portal = self._storage._portal
        self._memory: memory.Memory[ProfileT] = memory.Memory(
            self._storage._driver,
            session_id,
            user_id,
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
            on_job_error=on_job_error,
            job_queue=job_queue,
            max_jobs=max_jobs,
            lease_seconds=lease_seconds,
            debug=debug,
        )
        self._storage._memories[self._memory] = Lock()

    def bind(
        self,
        *,
        session_id: str | None | Literal[Inherit.INHERIT] = INHERIT,
        user_id: str | None | Literal[Inherit.INHERIT] = INHERIT,
    ) -> Self:
        view = object.__new__(type(self))
        view._owns_storage = False
        view._storage, view._portal = self._storage, self._portal
        view._memory = self._memory.bind(session_id=session_id, user_id=user_id)
        return view

    @property
    def session_id(self) -> str:
        return self._memory.session_id

    @property
    def user_id(self) -> str | None:
        return self._memory.user_id

    @property
    def jobs(self) -> Jobs:
        return Jobs(self._memory, self._storage)

    def load(
        self,
        *,
        last: int | None = None,
        max_tokens: float | None = None,
        agent_metadata: Mapping[str, Any] | None = None,
        query: str | None = None,
        knowledge: Knowledge | PlainKnowledge | None = None,
    ) -> Context[ProfileT]:
        return self._portal.call(
            self._memory.load,
            last=last,
            max_tokens=max_tokens,
            agent_metadata=agent_metadata,
            query=query,
            knowledge=searched(knowledge, query),
        )

    def save(
        self,
        messages: MessagesLike,
        *,
        run_id: str | None = None,
        usage: Mapping[str, Any] | BaseModel | None = None,
    ) -> Turn | None:
        return self._portal.call(self._memory.save, messages, run_id=run_id, usage=usage)

    def run(self, input: MessagesLike | str, *, run_id: str | None = None) -> RunBlock[ProfileT]:
        return RunBlock(self._memory.run(input, run_id=run_id), self._portal)

    def resume(self, run_id: str, *, require_decisions: bool = True) -> RunBlock[ProfileT]:
        block = self._memory.resume(run_id, require_decisions=require_decisions)
        return RunBlock(block, self._portal)

    def checkpoints(
        self, *, status: CheckpointStatus | None = None, limit: int = 100
    ) -> list[Checkpoint]:
        return self._portal.call(self._memory.checkpoints, status=status, limit=limit)

    def decide(
        self,
        run_id: str,
        requirement_id: str,
        *,
        approved: bool | None = None,
        value: Any = None,
        by: str | None = None,
        note: str | None = None,
    ) -> Decision:
        return self._portal.call(
            self._memory.decide,
            run_id,
            requirement_id,
            approved=approved,
            value=value,
            by=by,
            note=note,
        )

    def messages(self, *, last: int | None = None) -> list[Message]:
        return self._portal.call(self._memory.messages, last=last)

    def turns(
        self, *, last: int | None = None, after: int | None = None, limit: int | None = None
    ) -> list[Turn]:
        return self._portal.call(self._memory.turns, last=last, after=after, limit=limit)

    def session(self) -> Session | None:
        return self._portal.call(self._memory.session)

    def summary(self) -> str | None:
        return self._portal.call(self._memory.summary)

    def profile(self) -> ProfileT | None:
        return self._portal.call(self._memory.profile)

    def sessions(
        self, *, limit: int = 100, before: Session | Cursor | None = None
    ) -> list[Session]:
        return self._portal.call(self._memory.sessions, limit=limit, before=before)

    def usage(self) -> dict[str, Any]:
        return self._portal.call(self._memory.usage)

    def search(self, query: str, limit: int = 10, session_id: str | None = None) -> list[Hit]:
        return self._portal.call(self._memory.search, query, limit=limit, session_id=session_id)

    def set_metadata(self, metadata: Mapping[str, Any]) -> Session:
        return self._portal.call(self._memory.set_metadata, metadata)

    def delete_session(self) -> bool:
        return self._portal.call(self._memory.delete_session)

    def forget_user(self) -> None:
        self._portal.call(self._memory.forget_user)

    def drain(self, timeout: float | None = None) -> bool:
        return self._portal.call(self._memory.drain, timeout)

    def recover(self) -> int:
        return self._portal.call(self._memory.recover)

    def close(self, timeout: float = 10.0) -> None:
        self._portal.refuse_own_thread()
        try:
            self._storage._close_memory(self._memory, timeout)
        finally:
            if self._owns_storage:
                self._storage.close()

    def _begin(self) -> None:
        self._storage.open()

    def __repr__(self) -> str:
        return f"sync.{self._memory!r}"


class Jobs:
    """The background jobs of a `sync.Memory`; see `memory_async.jobs.Jobs`."""

    def __init__(self, of: memory.Memory[Any], storage: Storage) -> None:
        self._jobs = of.jobs
        self._portal = storage._portal

    @property
    def queued(self) -> int:
        return self._jobs.queued

    @property
    def running(self) -> int:
        return self._jobs.running

    @property
    def done(self) -> int:
        return self._jobs.done

    @property
    def failed(self) -> int:
        return self._jobs.failed

    @property
    def lag(self) -> int:
        return self._jobs.lag

    def run(self, name: str, session_id: str, *, rest: bool = True) -> bool:
        return self._portal.call(self._jobs.run, name, session_id, rest=rest)
