"""What is published is what is documented."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import memory_async
from memory_async.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
TEST_COMMAND = "pip install nox==2026.10.20 && nox"


@pytest.mark.parametrize("path", ["README.md", ".ci/run"])
def test_the_documented_test_command_is_the_one_ci_runs(path: str) -> None:
    assert TEST_COMMAND in (ROOT / path).read_text(encoding="utf-8")


def test_the_version_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = importlib.metadata.version(project["name"])
    assert installed == project["version"]
    assert getattr(memory_async, "__version__", installed) == installed


@pytest.mark.parametrize("name", memory_async.__all__)
def test_a_public_name_can_be_imported_or_names_its_extra(name: str) -> None:
    try:
        getattr(memory_async, name)
    except ConfigurationError as error:
        missing = error
    else:
        return
    assert isinstance(missing.__cause__, ImportError)
    assert re.search(r'pip install "memory-async\[\w+\]"', str(missing))


def test_type_checkers_find_the_types() -> None:
    assert (Path(memory_async.__file__).parent / "py.typed").is_file()
