"""File names that are safe on every file system, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = [
    "append_line",
    "make_folder",
    "read_text",
    "remove",
    "safe_name",
    "sync_folder",
    "write_whole",
]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_RESERVED = frozenset({"con", "prn", "aux", "nul"}) | {
    f"{name}{number}" for name in ("com", "lpt") for number in range(10)
}  # on Windows
_LONGEST = 120


def safe_name(id: str) -> str:
    """A file name for any id: readable for plain ones, unlike that of any other id even where the
    file system folds case (capitals are written as ``%41``)."""
    name = "".join(c if c in _PLAIN else "".join(f"%{b:02x}" for b in c.encode()) for c in id)
    if name in _RESERVED:
        name = f"%{ord(name[0]):02x}{name[1:]}"
    if len(name) > _LONGEST:
        name = f"{name[:80]}~{hashlib.sha256(id.encode()).hexdigest()[:32]}"
    return name


def write_whole(path: Path, text: str) -> None:
    """Replace the file durably: after a crash it holds the old text or the new."""
    make_folder(path.parent)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def append_line(path: Path, line: str, at: int) -> int:
    """Add a line durably at the offset ``at``, over whatever torn rest is there; the new end."""
    make_folder(path.parent)
    data = line.encode() + b"\n"
    is_new = not path.exists()
    with path.open("r+b" if not is_new else "w+b") as file:
        file.truncate(at)
        file.seek(at)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)
    return at + len(data)


def read_text(path: Path) -> str | None:
    """The file's text, or None when there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def remove(path: Path) -> bool:
    """Delete the file durably; False when there is none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def make_folder(folder: Path) -> None:
    """Make the folder and those above it durably: a file in it is lost with a name above it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
