"""`Turns`: turns as they are read, made into `Turn` objects when one of them is looked at.

Most runs only pass on what was said, and long logs have many turns: objects for each of them, and
Python's garbage collector walking over them, would take longer than reading them does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from memory_async.codec import StoredTurn, put_off, read_turn
from memory_async.errors import CorruptRecordError
from memory_async.records import Turn
from memory_async.stored import Entry

__all__ = ["Turns"]


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
                entries, user_id, usage = read_turn(session_id, row)
            except CorruptRecordError as error:
                skip(error)
                continue
            said += entries
            keep((len(said), user_id, usage, row[0], row[1], row[2]))

    def by_turn(self) -> list[list[Entry]]:
        """What is said in each."""
        ends = [each[0] for each in self._read]
        return [self.entries[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _turns(self) -> list[Turn]:
        if self._made is None:
            self._made = [
                put_off(entries, self._session_id, user_id, usage, (seq, run_id, created_at))
                for entries, (_, user_id, usage, seq, run_id, created_at) in zip(
                    self.by_turn(), self._read, strict=True
                )
            ]
        return self._made

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
