"""User profiles: the default schema, and traits as an instance of a schema."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memory_async.errors import ConfigurationError

__all__ = ["DynamicProfile", "Profile", "known_names", "profile_job", "read_traits"]

ProfileT = TypeVar("ProfileT", bound=BaseModel)


class Profile(BaseModel):
    """The default schema: what most assistants want to know of a user."""

    name: str | None = None
    location: str | None = None
    occupation: str | None = None
    language: str | None = None
    communication_style: str | None = None
    interests: list[str] = Field(default_factory=list)
    preferences: list[str] = Field(default_factory=list)
    goals: list[str] = Field(default_factory=list)
    facts: list[str] = Field(default_factory=list)


class DynamicProfile(BaseModel):
    """The schema of ``dynamic_user_profile=True``: the model names the traits."""

    model_config = ConfigDict(extra="allow")


def profile_job(name: str) -> str:
    """The name of the background job that keeps the profile ``name``."""
    return f"profile:{name}"


def known_names(schema: type[BaseModel]) -> set[str] | None:
    """The names a schema knows its traits by; None when it takes any."""
    if schema.model_config.get("extra") == "allow":
        return None
    aliases = {each.alias for each in schema.model_fields.values() if each.alias}
    return aliases | set(schema.model_fields)


def read_traits(schema: type[ProfileT], traits: dict[str, Any], name: str) -> ProfileT:
    """``traits`` as an instance of ``schema``; `ConfigurationError` when they do not fit it."""
    try:
        return schema.model_validate(traits)
    except ValidationError as error:
        raise ConfigurationError(
            f"the stored profile {name!r} does not fit {schema.__name__}: {error}. "
            "Give another schema another profile_name"
        ) from error
