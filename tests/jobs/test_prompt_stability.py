"""The benchmark of the same name: what it measures, on conversations of ours."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.jobs.script import talk, texts

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "prompt_stability.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompt_stability", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def conversation(turns: int) -> dict[str, object]:
    said = []
    for number in range(1, turns + 1):
        said += [{"speaker": "Ada", "text": text} for text in texts(talk(number), "user")]
        said += [{"speaker": "Bo", "text": text} for text in texts(talk(number), "assistant")]
    half = len(said) // 2
    return {
        "speaker_a": "Ada",
        "speaker_b": "Bo",
        "session_2": said[half:],
        "session_1": said[:half],
    }


def test_it_prints_a_table(tmp_path: Path) -> None:
    (tmp_path / "long.json").write_text(json.dumps(conversation(100)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(SCRIPT), str(tmp_path), "--markdown"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    head, _, *rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "mean prompt" in head
    assert [row.split("|")[1].strip() for row in rows] == [
        "summary_every=1",
        "summary_every=5",
        "summary_every=10",
        "window of 20 turns",
    ]
    assert "1 conversations, 100 turns" in done.stdout


def test_turns_as_the_replay_example_makes_them(benchmark: ModuleType) -> None:
    path = ROOT / "tests" / "data" / "conversation.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    turns = benchmark.to_turns(data)
    said = [message["content"] for turn in turns for message in turn]
    sessions = [data[f"session_{number}"] for number in (1, 2, 3)]
    assert said == [each["text"] for session in sessions for each in session]
    for turn in turns[1:]:
        roles = [message["role"] for message in turn]
        assert roles[0] == "user"
        assert roles == sorted(roles, reverse=True)  # the user's messages, then the answers


async def test_the_numbers(benchmark: ModuleType) -> None:
    turns = benchmark.to_turns(conversation(60))
    found = await benchmark.measure([turns])
    assert [found[f"summary_every={k}"].calls for k in (1, 5, 10)] == [60, 12, 6]
    shares = [each.share for each in found.values()]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.8
    assert shares[3] < 0.5
    assert benchmark.missed(found) == []
    assert benchmark.missed({**found, "summary_every=10": found["summary_every=1"]}) != []
    for each in found.values():
        assert len(each.prompts) == len(each.shared) == 60
        assert each.shared[0] == 0
        assert all(0 <= a <= b for a, b in zip(each.shared, each.prompts, strict=True))


def test_the_summaries_share_no_beginning(benchmark: ModuleType) -> None:
    def summary(text: str) -> str:
        message = {"role": "user", "content": text}
        result: str = asyncio.run(benchmark.summarise([message]))
        return result

    one, other = summary("a b c d e f g h"), summary("a b c d e f g h i")
    assert len(one) == len(other) == benchmark.SUMMARY_LENGTH
    assert one[:40] != other[:40]
    assert one == summary("a b c d e f g h")
