"""What a forked child inherits and must not touch: connections, tasks and loops of its parent."""

from __future__ import annotations

__all__ = ["keep"]

_inherited: list[object] = []


def keep(*things: object) -> None:
    """Keep ``things`` from the garbage collector for good. Collecting them would close sockets and
    files, or say goodbye over them, while the parent is still using them."""
    _inherited.extend(things)
