"""The jobs that learn about a user: a model gets the current traits and new user messages, and says
what changes; or the storage gets the turns, and learns by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from memory_async.errors import ConflictError, ModelError, PayloadError
from memory_async.jsontext import dump_json
from memory_async.keys import Key, Partition, new_version, to_micros, utc_now
from memory_async.model import Model, ask, complete_json
from memory_async.profile import check_schema, known_names, profile_job, validate
from memory_async.records import Session, UserProfile
from memory_async.settings import UserMemoryMode
from memory_async.shield import to_the_end
from memory_async.storage.protocol import ABSENT, Advance, Put, Storage, SupportsAnalysis
from memory_async.transcript import take, user_text
from memory_async.turns import Turn

__all__ = ["AnalysisJob", "StorageAnalysisJob"]

REMOVE = "remove_traits"
MAX_APPLIED = 1000  # sessions a profile remembers as merged, newest last

PROMPT = """\
You keep the profile of a user. You are given the traits known so far and what the user has said
since. Learn only what the user says or clearly implies about themselves; never guess, and do not
take over what they say about others. Answer with one JSON object."""

UPDATE = """\
Give only the traits that are new or have changed, each with its whole new value. Leave out, or give
null for, what did not come up: it is kept. Name traits that no longer hold in "remove_traits"."""

REPLACE = "Give the whole new profile: what you leave out is forgotten."


class AnalysisJob:
    """Due with every turn."""

    every = 1
    idle: float | None = None

    def __init__(
        self,
        model: Model,
        *,
        schema: type[BaseModel],
        profile_name: str = "default",
        mode: UserMemoryMode = "update",
        prompt: str | None = None,
    ) -> None:
        check_schema(schema)
        self.name = profile_job(profile_name)
        self._model = model
        self._schema = schema
        self._profile_name = profile_name
        self._update = mode == "update"
        self._prompt = f"{prompt or PROMPT}\n\n{UPDATE if self._update else REPLACE}"
        self._answer_schema = _answer_schema(schema, removable=self._update)

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Merge what the first of ``turns`` tell into the profile, then move on. False when the
        user has been forgotten meanwhile. `ConflictError` when somebody else was first."""
        if session.user_id is None:
            return False
        after = session.jobs[self.name].through
        profile = await _profile(storage, session.user_id, self._profile_name)
        if not await _is_there(storage, session, profile):
            return False
        text, through = take(turns, user_text)
        if (applied := profile.applied.get(_incarnation(session), 0)) > after:
            through = min(applied, session.last_seq)  # merged before a crash: only move on
        elif text:
            asked, answer = profile, await self._ask(profile.traits, text)
            while not await self._put(storage, profile, answer, session, through):
                profile = await _profile(storage, session.user_id, self._profile_name)
                if profile.applied.get(_incarnation(session), 0) > after:
                    raise ConflictError("another worker has merged these turns")
                if profile.forgotten_at != asked.forgotten_at or not self._update:
                    raise ConflictError("the answer knew other traits: ask again")
                answer = rebase(answer, asked.traits, profile.traits)
                asked = profile
        await storage.apply(
            Advance(session.session_id, self.name, after, through, created_at=session.created_at)
        )
        return True

    async def _ask(self, traits: dict[str, Any], text: str) -> dict[str, Any]:
        known = json.dumps(traits, ensure_ascii=False, sort_keys=True)
        messages = [
            {"role": "system", "content": self._prompt},
            {"role": "user", "content": f"Known traits:\n{known}\n\nThe user said:\n{text}"},
        ]

        def check(answer: str) -> dict[str, Any]:
            data = complete_json(answer)
            self._merge(traits, data)  # an answer that cannot be used is asked for again
            return data

        return await ask(self._model, messages, schema=self._answer_schema, check=check)  # type: ignore[no-any-return]

    async def _put(
        self,
        storage: Storage,
        profile: UserProfile,
        answer: dict[str, Any],
        session: Session,
        through: int,
    ) -> bool:
        try:
            traits = self._merge(profile.traits, answer)
        except ModelError as error:  # it did fit the traits it was asked with
            raise ConflictError("the answer does not fit the traits now: ask again") from error
        mark = _incarnation(session)
        applied = {name: seq for name, seq in profile.applied.items() if name != mark}
        applied = dict([*applied.items(), (mark, through)][-MAX_APPLIED:])
        changed = replace(
            profile,
            traits=traits,
            applied=applied,
            updated_at=utc_now(),
            version=new_version(),
        )
        try:
            await storage.apply(Put(changed, profile.version or ABSENT))
        except ConflictError:
            return False
        return True

    def _merge(self, traits: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The traits after ``answer``: None erases nothing, setting wins over removing."""
        said = {name: value for name, value in answer.items() if value is not None}
        removed = said.pop(REMOVE, [])
        if not isinstance(removed, list):
            raise ModelError(f"{REMOVE} is a list of names, not {removed!r}")
        kept = {k: v for k, v in traits.items() if k not in removed} if self._update else {}
        merged = {**kept, **said}
        names = known_names(self._schema)
        given = merged if names is None else {k: v for k, v in merged.items() if k in names}
        try:
            fitting = validate(self._schema, given)
        except ValidationError as error:
            raise ModelError(
                f"the profile would not fit {self._schema.__name__}: {error}"
            ) from error
        dumped = fitting.model_dump(mode="json", by_alias=True, exclude_unset=True)
        changed = {name: value for name, value in dumped.items() if value is not None}
        try:
            dump_json(changed, "the profile")
        except PayloadError as error:
            raise ModelError(str(error)) from error
        # Traits outside the schema are another agent's, or an older schema's: kept as they are.
        others = {} if names is None else {k: v for k, v in kept.items() if k not in names}
        return {**others, **changed}


class StorageAnalysisJob:
    """Hands the turns to a storage that learns about users by itself. Due with every turn."""

    every = 1
    idle: float | None = None

    def __init__(self, profile_name: str = "default") -> None:
        self.name = profile_job(profile_name)
        self._profile_name = profile_name

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Have ``turns`` taken in, then move on: what died between is taken in again, which changes
        nothing. False when the user has been forgotten meanwhile."""
        user_id = session.user_id
        if user_id is None or not isinstance(storage, SupportsAnalysis):
            return False
        before = await _profile(storage, user_id, self._profile_name)
        if not await _is_there(storage, session, before):
            return False
        try:
            await storage.analyse(user_id, turns)
        finally:  # also when it failed half way
            forgotten = await to_the_end(self._forget(storage, user_id, before))
        if forgotten:
            return False
        through, born = session.jobs[self.name].through, session.created_at
        await storage.apply(
            Advance(session.session_id, self.name, through, turns[-1].seq, created_at=born)
        )
        return True

    async def _forget(self, storage: SupportsAnalysis, user_id: str, before: UserProfile) -> bool:
        """Whether the user was forgotten meanwhile: what was learned just now came too late for
        that to find it."""
        assert isinstance(storage, Storage)  # noqa: S101 - it is both
        after = await _profile(storage, user_id, self._profile_name)
        forgotten = after.forgotten_at != before.forgotten_at
        if forgotten:
            await storage.unlearn(user_id)
        return forgotten


async def _profile(storage: Storage, user_id: str, name: str) -> UserProfile:
    found = await storage.get(Key("profile", Partition("user", user_id), name))
    if isinstance(found, UserProfile):
        return found
    return UserProfile(user_id=user_id, name=name, version="")


async def _is_there(storage: Storage, session: Session, profile: UserProfile) -> bool:
    """Whether the session is still the same, and not about to be dropped with its user. Whoever
    marks the user as forgotten later than ``profile`` was read changes the profile's version."""
    stored = await storage.get(session.key)
    return (
        isinstance(stored, Session)
        and stored.created_at == session.created_at
        and profile.forgetting.get(session.session_id) != to_micros(session.created_at)
    )


def rebase(said: dict[str, Any], base: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """``said`` by somebody who knew ``base``, as changes of ``now``: what others have put into a
    list or an object meanwhile stays there."""
    return {name: _rebase(value, base.get(name), now.get(name)) for name, value in said.items()}


def _rebase(said: Any, base: Any, now: Any) -> Any:
    if isinstance(said, list) and isinstance(now, list):
        known = base if isinstance(base, list) else []
        kept = [each for each in now if each in said or each not in known]
        return kept + [each for each in said if each not in known and each not in now]
    if isinstance(said, dict) and isinstance(now, dict):
        old: dict[str, Any] = base if isinstance(base, dict) else {}
        others = {name: value for name, value in now.items() if name in said or name not in old}
        return {**others, **rebase(said, old, now)}
    return said


def _incarnation(session: Session) -> str:
    """This session, and no later one of the same id."""
    return f"{session.session_id} {to_micros(session.created_at)}"


def _answer_schema(schema: type[BaseModel], *, removable: bool) -> dict[str, Any]:
    """The JSON schema of an answer: the profile's, with nothing required and null allowed."""
    answer = schema.model_json_schema()
    answer.pop("required", None)
    properties: dict[str, Any] = {
        name: {"anyOf": [each, {"type": "null"}]}
        for name, each in answer.get("properties", {}).items()
    }
    if removable:
        properties[REMOVE] = {"type": "array", "items": {"type": "string"}}
    return {**answer, "properties": properties}
