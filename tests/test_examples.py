"""The examples print what their docstrings say; the README's commands and code work as shown."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from memory_async import Memory

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
CONVERSATION = ROOT / "tests" / "data" / "conversation.json"
DEADLINE = 60


def transcript(example: Path) -> list[tuple[str, list[str]]]:
    """The commands in the docstring, after "Expected output:", each with the lines it prints."""
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8"))) or ""
    _, _, block = docstring.partition("Expected output:\n")
    runs: list[tuple[str, list[str]]] = []
    for line in filter(str.strip, block.splitlines()):
        text = line.removeprefix("    ")
        assert text != line, f"{example.name}: not indented, so no output: {line!r}"
        if text.startswith("$ "):
            runs.append((text[2:], []))
        else:
            assert runs, f"{example.name}: output before the first command: {line!r}"
            runs[-1][1].append(text)
    return runs


def run_python(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", *arguments],
        cwd=folder,
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=DEADLINE,
    )


def as_printed(expected: str) -> str:
    """A pattern for the line; ``...`` stands for what varies."""
    return ".*".join(map(re.escape, expected.split("...")))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_its_docstring_says(example: Path, tmp_path: Path) -> None:
    if "import rich" in (code := example.read_text(encoding="utf-8")) or "from rich" in code:
        pytest.importorskip("rich")
    runs = transcript(example)
    assert any(f"examples/{example.name}" in command for command, _ in runs)
    for command, expected in runs:
        python, *arguments = shlex.split(command)
        assert python == "python"
        paths = [str(ROOT / each) if (ROOT / each).is_file() else each for each in arguments]
        done = run_python(paths, tmp_path)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        assert expected, f"{command}: nothing expected"
        assert len(printed) == len(expected), done.stdout
        for shown, said in zip(printed, expected, strict=True):
            assert re.fullmatch(as_printed(said), shown), f"printed {shown!r}, expected {said!r}"


def test_quickstart_remembers_the_first_run() -> None:
    first, second = transcript(ROOT / "examples" / "quickstart.py")
    assert first[0] == second[0]
    assert first[1] != second[1]


async def test_replay_fails_when_a_turn_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    spec = importlib.util.spec_from_file_location("replay", ROOT / "examples" / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    data = json.loads(CONVERSATION.read_text(encoding="utf-8"))
    assert await example.replay("all there", data) == 0

    async def all_but_one(memory: Memory) -> object:
        return (await read(memory))[:-1]

    read = Memory.turns
    monkeypatch.setattr(Memory, "turns", all_but_one)
    assert await example.replay("one lost", data) == 1


def test_the_conversation_is_what_replaying_and_measuring_need() -> None:
    data = json.loads(CONVERSATION.read_text(encoding="utf-8"))
    sessions = [data[name] for name in data if re.fullmatch(r"session_\d+", name)]
    said = {message["dia_id"]: message for session in sessions for message in session}
    assert len(said) == sum(map(len, sessions)), "a dia_id stands twice"
    assert {each["speaker"] for each in said.values()} == {data["speaker_a"], data["speaker_b"]}
    assert sessions[1][0]["speaker"] == data["speaker_b"], "a session the assistant begins"
    assert data["qa"]
    for question in data["qa"]:
        assert question["evidence"]
        assert set(question["evidence"]) <= said.keys()


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_readme_snippet_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[number], encoding="utf-8")
    done = run_python(["snippet.py"], tmp_path)
    assert done.returncode == 0, done.stderr


def test_readme_has_code_and_the_two_command_lines() -> None:
    assert SNIPPETS
    lines = README.splitlines()
    assert "pip install . && python examples/quickstart.py" in lines
    assert "pip install nox==2026.10.20 && nox" in lines
