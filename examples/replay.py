"""Replays a long conversation from a file, reopens the storage and compares every turn.

The file is in the format of the LoCoMo conversations: ``speaker_a`` (the user), ``speaker_b`` (the
assistant) and ``session_1``, ``session_2``, … with the messages.

Expected output:

    $ python examples/replay.py tests/data/conversation.json
    conversation.json: 14 turns in 3 sessions, 0 differ after reopening
"""

import asyncio
import json
import re
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from memory_async import Memory

Messages = list[dict[str, Any]]


def to_turns(session: Messages, user: str) -> list[Messages]:
    """A turn ends before the user's next message that follows one of the assistant's."""
    turns: list[Messages] = []
    for said in session:
        role = "user" if said["speaker"] == user else "assistant"
        if not turns or (role == "user" and turns[-1][-1]["role"] == "assistant"):
            turns.append([])
        rest = {key: value for key, value in said.items() if key != "text"}
        turns[-1].append({"role": role, "content": said["text"], **rest})
    return turns


async def replay(title: str, data: dict[str, Any]) -> int:
    user = data["speaker_a"]
    names = [name for name in data if re.fullmatch(r"session_\d+", name)]
    sessions = {name: to_turns(data[name], user) for name in names}
    log = [(name, turn) for name, turns in sessions.items() for turn in turns]
    differing = 0

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/replay.db"
        async with Memory(url, user_id=user, full_session_memory=True) as memory:
            for name, turn in track(log, "Saving", console=Console(stderr=True)):
                await memory.bind(session_id=name).save(turn)

        async with Memory(url, user_id=user, full_session_memory=True) as memory:
            for name, turns in sessions.items():
                stored = await memory.bind(session_id=name).turns()
                read = [(turn.seq, [m.to_openai() for m in turn.messages]) for turn in stored]
                differing += sum(a != b for a, b in zip_longest(read, enumerate(turns, 1)))

    print(
        f"{title}: {len(log)} turns in {len(sessions)} sessions, {differing} differ after reopening"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    file = Path(sys.argv[1])
    conversation = json.loads(file.read_text(encoding="utf-8"))
    sys.exit(asyncio.run(replay(file.name, conversation)))
