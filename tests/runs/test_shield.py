"""`to_the_end`: work that a cancellation does not stop."""

import asyncio

import anyio
import pytest

from memory_async.shield import to_the_end


class Work:
    """Waits to be let go, then ends as told."""

    def __init__(self, end: object = "done"):
        self.begun, self.go, self.ended = asyncio.Event(), asyncio.Event(), False
        self._end = end

    async def __call__(self):
        self.begun.set()
        await self.go.wait()
        self.ended = True
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end


async def test_it_returns_what_the_work_returns():
    work = Work()
    work.go.set()
    assert await to_the_end(work()) == "done"


@pytest.mark.parametrize("error", [ValueError("x"), GeneratorExit("x")])
async def test_it_raises_what_the_work_raises(error):
    work = Work(error)
    work.go.set()
    with pytest.raises(type(error)) as info:
        await to_the_end(work())
    assert info.value is error


@pytest.mark.parametrize("times", [1, 2, 10])
@pytest.mark.parametrize("end", ["done", ValueError("x")], ids=["well", "badly"])
async def test_a_cancellation_is_raised_when_the_work_has_ended(times, end):
    work = Work(end)
    task = asyncio.create_task(to_the_end(work()))
    await work.begun.wait()
    for number in range(times):
        task.cancel(number)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
    work.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended
    assert task.cancelling() == times


async def test_it_holds_in_a_scope_of_anyio_that_cancels_again_and_again():
    work = Work()

    async def let_go():
        await work.begun.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        work.go.set()

    letting = asyncio.create_task(let_go())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await to_the_end(work())
    assert scope.cancelled_caught
    assert work.ended
    await letting


async def test_it_holds_in_a_timeout():
    work = Work()
    asyncio.get_running_loop().call_later(0.01, work.go.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await to_the_end(work())
    assert work.ended


async def test_work_that_is_cancelled_itself_ends_it():
    async def work():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await to_the_end(work())


def test_a_loop_that_shuts_down_is_not_held_up():
    async def main():
        work = Work()
        task = asyncio.create_task(to_the_end(work()))
        await work.begun.wait()
        return work, task

    work, task = asyncio.run(main())
    assert task.cancelled()
    assert not work.ended
