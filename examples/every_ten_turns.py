"""A summary that moves every ten turns: a tenth of the calls, and prompts that begin alike, which
is what a prompt cache pays for.

Expected output:

    $ python examples/every_ten_turns.py
    turn 11 starts from a summary of turns 1 to 10
    turn 21 starts from a summary of turns 1 to 20
    25 turns, 2 summaries; 22 of 24 prompts begin with the whole prompt before
    the next one starts from the summary and the turns 21, 22, 23, 24, 25
"""

import asyncio
import re
from typing import Any

from memory_async import Memory


async def model(messages: list[dict[str, Any]], *, schema: object = None) -> str:  # noqa: ARG001
    """Stands in for your model: its summary says how far it goes."""
    numbers = re.findall(r"Question (\d+)", messages[-1]["content"])
    return f"turns 1 to {numbers[-1]}"


async def main() -> None:
    summaries: list[str | None] = [None]
    previous: list[dict[str, Any]] = []
    alike = 0
    async with Memory("memory://", summary_memory=True, summary_every=10, model=model) as memory:
        for number in range(1, 26):
            context = await memory.load()
            if context.summary != summaries[-1]:
                summaries.append(context.summary)
                print(f"turn {number} starts from a summary of {context.summary}")

            question = {"role": "user", "content": f"Question {number}?"}
            prompt = [*context.to_openai(), question]
            alike += bool(previous) and prompt[: len(previous)] == previous
            previous = prompt

            await memory.save([question, {"role": "assistant", "content": f"Answer {number}."}])
            if number % 10 == 0:  # only to print the same every time
                await memory.drain()

        made = len(summaries) - 1
        print(
            f"25 turns, {made} summaries; {alike} of 24 prompts begin with the whole prompt before"
        )
        left = re.findall(r"Question (\d+)", str((await memory.load()).messages))
        print(f"the next one starts from the summary and the turns {', '.join(left)}")


if __name__ == "__main__":
    asyncio.run(main())
