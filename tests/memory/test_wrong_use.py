"""Wrong use answers clearly, names what to do, and writes nothing."""

import re
import sqlite3
from pathlib import Path

import pytest

from memory_async import (
    ConfigurationError,
    Memory,
    MemoryAsyncError,
    PayloadError,
    SchemaTooNewError,
    SessionOwnershipError,
    StorageError,
    StorageUnavailableError,
)

HI = {"role": "user", "content": "Hi"}


@pytest.fixture
async def unchanged(storage, contents):
    """Something is stored already; the test must leave it as it is."""
    await Memory(storage, "s1", "ada", full_session_memory=True).save(HI, run_id="r0")
    before = await contents()
    yield
    assert await contents() == before


@pytest.fixture
def memory(storage, unchanged) -> Memory:
    return Memory(storage, "s1", "ada", full_session_memory=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return empty


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("Hi", "a bare str does not say who spoke"),
        (b"Hi", "a bare bytes does not say who spoke"),
        (7, "int is no message"),
        (None, "NoneType is no message"),
        (["Hi"], "str is no message"),
        ([HI, None], "NoneType is no message"),
        ([("user", "Hi")], "tuple is no message"),
        ({"content": "Hi"}, "without a role"),
        ({"role": "user"}, "without content"),
        ({"role": "user", "content": None}, "without content"),
        ({"role": "human", "content": "Hi"}, "role"),
        ({"role": "user", "content": 7}, "content"),
        ({"role": "assistant", "content": None, "tool_calls": "f()"}, "tool_calls"),
        ({"author": "user", "text": "Hi"}, "without a role"),
        ({}, "without a role"),
    ],
    ids=repr,
)
async def test_a_message_of_unknown_shape_is_refused(memory, given, complaint):
    with pytest.raises(PayloadError, match=complaint) as caught:
        await memory.save(given)
    assert '{"role": "user", "content": "..."}' in str(caught.value), "the shape to give"


@pytest.mark.parametrize("by", ["construction", "bind"])
@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("", "session_id must be 1 to 512 bytes of UTF-8; this one has 0"),
        ("x" * 513, "session_id must be 1 to 512 bytes of UTF-8; this one has 513"),
        ("é" * 257, "session_id must be 1 to 512 bytes of UTF-8; this one has 514"),
        ("a\0b", "session_id holds a NUL character; leave it out"),
        (7, "session_id must be a str, not int"),
    ],
    ids=["empty", "513", "514", "nul", "int"],
)
async def test_a_session_id_that_cannot_be_stored_is_refused(storage, unchanged, id, complaint, by):
    with pytest.raises(PayloadError, match=re.escape(complaint)):
        if by == "bind":
            Memory(storage).bind(session_id=id)
        else:
            Memory(storage, id)


NAN = float("nan")


@pytest.mark.parametrize(
    "save",
    [
        lambda memory: memory.save({**HI, "temperature": NAN}),
        lambda memory: memory.save({"role": "user", "content": [{"type": "x", "score": NAN}]}),
        lambda memory: memory.save([HI, {**HI, "logprobs": [1.0, float("-inf")]}]),
        lambda memory: memory.save(HI, usage={"cost": NAN}),
        lambda memory: memory.set_metadata({"deep": [{"score": NAN}]}),
    ],
    ids=["unknown_key", "content_part", "infinity", "usage", "metadata"],
)
async def test_nan_is_refused_wherever_it_hides(memory, save):
    with pytest.raises(PayloadError, match=r"which JSON cannot hold: store None or a string"):
        await save(memory)


@pytest.mark.parametrize(
    "save",
    [
        lambda memory: memory.save({"role": "user", "content": "\ud83e"}),
        lambda memory: memory.save({"role": "user", "content": [{"text": "\udc80"}]}),
        lambda memory: memory.save({**HI, "\ud800": 1}),
        lambda memory: memory.save(HI, usage={"\ud800": 1}),
        lambda memory: memory.save(HI, run_id="\ud800"),
        lambda memory: memory.set_metadata({"name": "\ud800"}),
        lambda memory: memory.bind(session_id="\ud800").save(HI),
        lambda memory: memory.bind(user_id="\ud800").save(HI),
    ],
    ids=["content", "part", "key", "usage", "run_id", "metadata", "session_id", "user_id"],
)
async def test_a_lone_surrogate_is_refused_wherever_it_hides(memory, save):
    with pytest.raises(PayloadError, match="lone surrogate, which is not valid UTF-8"):
        await save(memory)


@pytest.mark.parametrize(
    ("given", "write"),
    [
        ("chat.db", "'sqlite:///chat.db'"),
        (Path("chat.db"), "'sqlite:///chat.db'"),
        ("data/chat.db", "'sqlite:///data/chat.db'"),
        (Path("/var/lib/chat.db"), "'sqlite:////var/lib/chat.db'"),
        ("/var/lib/chat.db", "'sqlite:////var/lib/chat.db'"),
        (":memory:", "'sqlite://'"),
    ],
    ids=str,
)
async def test_a_bare_path_is_answered_with_the_url_to_write(folder, given, write):
    with pytest.raises(ConfigurationError, match="is a path, not a URL") as caught:
        Memory(given)
    assert str(caught.value).endswith(f"write {write}")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("given", [None, 7, b"sqlite:///chat.db", object()])
async def test_what_is_neither_a_url_nor_a_storage_is_refused(folder, given):
    with pytest.raises(ConfigurationError, match=r"a URL or a storage object.*sqlite:///chat.db"):
        Memory(given)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [lambda memory: memory.load(), lambda memory: memory.save(HI), Memory.__aenter__],
    ids=["load", "save", "open"],
)
async def test_a_file_that_is_no_database_is_refused_and_kept_as_it_is(folder, call):
    file = folder / "notes.txt"
    file.write_text("Dear diary, " * 1000)
    before = file.read_bytes()
    memory = Memory("sqlite:///notes.txt", "s1", full_session_memory=True)
    with pytest.raises(StorageError, match=r"notes.txt is a file, but no SQLite database: use"):
        await call(memory)
    await memory.close()
    assert file.read_bytes() == before
    assert list(folder.iterdir()) == [file]


async def test_a_folder_that_does_not_exist_is_named(folder):
    memory = Memory("sqlite:///missing/chat.db", "s1", full_session_memory=True)
    with pytest.raises(StorageUnavailableError, match=r"missing/chat.db: its folder must exist"):
        await memory.save(HI)
    await memory.close()
    assert list(folder.iterdir()) == []


async def test_a_file_of_a_newer_version_is_refused_and_kept_as_it_is(folder):
    async with Memory("sqlite:///chat.db", "s1", full_session_memory=True) as memory:
        await memory.save(HI)
    with sqlite3.connect(folder / "chat.db") as db:
        db.execute("UPDATE memory_schema SET version = 999")
    db.close()
    before = (folder / "chat.db").read_bytes()
    memory = Memory("sqlite:///chat.db", "s1", full_session_memory=True)
    for _ in range(2):
        with pytest.raises(SchemaTooNewError, match=r"has schema 999.*upgrade memory_async"):
            await memory.save(HI)
    await memory.close()
    assert (folder / "chat.db").read_bytes() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda memory: memory.save(HI),
        lambda memory: memory.load(),
        lambda memory: memory.turns(),
        lambda memory: memory.set_metadata({}),
        lambda memory: memory.delete_session(),
        lambda memory: memory.forget_user(),
        lambda memory: memory.recover(),
        lambda memory: memory.bind(session_id="s1").save(HI),
    ],
)
async def test_use_after_close_says_to_make_a_new_one(memory, call):
    await memory.close()
    with pytest.raises(StorageUnavailableError, match="this Memory is closed: make a new one"):
        await call(memory)


async def test_another_users_session_is_refused_with_a_way_out(memory):
    for user_id in ("bob", None):
        view = memory.bind(user_id=user_id)
        for call in (view.save(HI), view.load(), view.messages(), view.delete_session()):
            with pytest.raises(SessionOwnershipError, match="use another session_id"):
                await call


async def test_saving_back_what_was_loaded_says_what_to_save(storage, contents):
    memory = Memory(storage, "s1", full_session_memory=True)
    await memory.save(HI)
    await memory.set_metadata({"city": "Bath"})
    before = await contents()
    with pytest.raises(PayloadError, match="save only what is new in this turn"):
        await memory.save([*(await memory.load()).to_openai(), HI])
    assert await contents() == before


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sqlite:///chat.db?pool_size=5", "SqliteStorage has no option pool_size=; it has busy_"),
        ("sqlite:///chat.db?ttl=60", "SqliteStorage has no option ttl=: its sessions do not exp"),
        ("memory://?ttl=60", "InMemoryStorage has no option ttl=: its sessions do not expire"),
        ("memory://?durability=full", "InMemoryStorage has no option durability=; it has max_s"),
        ("sqlite:///chat.db?durability=fast", 'durability is "full" or "normal", not \'fast\''),
        ("sqlite:///chat.db?busy_timeout=soon", "busy_timeout=soon in the sqlite URL is no flo"),
        ("sqlite:///chat.db?namespace=a&namespace=b", "namespace= stands twice in the sqlite"),
        ("mysql://localhost/chat", "no driver for 'mysql' URLs; there are: .*memory.*sqlite"),
        ("sqlite://chat.db", "write 'sqlite:///chat.db' for a relative path"),
        ("memory://shared", "leave out 'shared'"),
    ],
)
async def test_a_url_option_the_driver_does_not_know_is_answered_with_those_it_knows(
    folder, url, complaint
):
    with pytest.raises(ConfigurationError, match=complaint):
        Memory(url)
    assert list(folder.iterdir()) == []


async def test_analysis_without_a_user_is_refused_at_once_when_a_session_is_given(
    storage, unchanged, model
):
    with pytest.raises(ConfigurationError, match=r"user_analysis_memory needs a user_id"):
        Memory(storage, "s1", user_analysis_memory=True, model=model)


@pytest.mark.parametrize("call", [lambda memory: memory.save(HI), lambda memory: memory.load()])
async def test_analysis_without_a_user_is_else_refused_at_first_use(
    storage, unchanged, model, call
):
    memory = Memory(storage, user_analysis_memory=True, full_session_memory=True, model=model)
    with pytest.raises(ConfigurationError, match=r"needs a user_id.*bind\(user_id=None\)"):
        await call(memory)
    with pytest.raises(ConfigurationError, match=r"needs a user_id"):
        await call(memory.bind(session_id="s2"))


async def test_a_summary_without_a_model_is_refused(storage, unchanged):
    with pytest.raises(ConfigurationError, match=r"summary_memory needs a model: give model="):
        Memory(storage, "s1", "ada", summary_memory=True, full_session_memory=True)


async def test_analysis_without_a_model_is_refused(storage, unchanged):
    with pytest.raises(ConfigurationError, match=r"user_analysis_memory needs a model"):
        Memory(storage, "s1", "ada", user_analysis_memory=True)


async def test_every_error_has_one_root(memory):
    for wrong in (
        lambda: memory.save([]),
        lambda: memory.bind(user_id="bob").load(),
        lambda: memory.load(last=-1),
    ):
        with pytest.raises(MemoryAsyncError):
            await wrong()
