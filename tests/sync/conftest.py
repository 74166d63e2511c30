"""A file to share with other processes, and a model they can all reach."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from memory_async import sync
from tests.llm import ScriptedLLM, scripted_llm


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def said(path: Path, url: str) -> Callable[..., list[str]]:
    """The texts of a session, as another process finds them; the file must be whole."""

    def read(session_id: str = "s", user_id: str | None = None) -> list[str]:
        with sync.Memory(url, session_id, user_id) as memory:
            turns = memory.turns()
        assert [turn.seq for turn in turns] == list(range(1, len(turns) + 1))
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [message.text for turn in turns for message in turn.messages]

    return read


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedLLM]:
    """The server that ``model="openai/scripted"`` talks to, here and in child processes."""
    pytest.importorskip("httpx")
    with scripted_llm() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
        yield running
