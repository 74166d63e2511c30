"""A notebook runs its cells inside an event loop: plain calls work there, with one warning.

Expected output:

    $ python examples/notebook.py
    warned: a plain call from inside a running event loop blocks that loop until it returns: ...
    ['Hello!', 'Hi, Ada.']
    the same with await: ['Hello!', 'Hi, Ada.']
"""

import asyncio
import warnings

from memory_async import Memory, SqliteStorage, sync

PATH = "notebook.db"


async def cells() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with sync.Memory(f"sqlite:///{PATH}", "nb", "ada", full_session_memory=True) as memory:
            said = {"role": "user", "content": "Hello!"}
            memory.save([said, {"role": "assistant", "content": "Hi, Ada."}], run_id="cell-1")
            texts = [message.text for message in memory.messages()]
    for each in warned:
        print("warned:", each.message)
    print(texts)
    async with SqliteStorage(PATH) as storage:  # in a loop of your own, this is the better way
        native = Memory(storage, "nb", "ada", full_session_memory=True)
        print("the same with await:", [message.text for message in await native.messages()])


if __name__ == "__main__":
    asyncio.run(cells())
