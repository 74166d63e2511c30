"""The Lua scripts, which stand in files beside this one."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script and the name Redis knows it by once it has seen it."""

    name: str
    text: bytes
    sha: str


def _load(name: str) -> Script:
    text = (files("memory_async.storage.redis") / "lua" / f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


ADD = _load("add")
APPLY = _load("apply")
FETCH = _load("fetch")
FIND = _load("find")
HISTORY = _load("history")
MARK = _load("mark")
PROBE = _load("probe")
REMOVE = _load("remove")
REPAIR = _load("repair")
SNAPSHOT = _load("snapshot")
TURN = _load("turn")
