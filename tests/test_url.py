"""`open_storage`: which storage a URL names, and what it says of what is none."""

from pathlib import Path

import pytest

from memory_async import (
    ConfigurationError,
    InMemoryStorage,
    Memory,
    PayloadError,
    SqliteStorage,
    open_storage,
)

HI = {"role": "user", "content": "Hi"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def files_made_by(url: str, folder: Path) -> set[str]:
    async with open_storage(url):
        return {
            str(file.relative_to(folder))
            for file in folder.rglob("*")
            if file.is_file() and not file.name.endswith(("-wal", "-shm"))
        }


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///chat.db", "chat.db"),
        ("sqlite:///./chat.db", "chat.db"),
        ("sqlite:///data/chat.db", "data/chat.db"),
        ("sqlite:///my%20chat.db", "my chat.db"),
        ("sqlite:///my chat.db", "my chat.db"),
        ("sqlite:///100%25.db", "100%.db"),
        ("sqlite:///what%3F.db", "what?.db"),
        ("sqlite:///a+b.db", "a+b.db"),
        ("sqlite:///chat#1.db", "chat#1.db"),
        ("sqlite:///chat#1.db?namespace=a", "chat#1.db"),
        ("sqlite:///größe.db", "größe.db"),
        ("sqlite:///a:b@c.db", "a:b@c.db"),
        ("sqlite:///chat.db?durability=normal&namespace=app&busy_timeout=1.5", "chat.db"),
        ("sqlite:///chat.db?", "chat.db"),
    ],
)
async def test_three_slashes_are_a_relative_path(folder, url, file):
    (folder / "data").mkdir()
    assert await files_made_by(url, folder) == {file}


async def test_four_slashes_are_an_absolute_path(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert await files_made_by(f"sqlite:///{elsewhere}/chat.db", folder) == set()
    assert (elsewhere / "chat.db").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "memory://"])
async def test_urls_without_a_file_are_private_and_leave_none(folder, url):
    assert await files_made_by(url, folder) == set()
    async with Memory(url, "s1", full_session_memory=True) as one, Memory(url, "s1") as other:
        await one.save(HI)
        assert await other.messages() == []


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("memory://", InMemoryStorage),
        ("memory:///", InMemoryStorage),
        ("memory://?namespace=app&max_sessions=3", InMemoryStorage),
        ("sqlite:///chat.db", SqliteStorage),
    ],
)
async def test_the_scheme_names_the_driver_and_nothing_is_opened_yet(folder, url, driver):
    storage = open_storage(url)
    assert type(storage) is driver
    assert list(folder.iterdir()) == []


async def test_options_reach_the_driver():
    assert open_storage("memory://?namespace=app").namespace == "app"
    assert open_storage("sqlite:///chat.db?namespace=a%26b+c").namespace == "a&b c"
    async with open_storage("memory://?max_sessions=1") as storage:
        memory = Memory(storage, full_session_memory=True)
        for session_id in ("a", "b"):
            await memory.bind(session_id=session_id).save(HI)
        assert [session.key.id for session in await storage.find("session")] == ["b"]


async def test_namespaces_of_one_file_do_not_see_each_other():
    one = Memory("sqlite:///chat#1.db?namespace=one", "s1", "ada", full_session_memory=True)
    two = Memory("sqlite:///chat#1.db?namespace=two", "s1", "bob", full_session_memory=True)
    async with one, two:
        await one.save(HI)
        assert await two.session() is None
        await two.save(HI)
        assert [session.user_id for session in await one.sessions()] == ["ada"]


@pytest.mark.parametrize(
    "path",
    ["chat.db", "./a/../b.db", "100%.db", "what?.db", "chat#1.db", "größe.db", "a b.db", "%20"],
)
async def test_the_url_shown_for_a_bare_path_names_that_very_file(folder, path):
    (folder / "a").mkdir()
    for given in (path, Path(path)):
        with pytest.raises(ConfigurationError, match="is a path, not a URL") as caught:
            open_storage(given)  # type: ignore[arg-type]
        shown = str(caught.value).partition("write ")[2].strip("'")
        made = await files_made_by(shown, folder)
        assert made == {str((folder / path).resolve().relative_to(folder))}


@pytest.mark.parametrize("scheme", ["SQLITE", "sqlite3", "sqlite+aiosqlite", "", "file", "http"])
def test_an_unknown_scheme_is_answered_with_those_there_are(scheme):
    with pytest.raises(ConfigurationError, match=r"there are: .*memory.*sqlite.*e\.g\. sqlite:///"):
        open_storage(f"{scheme}://chat.db")


@pytest.mark.parametrize("given", [None, 7, b"memory://", ["memory://"], object(), SqliteStorage])
def test_what_is_no_url_is_refused_by_its_type(given):
    with pytest.raises(ConfigurationError, match="storage is a URL or a storage object, not"):
        open_storage(given)


def test_two_slashes_are_answered_with_three_and_four():
    with pytest.raises(ConfigurationError) as caught:
        open_storage("sqlite://var/chat.db?namespace=a")
    assert "'sqlite:///var/chat.db' for a relative path" in str(caught.value)
    assert "'sqlite:////var/chat.db' for an absolute one" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("memory://?nmespace=a", "no option nmespace=; it has max_sessions, namespace"),
        ("memory://?max_sessions=many", "max_sessions=many in the memory URL is no int"),
        ("memory://?max_sessions=0", "max_sessions must be at least 1"),
        ("memory://?max_sessions=1&max_sessions=2", "max_sessions= stands twice"),
        ("memory://?=1", "no option ="),
        ("sqlite:///chat.db?durability=", "durability is"),
        ("sqlite:///a#b.db?nmespace=x", "no option nmespace="),
        ("sqlite:///a%00b.db", "is no path of a file"),
        ("memory://name", "leave out 'name'"),
    ],
)
def test_options_that_cannot_work_are_refused(folder, url, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        open_storage(url)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("namespace", ["", "x" * 513, "a%00b"])
def test_a_namespace_is_checked_like_any_id(namespace):
    with pytest.raises(PayloadError, match="namespace"):
        open_storage(f"memory://?namespace={namespace}")
