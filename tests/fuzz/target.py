"""What is fuzzed, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROOM = 96 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """`read` is given bytes made from `sound`, and may raise what is `declared`."""

    name: str
    sound: Sequence[bytes]
    read: Callable[[bytes], object]
    declared: tuple[type[Exception], ...]
    room: int = ROOM
    """Bytes by which the most memory that the process ever had may grow meanwhile."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an input did that it should not have done."""

    target: str
    number: int
    what: str

    def __str__(self) -> str:
        return f'--again "{self.target}" {self.number}: {self.what}'
