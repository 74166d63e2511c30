"""A session as its memories tell it. The header keeps nothing that a turn or a job can tell, so an
append is one memory more, and no write undoes another's."""

from __future__ import annotations

from collections.abc import Iterable

from memory_async.codec import SessionRow, TurnRow
from memory_async.storage.driver import Span
from memory_async.storage.mem0.rows import LOG, Entry, JobRow

__all__ = ["Log"]


class Log:
    """The header (None: no such session), the jobs by name, and the turns in order."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._header: SessionRow | None = None
        self.header_entry: Entry | None = None
        self.jobs: dict[str, Entry] = {}
        self.turns: list[tuple[TurnRow, Entry]] = []
        self.runs: dict[str, TurnRow] = {}  # by key
        self.rest: list[Entry] = []  # what cannot be read, and remains
        for entry in entries:
            self.add(entry)
        # Ties are of writers in several processes at once.
        self.turns.sort(key=lambda each: (each[0].seq, each[0].created_at, each[0].run_id))

    def add(self, entry: Entry) -> None:
        match entry.row:
            case SessionRow() as row:
                self._header, self.header_entry = row, entry
            case JobRow() as row:
                self.jobs[row.name] = entry
            case TurnRow() as row:
                self.turns.append((row, entry))
                self.runs[entry.key] = row
            case None if entry.kind in LOG:
                self.rest.append(entry)

    @property
    def header(self) -> SessionRow | None:
        if self._header is None:
            return None
        rows = [row for row, _ in self.turns]
        return self._header._replace(
            last_seq=self.last_seq,
            trimmed=self.trimmed,
            updated_at=max([self._header.updated_at, *(row.created_at for row in rows)]),
            jobs={name: (row.through, row.value) for name, row in self.job_rows.items()},
        )

    @property
    def job_rows(self) -> dict[str, JobRow]:
        rows = ((name, entry.row) for name, entry in self.jobs.items())
        return {name: row for name, row in rows if isinstance(row, JobRow)}

    @property
    def last_seq(self) -> int:
        return max((row.seq for row, _ in self.turns), default=0)

    @property
    def trimmed(self) -> int:
        return max((row.seq for row, _ in self.turns if row.payload is None), default=0)

    def read(self, span: Span) -> list[TurnRow]:
        start = span.after if span.trimmed else max(span.after, self.trimmed)
        rows = [
            row
            for row, _ in self.turns
            if row.seq > start and (span.before is None or row.seq < span.before)
        ]
        if span.newest and span.limit is not None:
            return rows[max(len(rows) - span.limit, 0) :]
        return rows[: span.limit]
