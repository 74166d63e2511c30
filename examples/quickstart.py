"""The first steps: save two turns, and find them again when this runs the next time.

Expected output:

    $ python examples/quickstart.py
    Remembered from earlier: 0 turns
    Saved: My name is Ada. -> Nice to meet you, Ada!
    Saved: What is my name? -> Your name is Ada.

    $ python examples/quickstart.py
    Remembered from earlier: 2 turns
      1 user: My name is Ada.
      1 assistant: Nice to meet you, Ada!
      2 user: What is my name?
      2 assistant: Your name is Ada.
    Saved: My name is Ada. -> Nice to meet you, Ada!
    Saved: What is my name? -> Your name is Ada.
"""

import asyncio
from typing import Any

from memory_async import Memory


async def ask_model(chat: list[dict[str, Any]]) -> str:
    """Stands in for your model: it knows nothing but the messages it is given."""
    if chat[-1]["content"] == "My name is Ada.":
        return "Nice to meet you, Ada!"
    told = any(message["content"] == "My name is Ada." for message in chat)
    return "Your name is Ada." if told else "I do not know yet."


async def main() -> None:
    async with Memory(
        "sqlite:///quickstart.db",
        session_id="first-chat",
        user_id="ada",
        full_session_memory=True,
    ) as memory:
        earlier = await memory.turns()
        print(f"Remembered from earlier: {len(earlier)} turns")
        for turn in earlier:
            for message in turn.messages:
                print(f"  {turn.seq} {message.role}: {message.text}")

        for text in ("My name is Ada.", "What is my name?"):
            question = {"role": "user", "content": text}
            context = await memory.load()
            answer = await ask_model([*context.to_openai(), question])
            await memory.save([question, {"role": "assistant", "content": answer}])
            print(f"Saved: {text} -> {answer}")


if __name__ == "__main__":
    asyncio.run(main())
