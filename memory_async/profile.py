"""User profiles: the default schema, and traits as an instance of a schema."""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from memory_async.errors import ConfigurationError

__all__ = [
    "DynamicProfile",
    "Profile",
    "check_schema",
    "known_names",
    "profile_job",
    "profile_of",
    "read_traits",
    "validate",
]

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


def profile_of(job: str) -> str | None:
    """The name of the profile that ``job`` keeps; None when it is another kind of job."""
    name = job.removeprefix("profile:")
    return None if name == job else name


def known_names(schema: type[BaseModel]) -> set[str] | None:
    """The names a schema knows its traits by; None when it takes any."""
    if schema.model_config.get("extra") == "allow":
        return None
    aliases = {each.alias for each in schema.model_fields.values() if each.alias}
    return aliases | set(schema.model_fields)


def check_schema(schema: type[BaseModel]) -> None:
    """`ConfigurationError` when ``schema`` cannot read back what it has written."""
    for name, each in schema.model_fields.items():
        if each.validation_alias != each.serialization_alias:
            raise ConfigurationError(
                f"{schema.__name__}.{name} is read and written under different names: give it one "
                "alias=, or none"
            )


def validate(schema: type[ProfileT], traits: dict[str, Any]) -> ProfileT:
    """``traits``, which are JSON, as an instance of ``schema``; pydantic's `ValidationError`. What
    must be given but may be null is null when it is not there."""
    optional = {
        each.alias or name: None
        for name, each in schema.model_fields.items()
        if each.is_required() and type(None) in get_args(each.annotation)
    }
    return schema.model_validate_json(json.dumps({**optional, **traits}))


def read_traits(schema: type[ProfileT], traits: dict[str, Any], name: str) -> ProfileT:
    """``traits`` as an instance of ``schema``; `ConfigurationError` when they do not fit it."""
    try:
        return validate(schema, traits)
    except ValidationError as error:
        raise ConfigurationError(
            f"the stored profile {name!r} does not fit {schema.__name__}: {error}. "
            "Give another schema another profile_name"
        ) from error
