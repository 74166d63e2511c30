"""The options of a `Memory`, checked once when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from memory_async.context import CountTokens, estimate_tokens
from memory_async.errors import ConfigurationError
from memory_async.keys import MAX_ID_BYTES, check_id
from memory_async.profile import DynamicProfile, Profile, profile_job
from memory_async.vectors import Embed, check_embed
from memory_async.words import require_stemmer

__all__ = ["Settings", "UserMemoryMode"]

UserMemoryMode = Literal["update", "replace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is saved, what is loaded, and how. A load flag of None mirrors its save flag."""

    full_session_memory: bool = False
    summary_memory: bool = False
    user_analysis_memory: bool = False
    search_memory: bool = False
    embed: Embed | None = None
    load_full_session_memory: bool | None = None
    load_summary_memory: bool | None = None
    load_user_analysis_memory: bool | None = None
    num_last_messages: int | None = None
    feed_tool_call_results: bool = False
    user_profile_schema: type[BaseModel] | None = None
    dynamic_user_profile: bool = False
    user_memory_mode: UserMemoryMode = "update"
    profile_name: str = "default"
    model: Any = None
    summary_every: int = 1
    summary_prompt: str | None = None
    analysis_prompt: str | None = None
    agent_id: str | None = None
    count_tokens: CountTokens = estimate_tokens
    lease_seconds: float = 60.0

    def __post_init__(self) -> None:
        # Short enough to be part of its job's name.
        check_id("profile_name", self.profile_name, MAX_ID_BYTES - len(profile_job("")))
        if self.agent_id is not None:
            check_id("agent_id", self.agent_id)
        check_embed(self.embed)
        if self.search_memory:
            require_stemmer()
        check_count("num_last_messages", self.num_last_messages)
        check_count("summary_every", self.summary_every, least=1)
        if not self.lease_seconds > 0:
            raise ConfigurationError(
                f"lease_seconds must be more than 0, not {self.lease_seconds!r}"
            )
        if self.user_memory_mode not in ("update", "replace"):
            raise ConfigurationError(
                f'user_memory_mode is "update" or "replace", not {self.user_memory_mode!r}'
            )
        schema = self.user_profile_schema
        if schema is not None and not (isinstance(schema, type) and issubclass(schema, BaseModel)):
            raise ConfigurationError(
                f"user_profile_schema is a pydantic model class, not {schema!r}"
            )
        if schema is not None and self.dynamic_user_profile:
            raise ConfigurationError(
                "user_profile_schema names the traits, dynamic_user_profile lets the model name "
                "them: give one of the two"
            )

    def require_model(self, *, storage_analyses: bool) -> None:
        """`ConfigurationError` when a job is wanted that has no model to ask."""
        wanted = ["summary_memory"] if self.summary_memory else []
        if self.user_analysis_memory and not storage_analyses:
            wanted.append("user_analysis_memory")
        if wanted and self.model is None:
            raise ConfigurationError(
                f"{' and '.join(wanted)} needs a model: give model=, e.g. 'openai/gpt-4o-mini'"
            )

    @property
    def keeps_turns(self) -> bool:
        """What is searched is kept."""
        return self.full_session_memory or self.search_memory

    @property
    def load_full(self) -> bool:
        return _mirror(self.load_full_session_memory, self.full_session_memory)

    @property
    def load_summary(self) -> bool:
        return _mirror(self.load_summary_memory, self.summary_memory)

    @property
    def load_profile(self) -> bool:
        return _mirror(self.load_user_analysis_memory, self.user_analysis_memory)

    @property
    def schema(self) -> type[BaseModel]:
        if self.user_profile_schema is not None:
            return self.user_profile_schema
        return DynamicProfile if self.dynamic_user_profile else Profile


def check_count(name: str, value: object, least: int = 0) -> None:
    """`ConfigurationError` unless ``value`` is None or a whole number of at least ``least``."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number from {least} on, not {value!r}")


def _mirror(load: bool | None, save: bool) -> bool:
    return save if load is None else load
