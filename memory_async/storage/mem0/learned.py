"""What Mem0 extracts from the turns of a user: memories of that user, apart from those of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from memory_async import codec
from memory_async.codec import RecordRow
from memory_async.keys import Key, utc_now
from memory_async.records import UserProfile
from memory_async.storage.mem0.rows import scope_of
from memory_async.storage.mem0.service import Found, Service
from memory_async.turns import Turn

__all__ = ["Learned"]

FACTS = "facts"  # the trait, which the default profile has too
_ROLES = ("user", "assistant")


class Learned:
    """The memories Mem0 keeps of users, under ``user_id`` "<namespace>/<user>"."""

    def __init__(self, service: Service, namespace: str) -> None:
        self._service = service
        self._namespace = namespace

    async def analyse(self, user_id: str, turns: Sequence[Turn]) -> None:
        for turn in turns:
            said = [
                {"role": message.role, "content": message.text.replace("\0", " ")}
                for message in turn.messages
                if message.role in _ROLES and message.text.strip()
            ]
            if any(message["role"] == "user" for message in said):
                scope = scope_of(self._namespace, user_id)
                await self._service.add(scope, said, {}, infer=True)

    async def unlearn(self, user_id: str) -> None:
        for memory in await self._memories(user_id):
            await self._service.delete(memory.id)

    async def profile(self, key: Key, row: RecordRow | None) -> RecordRow | None:
        """The profile at ``key``, stored as ``row``, with what was learned."""
        memories = await self._memories(key.partition.id)
        if not memories:
            return row
        known = codec.decode_record(row) if row is not None else None
        if not isinstance(known, UserProfile):
            begun = _time(memories[0].created_at)
            known = UserProfile(user_id=key.partition.id, name=key.id, created_at=begun)
        changed = max(known.updated_at, *(_time(each.updated_at) for each in memories))
        facts = list(dict.fromkeys(each.text for each in memories))
        traits = {**known.traits, FACTS: facts}
        return codec.encode_record(replace(known, traits=traits, updated_at=changed))

    async def _memories(self, user_id: str) -> list[Found]:
        found = await self._service.read_all(scope_of(self._namespace, user_id), {})
        return sorted(found, key=lambda each: (each.created_at, each.id))


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return utc_now()
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
