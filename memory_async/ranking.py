"""Which of some candidate passages fit a query best: BM25 over each passage and its neighbours.

The answer to a question often shares its words with the line before, and who speaks is often what
is asked for; both count here, which no BM25 library offers. Words are rare or common among the
candidates, so that nobody else's texts have a say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import nlargest
from math import log
from operator import itemgetter
from typing import Any, NamedTuple

from memory_async.words import index_terms, query_terms

__all__ = ["AROUND", "Passage", "rank"]

AROUND = 2
"""How many neighbours on each side count."""

K1, B = 1.2, 0.75
NEAR = {-2: 0.2, -1: 0.5, 0: 1.0, 1: 0.5, 2: 0.2}  # what a passage counts at this distance
SPEAKER = 1.0
MEANING = 1.0


class Passage(NamedTuple):
    """A candidate. ``speaker`` is who says it, or a heading. ``place`` says where it stands: its
    first part the whole it belongs to (a session, a document), the rest its order there. The ones
    before and after it are its neighbours, if they are given too: they need not fit themselves.
    ``fits`` is False when it is known to have no word of the query."""

    text: str
    speaker: str = ""
    place: tuple[Any, ...] = ()
    fits: bool = True


def rank(
    query: str, passages: Sequence[Passage], limit: int, alike: Sequence[float] = ()
) -> list[tuple[int, float]]:
    """Index and score of the ``limit`` passages that fit ``query`` best, best first, those that fit
    at all. Scores are positive and compare within one answer only. ``alike`` says of each passage
    how much it means the same (the cosine of two vectors), which then counts as much as the best of
    the words."""
    asked = frozenset(query_terms(query))
    found = _count(asked, passages)
    rarity = _rarity(found, len(passages))
    mean = sum(length for _, length in found.values()) / len(found) if found else 1.0
    score = [0.0] * len(passages)
    covered: defaultdict[int, set[str]] = defaultdict(set)
    place = _places(passages)
    for index, (counts, length) in found.items():
        longer = K1 * (1 - B + B * length / mean)
        gain = sum(rarity[term] * n * (K1 + 1) / (n + longer) for term, n in counts.items())
        order, at = place[index]
        for distance, weight in NEAR.items():
            if 0 <= at + distance < len(order):
                near = order[at + distance]
                score[near] += weight * gain
                covered[near] |= counts.keys()
    speakers = {each.speaker for each in passages if each.speaker}
    named = {each: asked.intersection(index_terms(each)) for each in speakers}
    if any(named.values()):
        for index, passage in enumerate(passages):
            if said := named.get(passage.speaker):
                score[index] += SPEAKER * len(said)
                covered[index] |= said
    # Each word asked for that comes up near here counts once more, however often it does.
    scored = [
        (index, value + sum(rarity.get(term, 0.0) for term in covered[index]))
        for index, value in enumerate(score)
        if value
    ]
    if alike:
        most = max((value for _, value in scored), default=0.0) or 1.0
        words = {index: value / most for index, value in scored}
        scored = [
            (index, value)
            for index, near in enumerate(alike)
            if (value := words.get(index, 0.0) + MEANING * near) > 0
        ]
    return nlargest(limit, scored, key=itemgetter(1))


def _count(
    asked: frozenset[str], passages: Sequence[Passage]
) -> dict[int, tuple[dict[str, int], int]]:
    """Of each passage with words asked for: how often each is in it, and how many words it has."""
    found = {}
    for index, passage in enumerate(passages):
        if not passage.fits:
            continue
        terms = index_terms(passage.text)
        if here := asked.intersection(terms):
            found[index] = ({term: terms.count(term) for term in here}, len(terms))
    return found


def _rarity(found: dict[int, tuple[dict[str, int], int]], among: int) -> dict[str, float]:
    holders = Counter(term for counts, _ in found.values() for term in counts)
    return {term: log(1 + (among - n + 0.5) / (n + 0.5)) for term, n in holders.items()}


def _places(passages: Sequence[Passage]) -> list[tuple[list[int], int]]:
    """For each passage those of its whole, in order, and which of them it is."""
    wholes: defaultdict[Any, list[int]] = defaultdict(list)
    for index, passage in enumerate(passages):
        wholes[passage.place[0] if passage.place else (None, index)].append(index)
    places: list[tuple[list[int], int]] = [([], 0)] * len(passages)
    for order in wholes.values():
        order.sort(key=lambda index: passages[index].place)
        for at, index in enumerate(order):
            places[index] = (order, at)
    return places
