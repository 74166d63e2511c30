"""What is stored beside the log of turns: the `Session` it belongs to, and small records.

Their addresses are in `memory_async.keys`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from memory_async.keys import (
    Cursor,
    Key,
    Kind,
    Partition,
    compound_id,
    from_micros,
    new_version,
    utc_now,
)
from memory_async.message import Message
from memory_async.stored import FilledLater, set_now

__all__ = [
    "Checkpoint",
    "CheckpointStatus",
    "Chunk",
    "Decision",
    "Document",
    "DocumentStatus",
    "Item",
    "JobState",
    "Lease",
    "Record",
    "Requirement",
    "Session",
    "UserProfile",
]

NOT_STORED = {"stored": False}

CheckpointStatus: TypeAlias = Literal["running", "paused", "error", "cancelled"]
DocumentStatus: TypeAlias = Literal["pending", "ready", "failed"]
RequirementKind: TypeAlias = Literal["approval", "external_tool", "question"]


class JobState(NamedTuple):
    """A background job's place in a session: turns up to ``through`` are taken, giving
    ``value``."""

    through: int
    value: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What all records share. ``version`` is an opaque token minted by the writer of each change;
    ``extra`` carries fields written by another version of this library, so they are not lost."""

    kind: ClassVar[Kind]

    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)
    version: str = field(default_factory=new_version)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> Key:
        raise NotImplementedError

    @property
    def index_tags(self) -> tuple[str, ...]:
        """Words `find(tags=...)` finds this record by."""
        return ()

    @property
    def index_text(self) -> str | None:
        """The text a `SupportsSearch` finds this record by, indexed with the `Put` itself."""
        return None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.created_at, self.key.id, self.key.partition)


class _ReadSession(FilledLater, Record):
    """Not all records: with a `__getattr__`, asking for what is not there takes long."""

    __slots__ = ("_later",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(_ReadSession):
    """The header of a session. Only ``metadata`` moves ``version``; the engine keeps the rest.

    ``last_seq`` is the newest turn's (0: none yet), ``trimmed`` the newest turn's that was trimmed
    away, ``jobs`` each registered background job's place, ``keep_turns`` whether some writer wants
    the full history kept.
    """

    kind: ClassVar[Kind] = "session"

    session_id: str
    user_id: str | None = None
    agent_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    keep_turns: bool = False
    last_seq: int = 0
    trimmed: int = 0
    jobs: dict[str, JobState] = field(default_factory=dict)

    def _fill(self, row: tuple[Any, ...]) -> None:
        # What few runs look at; the rest is there from the beginning (`codec.decode_session`).
        session_id, _, agent_id, keep_turns, created, updated, version, _, last, trimmed, _ = row
        set_now(self, "session_id", session_id)
        set_now(self, "agent_id", agent_id)
        set_now(self, "keep_turns", bool(keep_turns))
        set_now(self, "created_at", from_micros(created))
        set_now(self, "updated_at", from_micros(updated))
        set_now(self, "version", version)
        set_now(self, "last_seq", last)
        set_now(self, "trimmed", trimmed)

    @property
    def key(self) -> Key:
        return Key("session", Partition("session", self.session_id), self.session_id)

    @property
    def lagging(self) -> bool:
        """Whether some registered job has not taken all turns yet."""
        return any(job.through < self.last_seq for job in self.jobs.values())


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a paused run waits for: an approval, an external tool's result, or an answer.

    ``extra`` carries fields written by another version of this library, so they are not lost.
    """

    id: str
    kind: RequirementKind
    tool_name: str | None = None
    arguments: dict[str, Any] | None = None
    prompt: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Record):
    """A run in flight: its input, what it has said so far, and what it waits for."""

    kind: ClassVar[Kind] = "checkpoint"

    session_id: str
    run_id: str
    user_id: str | None = None
    agent_id: str | None = None
    status: CheckpointStatus = "running"
    input: list[Message] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    state: Any = None
    requirements: list[Requirement] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    error: str | None = None

    @property
    def key(self) -> Key:
        return Key("checkpoint", Partition("session", self.session_id), self.run_id)

    @property
    def index_tags(self) -> tuple[str, ...]:
        return () if self.agent_id is None else (f"agent:{self.agent_id}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Record):
    """Who is working on a run, and until when (by the engine's clock)."""

    kind: ClassVar[Kind] = "lease"

    session_id: str
    run_id: str
    owner: str
    until: datetime

    @property
    def key(self) -> Key:
        return Key("lease", Partition("session", self.session_id), self.run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Record):
    """A human's answer to one requirement; ``created_at`` is when it was made."""

    kind: ClassVar[Kind] = "decision"

    session_id: str
    run_id: str
    requirement_id: str
    approved: bool | None = None
    value: Any = None
    by: str | None = None
    note: str | None = None

    @property
    def key(self) -> Key:
        id = compound_id(self.run_id, self.requirement_id)
        return Key("decision", Partition("session", self.session_id), id)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserProfile(Record):
    """What is known of a user. ``applied`` says up to which turn of each session (its id and when
    it began, in µs: ``"s1 1700000000000000"``) it was learned.

    A forgotten user's profile is a tombstone: no traits, ``forgotten_at`` set; while the forgetting
    goes on, ``forgetting`` names the sessions still to be dropped (id to ``created_at``, in µs).
    """

    kind: ClassVar[Kind] = "profile"

    user_id: str
    name: str = "default"
    traits: dict[str, Any] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    forgotten_at: datetime | None = None
    forgetting: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return Key("profile", Partition("user", self.user_id), self.name)

    @property
    def index_tags(self) -> tuple[str, ...]:
        return ("forgetting",) if self.forgetting else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Record):
    """A document of a knowledge base; its passages are `Chunk` records.

    To be added, it has ``content``, a text, which is not stored here; ids may be left out.
    ``type`` is a media type. ``size`` (bytes of UTF-8), ``hash`` (SHA-256) and ``chunk_count`` are
    those of the content that is searchable, whose chunks are of this ``generation``. ``staging``
    names the generations that are being written, or were, by who died over it.

    ``status`` is "pending" while content is on its way, then "ready", or "failed" with an
    ``error``; what was searchable before stays so.
    """

    kind: ClassVar[Kind] = "document"

    knowledge_base_id: str = ""
    document_id: str = ""
    name: str | None = None
    source: str | None = None
    description: str | None = None
    type: str = "text/plain"
    status: DocumentStatus = "pending"
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    hash: str | None = None
    chunk_count: int = 0
    generation: str = ""
    staging: list[str] = field(default_factory=list)
    content: str | None = field(default=None, compare=False, repr=False, metadata=NOT_STORED)

    @property
    def key(self) -> Key:
        return Key("document", Partition("knowledge", self.knowledge_base_id), self.document_id)

    @property
    def index_tags(self) -> tuple[str, ...]:
        return () if self.source is None else (f"source:{self.source}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk(Record):
    """One passage of a document, ``index`` counting from 0 in one ``generation`` of its content."""

    kind: ClassVar[Kind] = "chunk"

    knowledge_base_id: str
    document_id: str
    index: int
    text: str
    generation: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        id = compound_id(self.document_id, f"{self.generation}/{self.index:08d}")
        return Key("chunk", Partition("knowledge", self.knowledge_base_id), id)

    @property
    def index_text(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Record):
    """Anything else: ``value`` is JSON or bytes. It may live in any partition, and goes with it."""

    kind: ClassVar[Kind] = "item"

    partition: Partition
    id: str
    value: Any = None
    tags: tuple[str, ...] = ()
    expires_at: datetime | None = None

    @property
    def key(self) -> Key:
        return Key("item", self.partition, self.id)

    @property
    def index_tags(self) -> tuple[str, ...]:
        return self.tags


RECORDS: dict[Kind, type[Record]] = {
    cls.kind: cls
    for cls in (
        Session,
        Checkpoint,
        Lease,
        Decision,
        UserProfile,
        Document,
        Chunk,
        Item,
    )
}
FIELD_NAMES: dict[Kind, frozenset[str]] = {
    kind: frozenset(f.name for f in fields(cls) if f.metadata.get("stored", True))
    for kind, cls in RECORDS.items()
}
