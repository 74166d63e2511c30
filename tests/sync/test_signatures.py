"""The facade has the names, parameters, defaults and types of the async API: all, and no other."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memory_async import Inbox, KnowledgeBase, Memory, Run, Storage, sync
from memory_async.jobs import Jobs
from memory_async.run import RunBlock

# Of each pair the names only the async class has.
PAIRS: dict[tuple[type, type], set[str]] = {
    (Memory, sync.Memory): {"abandon"},  # for where no loop is left to wait in
    (Storage, sync.Storage): set(),
    (Inbox, sync.Inbox): set(),
    (KnowledgeBase, sync.KnowledgeBase): set(),
    (Run, sync.Run): set(),
    (Jobs, sync.Jobs): {"wake", "drain", "recover", "close"},  # what Memory does: save, drain, ...
    (RunBlock, sync.RunBlock): {"begin", "close"},  # what `with` does
}
MADE_BY_MEMORY = (Jobs, Run, RunBlock)
DUNDERS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}

pairs = pytest.mark.parametrize(
    ("native", "plain", "only"),
    [(*pair, only) for pair, only in PAIRS.items()],
    ids=[native.__name__ for native, _ in PAIRS],
)


def attributes(cls: type) -> Iterator[tuple[str, str | None]]:
    """What its instances have that is not in `dir`: annotated in the class, or set on ``self``;
    each with its type, where that is written there."""
    for base in cls.__mro__[:-1]:
        if base.__module__.startswith("memory_async."):
            [body] = ast.parse(inspect.getsource(base)).body
            assert isinstance(body, ast.ClassDef)
            for node in body.body:
                if isinstance(node, ast.AnnAssign):
                    yield ast.unparse(node.target), ast.unparse(node.annotation)
                elif isinstance(node, ast.FunctionDef):
                    yield from set_on_self(node)


def set_on_self(function: ast.FunctionDef) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        written = None
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets, written = [node.target], ast.unparse(node.annotation)
        for target in map(ast.unparse, targets):
            if target.startswith("self.") and target.count(".") == 1:
                yield target.removeprefix("self."), written


def public(cls: type) -> set[str]:
    names = {*dir(cls), *(name for name, _ in attributes(cls))}
    made = set() if cls in MADE_BY_MEMORY else {"__init__"}
    return {name for name in names if not name.startswith("_")} | (names & DUNDERS.keys()) | made


def public_plain(cls: type) -> set[str]:
    back = {plain: native for native, plain in DUNDERS.items()}
    names = {back.get(name, name) for name in dir(cls)}
    return {name for name in names if not name.startswith("_") or name in DUNDERS}


def hint(text: Any) -> str:
    """As it is written, but for storages and knowledge: a facade also takes those of its kind."""
    written = str(text).replace("protocol.", "").replace("PlainKnowledge", "Knowledge")
    return " | ".join(dict.fromkeys(written.split(" | ")))


def signature(function: Callable[..., Any]) -> list[tuple[str, Any, Any, str]]:
    """Name, kind, default and type of each parameter, and what it returns (or is awaited)."""
    found = inspect.signature(function)
    given = found.parameters.values()
    parameters = [(each.name, each.kind, each.default, hint(each.annotation)) for each in given]
    return [*parameters, ("return", None, None, hint(found.return_annotation))]


def getter(found: property) -> Callable[[Any], Any]:
    assert found.fget is not None
    return found.fget


@pairs
def test_nothing_is_missing_on_either_side(native: type, plain: type, only: set[str]) -> None:
    expected = public(native) - {"__init__"}
    assert expected - public_plain(plain) == only
    assert public_plain(plain) - expected == set()


@pairs
def test_signatures_are_equal(native: type, plain: type, only: set[str]) -> None:
    written = dict(attributes(native))
    for name in public(native) - only:
        ours = inspect.getattr_static(plain, DUNDERS.get(name, name))
        theirs = inspect.getattr_static(native, name, None)
        if native is Storage and name == "__init__":
            continue  # a protocol has none
        if not isinstance(ours, property):
            assert not inspect.iscoroutinefunction(ours), name
            assert signature(ours) == signature(theirs), name
        elif isinstance(theirs, property):
            assert signature(getter(ours))[-1] == signature(getter(theirs))[-1], name
        elif written[name] is not None:
            assert inspect.signature(getter(ours)).return_annotation == written[name], name


def test_the_modules_have_the_same_names() -> None:
    assert set(sync.__all__) == {native.__name__ for native, _ in PAIRS}
