"""What an analysis changes: kept, set, removed, replaced; and an answer that cannot be used."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from memory_async import ModelError, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import (
    Errors,
    Script,
    header,
    known_traits,
    says,
    stored_profile,
    traits,
    until,
)

ADA = {"name": "Ada", "location": "Porto", "interests": ["boats"]}


async def known(storage: Storage) -> dict[str, Any]:
    found = await stored_profile(storage)
    assert found is not None
    return found.traits


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, ADA),
        ({"location": None}, ADA),
        (dict.fromkeys(ADA), ADA),
        ({"language": None}, ADA),
        ({"location": "Faro"}, {**ADA, "location": "Faro"}),
        ({"language": "pt"}, {**ADA, "language": "pt"}),
        ({"interests": []}, {**ADA, "interests": []}),
        ({"name": ""}, {**ADA, "name": ""}),
        ({"interests": ["boats", "maps"]}, {**ADA, "interests": ["boats", "maps"]}),
        ({"remove_traits": ["location"]}, {"name": "Ada", "interests": ["boats"]}),
        ({"remove_traits": ["location", "shoe_size"]}, {"name": "Ada", "interests": ["boats"]}),
        ({"remove_traits": ["location"], "location": "Faro"}, {**ADA, "location": "Faro"}),
        ({"remove_traits": ["name"], "name": None}, {"location": "Porto", "interests": ["boats"]}),
        ({"remove_traits": list(ADA)}, {}),
        ({"remove_traits": []}, ADA),
        ({"remove_traits": None}, ADA),
        ({"shoe_size": 38}, ADA),  # no trait of the schema
    ],
    ids=json.dumps,
)
async def test_update(
    make: Make, script: Script, storage: Storage, answer: dict[str, Any], expected: dict[str, Any]
) -> None:
    memory = make(user_analysis_memory=True)
    for each in (ADA, answer):
        script.answer = traits(**each)
        await memory.save(says("hello"))
        assert await memory.drain(10)
    assert await known(storage) == expected


@pytest.mark.parametrize("dynamic", [False, True])
async def test_replace(make: Make, script: Script, storage: Storage, dynamic: bool) -> None:
    memory = make(
        user_analysis_memory=True, user_memory_mode="replace", dynamic_user_profile=dynamic
    )
    for answer, expected in (
        (ADA, ADA),
        ({"name": "Ada", "language": None}, {"name": "Ada"}),
        ({"remove_traits": ["name"], "goals": ["sleep"]}, {"goals": ["sleep"]}),
        ({}, {}),
    ):
        script.answer = traits(**answer)
        await memory.save(says("hello"))
        assert await memory.drain(10)
        assert await known(storage) == expected
    assert all("remove_traits" not in str(call) for call in script.calls)


async def test_the_model_is_shown_the_traits_and_what_is_new(make: Make, script: Script) -> None:
    memory = make(full_session_memory=True, user_analysis_memory=True)
    script.answer = traits(**ADA)
    await memory.save(says("I am Ada", "Hello Ada"))
    assert await memory.drain(10)
    await memory.save(says("I live in Porto"))
    assert await memory.drain(10)
    first, second = script.calls
    assert known_traits(first) == {}
    assert known_traits(second) == ADA
    assert "I am Ada" in first.said
    assert "I am Ada" not in second.said
    assert all("Hello Ada" not in call.said for call in script.calls)


async def test_a_dynamic_profile_has_the_traits_the_model_names(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(user_analysis_memory=True, dynamic_user_profile=True)
    said = {"shoe size": 38, "pets": [{"kind": "cat", "name": "Şila"}], "vegan": False}
    script.answer = traits(**said, nothing=None)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    assert await known(storage) == said
    profile = await memory.profile()
    assert profile.model_dump() == said
    script.answer = traits(remove_traits=["pets"], vegan=True)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    assert await known(storage) == {"shoe size": 38, "vegan": True}
    assert "vegan: true" in (await memory.load()).instructions


async def test_what_is_learned_shows_in_later_sessions(make: Make, script: Script) -> None:
    script.answer = traits(**ADA)
    memory = make(user_analysis_memory=True)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    context = await memory.bind(session_id="another").load()
    assert context.profile.location == "Porto"
    assert "location: Porto" in context.instructions
    other = await memory.bind(session_id="third", user_id="bob").load()
    assert (other.profile, other.instructions) == (None, "")


class Age(BaseModel):
    age: int | None = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    age: int | None = None


@pytest.mark.parametrize("schema", [Age, Strict])
async def test_traits_of_another_schema_are_kept(
    make: Make, script: Script, storage: Storage, schema: type[BaseModel]
) -> None:
    script.answer = traits(**ADA)
    first = make(user_analysis_memory=True)
    await first.save(says("hello"))
    assert await first.drain(10)
    second = make("s2", user_analysis_memory=True, user_profile_schema=schema)
    script.answer = traits(age=36, name="Eve", remove_traits=["location"])
    await second.save(says("hello"))
    assert await second.drain(10)
    assert await known(storage) == {"name": "Ada", "interests": ["boats"], "age": 36}


@pytest.mark.parametrize(
    "bad",
    [
        '{"age": "old"}',
        '{"age": 36, "remove_traits": "age"}',
        '{"age": [36]}',
        "[]",
        '"text"',
        "I would say the user is 36.",
        "",
        '{"age": 36',
        '{"age": NaN}',
        '{"age": Infinity}',
        '{"age": 1e999}',
        "```json\n```",
        "{" * 100_000,
    ],
)
async def test_an_answer_that_cannot_be_used(
    make: Make, script: Script, storage: Storage, errors: Errors, bad: str
) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=Age, on_job_error=errors)
    script.answer = traits(age=35)
    await memory.save(says("I am 35."))
    assert await memory.drain(10)
    before = await stored_profile(storage)

    script.answer = lambda call: bad
    await memory.save(says("I am 36."))
    await until(lambda: memory.jobs.failed == 1)
    [(job, session_id, error)] = errors
    assert (job, session_id, type(error)) == ("profile:default", "s1", ModelError)
    assert len(script.calls) == 4  # asked three times
    assert await stored_profile(storage) == before
    assert (await header(storage)).jobs[job].through == 1

    script.answer = traits(age=36)
    await memory.save(says("Did you hear?"))
    assert await memory.drain(10)
    assert await known(storage) == {"age": 36}
    assert "I am 36.\n\nDid you hear?" in script.calls[-1].said
    assert (await header(storage)).jobs[job].through == 3


@pytest.mark.parametrize(
    "answer",
    ['```json\n{"age": 36}\n```', '\n```\n{"age": 36}```  ', ' {"age": 36, "x": "`"} '],
)
async def test_a_fence_around_the_answer(make: Make, script: Script, answer: str) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=Age)
    script.answer = lambda call: answer
    await memory.save(says("I am 36."))
    assert await memory.drain(10)
    assert (await memory.profile()).age == 36


async def test_an_answer_that_fits_at_the_second_try(make: Make, script: Script) -> None:
    answers = iter(['{"age": "old"}', '{"age": 36}'])
    script.answer = lambda call: next(answers)
    memory = make(user_analysis_memory=True, user_profile_schema=Age)
    await memory.save(says("I am 36."))
    assert await memory.drain(10)
    assert (await memory.profile()).age == 36
    assert (memory.jobs.done, memory.jobs.failed) == (1, 0)
