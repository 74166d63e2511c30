"""Large, long and odd input comes back as it was."""

import pytest

from memory_async import Memory

HI = {"role": "user", "content": "Hi"}
ODD_IDS = [
    "../x",
    "/etc/passwd",
    "..",
    "a/b/c",
    "🫖",
    "naïve café",
    "a%2Fb?c#d&e=f",
    "{}",
    "' OR 1=1 --",
    "%_*[a]",
    " ",
    "\n\t",
    "x" * 512,
    "é" * 256,
    "s1 ",
    "S1",
    "\u202etxet",
]


@pytest.mark.parametrize("id", ODD_IDS)
async def test_any_text_can_be_an_id_of_a_session_a_user_and_a_run(storage, id):
    memory = Memory(storage, id, id, full_session_memory=True)
    turn = await memory.save(HI, run_id=id)
    assert (turn.session_id, turn.user_id, turn.run_id) == (id, id, id)
    assert await memory.turns() == [turn]
    assert await memory.save(HI, run_id=id) == turn
    await memory.set_metadata({id: id})
    assert (await memory.load()).metadata == {id: id}
    assert [session.session_id for session in await memory.sessions()] == [id]
    await memory.forget_user()
    assert await memory.session() is None


async def test_odd_ids_do_not_run_into_each_other(storage):
    root = Memory(storage, full_session_memory=True)
    for id in ODD_IDS:
        await root.bind(session_id=id, user_id=id).save({"role": "user", "content": id})
    for id in ODD_IDS:
        memory = root.bind(session_id=id, user_id=id)
        assert [message.text for message in await memory.messages()] == [id]
        assert len(await memory.sessions()) == 1
    await root.bind(session_id="%_*[a]", user_id="%_*[a]").forget_user()
    assert len(await storage.find("session")) == len(ODD_IDS) - 1


async def test_no_file_is_made_outside_the_folder(storage, tmp_path):
    before = set(tmp_path.parent.iterdir())
    await Memory(storage, "../x", "../y", full_session_memory=True).save(HI)
    assert set(tmp_path.parent.iterdir()) == before


async def test_a_message_of_ten_megabytes_comes_back_whole(storage):
    text = "0123456789é🫖\n" * 600_000
    assert len(text.encode()) > 10_000_000
    memory = Memory(storage, "s1", full_session_memory=True)
    await memory.save(
        [{"role": "user", "content": text}, {"role": "assistant", "content": "Long."}]
    )
    stored, short = await memory.messages()
    assert stored.text == text
    assert short.text == "Long."
    context = await memory.load(max_tokens=1000)
    assert context.messages == []
    assert len(context.dropped) == 1


@pytest.mark.parametrize(
    "text",
    ["", "\0", "a\0b", "\r\n", "\u2028", "{}", "null", "🫖" * 1000, "\\u0000", "\x7f\x1b[0m"],
)
async def test_any_text_comes_back_as_it_was(storage, text):
    memory = Memory(storage, "s1", full_session_memory=True)
    await memory.save({"role": "user", "content": text, "name": text or "n"}, usage={text: 1})
    [turn] = await memory.turns()
    assert turn.messages[0].to_openai() == {"role": "user", "content": text, "name": text or "n"}
    assert turn.usage == {text: 1}
    assert (await memory.load()).messages == turn.messages


async def test_a_thousand_turns_are_all_there_and_a_window_is_cut_from_the_end(storage):
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=20)
    for n in range(1, 1001):
        await memory.save({"role": "user", "content": str(n)}, usage={"n": 1})
    turns = await memory.turns()
    assert [turn.seq for turn in turns] == list(range(1, 1001))
    assert [turn.messages[0].content for turn in turns] == [str(n) for n in range(1, 1001)]
    context = await memory.load()
    assert [message.content for message in context.messages] == [str(n) for n in range(981, 1001)]
    assert len((await memory.load(last=5000)).messages) == 1000
    assert await memory.usage() == {"n": 1000}


async def test_a_turn_of_a_thousand_messages_is_one_turn(storage):
    memory = Memory(storage, "s1", full_session_memory=True, num_last_messages=1)
    await memory.save([{"role": "user", "content": str(n)} for n in range(1000)])
    await memory.save([{"role": "user", "content": str(n)} for n in range(1000)])
    assert len((await memory.load()).messages) == 1000
