"""Searching a knowledge base: by words, by meaning, and nobody else's."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_async.storage.protocol import Storage
from memory_async.testing.knowledge_suite import KnowledgeSuite, Meaning
from memory_async.testing.material import unique
from memory_async.testing.suite import MakeStorage

PETS = "The cat sleeps all day.\n\nA kitten plays with wool."
TRAFFIC = "The motor of the car is loud."

WORDS = [
    "tea",
    "Coffee",
    "caf\u00e9",
    "w\u00e4ter",
    "7",
    "\u8336",
    "a",
    "\U0001f375",
    "NOT",
    '"',
    "%",
]
words = st.sampled_from(WORDS)
sentences = st.lists(words, min_size=1, max_size=6).map(" ".join)
places = st.tuples(st.sampled_from("nm"), st.sampled_from("abc"))


class SearchConformance(KnowledgeSuite):
    """What is found, and what is not."""

    async def test_passages_are_found_by_their_words(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, unique("base"), passage_size=30)
        pets = await knowledge.add(PETS, name="Pets", source="pets.md", metadata={"about": "cats"})
        cars = await knowledge.add(TRAFFIC, source="cars.md", metadata={"about": "cars"})
        best, *_ = await knowledge.search("where is the KITTEN playing?")
        assert (best.text, best.index, best.source) == ("A kitten plays with wool.", 1, "Pets")
        assert best.document == pets
        hits = await knowledge.search("kitten car")
        assert {hit.document.document_id for hit in hits} == {pets.document_id, cars.document_id}
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert len(await knowledge.search("kitten car", 1)) == 1
        [hit] = await knowledge.search("kitten motor", metadata={"about": "cars"})
        assert (hit.document, hit.source) == (cars, "cars.md")
        for nothing in ("", " ", "?!", "zebra", "\0", "a" * 10_000):
            assert await knowledge.search(nothing) == []
        assert await knowledge.search("kitten", 0) == []
        assert await knowledge.search("kitten", metadata={"about": "dogs"}) == []

    async def test_operators_are_words(self, storage: Storage) -> None:
        knowledge = self.knowledge(storage, unique("base"))
        await knowledge.add("tea AND biscuits")
        for query in (
            '"tea',
            "tea NOT",
            "tea*",
            "-tea",
            "(tea",
            "tea:",
            "te%",
            "tea\0",
            "NEAR(tea",
        ):
            hits = await knowledge.search(query)
            assert len(hits) == (query != "te%"), query

    async def test_passages_are_found_by_their_meaning(self, storage: Storage) -> None:
        id, model = unique("base"), Meaning()
        knowledge = self.knowledge(storage, id, embed=model, passage_size=30)
        await knowledge.add(PETS)
        await knowledge.add(TRAFFIC)
        await knowledge.add("Nothing to do with either.")
        assert sum(map(len, model.calls)) == 4
        best, *_ = await knowledge.search("purrs")
        assert "cat" in best.text or "kitten" in best.text
        best, *_ = await knowledge.search("engine")
        assert best.text == TRAFFIC
        assert await self.knowledge(storage, id).search("engine") == []

    async def test_the_best_is_found_behind_many(self, storage: Storage) -> None:
        """Behind those of a replacement under way, and those with other metadata."""
        knowledge = self.knowledge(storage, unique("base"))
        wanted = await knowledge.add("tea and a biscuit", metadata={"n": 0})
        for n in range(1, 70):
            await knowledge.add("tea " * n, metadata={"n": n})
        hits = await knowledge.search("tea", 3, metadata={"n": 0})
        assert [hit.document for hit in hits] == [wanted]

    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(
        added=st.lists(st.tuples(places, sentences), min_size=2, max_size=8),
        queries=st.lists(sentences, min_size=1, max_size=2),
    )
    async def test_nobody_else_s_text_is_found(
        self,
        make: MakeStorage,
        added: list[tuple[tuple[str, str], str]],
        queries: list[str],
    ) -> None:
        mine = unique()
        storages = {name: make(namespace=f"{name}-{mine}") for name in "nm"}
        try:
            bases = {
                (n, b): self.knowledge(storages[n], b, embed=Meaning() if b == "a" else None)
                for n in "nm"
                for b in "abc"
            }
            for place, text in added:
                await bases[place].add(text)
            for place, base in bases.items():
                own = {text for where, text in added if where == place}
                for query in queries:
                    hits = await base.search(query, 20)
                    assert {hit.text for hit in hits} <= own
                    assert all(hit.document.knowledge_base_id == place[1] for hit in hits)
                assert await base.count() == len(own)
            for place, text in added:
                hits = await bases[place].search(text, 20)
                assert any(hit.text == text for hit in hits) or not any(map(str.isalnum, text))
            await asyncio.gather(*(bases["n", b].clear() for b in "abc"))
            assert await bases["m", "a"].count() == len({t for p, t in added if p == ("m", "a")})
        finally:
            await asyncio.gather(*(each.close() for each in storages.values()))
