"""Accidents that happen to bytes, drawn from a seed: the same seed brings the same ones about."""

from __future__ import annotations

import random
from collections.abc import Sequence

LENGTHS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
LONG_LENGTHS = (*LENGTHS, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""What a length is when somebody has miscounted, or means harm."""

LONGEST = 1 << 17
"""Bytes beyond which nothing grows: it is what the bytes say that shall do harm, not how many."""


def changed(sound: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """`sound` after one to five accidents; parts of `others` may get into it."""
    data = bytearray(sound)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        place = _place(data, chance)
        stretch = slice(place, place + chance.choice((1, 1, 2, 4, 8, 40)))
        match chance.randrange(11):
            case 0 | 1:
                data[stretch] = chance.randbytes(len(data[stretch]))
            case 2:
                data[stretch] = chance.choice((b"\0", b"\xff")) * len(data[stretch])
            case 3:
                if place < len(data):
                    data[place] ^= 1 << chance.randrange(8)
            case 4 | 5:
                _overwrite(data, place, chance)
            case 6:
                del data[stretch]
            case 7:
                data[place:place] = data[stretch] * chance.choice((1, 1, 2, 100))
            case 8:
                data[place:place] = chance.randbytes(chance.randint(1, 8))
            case 9:
                other = chance.choice(others)
                start = _place(other, chance)
                data[place:place] = other[start : start + chance.choice((4, 40, 400))]
            case _:
                del data[chance.randrange(len(data) + 1) :]
    return bytes(data[:LONGEST])


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    """Somewhere, mostly early: that is where the structure is."""
    if not data:
        return 0
    if chance.random() < 0.6:
        return min(int(chance.expovariate(1 / 200)), len(data) - 1)
    return chance.randrange(len(data))


def _overwrite(data: bytearray, place: int, chance: random.Random) -> None:
    """A length, or what may be one, becomes another."""
    order = chance.choice(("little", "big"))
    if chance.random() < 0.5:
        data[place : place + 2] = chance.choice(LENGTHS).to_bytes(2, order)  # type: ignore[arg-type]
    else:
        data[place : place + 4] = chance.choice(LONG_LENGTHS).to_bytes(4, order)  # type: ignore[arg-type]
