"""A refund waits for a human: three processes, of which none needs the others to be alive.

Expected output:

    $ python examples/approval.py ask
    paused: refund {'order': 7, 'euros': 40}

    $ python examples/approval.py decide
    Refund 40 € for order 7? Approved by Grace.

    $ python examples/approval.py resume
    approved by Grace: refunding 40 €
    user: Where is my money for order 7?
    assistant: 40 € are on their way.
"""

import asyncio
import sys

from memory_async import Inbox, Memory, Requirement

URL = "sqlite:///approval.db"
REFUND = {"order": 7, "euros": 40}


async def ask() -> None:
    async with Memory(URL, "chat-1", "ada", full_session_memory=True) as memory:
        async with memory.run("Where is my money for order 7?") as run:
            prompt = "Refund 40 € for order 7?"
            run.pause(REFUND, [Requirement("refund-7", "approval", "refund", REFUND, prompt)])
        print(f"{run.status}: {run.requirements[0].tool_name} {run.state}")


async def decide() -> None:
    async with Inbox(URL) as inbox:
        for waiting in await inbox.list(status="paused"):
            for each in waiting.requirements:
                made = await inbox.decide(waiting.run_id, each.id, approved=True, by="Grace")
                print(f"{each.prompt} Approved by {made.by}.")


async def resume() -> None:
    async with Memory(URL, "chat-1", "ada", full_session_memory=True) as memory:
        [waiting] = await memory.checkpoints(status="paused")
        async with memory.resume(waiting.run_id) as run:
            decision, euros = run.decisions["refund-7"], run.state["euros"]
            if decision.approved:
                print(f"approved by {decision.by}: refunding {euros} €")
                run.add({"role": "assistant", "content": f"{euros} € are on their way."})
        for message in await memory.messages():
            print(f"{message.role}: {message.text}")


if __name__ == "__main__":
    asyncio.run({"ask": ask, "decide": decide, "resume": resume}[sys.argv[1]]())
