"""Several sessions of one user at once, and a crash between the profile and the cursor."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from memory_async import Advance, Storage, StorageUnavailableError
from memory_async.analysis import rebase
from tests.jobs.conftest import Make
from tests.jobs.script import (
    JOBS,
    Errors,
    Script,
    header,
    known_traits,
    says,
    stored_profile,
    until,
)
from tests.llm import Call, marks_answer

PROFILE = "profile:default"


def echo(call: Call) -> str:
    """What the user said is the answer's JSON; a list is given whole, with what was known."""
    said = json.loads(call.said.split("The user said:\n")[1])
    known = known_traits(call)
    for name, value in said.items():
        if isinstance(value, list) and name != "remove_traits":
            said[name] = [*known.get(name, []), *value]
    return json.dumps(said)


async def known(storage: Storage) -> dict[str, Any]:
    found = await stored_profile(storage)
    assert found is not None
    return found.traits


async def at_once(make: Make, script: Script, *said: dict[str, Any], **options: Any) -> None:
    """Each told in a session of its own; all are asked before the first is answered."""
    script.answer = echo
    memory = make(None, user_analysis_memory=True, max_jobs=len(said), **options)
    before = len(script.calls)
    script.hold()
    for number, each in enumerate(said):
        await memory.bind(session_id=f"s{number}").save(says(json.dumps(each)))
    await script.wait_for_calls(before + len(said))
    script.release()
    assert await memory.drain(10)
    assert (memory.jobs.failed, memory.jobs.lag) == (0, 0)


async def test_two_sessions_of_one_user(make: Make, script: Script, storage: Storage) -> None:
    await at_once(make, script, {"name": "Ada"}, {"location": "Porto"})
    assert await known(storage) == {"name": "Ada", "location": "Porto"}
    assert len(script.calls) == 2  # merged again, not asked again
    for number in (0, 1):
        assert (await header(storage, f"s{number}")).jobs[PROFILE].through == 1
    profile = await stored_profile(storage)
    assert profile is not None
    assert sorted(profile.applied.values()) == [1, 1]


async def test_two_sessions_that_add_to_one_list(
    make: Make, script: Script, storage: Storage
) -> None:
    await at_once(make, script, {"facts": ["has a cat"]}, {"facts": ["plays chess"]})
    assert sorted((await known(storage))["facts"]) == ["has a cat", "plays chess"]
    assert len(script.calls) == 2
    await at_once(make, script, {"remove_traits": ["facts"], "name": "Ada"}, {"goals": ["sleep"]})
    assert await known(storage) == {"name": "Ada", "goals": ["sleep"]}


async def test_ten_sessions_of_one_user(make: Make, script: Script, storage: Storage) -> None:
    await at_once(
        make,
        script,
        *({f"t{number}": number, "facts": [number], "last": number} for number in range(10)),
        dynamic_user_profile=True,
    )
    traits = await known(storage)
    assert traits.pop("last") in range(10)
    assert sorted(traits.pop("facts")) == list(range(10))
    assert traits == {f"t{number}": number for number in range(10)}
    assert len(script.calls) == 10


async def test_replacing_at_once_asks_again(make: Make, script: Script, storage: Storage) -> None:
    """A whole new profile made of old knowledge would lose what the other session told."""

    def answer(call: Call) -> str:
        return json.dumps({**known_traits(call), **json.loads(echo(call))})

    memory = make(None, user_analysis_memory=True, user_memory_mode="replace")
    script.answer = answer
    script.hold()
    for number, each in enumerate(({"name": "Ada"}, {"location": "Porto"})):
        await memory.bind(session_id=f"s{number}").save(says(json.dumps(each)))
    await script.wait_for_calls(2)
    script.release()
    assert await memory.drain(10)
    assert await known(storage) == {"name": "Ada", "location": "Porto"}
    assert len(script.calls) == 3


class Pair(BaseModel):
    place: tuple[float, float] | None = None
    name: str | None = None


async def test_what_cannot_be_merged_is_asked_again(
    make: Make, script: Script, storage: Storage
) -> None:
    memory = make(None, user_analysis_memory=True, user_profile_schema=Pair)
    script.answer = lambda call: call.said.split("The user said:\n")[1]
    script.hold()
    for number, place in enumerate(([1.0, 2.0], [3.0, 4.0])):
        view = memory.bind(session_id=f"s{number}")
        await view.save(says(json.dumps({"place": place})))
    await script.wait_for_calls(2)
    script.release()
    assert await memory.drain(10)
    assert (await known(storage))["place"] in ([1.0, 2.0], [3.0, 4.0])
    assert (len(script.calls), memory.jobs.failed) == (3, 0)


@pytest.mark.parametrize(
    ("said", "base", "now", "expected"),
    [
        ([1, 2], [1], [1, 3], [1, 3, 2]),
        ([], [1], [1, 3], [3]),
        ([1], [1], [3], [3]),
        ([1], None, [3], [3, 1]),
        ([1], [], None, [1]),
        ([[1]], [], [[2]], [[2], [1]]),
        ([1], "x", [2], [2, 1]),
        ({"a": 1}, {}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 0, "b": 2}, {"a": 0, "b": 2}, {"a": 1}),
        ({"a": {"b": [1]}}, {}, {"a": {"b": [2], "c": 3}}, {"a": {"b": [2, 1], "c": 3}}),
        ("x", "y", "z", "x"),
        (None, [1], [1, 2], None),
        ([1], [], "z", [1]),
    ],
)
def test_rebase(said: Any, base: Any, now: Any, expected: Any) -> None:
    assert rebase({"t": said}, {"t": base}, {"t": now}) == {"t": expected}


class Crash:
    """Storage that fails the first ``Advance``, as if the process had died before it."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.apply, self.crashed = storage.apply, False
        monkeypatch.setattr(storage, "apply", self)

    async def __call__(self, *writes: Any) -> Any:
        if not self.crashed and isinstance(writes[0], Advance):
            self.crashed = True
            raise StorageUnavailableError("gone")
        return await self.apply(*writes)


@pytest.mark.parametrize("more", [0, 2])
async def test_a_crash_between_the_profile_and_the_cursor(
    make: Make,
    script: Script,
    storage: Storage,
    errors: Errors,
    monkeypatch: pytest.MonkeyPatch,
    more: int,
) -> None:
    script.answer = marks_answer
    memory = make(user_analysis_memory=True, on_job_error=errors)
    crash = Crash(storage, monkeypatch)
    await memory.save(says("«1»"))
    await until(lambda: memory.jobs.failed == 1)
    assert crash.crashed
    assert isinstance(errors[0][2], StorageUnavailableError)
    assert (await header(storage)).jobs[PROFILE].through == 0
    assert (await known(storage)) == {"facts": ["«1»"]}
    await memory.close()

    later = make(user_analysis_memory=True)
    for number in range(2, 2 + more):
        script.hold()
        await later.save(says(f"«{number}»"))
    script.release()
    await later.recover()
    assert await later.drain(10)
    everything = [f"«{number}»" for number in range(1, 2 + more)]
    assert await known(storage) == {"facts": everything}
    assert (await header(storage)).jobs[PROFILE].through == 1 + more
    said = [call.said.split("The user said:\n")[1] for call in script.calls]
    assert [sum(each.count(mark) for each in said) for mark in everything] == [1] * (1 + more)


async def test_two_workers_on_the_same_turns(make: Make, script: Script, storage: Storage) -> None:
    """Both ask; whatever the two answers are, one of each kind is stored."""
    answers = iter(range(10))

    def answer(call: Call) -> str:
        text = f"answer {next(answers)}"
        return text if call.schema is None else json.dumps({"facts": [text], text: "said"})

    script.answer = answer
    script.hold()
    one, other = (make(**JOBS, dynamic_user_profile=True) for _ in range(2))
    await one.save(says("hello"))
    await script.wait_for_calls(2)
    runs = [asyncio.create_task(other.jobs.run(job, "s1")) for job in ("summary", PROFILE)]
    await script.wait_for_calls(4)
    script.release()
    await asyncio.gather(*runs)
    assert await one.drain(10)
    assert len(script.calls) == 4
    traits = await known(storage)
    [fact] = traits["facts"]
    assert traits == {"facts": [fact], fact: "said"}
    assert await one.summary() not in (None, fact)
    assert (one.jobs.failed, other.jobs.failed) == (0, 0)
