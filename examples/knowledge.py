"""What an agent may look up, in the same file as what it remembers.

Expected output:

    $ python examples/knowledge.py
    opening-hours: ready, 1 passage
    the same again: still 1 document
    When are you open on Saturday?
    -> On Saturdays we open at ten. (opening-hours)
    updated, and searched again:
    -> On Saturdays we are closed. (opening-hours)
"""

import asyncio
from pathlib import Path

from memory_async import KnowledgeBase, SqliteStorage

QUESTION = "When are you open on Saturday?"
PAGE = Path("opening-hours.md")


async def main() -> None:
    # A Memory would be given the same storage: see quickstart.py.
    async with SqliteStorage("shop.db") as storage:
        shop = KnowledgeBase(storage, "shop")
        PAGE.write_text("On Saturdays we open at ten.", encoding="utf-8")  # noqa: ASYNC240
        page = await shop.add(PAGE, name="opening-hours", metadata={"audience": "customers"})
        print(f"{page.name}: {page.status}, {page.chunk_count} passage")
        await shop.add(PAGE)
        print(f"the same again: still {await shop.count()} document")

        print(QUESTION)
        for hit in await shop.search(QUESTION, limit=1, metadata={"audience": "customers"}):
            print(f"-> {hit.text} ({hit.source})")

        PAGE.write_text("On Saturdays we are closed.", encoding="utf-8")  # noqa: ASYNC240
        await shop.add(PAGE)  # takes the place of what came from there before
        print("updated, and searched again:")
        for hit in await shop.search(QUESTION, limit=1):
            print(f"-> {hit.text} ({hit.source})")


if __name__ == "__main__":
    asyncio.run(main())
