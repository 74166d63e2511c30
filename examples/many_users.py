"""One `Memory` for the whole process, one `bind` per request, many users at once.

Expected output:

    $ python examples/many_users.py
    ada: 3 turns, the last answer was: ADA SAYS 3
    grace: 3 turns, the last answer was: GRACE SAYS 3
    林: 3 turns, the last answer was: 林 SAYS 3
    mallory is refused: session 'chat of ada' belongs to another user; ...
"""

import asyncio

from memory_async import Memory, SessionOwnershipError


async def handle_request(memory: Memory, user: str, session: str, text: str) -> str:
    """What a web handler would do; the answer stands in for your model's."""
    chat = memory.bind(session_id=session, user_id=user)
    question = {"role": "user", "content": text}
    messages = [*(await chat.load()).to_openai(), question]
    answer = str(messages[-1]["content"]).upper()
    await chat.save([question, {"role": "assistant", "content": answer}])
    return answer


async def one_user(memory: Memory, user: str) -> str:
    answer = ""
    for number in (1, 2, 3):
        answer = await handle_request(memory, user, f"chat of {user}", f"{user} says {number}")
    turns = await memory.bind(session_id=f"chat of {user}", user_id=user).turns()
    return f"{user}: {len(turns)} turns, the last answer was: {answer}"


async def main() -> None:
    async with Memory("memory://", full_session_memory=True) as memory:
        for line in await asyncio.gather(*(one_user(memory, u) for u in ("ada", "grace", "林"))):
            print(line)
        try:
            await handle_request(memory, "mallory", "chat of ada", "What did Ada say?")
        except SessionOwnershipError as error:
            print(f"mallory is refused: {error}")


if __name__ == "__main__":
    asyncio.run(main())
