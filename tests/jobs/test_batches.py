"""What one call is given: turns, text and prompt, within bounds; and turns nobody can read."""

import logging
import sqlite3
from pathlib import Path

import pytest

from memory_async import InMemoryStorage, Message, SqliteStorage, Storage, Turn
from memory_async.transcript import MAX_CHARACTERS, MAX_TURNS, take, turn_text, user_text
from tests.jobs.conftest import Make
from tests.jobs.script import JOBS, Script, header, says, stored_profile
from tests.llm import marks_answer


async def saved_before_jobs(make: Make, *texts: str) -> None:
    plain = make(full_session_memory=True)
    for text in texts:
        await plain.save(says(text))


async def test_a_call_takes_at_most_fifty_turns(make: Make, script: Script) -> None:
    await saved_before_jobs(make, *(f"«{number}»" for number in range(1, 120)))
    script.answer = marks_answer
    memory = make(full_session_memory=True, **JOBS)
    await memory.save(says("«120»"))
    assert await memory.drain(10)
    for calls, taken in ((script.summaries, "user: "), (script.analyses, "\n\n")):
        new = [call.said.split("New turns:\n")[-1].split("The user said:\n")[-1] for call in calls]
        extra = taken == "\n\n"
        assert [each.count(taken) + extra for each in new] == [50, 50, 20]
    assert await memory.summary() == " ".join(f"«{number}»" for number in range(1, 121))


async def test_a_call_takes_at_most_so_many_characters(make: Make, script: Script) -> None:
    texts = [f"«{number}» " + "x" * 30_000 for number in range(1, 8)]
    await saved_before_jobs(make, *texts)
    script.answer = marks_answer
    memory = make(full_session_memory=True, **JOBS)
    await memory.save(says("«8»"))
    assert await memory.drain(10)
    for calls in (script.summaries, script.analyses):
        assert all(len(call.said) < MAX_CHARACTERS + 500 for call in calls)
        log = "\0".join(call.said for call in calls)
        assert [log.count(text) for text in texts] == [1] * 7
        assert len(calls) == 3


async def test_a_longer_text_is_cut_in_the_middle(make: Make, script: Script) -> None:
    await saved_before_jobs(make, "before", "BEGIN" + "\u00e9" * 250_000 + "END", "after")
    memory = make(full_session_memory=True, **JOBS)
    await memory.save(says("last"))
    assert await memory.drain(10)
    for calls in (script.summaries, script.analyses):
        assert all(len(call.said) < MAX_CHARACTERS + 500 for call in calls)
        [call] = [call for call in calls if "BEGIN" in call.said]
        assert "END" in call.said
        assert "characters left out ...]" in call.said
        log = "".join(call.said for call in calls)
        assert all(text in log for text in ("before", "after", "last"))


def turns(*texts: str) -> list[Turn]:
    return [
        Turn(session_id="s", seq=seq, messages=[Message(role="user", content=text)])
        for seq, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("size", [MAX_CHARACTERS - 1, MAX_CHARACTERS, MAX_CHARACTERS + 1])
def test_what_is_cut_says_how_much(size: int) -> None:
    text, through = take(turns("a" * (size - 1) + "z"), user_text)
    assert through == 1
    assert len(text) <= MAX_CHARACTERS
    assert (text[0], text[-1]) == ("a", "z")
    if size <= MAX_CHARACTERS:
        assert len(text) == size
    else:
        start, rest = text.split("\n[... ")
        left_out, end = rest.split(" characters left out ...]\n")
        assert len(start) + int(left_out) + len(end) == size


@pytest.mark.parametrize(
    ("texts", "through"),
    [
        (["x"] * MAX_TURNS + ["y"], MAX_TURNS),
        (["x" * MAX_CHARACTERS, "y"], 1),
        (["x" * (MAX_CHARACTERS - 1), "y", "z"], 2),
        (["", "", "x"], 3),
        ([""], 1),
    ],
)
def test_how_many_are_taken(texts: list[str], through: int) -> None:
    assert take(turns(*texts), user_text)[1] == through


def test_a_turn_as_text() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":"é"}'}}
    said = [
        {"role": "user", "name": "ada", "content": " Hi\n"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "It is"}, {"type": "image_url"}],
        },
    ]
    turn = Turn(session_id="s", messages=[Message.parse(each) for each in said])
    assert turn_text(turn) == (
        'ada:  Hi\n\nassistant: Let me look.\nassistant called find({"q":"é"})\n'
        "tool: 42\nassistant: It is"
    )
    assert user_text(turn) == " Hi\n"


async def test_turns_without_user_text(make: Make, script: Script, storage: Storage) -> None:
    memory = make(full_session_memory=True, **JOBS)
    await memory.save({"role": "assistant", "content": "A reminder: water the plants."})
    picture = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
    await memory.save({"role": "user", "content": picture})
    assert await memory.drain(10)
    assert script.analyses == []
    assert len(script.summaries) >= 1
    assert "water the plants" in script.summaries[0].said
    jobs = (await header(storage)).jobs
    assert [jobs[name].through for name in sorted(jobs)] == [2, 2]
    assert jobs["summary"].value is not None
    assert await stored_profile(storage) is None


async def test_the_prompts_given_reach_the_model(make: Make, script: Script) -> None:
    memory = make(**JOBS, summary_prompt="Sum it up in Latin.", analysis_prompt="Only pets count.")
    await memory.save(says("My dog is called Bo."))
    assert await memory.drain(10)
    [summary], [analysis] = script.summaries, script.analyses
    assert summary.system == "Sum it up in Latin."
    assert analysis.system.startswith("Only pets count.")
    assert "remove_traits" in analysis.system  # the shape of the answer stays ours to ask for


async def test_a_summary_is_stored_without_the_space_around_it(make: Make, script: Script) -> None:
    script.answer = lambda call: "\n\n They met.\n They talked. \n"
    memory = make(summary_memory=True)
    await memory.save(says("hello"))
    assert await memory.drain(10)
    assert await memory.summary() == "They met.\n They talked."


async def damage(storage: Storage, path: Path, *seqs: int) -> None:
    if isinstance(storage, InMemoryStorage):
        rows = storage._logs["s1"].turns
        for seq in seqs:
            rows[seq - 1] = rows[seq - 1]._replace(payload="{rubbish")
    else:
        assert isinstance(storage, SqliteStorage)
        connection = sqlite3.connect(path)
        with connection:
            connection.executemany(
                "UPDATE memory_turns SET payload = '{rubbish' WHERE id & 0xffffffff = ?",
                [(n,) for n in seqs],
            )
        connection.close()


@pytest.mark.parametrize(
    "broken",
    [[1], [2, 3], [5], [4, 5], [1, 2, 3, 4, 5]],
    ids=["first", "among", "last", "rest", "all"],
)
async def test_turns_that_cannot_be_read_do_not_block(
    make: Make, script: Script, storage: Storage, tmp_path: Path, broken: list[int]
) -> None:
    script.answer = marks_answer
    script.hold()
    await saved_before_jobs(make, *(f"«{number}»" for number in range(1, 5)))
    first = make(full_session_memory=True, **JOBS)
    await first.save(says("«5»"))
    await script.wait_for_calls(2)
    await first.close(timeout=0)
    await damage(storage, tmp_path / "chat.db", *broken)
    script.release()

    assert await make(full_session_memory=True, **JOBS).recover() == 2
    left = [f"«{number}»" for number in range(1, 6) if number not in broken]
    found = await header(storage)
    assert {job.through for job in found.jobs.values()} == {5}
    assert (found.jobs["summary"].value or "") == " ".join(left)
    profile = await stored_profile(storage)
    assert (profile.traits["facts"] if profile else []) == left
    assert storage.corrupt_rows > 0


async def test_many_that_cannot_be_read_hide_none_after_them(
    make: Make, script: Script, storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    await saved_before_jobs(make, *(f"«{number}»" for number in range(1, 130)))
    await damage(storage, tmp_path / "chat.db", *range(1, 120))
    script.answer = marks_answer
    memory = make(full_session_memory=True, summary_memory=True)
    await memory.save(says("«130»"))
    assert await memory.drain(10)
    assert await memory.summary() == " ".join(f"«{number}»" for number in range(120, 131))
