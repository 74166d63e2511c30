"""Imports point down, files stay small, and importing the package imports no driver."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import memory_async

# The lowest layer first: a module imports from its own line and from the lines above it.
LAYERS = [
    (
        "codec errors forked jsontext keys message passages ranking records "
        "retry_after searchable shield stored turns vectors words"
    ),
    "storage",
    "chat_completions context model profile render settings transcript usage",
    "analysis forget indexing jobs knowledge learning meaning recall search summary",
    "checkpoints claim run runs view",
    "memory",
    "cli inbox integrations sync testing",
    "__init__",
]

# What neither `import memory_async` nor `Memory` imports: drivers' packages and frameworks.
LAZY = """
    aiosqlite asyncpg filelock httpx motor pymongo redis sqlite3
    Stemmer agents hypothesis openai pydantic_ai pytest
"""

MAX_LINES = 400

PACKAGE = Path(memory_async.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LAYER_OF = {name: number for number, line in enumerate(LAYERS) for name in line.split()}


def name_of(path: Path) -> str:
    """The name in `LAYERS` that a file of the package belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_above(imported: str, name: str) -> bool:
    """Whether a dotted module is one of ours, of a higher layer than `name`."""
    package, part, *_ = *imported.split("."), "__init__"
    return package == PACKAGE.name and LAYER_OF[part] > LAYER_OF[name]


def imports(path: Path) -> Iterator[str]:
    """Every module the file imports, wherever in it, as an absolute dotted name."""
    here = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(here[: -node.level]) if node.level else ""
            source = ".".join(filter(None, (start, node.module)))
            for alias in node.names:
                # `from memory_async import codec` imports a module, not a name of the package.
                whole = PACKAGE.parent.joinpath(*source.split("."), alias.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").is_file()
                outside = source.partition(".")[0] != PACKAGE.name
                yield f"{source}.{alias.name}" if outside or is_module else source


def test_imports_point_down() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for path in MODULES
        for imported in imports(path)
        if is_above(imported, name_of(path))
    ]
    assert not upward


def test_every_module_has_a_layer() -> None:
    without = set(map(name_of, MODULES)) - LAYER_OF.keys()
    assert not without, "give each a place in LAYERS"


def test_only_the_sync_facade_has_a_loop_in_a_thread() -> None:
    users = {
        name_of(path)
        for path in MODULES
        for imported in imports(path)
        if imported.startswith(("anyio", "_thread"))
    }
    assert users <= {"sync", "testing"}


@pytest.mark.parametrize("folder", [PACKAGE, Path(__file__).parent], ids=["package", "tests"])
def test_files_fit_in_the_head(folder: Path) -> None:
    lengths = {
        str(path.relative_to(folder)): len(path.read_text(encoding="utf-8").splitlines())
        for path in folder.rglob("*.*")
        if path.suffix in (".py", ".sql")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("used", ["m", "m.Memory, m.InMemoryStorage, m.open_storage"])
def test_importing_the_package_imports_no_driver(used: str) -> None:
    script = f"import sys, memory_async as m; {used}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = done.stdout.split()
    assert PACKAGE.name in imported
    assert not set(LAZY.split()) & {name.partition(".")[0] for name in imported}
