"""The one codec between records and what drivers store: a few plain columns and a payload string.
That of a turn is beside it, in `memory_async.turns`.

Drivers never look inside a payload. It is JSON with a format number ``v``; fields this version does
not know are kept (`Record.extra`), so old and new versions can run side by side. What cannot come
back as it was is refused with `PayloadError` before anything is written.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn, TypeAlias

from memory_async.errors import CorruptRecordError, PayloadError, SchemaTooNewError
from memory_async.jsontext import dump_json, load_json
from memory_async.keys import Key, Kind, Partition, check_id, from_micros, to_micros
from memory_async.records import (
    FIELD_NAMES,
    RECORDS,
    JobState,
    Record,
    Requirement,
    Session,
)
from memory_async.stored import (
    build_messages,
    dump_messages,
    load_entries,
    set_now,
)

FORMAT = 1
MAX_TAGS = 4
MAX_TAG_BYTES = 512 + 16  # an id with a word before it
_IDS = ("session_id", "run_id", "requirement_id", "user_id", "agent_id", "document_id")


class TurnRow(NamedTuple):
    """A turn as stored. ``payload`` is None once the turn was trimmed; ``usage`` stays."""

    seq: int
    run_id: str
    created_at: int
    usage: str | None
    payload: str | None


StoredTurn: TypeAlias = tuple[int, str, int, Any, Any]
"""A `TurnRow` as engines give it, of which many are read: as plain as they come. Usage and payload
are JSON, as text or in UTF-8, or what was read from it."""


class SessionRow(NamedTuple):
    """A session header as stored; ``jobs`` maps a job to (through, value as JSON or None)."""

    session_id: str
    user_id: str | None
    agent_id: str | None
    keep_turns: bool
    created_at: int
    updated_at: int
    version: str
    payload: str
    last_seq: int = 0
    trimmed: int = 0
    jobs: Mapping[str, tuple[int, str | None]] = {}


class RecordRow(NamedTuple):
    """Any other record as stored."""

    kind: Kind
    partition: str
    id: str
    user_id: str | None
    status: str | None
    tags: tuple[str, ...]
    created_at: int
    updated_at: int
    expires_at: int | None
    version: str
    payload: str


# --- fields that are more than JSON ---------------------------------------------------------------


def _dump_value(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    return {"json": value}


def _load_value(data: dict[str, Any]) -> Any:
    return base64.b64decode(data["base64"]) if "base64" in data else data["json"]


def _optional(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


_REQUIREMENT = [f.name for f in fields(Requirement) if f.name != "extra"]


def _dump_requirements(requirements: Iterable[Requirement]) -> list[dict[str, Any]]:
    return [
        {**each.extra, **{name: getattr(each, name) for name in _REQUIREMENT}}
        for each in requirements
    ]


def _load_requirements(data: list[dict[str, Any]]) -> list[Requirement]:
    return [
        Requirement(
            **{name: value for name, value in each.items() if name in _REQUIREMENT},
            extra={name: value for name, value in each.items() if name not in _REQUIREMENT},
        )
        for each in data
    ]


_MESSAGES = (dump_messages, lambda data: build_messages(load_entries(data)))
_TIME = (_optional(to_micros), _optional(from_micros))
# Field name -> (to JSON, from JSON); a name means the same in every record.
_SPECIAL: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "messages": _MESSAGES,
    "input": _MESSAGES,
    "requirements": (_dump_requirements, _load_requirements),
    "until": _TIME,
    "forgotten_at": _TIME,
    "partition": (str, Partition.parse),
    "value": (_dump_value, _load_value),
}
# Stored in columns of their own, so left out of the payload.
_COLUMNS = {
    "user_id",
    "status",
    "tags",
    "created_at",
    "updated_at",
    "expires_at",
    "version",
    "extra",
}
_SESSION_PAYLOAD = {"metadata"}
_NO_METADATA = dump_json({"v": FORMAT, "metadata": {}}, "session")
LAST_MICROS = to_micros(datetime.max.replace(tzinfo=UTC))
# What reading a payload that is not ours may raise.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    PayloadError,
)


def _payload(record: Record, names: Iterable[str]) -> str:
    data: dict[str, Any] = {**record.extra, "v": FORMAT}
    for name in sorted(names):
        value = getattr(record, name)
        data[name] = _SPECIAL[name][0](value) if name in _SPECIAL else value
    return dump_json(data, record.kind)


def _parse(payload: str, name: str, *of: object) -> dict[str, Any]:
    """The payload's fields; ``name % of`` says whose they are, should they be unreadable."""
    try:
        data: dict[str, Any] = load_json(payload)
        found = data.pop("v")
    except UNREADABLE as error:
        raise CorruptRecordError(f"cannot read {name % of}: {error!r}") from error
    if found != FORMAT:
        refuse_format(found, name % of)
    return data


def refuse_format(found: object, name: str) -> NoReturn:
    if not isinstance(found, int) or found < FORMAT:
        raise CorruptRecordError(f"cannot read {name}: its format is {found!r}")
    raise SchemaTooNewError(
        f"{name} has format {found!r}, this memory_async knows {FORMAT}: upgrade memory_async"
    )


# --- records --------------------------------------------------------------------------------------


def _check_ids(record: Record) -> None:
    for name in _IDS:
        if (id := getattr(record, name, None)) is not None:
            check_id(name, id)
    record.key.check()
    check_id("version", record.version)


def encode_session(session: Session) -> SessionRow:
    check_id("session_id", session.session_id)
    for name, id in (("user_id", session.user_id), ("agent_id", session.agent_id)):
        if id is not None:
            check_id(name, id)
    check_id("version", session.version)
    # Every append brings a header along, which has none.
    bare = session.metadata == {} and not session.extra
    return SessionRow(
        session.session_id,
        session.user_id,
        session.agent_id,
        session.keep_turns,
        to_micros(session.created_at),
        to_micros(session.updated_at),
        session.version,
        _NO_METADATA if bare else _payload(session, _SESSION_PAYLOAD),
    )


def decode_session(row: SessionRow) -> Session:
    """A header; what few runs look at of it is set when somebody does (`Session._fill`)."""
    data: dict[str, Any]
    if row.payload == _NO_METADATA:
        data = {"metadata": {}}
    else:
        data = _parse(row.payload, "session %r", row.session_id)
    session = object.__new__(Session)
    try:
        for micros in (row.created_at, row.updated_at):
            if not 0 <= micros <= LAST_MICROS:
                from_micros(micros)  # raises, or is before 1970
        jobs = {}
        for name, (through, value) in sorted(row.jobs.items()) if row.jobs else ():
            jobs[name] = JobState(through, None if value is None else load_json(value))
        set_now(session, "metadata", data.pop("metadata"))
    except UNREADABLE as error:
        raise CorruptRecordError(f"cannot read session {row.session_id!r}: {error!r}") from error
    set_now(session, "user_id", row.user_id)
    set_now(session, "jobs", jobs)
    set_now(session, "extra", data)
    set_now(session, "_later", (row,))
    return session


def salvage_session(row: SessionRow) -> Session:
    """A header without what of it cannot be read, so that its history is not hidden too."""
    readable = row._replace(
        jobs={
            name: (through, value if value is not None and _is_json(value) else None)
            for name, (through, value) in row.jobs.items()
        }
    )
    try:
        return decode_session(readable)
    except CorruptRecordError:
        return decode_session(readable._replace(payload=f'{{"v":{FORMAT},"metadata":{{}}}}'))


def _is_json(text: str) -> bool:
    try:
        load_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def encode_record(record: Record) -> RecordRow:
    _check_ids(record)
    key = record.key
    tags = record.index_tags
    if len(tags) > MAX_TAGS:
        raise PayloadError(f"{key} has {len(tags)} tags; at most {MAX_TAGS} are indexed")
    for tag in tags:
        check_id("a tag", tag, MAX_TAG_BYTES)
    expires = getattr(record, "expires_at", None)
    return RecordRow(
        key.kind,
        str(key.partition),
        key.id,
        getattr(record, "user_id", None),
        getattr(record, "status", None),
        tuple(tags),
        to_micros(record.created_at),
        to_micros(record.updated_at),
        None if expires is None else to_micros(expires),
        record.version,
        _payload(record, FIELD_NAMES[key.kind] - _COLUMNS),
    )


def decode_record(row: RecordRow) -> Record:
    key = Key(row.kind, Partition.parse(row.partition), row.id)
    data = _parse(row.payload, "%s", key)
    known = FIELD_NAMES[row.kind]
    try:
        named = {
            name: _SPECIAL[name][1](value) if name in _SPECIAL else value
            for name, value in data.items()
            if name in known
        }
        for name in ("user_id", "status", "tags"):
            if name in known:
                named[name] = getattr(row, name)
        if "expires_at" in known and row.expires_at is not None:
            named["expires_at"] = from_micros(row.expires_at)
        return RECORDS[row.kind](
            **named,
            created_at=from_micros(row.created_at),
            updated_at=from_micros(row.updated_at),
            version=row.version,
            extra={name: value for name, value in data.items() if name not in known},
        )
    except UNREADABLE as error:
        raise CorruptRecordError(f"cannot read {key}: {error!r}") from error
