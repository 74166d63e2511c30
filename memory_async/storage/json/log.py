"""`Log`: a session's ``turns.jsonl``, one line a turn. The fsynced line is the commit of a turn and
of what its batch wrote besides; ``session.json`` is the header, with how much of the log is in it.
"""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

from memory_async.codec import SessionRow, TurnRow
from memory_async.errors import CorruptRecordError
from memory_async.storage.batch import AppendOp
from memory_async.storage.driver import Span
from memory_async.storage.json.files import append_line, read_text, write_whole
from memory_async.storage.json.rows import dump_header, dump_turn, load_header, load_turn

__all__ = ["Log"]

BLOCK = 1 << 16
ABSORB = 1 << 16  # bytes of log that may be ahead of session.json


class Log:
    """The log and header of one session, kept in memory while the files are as they were left.

    Used under the partition's lock only.
    """

    def __init__(self, folder: Path) -> None:
        self._turns = folder / "turns.jsonl"
        self._fresh = folder / "turns.jsonl.compact"
        self._session = folder / "session.json"
        self.forget()

    def forget(self) -> None:
        """Know nothing but what the files say."""
        self._seen: tuple[int, int, int] | None = None
        self.header: SessionRow | None = None
        self._end = 0  # of the log, as far as it is in `header`
        self._absorbed = 0  # of the log, as far as it is in session.json
        self._compacted = 0  # turns whose lines hold no messages any more
        self._runs: dict[str, int] | None = None
        self._offsets = array("Q")

    # --- catching up with the files ---

    def refresh(self) -> list[Any]:
        """Read what other processes, or a crash, have left; the writes to redo besides the log."""
        seen = _signature(self._session)
        if seen != self._seen or seen is None:
            self.forget()
            text = read_text(self._session)
            if text is not None:
                self._load(text)
            self._seen = seen
        if _size(self._turns) <= self._end:
            return []
        redo: list[Any] = []
        with self._turns.open("rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn: its batch never was; the next line is written over it
                redo += self._take(line)
        return redo

    def _load(self, text: str) -> None:
        try:
            data = json.loads(text)
            self.header = load_header(data)
            self._end = self._absorbed = data["log_bytes"]
            self._compacted = data["compacted"]
            if data["swap"] and self._fresh.exists():
                self._fresh.replace(self._turns)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptRecordError(f"cannot read {self._session}: {error!r}") from error

    def _take(self, line: bytes) -> list[Any]:
        """Bring the header up to a line of the log; the other writes it carries."""
        offset, seq = self._end, (self.header.last_seq if self.header else 0) + 1
        self._end += len(line)
        try:
            data = json.loads(line)
            run_id, said = data["run_id"], data
        except (ValueError, KeyError, TypeError):
            run_id, said = None, {}  # damaged: it still counts as a turn
        if self._runs is not None:
            self._offsets.append(offset)
            if run_id is not None:
                self._runs[run_id] = seq
        if "session" in said:
            self.header = load_header(said["session"])
        elif self.header is not None:
            jobs = {**dict.fromkeys(said.get("due", ()), (0, None)), **self.header.jobs}
            self.header = self.header._replace(
                last_seq=seq,
                keep_turns=self.header.keep_turns or said.get("keep", False),
                updated_at=max(self.header.updated_at, said.get("created_at", 0)),
                jobs=jobs,
            )
        redo: list[Any] = said.get("writes", [])
        return redo

    # --- writing ---

    def append(self, op: AppendOp, header: SessionRow, writes: list[Any]) -> bool:
        """Commit a turn, with ``header`` as it is after the whole batch and its other ``writes``;
        whether ``session.json`` should follow at once."""
        more: dict[str, Any] = {}
        if self.header is None or not _grown(self.header, header):
            more["session"] = json.loads(dump_header(header, {}))
        else:
            more |= {"due": list(op.due), "keep": op.session.keep_turns}
        if writes:
            more["writes"] = writes
        line = dump_turn(op.turn._replace(seq=header.last_seq), more)
        offset = self._end
        self._end = append_line(self._turns, line, offset)
        if self._runs is not None:
            self._runs[op.turn.run_id] = header.last_seq
            self._offsets.append(offset)
        self.header = header
        return bool(more.get("session") or writes)

    def absorb(self, *, at_once: bool) -> None:
        """Write ``session.json`` when the log is far enough ahead of it, or ``at_once``."""
        if at_once or self._end - self._absorbed > ABSORB:
            self.put(self.header)

    def put(self, header: SessionRow | None, *, swap: bool = False) -> None:
        """Write the header; this commits what it changes."""
        if header is None:
            return
        more = {"log_bytes": self._end, "compacted": self._compacted, "swap": swap}
        write_whole(self._session, dump_header(header, more))
        self.header, self._absorbed = header, self._end
        self._seen = _signature(self._session)

    def compact(self) -> None:
        """Take trimmed messages off the disk, when they are worth the rewriting."""
        header = self.header
        if header is None or header.trimmed <= self._compacted:
            return
        self._index()
        last = len(self._offsets)
        start = self._offsets[header.trimmed] if header.trimmed < last else self._end
        stubs = self._offsets[self._compacted] if self._compacted < last else self._end
        if start - stubs < max(ABSORB, stubs):
            return
        with self._turns.open("rb") as file:
            head = file.read(start).split(b"\n")[:-1]
            rest = file.read(self._end - start)
        lines = [
            dump_turn(load_turn(line.decode(errors="replace"), seq, trimmed=True), {})
            for seq, line in enumerate(head, 1)
        ]
        text = "".join(f"{line}\n" for line in lines) + rest.decode(errors="replace")
        write_whole(self._fresh, text)
        self._end, self._compacted, self._runs = len(text.encode()), header.trimmed, None
        self.put(header, swap=True)
        self._fresh.replace(self._turns)
        self.put(header)

    # --- reading ---

    def seq_of(self, run_id: str) -> int | None:
        self._index()
        return (self._runs or {}).get(run_id)

    def turn(self, seq: int) -> TurnRow:
        rows = self.read(Span(seq - 1, seq + 1, 1, newest=False, trimmed=True))
        return rows[0]

    def read(self, span: Span) -> list[TurnRow]:
        """The turns of a span in order, reading from the end of the file that is nearer."""
        header = self.header
        if header is None:
            return []
        first = (span.after if span.trimmed else max(span.after, header.trimmed)) + 1
        last = header.last_seq if span.before is None else min(span.before - 1, header.last_seq)
        if span.limit is not None:
            if span.newest:
                first = max(first, last - span.limit + 1)
            else:
                last = min(last, first + span.limit - 1)
        if first > last:
            return []
        lines = self._lines(first, last, header.last_seq)
        return [
            load_turn(line.decode(errors="replace"), seq, trimmed=seq <= header.trimmed)
            for seq, line in enumerate(lines, first)
        ]

    def _lines(self, first: int, last: int, newest: int) -> list[bytes]:
        with self._turns.open("rb") as file:
            if self._runs is not None:
                file.seek(self._offsets[first - 1])
                end = self._offsets[last] if last < newest else self._end
                return file.read(end - self._offsets[first - 1]).split(b"\n")[:-1]
            if first - 1 <= newest - last:
                return [file.readline() for _ in range(last)][first - 1 :]
            wanted, blocks, at = newest - first + 1, b"", self._end
            while at > 0 and blocks.count(b"\n") <= wanted:
                step = min(max(BLOCK, len(blocks)), at)
                at -= step
                file.seek(at)
                blocks = file.read(step) + blocks
            lines = blocks.split(b"\n")[:-1]
            return lines[-wanted:][: last - first + 1]

    def _index(self) -> None:
        """Know every run and line: read the whole log once, then keep up with it."""
        if self._runs is not None:
            return
        self._runs, self._offsets = {}, array("Q")
        if self.header is None or self._end == 0:
            return
        offset = 0
        with self._turns.open("rb") as file:
            while offset < self._end:
                line = file.readline()
                self._offsets.append(offset)
                offset += len(line)
                run_id = load_turn(line.decode(errors="replace"), 0, trimmed=True).run_id
                if run_id:
                    self._runs[run_id] = len(self._offsets)


def _grown(old: SessionRow, new: SessionRow) -> bool:
    """Whether ``new`` is what one plain append makes of ``old``."""
    same = ("session_id", "user_id", "agent_id", "created_at", "version", "payload", "trimmed")
    return all(getattr(old, name) == getattr(new, name) for name in same) and all(
        new.jobs.get(name) == state for name, state in old.jobs.items()
    )


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
