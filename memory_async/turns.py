"""`Turn`, one completed run, and how it is stored; `Turns`, many as they are read.

A turn that was read becomes an object when somebody looks at it. Most runs only pass on what was
said, and long logs have many turns: objects for each of them, and Python's garbage collector
walking over them, would take longer than reading them does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, NoReturn, overload

from memory_async.codec import (
    FORMAT,
    LAST_MICROS,
    UNREADABLE,
    StoredTurn,
    TurnRow,
    refuse_format,
)
from memory_async.errors import CorruptRecordError, PayloadError
from memory_async.jsontext import dump_json, dump_texts, load_json
from memory_async.keys import (
    Key,
    Kind,
    Partition,
    check_id,
    from_micros,
    new_run_id,
    to_micros,
    utc_now,
)
from memory_async.message import Message
from memory_async.stored import (
    Entry,
    PutOff,
    build_messages,
    dump_entries,
    entries_of,
    load_entries,
    set_now,
)

__all__ = ["Turn", "Turns", "decode_turn", "encode_turn"]

_TRIMMED: dict[str, Any] = {"v": FORMAT, "messages": []}  # what is left of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(PutOff):
    """One completed run: the unit of persistence, append-only.

    ``seq`` counts from 1 within the session and is never reused (0: not stored yet). ``run_id`` is
    the idempotency key: the same run saved twice is stored once. ``user_id`` is the session's
    owner. ``usage`` is whatever numbers the caller reported, e.g. ``{"input_tokens": 12}``.
    """

    kind: ClassVar[Kind] = "turn"

    session_id: str
    messages: list[Message] = field(default_factory=list)
    run_id: str = field(default_factory=new_run_id)
    user_id: str | None = None
    usage: dict[str, Any] | None = None
    created_at: datetime = field(default_factory=utc_now)
    seq: int = 0

    @classmethod
    def of_entries(
        cls,
        entries: list[Entry],
        *,
        session_id: str,
        user_id: str | None,
        usage: dict[str, Any] | None,
        run_id: str,
        seq: int = 0,
        created_at: datetime | None = None,
    ) -> Turn:
        """A new turn whose messages are put off."""
        turn = object.__new__(cls)
        set_now(turn, "session_id", session_id)
        set_now(turn, "user_id", user_id)
        set_now(turn, "usage", usage)
        set_now(turn, "run_id", run_id)
        set_now(turn, "created_at", created_at or utc_now())
        set_now(turn, "seq", seq)
        set_now(turn, "_later", (entries,))
        return turn

    def numbered(self, seq: int) -> Turn:
        """This turn under ``seq``, as the log has it; what is put off stays so."""
        later = self._later
        if later is None or later[1:]:  # nothing is put off, or all of a stored turn
            return replace(self, seq=seq)
        return Turn.of_entries(
            later[0],
            session_id=self.session_id,
            user_id=self.user_id,
            usage=self.usage,
            run_id=self.run_id,
            seq=seq,
            created_at=self.created_at,
        )

    def _fill(self, entries: list[Entry], *stored: Any) -> None:
        set_now(self, "messages", build_messages(entries))
        if stored:
            session_id, user_id, usage, seq, run_id, micros = stored
            set_now(self, "session_id", session_id)
            set_now(self, "run_id", run_id)
            set_now(self, "user_id", user_id)
            set_now(self, "usage", usage)
            set_now(self, "created_at", from_micros(micros))
            set_now(self, "seq", seq)

    @property
    def key(self) -> Key:
        return Key("turn", Partition("session", self.session_id), self.run_id)


def encode_turn(turn: Turn) -> TurnRow:
    check_id("run_id", turn.run_id)
    entries = entries_of(turn)
    plain = {dict}.issuperset(map(type, entries))
    data: dict[str, Any] = {"v": FORMAT, "messages": entries if plain else dump_entries(entries)}
    if turn.user_id is not None:
        data["user_id"] = turn.user_id
    if not isinstance(turn.usage, dict | None):
        raise PayloadError(f"usage is a dict or None, not {turn.usage!r:.100}")
    usage = None if turn.usage is None else dump_json(turn.usage, "usage")
    created = to_micros(turn.created_at)
    dump = dump_texts if plain else dump_json
    return TurnRow(turn.seq, turn.run_id, created, usage, dump(data, "turn"))


def decode_turn(session_id: str, row: StoredTurn) -> Turn:
    """`CorruptRecordError` for what `encode_turn` did not write."""
    return Turns(session_id, [row], _raise)[0]


def _raise(error: CorruptRecordError) -> NoReturn:
    raise error


class Turns(Sequence[Turn]):
    """The turns of ``rows`` that can be read; ``skip`` is told of each other. Equal to a list of
    the same turns."""

    __slots__ = ("_made", "_read", "_session_id", "entries")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        session_id: str,
        rows: Iterable[StoredTurn],
        skip: Callable[[CorruptRecordError], object],
    ) -> None:
        self.entries: list[Entry] = []  # what is said in all of them; not to be changed
        self._session_id = session_id
        # How far entries go, and what else there is to a turn; not what they were read from.
        self._read: list[tuple[int, str | None, Any, int, str, int]] = []
        self._made: list[Turn] | None = None
        said, keep = self.entries, self._read.append
        for row in rows:
            try:
                seq, run_id, created_at, usage, data = row
                if type(data) is not dict:
                    data = _TRIMMED if data is None else load_json(data)
                if data["v"] != FORMAT:
                    refuse_format(data["v"], _name(session_id, row))
                if not 0 <= created_at <= LAST_MICROS:
                    from_micros(created_at)  # raises, or is before 1970
                entries = load_entries(data["messages"])
                if type(usage) in (str, bytes):
                    usage = load_json(usage)
                user_id = data.get("user_id")
            except CorruptRecordError as error:
                skip(error)
            except UNREADABLE as error:
                found = CorruptRecordError(f"cannot read {_name(session_id, row)}: {error!r}")
                found.__cause__ = error
                skip(found)
            else:
                said += entries
                keep((len(said), user_id, usage, seq, run_id, created_at))

    def by_turn(self) -> list[list[Entry]]:
        """What is said in each."""
        ends = [each[0] for each in self._read]
        return [self.entries[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _turns(self) -> list[Turn]:
        if self._made is None:
            self._made = [
                self._put_off(entries, read)
                for entries, read in zip(self.by_turn(), self._read, strict=True)
            ]
        return self._made

    def _put_off(self, entries: list[Entry], read: tuple[Any, ...]) -> Turn:
        turn = object.__new__(Turn)
        set_now(turn, "_later", (entries, self._session_id, *read[1:]))
        return turn

    def __len__(self) -> int:
        return len(self._read)

    @overload
    def __getitem__(self, index: int) -> Turn: ...

    @overload
    def __getitem__(self, index: slice) -> list[Turn]: ...

    def __getitem__(self, index: int | slice) -> Turn | list[Turn]:
        return self._turns()[index]

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Turns):
            other = other._turns()
        return self._turns() == other

    def __repr__(self) -> str:
        return repr(self._turns())


def _name(session_id: str, row: StoredTurn) -> str:
    return f"turn {row[0]} of session {session_id!r}"
