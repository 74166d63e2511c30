"""What goes in comes out: any text, any number, any key, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_async.errors import PayloadError
from memory_async.keys import Partition
from memory_async.message import Message
from memory_async.records import Checkpoint, Item, Record, Session, UserProfile
from memory_async.storage.protocol import ABSENT, ALWAYS, Advance, Append, Put, Storage, Write
from memory_async.testing.material import (
    append,
    contents,
    header,
    in_session,
    item,
    put,
    unique,
)
from memory_async.testing.suite import Suite, Test
from memory_async.turns import Turn

ODD_KEYS = [
    "", "\0", "__proto__", "a.b", "$where", "$oid", "_id", "v", "json", "base64", "é",
    "\U0001f600", "'", '"',
]  # fmt: skip
BIG = [
    2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**40, -(10**300),
    0.1, 1e308, 5e-324, -0.0, 1e16, 1.0,
]  # fmt: skip
TEXTS = [
    "", "\0", "a\0b", "e\u0301", "\u00e9", "\U0001f469\u200d\U0001f680", "\u202e", "\ufeff",
    "\u2028", "\ufffe", "\x7f\x1b", "\\u0000", "{}", "[]", "null", "%s", " \r\n\t ",
]  # fmt: skip

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=30))
keys = st.one_of(st.sampled_from(ODD_KEYS), st.text(max_size=8))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(BIG),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(keys, values, max_size=10)

DEEP = 150


def deep(levels: int) -> Any:
    """Lists and dicts in one another, so many levels."""
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


PLACES: dict[str, Callable[[str, Any], Write]] = {
    "message": lambda s, value: Append(
        Turn(session_id=s, messages=[Message(role="user", content=[{"type": "x", "x": value}])]),
        Session(session_id=s),
    ),
    "usage": lambda s, value: append(s, usage={"x": value}),
    "metadata": lambda s, value: Put(Session(session_id=s, metadata={"x": value}), ALWAYS),
    "item": lambda s, value: Put(item(in_session(s), "x", value), ABSENT),
    "state": lambda s, value: Put(Checkpoint(session_id=s, run_id="x", state=value), ABSENT),
    "job": lambda s, value: Advance(s, "job", 0, 1, value),
}
"""Where users' values go, each as a write to a session with one turn and a job."""

UNSUITABLE: dict[str, Any] = {
    "nan": float("nan"),
    "infinity": float("-inf"),
    "nan within": [{"a": [1, float("nan")]}],
    "lone surrogate": "\ud800",
    "lone surrogate within": {"a": ["b\udfff"]},
    "lone surrogate as key": {"\udc00": 1},
    "number as key": {1: 2},
    "none as key": [{None: 2}],
    "datetime": datetime(2024, 1, 1, tzinfo=UTC),
    "set": {1},
    "bytes within": [b"x"],
    "object": object(),
    "too deep": deep(5_000),
}


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """For one batch: what an engine does with each is the same, and a trip takes its time."""
    return st.lists(values, min_size=1, max_size=10)


def examples(test: Test) -> Test:
    """Hypothesis' settings: engines differ in speed, and fixtures are shared by all examples."""
    unimportant = [
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ]
    return settings(
        max_examples=10, deadline=None, database=None, suppress_health_check=unimportant
    )(test)


def same(found: Any, given: Any) -> bool:
    """Equal down to types, order of keys and the sign of zero."""
    return repr(found) == repr(given)


class PayloadConformance(Suite):
    """Payloads are opaque: nothing of them is rounded, reordered, cut or refused on the way."""

    @examples
    @given(said=several(st.tuples(texts, st.lists(objects, max_size=2))), usage=st.none() | objects)
    async def test_messages_come_back(
        self, storage: Storage, said: list[tuple[str, list[dict[str, Any]]]], usage: Any
    ) -> None:
        s = unique("session")
        messages = [
            message
            for text, parts in said
            for message in (
                Message(role="user", content=text),
                Message(role="assistant", content=parts, name=text),
                Message.parse({"content": text, "role": "user", "unknown": parts}),
                Message(role="assistant", tool_calls=parts),
            )
        ]
        turn = Turn(session_id=s, messages=messages, usage=usage)
        await storage.apply(Append(turn, Session(session_id=s)))
        [stored] = await storage.history(s)
        assert same([m.to_openai() for m in stored.messages], [m.to_openai() for m in messages])
        assert same(stored.usage, usage)
        assert stored.messages == messages

    @examples
    @given(metadata=objects)
    async def test_metadata_comes_back(self, storage: Storage, metadata: dict[str, Any]) -> None:
        s = unique("session")
        await put(storage, Session(session_id=s, metadata=metadata))
        assert same((await header(storage, s)).metadata, metadata)

    @examples
    @given(values=several(values | st.binary(max_size=50)))
    async def test_items_come_back(self, storage: Storage, values: list[Any]) -> None:
        where = unique("collection")
        await storage.apply(
            *[Put(item(where, str(n), value), ABSENT) for n, value in enumerate(values)]
        )
        stored = await storage.find("item", Partition("collection", where))
        found = {each.key.id: each for each in stored}
        for n, value in enumerate(values):
            each = found.pop(str(n))
            assert isinstance(each, Item)
            assert same(each.value, value)
        assert not found
        last = item(where, str(len(values) - 1))
        assert same(getattr(await storage.get(last.key), "value", ...), values[-1])

    @examples
    @given(values=several(values.filter(lambda value: value is not None)))
    async def test_values_of_jobs_come_back(self, storage: Storage, values: list[Any]) -> None:
        s, jobs = unique("session"), [f"job {n}" for n in range(len(values))]
        await storage.apply(append(s, due=tuple(jobs)))
        await storage.apply(
            *[Advance(s, job, 0, 1, value) for job, value in zip(jobs, values, strict=True)]
        )
        stored = (await header(storage, s)).jobs
        for job, value in zip(jobs, values, strict=True):
            assert same(stored[job].value, value)

    @examples
    @given(several(st.tuples(values, texts)))
    async def test_states_of_runs_come_back(
        self, storage: Storage, runs: list[tuple[Any, str]]
    ) -> None:
        s = unique("session")
        records = [
            Checkpoint(session_id=s, run_id=f"{n}", state=state, error=error)
            for n, (state, error) in enumerate(runs)
        ]
        await storage.apply(*[Put(each, ABSENT) for each in records])
        stored = await storage.find("checkpoint", in_session(s))
        assert len(stored) == len(runs)
        for each in stored:
            assert isinstance(each, Checkpoint)
            assert same((each.state, each.error), runs[int(each.run_id)])

    @examples
    @given(traits=objects)
    async def test_traits_come_back(self, storage: Storage, traits: dict[str, Any]) -> None:
        record = UserProfile(user_id=unique(), traits=traits)
        await put(storage, record)
        [stored] = await storage.find("profile", record.key.partition)
        assert isinstance(stored, UserProfile)
        assert same(stored.traits, traits)

    @pytest.mark.parametrize("place", PLACES)
    async def test_known_oddities_come_back(self, storage: Storage, place: str) -> None:
        value = [
            [], {}, [[]], [{}], {"a": [], "b": {}}, {"b": 1, "a": 2}, BIG, TEXTS,
            {key: key for key in ODD_KEYS}, True, None, "x" * 100_000,
        ]  # fmt: skip
        assert same(await self._through(storage, place, value), value)

    @pytest.mark.parametrize("place", PLACES)
    async def test_deep_nesting_comes_back(self, storage: Storage, place: str) -> None:
        value = deep(DEEP)
        assert same(await self._through(storage, place, value), value)

    @pytest.mark.parametrize("value", [{"base64": "AA=="}, {"json": 1}, {"base64": 1}, b"", b"\0"])
    async def test_an_item_is_never_mistaken_for_bytes(self, storage: Storage, value: Any) -> None:
        record = item(unique(), "a", value)
        await put(storage, record)
        assert await storage.get(record.key) == record

    async def test_nothing_is_shared_with_the_caller(self, storage: Storage) -> None:
        s = unique("session")
        metadata, value, usage = {"a": [1]}, [{"a": 1}], {"n": 1}
        record = item(in_session(s), "a", value)
        await storage.apply(append(s, usage=usage), Put(record, ABSENT))
        await put(storage, Session(session_id=s, metadata=metadata))
        before = await contents(storage, s)
        metadata["a"].append(2)
        value.append({})
        usage["n"] = 2
        assert await contents(storage, s) == before
        view, [found] = await storage.snapshot(s), await storage.find("item", in_session(s))
        assert view.session is not None
        assert isinstance(found, Item)
        view.session.metadata.clear()
        view.turns[0].messages.clear()
        found.value.clear()
        assert await contents(storage, s) == before

    async def test_a_large_payload_comes_back(self, storage: Storage) -> None:
        size = 1 if self.thorough else 10
        text, data = "\U0001f600é\0a" * (125_000 // size), bytes(range(256)) * (4096 // size)
        s = unique("session")
        record = item(in_session(s), "a", data)
        await storage.apply(append(s, text), Put(record, ABSENT))
        assert (await storage.history(s))[0].messages[0].content == text
        assert await storage.get(record.key) == record

    @pytest.mark.parametrize("place", PLACES)
    async def test_what_would_not_come_back_is_refused(self, storage: Storage, place: str) -> None:
        s = unique("session")
        await storage.apply(append(s, due=("job",), keep_turns=True))
        before = await contents(storage, s)
        for value in UNSUITABLE.values():
            bad = PLACES[place](s, value)
            batches: list[list[Write]] = [[bad], [Put(item(in_session(s), "good"), ABSENT), bad]]
            for batch in batches:
                with pytest.raises(PayloadError):
                    await storage.apply(*batch)
        assert await contents(storage, s) == before

    async def _through(self, storage: Storage, place: str, value: Any) -> Any:
        s = unique("session")
        await storage.apply(append(s, due=("job",), keep_turns=True))
        await storage.apply(PLACES[place](s, value))
        view = await storage.snapshot(s)
        assert view.session is not None
        record: Record | Turn | None
        match place:
            case "message":
                [part] = view.turns[-1].messages[0].to_openai()["content"]
                return part["x"]
            case "usage":
                assert view.turns[-1].usage is not None
                return view.turns[-1].usage["x"]
            case "metadata":
                return view.session.metadata["x"]
            case "job":
                return view.session.jobs["job"].value
            case "item":
                [record] = await storage.find("item", in_session(s))
                assert isinstance(record, Item)
                return record.value
        [record] = await storage.find("checkpoint", in_session(s))
        assert isinstance(record, Checkpoint)
        return record.state
