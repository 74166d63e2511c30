"""Rows as the JSON a person can read in the files, and back."""

from __future__ import annotations

import json
from typing import Any

from memory_async.codec import RecordRow, SessionRow, TurnRow

__all__ = [
    "dump_header",
    "dump_record",
    "dump_turn",
    "load_header",
    "load_record",
    "load_turn",
]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _object(fields: dict[str, Any], payload: str | None, *, indent: str = "") -> str:
    """A JSON object whose last member is ``payload``, which is JSON already and stays as it is."""
    members = [f"{_text(name)}:{_text(value)}" for name, value in fields.items()]
    members.append(f'"payload":{"null" if payload is None else payload}')
    between = f",\n{indent}" if indent else ","
    return f"{{{between.join(members)}}}"


def dump_turn(row: TurnRow, more: dict[str, Any]) -> str:
    """One line. ``more`` is what the commit carries besides the turn."""
    usage = None if row.usage is None else json.loads(row.usage)
    fields = {"seq": row.seq, "run_id": row.run_id, "created_at": row.created_at, "usage": usage}
    return _object({**fields, **more}, row.payload)


def load_turn(line: str, seq: int, *, trimmed: bool) -> TurnRow:
    """The turn of a line; one that cannot be read gets a payload that cannot be read either."""
    try:
        data = json.loads(line)
        usage = None if data["usage"] is None else _text(data["usage"])
        payload = None if trimmed or data["payload"] is None else _text(data["payload"])
        return TurnRow(seq, data["run_id"], data["created_at"], usage, payload)
    except (ValueError, KeyError, TypeError, RecursionError):
        return TurnRow(seq, "", 0, None, line[:200] or "?")


def dump_header(row: SessionRow, more: dict[str, Any]) -> str:
    """The text of ``session.json``; ``more`` says how much of the log is in it."""
    fields = row._asdict()
    payload = fields.pop("payload")
    jobs = {
        name: {"through": through, "value": None if value is None else json.loads(value)}
        for name, (through, value) in row.jobs.items()
    }
    return _object({**fields, "jobs": jobs, **more}, payload, indent=" ")


def load_header(data: dict[str, Any]) -> SessionRow:
    jobs = {
        name: (job["through"], None if job["value"] is None else _text(job["value"]))
        for name, job in data["jobs"].items()
    }
    fields = {name: data[name] for name in SessionRow._fields}
    return SessionRow(**{**fields, "jobs": jobs, "payload": _text(data["payload"])})


def dump_record(row: RecordRow) -> str:
    fields = row._asdict()
    return _object(fields, fields.pop("payload"), indent=" ")


def load_record(text: str) -> RecordRow:
    """`ValueError`, `KeyError` or `TypeError` when the text is no record."""
    data = json.loads(text)
    fields = {name: data[name] for name in RecordRow._fields}
    return RecordRow(**{**fields, "tags": tuple(data["tags"]), "payload": _text(data["payload"])})
