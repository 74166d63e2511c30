"""Search by the engine's own full text (`SupportsSearch`)."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
import pytest_asyncio

from memory_async.keys import Key, Partition
from memory_async.records import Chunk
from memory_async.storage.protocol import (
    ABSENT,
    ALWAYS,
    Advance,
    Delete,
    Drop,
    Match,
    Put,
    Storage,
    SupportsSearch,
)
from memory_async.testing.material import append, changed, in_session, session_key, unique
from memory_async.testing.suite import MakeStorage, Suite, two_objects
from memory_async.turns import Turn

STRANGE = {
    "quotes": "\"sailing\" 'boat' `x`",
    "operators": "sailing AND NOT boat OR (x* NEAR y) ^z {a b}: -c +d",
    "like": "%s_iling% \\",
    "tsquery": "sailing & !boat | x:* <-> y",
    "sql": "'; DROP TABLE memory_texts; --",
    "columns": "words: sailing text:boat rowid:1",
    "signs": "?!.,;:-()[]{}<>@#$%^&*+=/|~",
    "unicode": "sailing \U0001f6a3 \u202e\u200b\u0301 Ǆ ﬁ",
    "long": "sailing " * 1280,
    "many words": " ".join(f"word{number}" for number in range(1500)),
    "one long word": "x" * 10_000,
}


class Searchable(Storage, SupportsSearch, Protocol):
    """For the types: a storage that searches."""


class SearchConformance(Suite):
    """What a `SupportsSearch` finds, and what it never does; skipped for other storages."""

    @pytest_asyncio.fixture
    async def engine(self, storage: Storage) -> Any:
        _need_full_text(storage)
        return storage

    async def test_the_best_fitting_come_first(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        for text in ("We went sailing", "Sailing with a boat, a red boat", "Cooking rice"):
            await said(engine, s, text, user_id=ann)
        found = await engine.search("the red boat for sailing", kind="turn", user_id=ann)
        assert texts(found) == ["Sailing with a boat, a red boat", "We went sailing"]
        assert found[0].score > found[1].score > 0
        assert texts(await engine.search("sailing", kind="turn", user_id=ann, limit=1))
        assert await engine.search("red boat", kind="turn", user_id=ann, limit=0) == []
        assert await engine.search("skiing", kind="turn", user_id=ann) == []

    async def test_a_match_names_what_was_indexed(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        await said(engine, s, "first", user_id=ann)
        turn = await said(engine, s, user_id=ann)
        whole = ["a harbour", "", "the harbour\0 of Oslo"]
        await engine.index(turn.key, whole, ["one", "two", "three"])
        found = await engine.search("harbour Oslo", kind="turn", user_id=ann)
        assert [each._replace(score=0) for each in found] == [
            Match(turn.key, 2, 2, whole[2], 0, "three"),
            Match(turn.key, 0, 2, whole[0], 0, "one"),
        ]

    @pytest.mark.parametrize(
        ("text", "query"),
        [
            ("Their boats were tied up", "tying a BOAT"),
            ("Das Café in Zürich", "cafe zurich"),
            ("Ἀθήνα και Москва", "москва"),
            ("昨日は高い山に登りました", "山に登り"),
            ("我喜欢吃苹果", "苹果"),
            ("แมวอยู่บนโต๊ะ", "แมว"),
            ("हिन्दी में लिखा", "हिन्दी"),
            ("C3PO and R2D2", "r2d2"),
        ],
    )
    async def test_case_accents_endings_and_scripts(
        self, engine: Searchable, text: str, query: str
    ) -> None:
        ann, s = unique("user"), unique("session")
        await said(engine, s, text, user_id=ann)
        await said(engine, s, "something else", user_id=ann)
        assert texts(await engine.search(query, kind="turn", user_id=ann)) == [text]

    @pytest.mark.parametrize("query", STRANGE.values(), ids=STRANGE)
    async def test_every_character_of_a_query_is_text(self, engine: Searchable, query: str) -> None:
        ann, s = unique("user"), unique("session")
        await said(engine, s, "sailing", user_id=ann)
        await said(engine, s, "unrelated", user_id=ann)
        found = texts(await engine.search(query, kind="turn", user_id=ann))
        assert found == (["sailing"] if "sailing" in query else [])

    @pytest.mark.parametrize("query", ["", " \n", "?", "\U0001f6a3"])
    async def test_a_query_without_words_finds_nothing(
        self, engine: Searchable, query: str
    ) -> None:
        ann, s = unique("user"), unique("session")
        await said(engine, s, f"sailing {query}", user_id=ann)
        assert await engine.search(query, kind="turn", user_id=ann) == []

    async def test_words_that_are_everywhere_are_found_when_there_are_no_others(
        self, engine: Searchable
    ) -> None:
        ann, s = unique("user"), unique("session")
        await said(engine, s, "To be, or not to be", user_id=ann)
        assert texts(await engine.search("to be", kind="turn", user_id=ann))

    async def test_owners_sessions_and_kinds_are_apart(self, engine: Searchable) -> None:
        ann, bob = unique("user"), unique("user")
        ours, theirs, hers, nobodys = (unique("session") for _ in range(4))
        await said(engine, ours, "boat one", user_id=ann)
        await said(engine, hers, "boat two", user_id=ann)
        await said(engine, theirs, "boat three", user_id=bob)
        await said(engine, nobodys, "boat four")
        base = Partition("knowledge", unique("base"))
        await engine.apply(Put(chunk(base, 0, "boat five"), ABSENT))

        async def found(**conditions: Any) -> set[str]:
            return set(texts(await engine.search("boat", kind="turn", **conditions)))

        assert await found(user_id=ann) == {"boat one", "boat two"}
        assert await found(partition=in_session(ours)) == {"boat one"}
        assert await found(partition=in_session(ours), user_id=ann) == {"boat one"}
        assert await found(partition=in_session(theirs), user_id=ann) == set()
        assert await found(partition=in_session(nobodys)) == {"boat four"}
        assert await found(partition=in_session(nobodys), user_id=ann) == set()
        assert await found(partition=in_session(unique("session"))) == set()
        assert await found(user_id=unique("user")) == set()
        chunks = await engine.search("boat", kind="chunk", partition=base)
        assert texts(chunks) == ["boat five"]
        assert await engine.search("boat", kind="chunk", partition=base, user_id=ann) == []

    async def test_what_others_said_changes_nothing(self, engine: Searchable) -> None:
        ann, bob = unique("user"), unique("user")
        for text in ("a rare heron", "a common gull", "gull and gull", "nothing"):
            await said(engine, unique("session"), text, user_id=ann)

        async def scores() -> list[tuple[str, float]]:
            matches = await engine.search("heron gull", kind="turn", user_id=ann)
            return [(each.text, each.score) for each in matches]

        before = await scores()
        for _ in range(10):
            await said(engine, unique("session"), "heron heron heron", user_id=bob)
        assert await scores() == before

    async def test_texts_around_come_along(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        for number in range(5):
            turn = await said(engine, s, user_id=ann)
            middle = "the boat" if number == 2 else f"right {number}"
            await engine.index(turn.key, [f"left {number}", middle])
        await said(engine, unique("session"), "elsewhere", user_id=ann)
        found = await engine.search("boat", kind="turn", user_id=ann, around=2)
        assert texts(found)[0] == "the boat"
        assert set(texts(found)[1:]) == {"right 1", "left 2", "left 3", "right 3"}
        assert [each.score > 0 for each in found] == [True, *[False] * 4]

    async def test_indexing_again_replaces(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        turn = await said(engine, s, "sailing", user_id=ann)
        await engine.index(turn.key, ["cooking", "cooking rice"])
        await engine.index(turn.key, ["cooking"])
        assert await engine.search("sailing rice", kind="turn", user_id=ann) == []
        assert texts(await engine.search("cooking", kind="turn", user_id=ann)) == ["cooking"]
        await engine.index(turn.key, [])
        assert await engine.search("cooking", kind="turn", user_id=ann) == []

    async def test_what_is_not_there_is_not_indexed(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        turn = await said(engine, s, "sailing", user_id=ann)
        await engine.index(Key("turn", in_session(s), unique("run")), "sailing")
        await engine.index(Key("chunk", Partition("knowledge", s), unique()), "sailing")
        assert texts(await engine.search("sailing", kind="turn", user_id=ann)) == ["sailing"]
        await engine.apply(Delete(session_key(s)))
        await engine.index(turn.key, "sailing")
        assert await engine.search("sailing", kind="turn", user_id=ann) == []

    async def test_what_began_anew_is_not_indexed_as_what_it_was(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        was = await said(engine, s, user_id=ann)
        await engine.apply(Drop(in_session(s)))
        turn = await said(engine, s, "rowing", user_id=ann, run_id=was.run_id)
        assert turn.key == was.key
        await engine.index(was.key, "sailing", created_at=was.created_at)
        assert texts(await engine.search("sailing rowing", kind="turn", user_id=ann)) == ["rowing"]
        await engine.index(turn.key, "sailing", created_at=turn.created_at)
        assert texts(await engine.search("sailing rowing", kind="turn", user_id=ann)) == ["sailing"]
        base = Partition("knowledge", unique("base"))
        there = chunk(base, 0, "rowing")
        await engine.apply(Put(there, ABSENT))
        await engine.index(there.key, "sailing", created_at=was.created_at)
        assert texts(await engine.search("sailing rowing", kind="chunk", partition=base)) == [
            "rowing"
        ]

    async def test_deleted_and_dropped_is_no_longer_found(self, engine: Searchable) -> None:
        ann = unique("user")
        deleted, dropped, kept = (unique("session") for _ in range(3))
        for s in (deleted, dropped, kept):
            await said(engine, s, f"sailing {s}", user_id=ann)
        await engine.apply(Delete(session_key(deleted)))
        await engine.apply(Drop(in_session(dropped)))
        found = await engine.search("sailing", kind="turn", user_id=ann)
        assert texts(found) == [f"sailing {kept}"]

    async def test_trimmed_is_no_longer_found(self, engine: Searchable) -> None:
        ann, s = unique("user"), unique("session")
        for number in range(3):
            await said(engine, s, f"sailing {number}", user_id=ann, due=("job",))
        await engine.apply(Advance(s, "job", 0, 2))
        found = texts(await engine.search("sailing", kind="turn", user_id=ann))
        assert "sailing 0" not in found
        [turn] = await engine.history(s)
        assert found == [turn.messages[0].text]
        trimmed = (await engine.history(s, trimmed=True))[0]
        await engine.index(trimmed.key, "sailing again")
        assert len(await engine.search("sailing", kind="turn", user_id=ann)) == 1

    async def test_records_are_indexed_by_the_put_itself(self, engine: Searchable) -> None:
        base = Partition("knowledge", unique("base"))
        first, second = chunk(base, 0, "sailing boats"), chunk(base, 1, "sailing ships")
        await engine.apply(Put(first, ABSENT), Put(second, ABSENT))

        async def found(query: str) -> list[str]:
            return sorted(texts(await engine.search(query, kind="chunk", partition=base)))

        assert await found("sailing") == ["sailing boats", "sailing ships"]
        [match] = await engine.search("boats", kind="chunk", partition=base)
        assert (match.key, match.part, match.seq) == (first.key, 0, 0)
        await engine.apply(Put(changed(first, text="cooking rice"), first.version))
        assert await found("sailing cooking") == ["cooking rice", "sailing ships"]
        await engine.apply(Delete(second.key))
        assert await found("sailing cooking") == ["cooking rice"]
        await engine.apply(Drop(base, "chunk"))
        assert await found("sailing cooking") == []

    async def test_a_refused_batch_indexes_nothing(self, engine: Searchable) -> None:
        base = Partition("knowledge", unique("base"))
        there = chunk(base, 0, "sailing")
        await engine.apply(Put(there, ABSENT))
        with pytest.raises(Exception, match="exists"):
            await engine.apply(
                Put(chunk(base, 1, "cooking"), ALWAYS), Put(changed(there, text="rowing"), ABSENT)
            )
        assert await engine.search("cooking rowing", kind="chunk", partition=base) == []
        assert texts(await engine.search("sailing", kind="chunk", partition=base)) == ["sailing"]

    @two_objects
    async def test_namespaces_are_searched_apart(self, make: MakeStorage) -> None:
        ann, s, base = unique("user"), unique("session"), Partition("knowledge", unique("base"))
        for name in ("here", "there"):
            storage: Any = make(namespace=unique(name))
            _need_full_text(storage)
            await said(storage, s, f"sailing {name}", user_id=ann)
            await storage.apply(Put(chunk(base, 0, f"sailing {name}"), ABSENT))
            for conditions in (
                {"kind": "turn", "user_id": ann},
                {"kind": "turn", "partition": in_session(s)},
                {"kind": "turn"},
                {"kind": "chunk", "partition": base},
                {"kind": "chunk"},
            ):
                found = await storage.search("sailing", **conditions)
                assert texts(found) == [f"sailing {name}"]


def _need_full_text(storage: Storage) -> None:
    if not isinstance(storage, SupportsSearch):
        pytest.skip("this storage has no full text of its own")
    if getattr(storage, "searches_by_meaning", False):
        pytest.skip("this storage searches by meaning: it need not find, or miss, a word")


async def said(storage: Searchable, session_id: str, text: str = "", **kwargs: Any) -> Turn:
    """A turn, indexed by its text."""
    [result] = await storage.apply(append(session_id, text or "unsaid", **kwargs))
    assert result.turn is not None
    if text:
        await storage.index(result.turn.key, text)
    return result.turn


def texts(matches: list[Match]) -> list[str]:
    return [each.text for each in matches]


def chunk(base: Partition, index: int, text: str) -> Chunk:
    return Chunk(knowledge_base_id=base.id, document_id="d", index=index, text=text)
