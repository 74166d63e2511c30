"""The job that keeps a session's summary: previous summary and new turns in, next summary out."""

from __future__ import annotations

from collections.abc import Sequence

from memory_async.errors import ModelError
from memory_async.model import Model, ask
from memory_async.records import Session
from memory_async.storage.protocol import Advance, Storage
from memory_async.transcript import take, turn_text
from memory_async.turns import Turn

__all__ = ["SUMMARY_JOB", "SummaryJob", "summary_of"]

SUMMARY_JOB = "summary"

PROMPT = """\
You keep the running summary of a conversation between a user and an assistant. You are given the
summary so far and the turns since. Write the new summary: it replaces the old one and is all that
later turns will know of this conversation. Keep names, facts, numbers, dates, decisions, promises
and open questions; drop small talk and what no longer holds. Write plain prose in the language of
the conversation, at most 300 words. Answer with the summary only."""


class SummaryJob:
    """Due when ``every`` turns have come since the summary."""

    name = SUMMARY_JOB
    idle: float | None = None

    def __init__(self, model: Model, *, every: int = 1, prompt: str | None = None) -> None:
        self.every = every
        self._model = model
        self._prompt = prompt or PROMPT

    async def step(self, storage: Storage, session: Session, turns: Sequence[Turn]) -> bool:
        """Take the first of ``turns`` into the summary. `ConflictError` when somebody else did."""
        state = session.jobs[self.name]
        text, through = take(turns, turn_text)
        summary = state.value
        if text:
            said = f"Summary so far:\n{summary or '(none yet)'}\n\nNew turns:\n{text}"
            messages = [
                {"role": "system", "content": self._prompt},
                {"role": "user", "content": said},
            ]
            summary = await ask(self._model, messages, check=_check)
        await storage.apply(
            Advance(
                session.session_id,
                self.name,
                state.through,
                through,
                summary,
                created_at=session.created_at,
            )
        )
        return True


def summary_of(session: Session | None) -> str | None:
    """The summary in a session's header."""
    job = session.jobs.get(SUMMARY_JOB) if session is not None else None
    return job.value if job is not None else None


def _check(answer: str) -> str:
    if not answer.strip():
        raise ModelError("the model answered an empty summary")
    return answer.strip()
