"""What was said in other sessions is found again, and brought into the next run where it helps.

Expected output:

    $ python examples/search.py
    found in 'spring': My accordion squeaks in the cold.
    found in 'spring': Oil the reeds, and keep it warm.
    system: <EarlierMessages>
    ... user: My accordion squeaks in the cold.
    ... assistant: Oil the reeds, and keep it warm.
    ... user: Thank you! See you in autumn.
    </EarlierMessages>
    user: It squeaks again, what was the advice?
"""

import asyncio

from memory_async import Memory


async def main() -> None:
    async with Memory("sqlite:///chat.db", search_memory=True) as memory:
        spring = memory.bind(session_id="spring", user_id="ada")
        await spring.save(
            [
                {"role": "user", "content": "My accordion squeaks in the cold."},
                {"role": "assistant", "content": "Oil the reeds, and keep it warm."},
            ]
        )
        await spring.save({"role": "user", "content": "Thank you! See you in autumn."})

        autumn = memory.bind(session_id="autumn", user_id="ada")
        for hit in await autumn.search("squeaking accordions", limit=2):
            print(f"found in {hit.session_id!r}: {hit.text}")

        question = {"role": "user", "content": "It squeaks again, what was the advice?"}
        context = await autumn.load(query="squeaking accordion", last=5)
        for message in [*context.to_openai(), question]:
            print(f"{message['role']}: {message['content']}")


if __name__ == "__main__":
    asyncio.run(main())
