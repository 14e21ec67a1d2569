"""What was found that should not be there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What an input did that it should not have done."""

    target: str
    number: int
    what: str

    def __str__(self) -> str:
        return f'--again "{self.target}" {self.number}: {self.what}'
