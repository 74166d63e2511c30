"""Opening, closing and construction: a Memory closes what it opened itself, and nothing else."""

import asyncio
import logging

import pytest
from pydantic import BaseModel

from memory_async import (
    ConfigurationError,
    InMemoryStorage,
    Memory,
    PayloadError,
    SqliteStorage,
    StorageUnavailableError,
)

HI = {"role": "user", "content": "Hi"}


class Prefs(BaseModel):
    tea: bool = False


async def answer(messages, *, schema=None):
    return "{}"


async def test_a_storage_given_as_url_is_closed_with_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    closed = []
    close = SqliteStorage.close

    async def counted(self):
        closed.append(self)
        await close(self)

    monkeypatch.setattr(SqliteStorage, "close", counted)
    memory = Memory("sqlite:///chat.db", "s1", full_session_memory=True)
    await memory.save(HI)
    await memory.close()
    assert len(closed) == 1
    assert not (tmp_path / "chat.db-wal").exists(), "the last connection cleans up"


async def test_a_storage_that_was_given_stays_open(storage):
    async with Memory(storage, "s1", full_session_memory=True) as memory:
        await memory.save(HI)
    await storage.open()
    assert len(await storage.history("s1")) == 1
    assert len(await Memory(storage, "s1").messages()) == 1


async def test_what_was_saved_is_there_when_the_file_is_opened_again(tmp_path):
    url = f"sqlite:///{tmp_path}/chat.db"
    async with Memory(url, "s1", "ada", full_session_memory=True) as memory:
        turn = await memory.save(HI, run_id="r1", usage={"n": 1})
        await memory.set_metadata({"a": 1})
    async with Memory(url, "s1", "ada", full_session_memory=True) as memory:
        assert await memory.turns() == [turn]
        assert (await memory.load()).metadata == {"a": 1}
        assert await memory.save(HI, run_id="r1") == turn


async def test_async_with_opens_at_once_and_closes(tmp_path):
    file = tmp_path / "chat.db"
    async with Memory(f"sqlite:///{file}", "s1") as memory:
        assert file.exists()
    with pytest.raises(StorageUnavailableError):
        await memory.load()


async def test_without_async_with_the_storage_opens_at_first_use(tmp_path):
    file = tmp_path / "chat.db"
    memory = Memory(f"sqlite:///{file}", "s1")
    assert not file.exists()
    await memory.load()
    assert file.exists()
    await memory.close()


async def test_closing_without_having_used_it_and_closing_twice_are_fine():
    memory = Memory("memory://")
    await memory.close()
    await memory.close()
    other = Memory("memory://")
    await asyncio.gather(other.close(), other.close())


async def test_an_exception_in_the_block_goes_on_and_the_storage_is_closed():
    memory = Memory("memory://", "s1")
    with pytest.raises(ZeroDivisionError):
        async with memory:
            raise ZeroDivisionError
    with pytest.raises(StorageUnavailableError, match="closed"):
        await memory.load()


async def test_a_closed_memory_does_not_open_again():
    memory = Memory("memory://", "s1")
    await memory.close()
    with pytest.raises(StorageUnavailableError):
        async with memory:
            pass


async def test_each_memory_url_is_a_private_store():
    first, second = (Memory("memory://", "s1", full_session_memory=True) for _ in range(2))
    await first.save(HI)
    assert await second.messages() == []
    await first.close()
    await second.close()


async def test_a_storage_closed_by_its_owner_says_so():
    storage = InMemoryStorage()
    memory = Memory(storage, "s1", full_session_memory=True)
    await memory.save(HI)
    await storage.close()
    with pytest.raises(StorageUnavailableError, match="closed"):
        await memory.save(HI)


@pytest.fixture
def quiet_logger():
    logger = logging.getLogger("memory_async")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


async def test_debug_says_on_stderr_what_is_loaded_and_saved(storage, capsys, quiet_logger):
    memory = Memory(storage, "s1", full_session_memory=True, debug=True)
    Memory(storage, "s2", debug=True)
    await memory.save(HI)
    await memory.load()
    said = capsys.readouterr().err
    assert said.count("saved turn 1 of session 's1'") == 1, "once, however many have debug on"
    assert "loaded session 's1': 1 turns" in said


async def test_without_debug_nothing_is_said(storage, capsys, quiet_logger):
    memory = Memory(storage, "s1", full_session_memory=True)
    await memory.save(HI)
    await memory.load()
    assert capsys.readouterr().err == ""


async def test_debug_adds_no_second_handler_to_an_application_that_has_one(storage, quiet_logger):
    own = logging.NullHandler()
    quiet_logger.addHandler(own)
    Memory(storage, debug=True)
    assert quiet_logger.handlers == [own]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_last_messages": -1}, "num_last_messages must be a whole number"),
        ({"num_last_messages": 2.5}, "num_last_messages must be a whole number"),
        ({"num_last_messages": True}, "num_last_messages must be a whole number"),
        ({"summary_every": 0}, "summary_every must be a whole number from 1"),
        ({"user_memory_mode": "merge"}, '"update" or "replace", not \'merge\''),
        ({"user_profile_schema": dict}, "user_profile_schema is a pydantic model class"),
        ({"user_profile_schema": Prefs()}, "user_profile_schema is a pydantic model class"),
        (
            {"user_profile_schema": Prefs, "dynamic_user_profile": True},
            "give one of the two",
        ),
        ({"summary_memory": True}, "summary_memory needs a model: give model="),
        (
            {"summary_memory": True, "user_analysis_memory": True, "user_id": "ada"},
            "summary_memory and user_analysis_memory needs a model",
        ),
    ],
)
async def test_options_that_cannot_work_are_refused_when_it_is_made(options, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Memory("memory://", **options)


@pytest.mark.parametrize("name", ["session_id", "user_id", "agent_id", "profile_name"])
@pytest.mark.parametrize("id", ["", "x" * 513, "a\0b", "\ud800", 7])
async def test_ids_that_cannot_be_stored_are_refused_when_it_is_made(name, id):
    with pytest.raises(PayloadError, match=name):
        Memory("memory://", **{name: id})


async def test_a_profile_name_too_long_for_its_job_is_refused_when_it_is_made():
    Memory("memory://", profile_name="x" * 504)
    with pytest.raises(PayloadError, match="profile_name"):
        Memory("memory://", profile_name="x" * 505)


async def test_the_longest_profile_name_works(storage, model):
    name = "x" * 504
    memory = Memory(storage, "s1", "ada", user_analysis_memory=True, profile_name=name, model=model)
    await memory.save(HI)
    assert (await memory.session()).jobs.keys() == {f"profile:{name}"}


async def test_a_storage_that_analyses_by_itself_needs_no_model_for_that():
    class Analysing(InMemoryStorage):
        analyses_users = True

        async def analyse(self, session, turns): ...

        async def unlearn(self, user_id): ...

    Memory(Analysing(), "s1", "ada", user_analysis_memory=True)
    with pytest.raises(ConfigurationError, match="summary_memory needs a model"):
        Memory(Analysing(), "s1", "ada", summary_memory=True)
