"""Profiles of any pydantic schema: what the model is asked for, what is kept, and read back."""

import enum
import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from memory_async import ConfigurationError, Memory, ModelError, Storage
from tests.jobs.conftest import Make
from tests.jobs.script import Errors, Script, says, stored_profile, traits, until


class Diet(enum.Enum):
    VEGAN = "vegan"
    ANY = "any"


class Address(BaseModel):
    street: str | None  # must be given, may be null
    city: str
    since: date | None = None


class Customer(BaseModel):
    """A customer of the shop."""

    id: uuid.UUID | None = None
    born: date | None = None
    seen: datetime | None = None
    diet: Diet | None = None
    budget: Decimal | None = None
    patience: timedelta | None = None
    address: Address | None = None
    earlier: list[Address] = Field(default_factory=list)
    sizes: set[int] = set()
    range: tuple[float, float] | None = None
    level: Annotated[int, Field(ge=1, le=5)] = 1


class StrictCustomer(Customer):
    model_config = ConfigDict(strict=True)


CUSTOMER: dict[str, Any] = {
    "id": "4b6aba5c-3ee9-4d0c-9d6b-2d0b1f2c3a44",
    "born": "1990-02-28",
    "seen": "2024-02-29T12:00:00Z",
    "diet": "vegan",
    "budget": "12.50",
    "patience": "PT1M30S",
    "address": {"street": None, "city": "Porto"},
    "earlier": [{"street": "Rua 1", "city": "Faro", "since": "2001-01-01"}],
    "sizes": [42],
    "range": [0.5, 1.5],
}


@pytest.mark.parametrize("schema", [Customer, StrictCustomer])
async def test_every_kind_of_field(
    make: Make, script: Script, storage: Storage, schema: type[Customer]
) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=schema)
    for answer in (CUSTOMER, {"diet": "any"}, {"level": 2}):
        script.answer = traits(**answer)
        await memory.save(says("hello"))
        assert await memory.drain(10)
    assert memory.jobs.failed == 0
    found = await stored_profile(storage)
    assert found is not None
    assert found.traits == {**CUSTOMER, "diet": "any", "level": 2}
    profile = await memory.profile()
    assert isinstance(profile, schema)
    assert profile == schema(
        id=uuid.UUID(CUSTOMER["id"]),
        born=date(1990, 2, 28),
        seen=datetime(2024, 2, 29, 12, tzinfo=UTC),
        diet=Diet.ANY,
        budget=Decimal("12.50"),
        patience=timedelta(seconds=90),
        address=Address(street=None, city="Porto"),
        earlier=[Address(street="Rua 1", city="Faro", since=date(2001, 1, 1))],
        sizes={42},
        range=(0.5, 1.5),
        level=2,
    )
    assert (await memory.load()).profile == profile


class Home(BaseModel):
    town: str | None = Field(default=None, alias="homeTown")
    rooms: int | None = Field(default=None, alias="numberOfRooms")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    home_town: str | None = None
    number_of_rooms: int | None = None


@pytest.mark.parametrize("schema", [Home, Camel])
async def test_aliases(
    make: Make, script: Script, storage: Storage, schema: type[BaseModel]
) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=schema)
    for answer in ({"homeTown": "Faro"}, {"numberOfRooms": 3}, {"homeTown": "Porto"}):
        script.answer = traits(**answer)
        await memory.save(says("hello"))
        assert await memory.drain(10)
    found = await stored_profile(storage)
    assert found is not None
    assert found.traits == {"homeTown": "Porto", "numberOfRooms": 3}
    assert (await memory.profile()).model_dump(by_alias=True) == found.traits
    [asked, *_] = script.calls
    assert asked.schema is not None
    assert {"homeTown", "numberOfRooms"} <= asked.schema["properties"].keys()


class ReadElsewhere(BaseModel):
    town: str | None = Field(default=None, validation_alias="homeTown")


class WrittenElsewhere(BaseModel):
    town: str | None = Field(default=None, serialization_alias="homeTown")


class ReadAnywhere(BaseModel):
    town: str | None = Field(default=None, validation_alias=AliasChoices("town", "city"))


@pytest.mark.parametrize("schema", [ReadElsewhere, WrittenElsewhere, ReadAnywhere])
def test_a_schema_that_cannot_read_what_it_wrote(script: Script, schema: type[BaseModel]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{schema.__name__}\.town.*alias"):
        Memory(
            "memory://",
            "s1",
            "ada",
            user_analysis_memory=True,
            user_profile_schema=schema,
            model=script,
        )


class Named(BaseModel):
    name: str
    nick: str | None  # required, as OpenAI's strict mode wants it, but may be null
    diet: str | None = None


async def test_required_traits(
    make: Make, script: Script, storage: Storage, errors: Errors
) -> None:
    """There is no profile before what it requires is known; then all that was said is in it."""
    memory = make(user_analysis_memory=True, user_profile_schema=Named, on_job_error=errors)
    script.answer = traits(diet="vegan", nick=None)
    await memory.save(says("I am vegan."))
    await until(lambda: memory.jobs.failed == 1)
    assert isinstance(errors[0][2], ModelError)
    assert await stored_profile(storage) is None

    script.answer = traits(diet="vegan", name="Ada")
    await memory.save(says("And my name is Ada."))
    assert await memory.drain(10)
    assert "I am vegan." in script.calls[-1].said
    assert await memory.profile() == Named(name="Ada", nick=None, diet="vegan")

    script.answer = traits(remove_traits=["name"])
    await memory.save(says("Forget my name."))
    await until(lambda: memory.jobs.failed == 2)
    assert (await memory.profile()).name == "Ada"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str | None = None
    weight: float | None = None


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    weight: float | None = None


@pytest.mark.parametrize(("schema", "kept"), [(Open, True), (Closed, False)])
async def test_traits_the_schema_does_not_name(
    make: Make, script: Script, schema: type[BaseModel], kept: bool
) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=schema)
    script.answer = traits(name="Ada", shoes=38)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    profile = await memory.profile()
    assert profile.model_dump(exclude_unset=True) == {
        "name": "Ada",
        **({"shoes": 38} if kept else {}),
    }


@pytest.mark.parametrize("schema", [Open, Closed])
@pytest.mark.parametrize("weight", ["NaN", '"NaN"', "1e999", '"-inf"', '"\\ud800"'])
async def test_what_json_cannot_hold(
    make: Make,
    script: Script,
    storage: Storage,
    errors: Errors,
    schema: type[BaseModel],
    weight: str,
) -> None:
    """pydantic would make null of it, which erases what was known."""
    memory = make(user_analysis_memory=True, user_profile_schema=schema, on_job_error=errors)
    script.answer = traits(weight=71.5)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    script.answer = lambda call: f'{{"weight": {weight}}}'
    await memory.save(says("hello"))
    await until(lambda: memory.jobs.failed == 1)
    assert [type(error) for *_, error in errors] == [ModelError]
    assert len(script.calls) == 4
    assert (await memory.profile()).weight == 71.5


@pytest.mark.parametrize("mode", ["update", "replace"])
async def test_the_schema_of_the_answer(make: Make, script: Script, mode: str) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=Customer, user_memory_mode=mode)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    schema = script.calls[0].schema
    assert schema is not None
    assert "required" not in schema
    assert schema["$defs"]["Address"]["required"] == ["street", "city"]
    assert {"type": "null"} in schema["properties"]["level"]["anyOf"]
    assert ("remove_traits" in schema["properties"]) == (mode == "update")
    assert schema["description"] == "A customer of the shop."
    json.dumps(schema)


async def test_defaults_are_not_taken_for_learned(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(user_analysis_memory=True, user_profile_schema=Customer)
    script.answer = traits(diet="any")
    await memory.save(says("hello"))
    assert await memory.drain(10)
    found = await stored_profile(storage)
    assert found is not None
    assert found.traits == {"diet": "any"}
    assert (await memory.profile()).level == 1


async def test_traits_that_do_not_fit_the_schema(
    make: Make, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.answer = traits(weight="heavy")
    first = make(user_analysis_memory=True, dynamic_user_profile=True)
    await first.save(says("hello"))
    assert await first.drain(10)
    second = make(load_user_analysis_memory=True, user_profile_schema=Closed)
    with pytest.raises(ConfigurationError, match="does not fit Closed"):
        await second.profile()
    context = await second.load()
    assert context.profile is None
    assert "weight: heavy" in context.instructions
    assert "does not fit Closed" in caplog.text
