"""What type checkers see of the public interface. Nothing here runs."""

from collections.abc import Mapping
from typing import Any, TypedDict, assert_type

from pydantic import BaseModel

from memory_async import (
    Context,
    InMemoryStorage,
    JobState,
    Memory,
    Message,
    Profile,
    Session,
    SqliteStorage,
    Storage,
    Turn,
    open_storage,
)


class Prefs(BaseModel):
    tea: bool = False


class Usage(BaseModel):
    input_tokens: int


class UserMessage(TypedDict):
    """As the OpenAI SDK types its messages."""

    role: str
    content: str


async def complete(messages: list[dict[str, Any]], *, schema: dict[str, Any] | None = None) -> str:
    return "{}"


async def the_default_profile() -> None:
    memory = Memory("memory://")
    assert_type(memory, Memory[Profile])
    assert_type(await memory.profile(), Profile | None)
    assert_type((await memory.load()).profile, Profile | None)


async def a_schema_of_the_callers() -> None:
    memory = Memory(
        "memory://",
        "s1",
        "ada",
        user_analysis_memory=True,
        user_profile_schema=Prefs,
        model=complete,
    )
    assert_type(memory, Memory[Prefs])
    context = await memory.load(last=3, max_tokens=2000, agent_metadata={"agent": "helper"})
    assert_type(context, Context[Prefs])
    assert_type(context.profile, Prefs | None)
    profile = await memory.profile()
    assert_type(profile, Prefs | None)
    if profile is not None:
        assert_type(profile.tea, bool)


async def views_keep_the_schema(memory: Memory[Prefs]) -> None:
    view = memory.bind(session_id="s2", user_id=None)
    assert_type(view, Memory[Prefs])
    assert_type(memory.bind(session_id=None), Memory[Prefs])
    assert_type(memory.bind(user_id="bob"), Memory[Prefs])
    assert_type(await view.profile(), Prefs | None)
    async with memory as entered:
        assert_type(entered, Memory[Prefs])


async def what_save_takes(
    memory: Memory,
    message: Message,
    mapping: Mapping[str, Any],
    typed: UserMessage,
    sdk: BaseModel,
) -> None:
    assert_type(await memory.save({"role": "user", "content": "Hi"}), Turn | None)
    await memory.save([{"role": "user", "content": "Hi"}, message, mapping, typed, sdk])
    await memory.save([typed])
    await memory.save(typed)
    await memory.save(sdk)
    await memory.save((message,))
    await memory.save(each for each in [message])
    await memory.save(message, run_id="r1", usage={"input_tokens": 3})
    await memory.save(message, usage=Usage(input_tokens=3))
    await memory.save(message, usage=None)


async def a_bare_annotation_means_the_default_profile(memory: Memory, context: Context) -> None:
    assert_type(memory, Memory[Profile])
    assert_type(context, Context[Profile])


async def what_the_readers_give(memory: Memory) -> None:
    assert_type(await memory.messages(last=3), list[Message])
    assert_type(await memory.turns(after=1, limit=10), list[Turn])
    assert_type(await memory.summary(), str | None)
    assert_type(await memory.usage(), dict[str, Any])
    session = await memory.session()
    assert_type(session, Session | None)
    if session is not None:
        assert_type(session.jobs, dict[str, JobState])
        assert_type(session.metadata, dict[str, Any])
        assert_type(await memory.sessions(limit=10, before=session), list[Session])
        assert_type(await memory.sessions(before=session.cursor), list[Session])
    assert_type(await memory.set_metadata({"a": 1}), Session)
    assert_type(await memory.delete_session(), bool)
    await memory.forget_user()
    await memory.close()


def what_a_context_holds(context: Context[Prefs]) -> None:
    assert_type(context.messages, list[Message])
    assert_type(context.summary, str | None)
    assert_type(context.metadata, dict[str, Any])
    assert_type(context.instructions, str)
    assert_type(context.dropped, tuple[Turn, ...])
    assert_type(context.to_openai("Be brief."), list[dict[str, Any]])
    assert_type(context.to_openai(system=None), list[dict[str, Any]])


def what_storage_may_be(storage: Storage) -> list[Memory]:
    assert_type(open_storage("memory://"), Storage)
    given: list[str | Storage] = [storage, "memory://", InMemoryStorage(), SqliteStorage("chat.db")]
    return [Memory(each) for each in given]


def what_is_refused(memory: Memory) -> None:
    Memory(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Memory("memory://", user_profile_schema=dict)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    Memory("memory://", user_memory_mode="merge")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Memory("memory://", "s1", "ada", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.bind("s1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    memory.save("Hi")  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
