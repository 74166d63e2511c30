"""How much of a prompt equals the beginning of the one before: that is what a prompt cache saves.

    python benchmarks/prompt_stability.py FOLDER [--markdown]

FOLDER holds conversations in the format of LoCoMo (``speaker_a``, who is the user, ``speaker_b``
and ``session_1``, ``session_2``, …). Each is replayed as one session, with a summary that moves
every so many turns, and with a sliding window of the newest turns and no summary. The model is
scripted: its summaries are of a realistic length and share no beginning with each other, as if it
had written each anew. Exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import statistics
import sys
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

from memory_async import InMemoryStorage, Memory

Messages = list[dict[str, Any]]

STEPS = (1, 5, 10)
WINDOW = 20
SUMMARY_LENGTH = 1000
LEAST_SHARE = 0.8  # at the longest step
SYSTEM = """\
You are a friendly companion who has known the user for a long time. Listen first; ask at most one
question at a time. Answer in two or three sentences, in the language the user writes in, and never
in lists. Bring up what you know of the user's life where it helps, but do not recite it. When the
user asks for facts you are not sure of, say so. Give no medical, legal or financial advice: suggest
whom to ask instead. Today's date is in the messages."""


async def summarise(messages: Messages, *, schema: object = None) -> str:  # noqa: ARG001
    """Words of what it was given, in an order that depends on all of it."""
    text = messages[-1]["content"]
    dice = random.Random(hashlib.sha256(text.encode()).digest())
    words = dice.choices(re.findall(r"\w+", text) or ["nothing"], k=SUMMARY_LENGTH)
    return " ".join(words)[:SUMMARY_LENGTH]


def to_turns(conversation: dict[str, Any]) -> list[Messages]:
    """A turn ends before the user's next message that follows one of the assistant's."""
    names = [name for name in conversation if re.fullmatch(r"session_\d+", name)]
    turns: list[Messages] = []
    for name in sorted(names, key=lambda name: int(name.removeprefix("session_"))):
        for said in conversation[name]:
            is_user = said["speaker"] == conversation["speaker_a"]
            if not turns or (is_user and turns[-1][-1]["role"] == "assistant"):
                turns.append([])
            role = "user" if is_user else "assistant"
            turns[-1].append({"role": role, "content": said["text"]})
    return turns


class Outcome(NamedTuple):
    """Of one way to build prompts."""

    prompts: list[int]  # the length of each
    shared: list[int]  # how much of it is the beginning of the one before
    calls: int

    @property
    def share(self) -> float:
        return sum(self.shared) / sum(self.prompts)


async def replay(turns: list[Messages], **flags: Any) -> Outcome:
    calls, prompts, shared, previous = 0, [], [], ""

    async def model(messages: Messages, *, schema: object = None) -> str:
        nonlocal calls
        calls += 1
        return await summarise(messages, schema=schema)

    async with InMemoryStorage() as storage, Memory(storage, model=model, **flags) as memory:
        for turn in turns:
            asked = [each for each in turn if each["role"] == "user"]
            if asked:
                context = await memory.load()
                prompt = json.dumps([*context.to_openai(SYSTEM), *asked], ensure_ascii=False)
                prompts.append(len(prompt))
                shared.append(len(commonprefix([previous, prompt])))  # noqa: RUF071 - of texts
                previous = prompt
            await memory.save(turn)
            while memory.jobs.queued or memory.jobs.running:  # noqa: ASYNC110 - drain takes rests
                await asyncio.sleep(0)
    return Outcome(prompts, shared, calls)


async def measure(conversations: list[list[Messages]]) -> dict[str, Outcome]:
    """The outcome of each way, over all conversations."""
    ways: dict[str, dict[str, Any]] = {
        f"summary_every={every}": {"summary_memory": True, "summary_every": every}
        for every in STEPS
    }
    ways[f"window of {WINDOW} turns"] = {"full_session_memory": True, "num_last_messages": WINDOW}
    found = {}
    for name, flags in ways.items():
        each = [await replay(turns, **flags) for turns in conversations]
        found[name] = Outcome(
            [length for one in each for length in one.prompts],
            [length for one in each for length in one.shared],
            sum(one.calls for one in each),
        )
    return found


def table(found: dict[str, Outcome], *, markdown: bool) -> list[str]:
    rows = [["", "equals the beginning before", "mean prompt, characters", "summary calls"]]
    rows += [
        [name, f"{one.share:.1%}", f"{statistics.mean(one.prompts):,.0f}", f"{one.calls:,}"]
        for name, one in found.items()
    ]
    if markdown:
        rows.insert(1, ["---", "---:", "---:", "---:"])
        return [f"| {' | '.join(row)} |" for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [zip(row, widths, strict=True) for row in rows]
    return [
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width) for n, (cell, width) in enumerate(row)
        )
        for row in cells
    ]


def missed(found: dict[str, Outcome]) -> list[str]:
    """The limits that were missed."""
    *_, longest, window = found.values()
    told = []
    if longest.share < LEAST_SHARE:
        told.append(f"only {longest.share:.1%} at summary_every={STEPS[-1]}")
    if statistics.mean(window.prompts) < statistics.mean(longest.prompts):
        told.append("the window's prompts are smaller")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how much successive prompts share.")
    parser.add_argument("folder", type=Path, help="where the conversations are")
    parser.add_argument("--markdown", action="store_true", help="a table for RESULTS.md")
    options = parser.parse_args()
    files = sorted(options.folder.glob("*.json"))
    if not files:
        parser.error(f"no conversations in {options.folder}")
    conversations = [to_turns(json.loads(each.read_text(encoding="utf-8"))) for each in files]
    found = asyncio.run(measure(conversations))
    turns = sum(map(len, conversations))
    print(f"{len(files)} conversations, {turns:,} turns, each as one session\n")
    print("\n".join(table(found, markdown=options.markdown)))
    for each in missed(found):
        print("limit missed:", each, file=sys.stderr)
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
