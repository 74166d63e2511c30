"""Which of some candidate passages fit a query best: BM25 over each passage and its neighbours.

The answer to a question often shares its words with the line before, and who speaks is often what
is asked for; both count here, which no BM25 library offers. Words are rare or common among the
candidates, so that nobody else's texts have a say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from math import log
from typing import Any, NamedTuple

from memory_async.words import index_terms, query_terms

__all__ = ["AROUND", "Passage", "rank"]

AROUND = 2
"""How many neighbours on each side count."""

K1, B = 1.2, 0.75
NEAR = {-2: 0.2, -1: 0.5, 1: 0.5, 2: 0.2}  # what a neighbour at this distance counts
SPEAKER = 1.0


class Passage(NamedTuple):
    """A candidate. ``speaker`` is who says it, or a heading. ``place`` says where it stands: its
    first part the whole it belongs to (a session, a document), the rest its order there. The ones
    before and after it are its neighbours, if they are given too: they need not fit themselves."""

    text: str
    speaker: str = ""
    place: tuple[Any, ...] = ()


def rank(query: str, passages: Sequence[Passage], limit: int) -> list[tuple[int, float]]:
    """Index and score of the ``limit`` passages that fit ``query`` best, best first, those that fit
    at all. Scores are positive and compare within one answer only."""
    asked = frozenset(query_terms(query))
    found = [_count(asked, each.text) for each in passages]
    rarity = _rarity([counts for counts, _ in found if counts], len(passages))
    lengths = [length for counts, length in found if counts]
    mean = sum(lengths) / len(lengths) if lengths else 1.0

    score = [0.0] * len(passages)
    covered: list[set[str]] = [set() for _ in passages]
    place = _neighbours(passages)
    for index, (counts, length) in enumerate(found):
        if not counts:
            continue
        longer = K1 * (1 - B + B * length / mean)
        gain = sum(
            rarity[term] * count * (K1 + 1) / (count + longer) for term, count in counts.items()
        )
        score[index] += gain
        covered[index] |= counts.keys()
        order, at = place[index]
        for distance, weight in NEAR.items():
            if 0 <= at + distance < len(order):
                near = order[at + distance]
                score[near] += weight * gain
                covered[near] |= counts.keys()
    for index, passage in enumerate(passages):
        if passage.speaker and (said := asked.intersection(_speaker_terms(passage.speaker))):
            score[index] += SPEAKER * len(said)
            covered[index] |= said
    # Each word asked for that comes up near here counts once more, however often it does.
    scored = [
        (index, value + sum(rarity.get(term, 0.0) for term in covered[index]))
        for index, value in enumerate(score)
        if value > 0
    ]
    scored.sort(key=lambda each: -each[1])
    return scored[:limit]


def _count(asked: frozenset[str], text: str) -> tuple[dict[str, int], int]:
    """How often each word asked for is in ``text``, and how many words there are."""
    terms = index_terms(text)
    counts: dict[str, int] = {}
    for term in terms:
        if term in asked:
            counts[term] = counts.get(term, 0) + 1
    return counts, len(terms)


def _rarity(found: Sequence[dict[str, int]], among: int) -> dict[str, float]:
    holders: defaultdict[str, int] = defaultdict(int)
    for counts in found:
        for term in counts:
            holders[term] += 1
    return {term: log(1 + (among - n + 0.5) / (n + 0.5)) for term, n in holders.items()}


def _neighbours(passages: Sequence[Passage]) -> list[tuple[list[int], int]]:
    """For each passage those of its whole, in order, and its place among them."""
    wholes: defaultdict[Any, list[int]] = defaultdict(list)
    for index, passage in enumerate(passages):
        wholes[passage.place[0] if passage.place else (None, index)].append(index)
    places: list[tuple[list[int], int]] = [([], 0)] * len(passages)
    for order in wholes.values():
        order.sort(key=lambda index: passages[index].place)
        for at, index in enumerate(order):
            places[index] = (order, at)
    return places


@lru_cache(maxsize=1024)
def _speaker_terms(speaker: str) -> frozenset[str]:
    return frozenset(index_terms(speaker))
