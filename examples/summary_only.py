"""The whole conversation is stored, but a run is given its summary only. Nothing falls between:
turns the summary has not taken yet come along word for word.

Expected output:

    $ python examples/summary_only.py
    stored: 3 turns
    system: You are a travel agent.
    <SessionSummary>
    The user: I want to see the sea. Not by plane. Two weeks in June.
    </SessionSummary>
    user: And what does it cost?
"""

import asyncio
import re
from typing import Any

from memory_async import Memory


async def model(messages: list[dict[str, Any]], *, schema: object = None) -> str:  # noqa: ARG001
    """Stands in for your model: its summary is what the user has said."""
    earlier, new = messages[-1]["content"].split("\n\nNew turns:\n")
    known = earlier.partition("The user: ")[2]
    said = re.findall(r"^user: (.*)$", new, re.MULTILINE)
    return "The user: " + " ".join(filter(None, [known, *said]))


async def main() -> None:
    async with Memory(
        "memory://",
        session_id="trip",
        full_session_memory=True,  # keep every turn,
        summary_memory=True,
        load_full_session_memory=False,  # but do not send them all
        model=model,
    ) as memory:
        for text in ("I want to see the sea.", "Not by plane.", "Two weeks in June."):
            answer = {"role": "assistant", "content": "Noted."}
            await memory.save([{"role": "user", "content": text}, answer])
        await memory.drain()  # only to see the summary at once: `save` never waits for it

        print(f"stored: {len(await memory.turns())} turns")
        context = await memory.load()
        question = {"role": "user", "content": "And what does it cost?"}
        for message in [*context.to_openai("You are a travel agent."), question]:
            print(f"{message['role']}: {message['content']}".replace("\n\n", "\n"))


if __name__ == "__main__":
    asyncio.run(main())
