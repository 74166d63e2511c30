"""A process of the tests: ``python worker.py <url> <what to do>``, the model by OPENAI_BASE_URL."""

import asyncio
import sys

from memory_async import Memory


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(url: str, action: str) -> None:
    memory = Memory(
        url,
        "of the worker",
        "worker",
        summary_memory=True,
        user_analysis_memory=True,
        model="openai/scripted",
    )
    if action == "recover":
        say(await memory.recover())
        await memory.close()
        return
    view = memory.bind(session_id="s1", user_id="ada")
    for number in (1, 2, 3):
        await view.save({"role": "user", "content": f"«{number}»"})
    say("saved")
    if action == "leave":  # asyncio.run ends without close, while a job waits
        await asyncio.sleep(0.1)
        return
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
