"""A storage of each kind, models that do as they are told, and no waiting between attempts."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from memory_async import InMemoryStorage, Memory, SqliteStorage, Storage
from tests.jobs.script import Errors, Script
from tests.llm import ScriptedLLM, scripted_llm

Make = Callable[..., Memory[Any]]


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(params=["in_memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage = (
        InMemoryStorage()
        if request.param == "in_memory"
        else SqliteStorage(tmp_path / "chat.db", durability="normal")
    )
    async with made:
        yield made


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedLLM]:
    """The server that ``model="openai/scripted"`` talks to."""
    pytest.importorskip("httpx")
    with scripted_llm() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
        yield running


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
async def make(storage: Storage, script: Script) -> AsyncIterator[Make]:
    """`Memory` of session s1 and user ada over the storage, with the script as its model; closed
    when the test ends."""
    made: list[Memory[Any]] = []

    def make(session_id: str | None = "s1", user_id: str | None = "ada", **options: Any) -> Any:
        given = options.pop("storage", storage)
        made.append(Memory(given, session_id, user_id, **{"model": script, **options}))
        return made[-1]

    yield make
    script.release()
    for each in made:
        await each.close()
