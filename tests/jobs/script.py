"""What the tests of the jobs share: a model in the test's own loop, and a long conversation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from memory_async import Key, Partition, Session, Storage, UserProfile
from tests.llm import KINDS, Call, CallKind, CallLog

Messages = list[dict[str, Any]]

JOBS: dict[str, Any] = {"summary_memory": True, "user_analysis_memory": True}


class Script(CallLog):
    """A model that is a plain async callable. ``failures`` are raised first, one a call."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []
        self.most_at_once = 0
        self._now = 0
        self._open = {kind: asyncio.Event() for kind in KINDS}
        self.release()

    def hold(self, *kinds: CallKind) -> None:
        for kind in kinds or KINDS:
            self._open[kind].clear()

    def release(self, *kinds: CallKind) -> None:
        for kind in kinds or KINDS:
            self._open[kind].set()

    async def wait_for_calls(self, count: int) -> None:
        await until(lambda: len(self.calls) >= count)

    async def __call__(
        self, messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None
    ) -> str:
        call = Call(messages, schema)
        self.calls.append(call)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self._open[call.kind].wait()
            if self.failures:
                raise self.failures.pop(0)
            return self.answer(call)
        finally:
            self._now -= 1


class Errors(list[tuple[str, str, Exception]]):
    """An ``on_job_error`` that keeps what it is given."""

    def __call__(self, job: str, session_id: str, error: Exception) -> None:
        self.append((job, session_id, error))


async def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


def says(text: str, answer: str = "I see.") -> Messages:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def traits(**given: Any) -> Callable[[Call], str]:
    """An answer that says the same of every user."""
    return lambda call: json.dumps(given) if call.schema else "A summary."


def known_traits(call: Call) -> dict[str, Any]:
    """The traits an analysis was shown."""
    found: dict[str, Any] = json.loads(call.said.splitlines()[1])
    return found


async def header(storage: Storage, session_id: str = "s1") -> Session:
    found = await storage.get(Key("session", Partition("session", session_id), session_id))
    assert isinstance(found, Session)
    return found


async def stored_profile(
    storage: Storage, user_id: str = "ada", name: str = "default"
) -> UserProfile | None:
    found = await storage.get(Key("profile", Partition("user", user_id), name))
    assert found is None or isinstance(found, UserProfile)
    return found


def talk(number: int) -> Messages:
    """Turn ``number`` of a long conversation: always the same, and unlike every other."""
    topic = ("the ferry to Şile", "grandmother's börek", "a leaking gas boiler", "數學 homework")
    about = f"[{number}] {topic[number % 4]}, take {number * 7919 % 1009}"
    asked = {
        0: f"She said \"{about}\" \u2014 and I said 'no'.\n\n\tWould you have, too? \U0001f9ed",
        1: f"  {about}: שלום, e\u0301 is not \u00e9, and 100 % of <b>it</b> & {{more}}\\n  ",
        2: f"{about}\r\n- one\r\n- two\x00\u2028- three",
        3: f"{about}. " + "Let me think about it for a while. " * 4,
    }[number % 4]
    answer = f"Answer {number}: " + f"whatever {about} may be worth, it depends. " * 3
    if number % 10 == 5:
        call = {"name": "look_up", "arguments": json.dumps({"query": f"n\u00b0{number} \u2713"})}
        return [
            {"role": "user", "content": asked},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call_{number}", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": f"call_{number}", "content": f'{{"found": {number}}}'},
            {"role": "assistant", "content": answer},
        ]
    if number % 10 == 7:
        parts = [{"type": "text", "text": asked}, {"type": "text", "text": f"(part {number})"}]
        return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    if number % 10 == 9:
        again = {"role": "user", "content": f"And, {number} more: {about}!"}
        return [{"role": "user", "content": asked}, again, {"role": "assistant", "content": answer}]
    return says(asked, answer)


def texts(messages: Messages, role: str | None = None) -> list[str]:
    """Every text of these messages, arguments of tool calls included."""
    found: list[str] = []
    for message in messages:
        if role in (None, message["role"]):
            content = message["content"]
            parts = content if isinstance(content, list) else [{"text": content}]
            found += [part["text"] for part in parts if part["text"]]
            found += [each["function"]["arguments"] for each in message.get("tool_calls", ())]
    return found
