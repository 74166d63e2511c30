"""Which background jobs a `Memory` has, by its settings."""

from __future__ import annotations

from contextlib import AsyncExitStack

from memory_async.analysis import AnalysisJob, StorageAnalysisJob
from memory_async.indexing import SEARCH_JOB, SearchJob
from memory_async.jobs import Job
from memory_async.model import SupportsClose, as_model
from memory_async.profile import profile_job
from memory_async.settings import Settings
from memory_async.summary import SUMMARY_JOB, SummaryJob

__all__ = ["job_names", "make_jobs"]


def job_names(settings: Settings, user_id: str | None) -> tuple[str, ...]:
    """The jobs a turn of this user registers in its session."""
    names = [SUMMARY_JOB] if settings.summary_memory else []
    if settings.user_analysis_memory and user_id is not None:
        names.append(profile_job(settings.profile_name))
    if settings.search_memory:
        names.append(SEARCH_JOB)
    return tuple(names)


def make_jobs(
    settings: Settings, owned: AsyncExitStack, *, storage_analyses: bool = False
) -> list[Job]:
    """The jobs themselves; what their model has to close goes to ``owned``."""
    jobs: list[Job] = [SearchJob(settings.embed)] if settings.search_memory else []
    if settings.user_analysis_memory and storage_analyses:
        jobs.append(StorageAnalysisJob(settings.profile_name))
    if settings.model is None:
        return jobs
    model = as_model(settings.model)
    if model is not settings.model and isinstance(model, SupportsClose):
        owned.push_async_callback(model.aclose)
    if settings.summary_memory:
        every, prompt = settings.summary_every, settings.summary_prompt
        jobs.append(SummaryJob(model, every=every, prompt=prompt))
    if settings.user_analysis_memory and not storage_analyses:
        jobs.append(
            AnalysisJob(
                model,
                schema=settings.schema,
                profile_name=settings.profile_name,
                mode=settings.user_memory_mode,
                prompt=settings.analysis_prompt,
            )
        )
    return jobs
