"""Forgetting a user: marked first, so that a crash can be finished, and no job brings them back."""

from __future__ import annotations

from dataclasses import replace

from memory_async.errors import ConflictError
from memory_async.keys import Key, Partition, new_version, to_micros
from memory_async.profile import profile_of
from memory_async.records import RECORDS, Session, UserProfile
from memory_async.storage.protocol import (
    ABSENT,
    Delete,
    Drop,
    Put,
    Storage,
    SupportsAnalysis,
)

__all__ = ["delete_session", "finish_forgetting", "forget_user"]

PAGE = 500


async def forget_user(storage: Storage, user_id: str, profile_name: str) -> None:
    """Drop everything of the user, one `apply` per partition; leaves a tombstone without traits.

    Idempotent: calling again finishes what a crash interrupted. Sessions that begin after the mark
    are a new start and stay.
    """
    for mark in await _mark(storage, user_id, profile_name):
        await finish_forgetting(storage, mark)


async def finish_forgetting(storage: Storage, mark: UserProfile) -> None:
    """Drop what ``mark``, a tombstone, still names; what was begun after it stays."""
    kinds = sorted(RECORDS.keys() - {"profile", "session"})
    drops = [Drop(mark.key.partition, kind) for kind in kinds]
    while True:
        for session_id, created_at in mark.forgetting.items():
            await _drop_marked(storage, session_id, created_at)
        if isinstance(storage, SupportsAnalysis) and storage.analyses_users:
            await storage.unlearn(mark.user_id)
        done = replace(mark, forgetting={}, version=new_version())
        try:
            await storage.apply(Put(done, mark.version), *drops)
        except ConflictError:
            # Another worker finished it, or the user has come back since: both need no more.
            stored = await storage.get(mark.key)
            if not (isinstance(stored, UserProfile) and stored.forgetting):
                return
            mark = stored
        else:
            return


async def delete_session(storage: Storage, session: Session) -> bool:
    """Drop a session with all that belongs to it; False when it is no longer the one given."""
    while True:
        try:
            await storage.apply(Delete(session.key, session.version), Drop(session.key.partition))
        except ConflictError:
            stored = await storage.get(session.key)
            if not isinstance(stored, Session) or stored.created_at != session.created_at:
                return False
            session = stored  # only its metadata has changed
        else:
            return True


async def _mark(storage: Storage, user_id: str, profile_name: str) -> list[UserProfile]:
    """Write tombstones over the user's profiles. Each names the sessions to drop: a job looks at
    the one of the profile it learns."""
    partition = Partition("user", user_id)
    while True:
        now = await storage.now(partition)  # before looking: what is not found then is newer
        sessions, learning = await _sessions_of(storage, user_id)
        found = await storage.find("profile", partition, limit=PAGE)
        profiles = {each.name: each for each in found if isinstance(each, UserProfile)}
        tombstones = {}
        for name in {profile_name, *profiles, *learning}:
            base = profiles.get(name) or UserProfile(user_id=user_id, name=name, created_at=now)
            tombstones[name] = replace(
                base,
                traits={},
                applied={},
                forgotten_at=now,
                forgetting={**base.forgetting, **sessions},
                updated_at=now,
                version=new_version(),
            )
        versions = {name: each.version for name, each in profiles.items()}
        try:
            await storage.apply(
                *(Put(each, versions.get(name, ABSENT)) for name, each in tombstones.items())
            )
        except ConflictError:
            continue  # a profile was written meanwhile: look again
        return list(tombstones.values())


async def _sessions_of(storage: Storage, user_id: str) -> tuple[dict[str, int], set[str]]:
    """The user's sessions, and the profiles their jobs learn: one may be about to be written."""
    sessions: dict[str, int] = {}
    profiles: set[str] = set()
    before = None
    while page := await storage.find("session", user_id=user_id, before=before, limit=PAGE):
        for session in page:
            if isinstance(session, Session):
                sessions[session.session_id] = to_micros(session.created_at)
                profiles |= {name for job in session.jobs if (name := profile_of(job))}
        before = page[-1].cursor
    return sessions, profiles


async def _drop_marked(storage: Storage, session_id: str, created_at: int) -> None:
    session = await storage.get(Key("session", Partition("session", session_id), session_id))
    if isinstance(session, Session) and to_micros(session.created_at) == created_at:
        await delete_session(storage, session)
