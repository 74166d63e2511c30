"""The profile: an instance of the schema, and the block in the instructions."""

import logging

import pytest
from pydantic import BaseModel

from memory_async import ALWAYS, ConfigurationError, Memory, Profile, Put, UserProfile


class Prefs(BaseModel):
    tea: bool
    cups: int = 0


async def know(storage, profile_name="default", /, **traits):
    profile = UserProfile(user_id="ada", name=profile_name, traits=traits)
    await storage.apply(Put(profile, ALWAYS))


def memory_of(storage, **options) -> Memory:
    return Memory(storage, "s1", "ada", load_user_analysis_memory=True, **options)


async def test_without_a_schema_the_profile_is_a_small_default(storage):
    await know(storage, name="Ada", interests=["tea"])
    memory = memory_of(storage)
    assert await memory.profile() == Profile(name="Ada", interests=["tea"])
    assert (await memory.load()).profile == Profile(name="Ada", interests=["tea"])


async def test_the_profile_is_an_instance_of_the_schema(storage):
    await know(storage, tea=True, cups=3)
    memory = memory_of(storage, user_profile_schema=Prefs)
    for profile in (await memory.profile(), (await memory.load()).profile):
        assert isinstance(profile, Prefs)
        assert (profile.tea, profile.cups) == (True, 3)


async def test_a_dynamic_profile_has_whatever_traits_there_are(storage):
    await know(storage, favourite_colour="green")
    profile = await memory_of(storage, dynamic_user_profile=True).profile()
    assert profile.model_dump() == {"favourite_colour": "green"}


async def test_each_profile_name_is_a_profile_of_its_own(storage):
    await know(storage, name="Ada")
    await know(storage, "work", tea=True)
    work = memory_of(storage, profile_name="work", user_profile_schema=Prefs)
    assert (await work.profile()).tea is True
    assert (await work.load()).instructions == "<UserProfile>\ntea: true\n</UserProfile>"
    assert (await memory_of(storage).profile()).name == "Ada"


async def test_a_user_without_traits_has_no_profile(storage):
    memory = memory_of(storage)
    assert await memory.profile() is None
    await know(storage)
    assert await memory.profile() is None
    assert (await memory.load()).profile is None
    assert (await memory.load()).instructions == ""


async def test_traits_that_do_not_fit_the_schema_are_an_error_to_read(storage):
    await know(storage, tea="sometimes")
    memory = memory_of(storage, user_profile_schema=Prefs)
    with pytest.raises(ConfigurationError, match=r"(?s)does not fit Prefs.*profile_name") as caught:
        await memory.profile()
    assert caught.value.__cause__ is not None


async def test_traits_that_do_not_fit_the_schema_do_not_stop_a_run(storage, caplog):
    await know(storage, tea="sometimes")
    memory = memory_of(storage, user_profile_schema=Prefs)
    with caplog.at_level(logging.WARNING):
        context = await memory.load()
    assert context.profile is None
    assert "tea: sometimes" in context.instructions
    assert "does not fit Prefs" in caplog.text


async def test_traits_outside_the_schema_are_injected_too(storage):
    await know(storage, tea=True, hat="blue")
    context = await memory_of(storage, user_profile_schema=Prefs).load()
    assert str(context.profile) == "tea=True cups=0"
    assert context.instructions == "<UserProfile>\nhat: blue\ntea: true\n</UserProfile>"


async def test_the_profile_follows_the_user_into_every_session(storage):
    await know(storage, name="Ada")
    memory = memory_of(storage)
    assert (await memory.bind(session_id="s2").profile()).name == "Ada"
    assert await memory.bind(user_id="bob").profile() is None
    assert await memory.bind(user_id=None).profile() is None
