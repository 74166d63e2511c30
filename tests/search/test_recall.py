"""What `benchmarks/recall.py` measures, on a small conversation of our own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("Stemmer")

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recall", ROOT / "benchmarks" / "recall.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recall"] = module
    spec.loader.exec_module(module)
    return module


async def test_most_of_the_evidence_is_found(benchmark: ModuleType, tmp_path: Path) -> None:
    conversation = benchmark.Conversation.read(ROOT / "tests" / "data" / "conversation.json")
    found = await benchmark.ours(conversation, tmp_path / "memory.db")
    measured = benchmark.recall(conversation, found)
    assert len(measured) == len(conversation.questions) == 4
    assert benchmark.mean(measured, 10) >= 0.7
    assert all(len(ranking) <= 10 for ranking in found)


async def test_a_line_is_counted_once_for_each_question(benchmark: ModuleType) -> None:
    lines = [benchmark.Line(f"D1:{number}", "session_1", "A", "text") for number in range(20)]
    asked = [benchmark.Question("?", {"D1:0", "D1:7"})]
    conversation = benchmark.Conversation("c", lines, asked)
    ranking = [line.id for line in lines]
    assert benchmark.recall(conversation, [ranking]) == [(0.5, 1.0)]
    assert benchmark.recall(conversation, [ranking[::-1]]) == [(0.0, 0.0)]
