"""Plain calls where an event loop runs: they work, block it, and say so once."""

from __future__ import annotations

import asyncio
import os
import warnings

import pytest

from memory_async import ConfigurationError, InMemoryStorage, sync
from tests.sync import child

HI = {"role": "user", "content": "Hi"}

# Both kinds of loop, for the caller and for the facade.
RUNNERS = {
    "asyncio": "run = asyncio.run",
    "uvloop": "import uvloop; run = uvloop.run",
    "uvloop everywhere": """
        import uvloop
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        run = asyncio.run
    """,
}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    if "uvloop" in request.param and not os.environ.get("CI"):
        pytest.importorskip("uvloop")
    return RUNNERS[request.param]


def test_a_call_in_a_running_loop_warns_once_and_works(url: str) -> None:
    memory = sync.Memory(url, "s", full_session_memory=True)

    async def main() -> int:
        with pytest.warns(RuntimeWarning, match="blocks that loop") as caught:
            memory.save(HI)
        assert [warning.filename for warning in caught] == [__file__], "where the call stands"
        memory.save(HI)
        return len(memory.turns())

    assert asyncio.run(main()) == 2
    memory.close()


def test_entering_in_a_running_loop_warns_where_it_stands(url: str) -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning) as caught, sync.Memory(url, "s") as memory:
            assert memory.messages() == []
        assert [warning.filename for warning in caught] == [__file__]

    asyncio.run(main())


def test_a_thread_of_a_running_loop_is_not_warned(url: str) -> None:
    async def main() -> int:
        with sync.Memory(url, "s", full_session_memory=True) as memory:
            await asyncio.gather(*[asyncio.to_thread(memory.save, HI) for _ in range(5)])
            return len(await asyncio.to_thread(memory.turns))

    async def entered_in_a_thread() -> int:
        return await asyncio.to_thread(asyncio.run, main())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the `with` itself is in a loop
        assert asyncio.run(entered_in_a_thread()) == 5


def test_loops_one_after_another_in_one_process(url: str, runner: str) -> None:
    script = """
        import warnings
        memory = sync.Memory(url, "s", full_session_memory=True)

        async def main(number):
            memory.save(says(f"loop {number}"))
            await asyncio.sleep(0)
            return len(memory.turns())

        memory.save(says("before"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tell(run(main(1)), run(main(2)), run(main(3)))
        tell([str(each.category.__name__) for each in caught if "plain call" in str(each.message)])
        memory.save(says("after"))
        tell(said(memory))
        memory.close()
    """
    assert child.run(child.script(runner, script), url) == [
        "2 3 4",
        "['RuntimeWarning']",
        "['before', 'loop 1', 'loop 2', 'loop 3', 'after']",
    ]


def test_a_forgotten_facade_in_such_a_loop_ends_with_it(url: str, runner: str) -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore", RuntimeWarning)

        async def main():
            memory = sync.Memory(url, "s", full_session_memory=True)
            memory.save(says("Hi"))
            tell(said(memory))

        run(main())
    """
    assert child.run(child.script(runner, script), url) == ["['Hi']"]


def test_a_storage_of_another_loop_says_what_to_use() -> None:
    driver = InMemoryStorage()

    async def main() -> None:
        await driver.open()
        with pytest.raises(ConfigurationError, match="another event loop"):
            await asyncio.to_thread(use_it_plainly)

    def use_it_plainly() -> None:
        with sync.Storage(driver):
            pytest.fail("it belongs to another loop")

    asyncio.run(main())
