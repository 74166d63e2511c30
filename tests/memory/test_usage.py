"""`usage()` sums whatever numbers the turns reported."""

from dataclasses import dataclass
from types import MappingProxyType

import pytest
from pydantic import BaseModel

from memory_async import Advance, Memory, PayloadError

HI = {"role": "user", "content": "Hi"}


class SdkUsage(BaseModel):
    input_tokens: int = 0
    details: dict[str, int] | None = None


@dataclass
class PlainUsage:
    input_tokens: int = 0


@pytest.fixture
def memory(storage) -> Memory:
    return Memory(storage, "s1", full_session_memory=True)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"input_tokens": 3}, {"input_tokens": 3}),
        (MappingProxyType({"input_tokens": 3}), {"input_tokens": 3}),
        (SdkUsage(input_tokens=3), {"input_tokens": 3, "details": None}),
        (PlainUsage(input_tokens=3), {"input_tokens": 3}),
        ({}, {}),
        (None, None),
    ],
    ids=["dict", "mapping", "model_dump", "dataclass", "empty", "none"],
)
async def test_usage_is_taken_from_a_mapping_or_an_object_and_stored_as_given(
    memory, given, stored
):
    turn = await memory.save(HI, usage=given)
    assert turn.usage == stored
    assert (await memory.turns())[0].usage == stored


@pytest.mark.parametrize("given", [12, "12 tokens", [("input_tokens", 3)], PlainUsage], ids=repr)
async def test_usage_that_is_none_of_these_is_refused(memory, contents, given):
    with pytest.raises(PayloadError, match="usage is a mapping such as"):
        await memory.save(HI, usage=given)
    assert await contents() == {}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"cost": float("nan")}, "usage.cost is nan"),
        ({"cost": object()}, "usage.cost is a object"),
        ({"deep": {1: 2}}, "usage.deep has the key 1"),
    ],
    ids=["nan", "object", "key"],
)
async def test_usage_that_json_cannot_hold_is_refused(memory, contents, given, complaint):
    with pytest.raises(PayloadError, match=complaint):
        await memory.save(HI, usage=given)
    assert await contents() == {}


async def test_numbers_add_up_level_by_level_and_the_rest_is_left_out(memory):
    await memory.save(HI, usage={"in": 3, "cost": 0.5, "details": {"cached": 1}, "model": "a"})
    await memory.save(HI, usage={"in": 4, "cost": 0.25, "details": {"cached": 2, "audio": 5}})
    await memory.save(HI, usage={"ok": True, "none": None, "list": [1, 2], "out": 1})
    await memory.save(HI)
    assert await memory.usage() == {
        "in": 7,
        "cost": 0.75,
        "details": {"cached": 3, "audio": 5},
        "out": 1,
    }


async def test_a_name_that_is_a_number_here_and_a_mapping_there_does_no_harm(memory):
    await memory.save(HI, usage={"a": 1, "b": {"c": 1}})
    await memory.save(HI, usage={"a": {"c": 1}, "b": 1})
    assert await memory.usage() == {"a": 1, "b": {"c": 1}}


async def test_adding_up_does_not_change_what_is_stored(memory):
    for _ in range(2):
        await memory.save(HI, usage={"details": {"cached": 1}})
    for _ in range(2):
        assert await memory.usage() == {"details": {"cached": 2}}
    assert [turn.usage for turn in await memory.turns()] == [{"details": {"cached": 1}}] * 2


async def test_usage_of_trimmed_turns_still_counts(storage, model):
    memory = Memory(storage, "s1", summary_memory=True, model=model, summary_every=1000)
    for _ in range(3):
        await memory.save(HI, usage={"in": 10})
    await storage.apply(Advance("s1", "summary", 0, 2, "Hi, hi."))
    assert len(await memory.turns()) == 1
    assert await memory.usage() == {"in": 30}


async def test_a_session_without_turns_used_nothing(memory, contents):
    assert await memory.usage() == {}
    assert await contents() == {}
