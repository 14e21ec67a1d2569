"""How quickly a message arrives: one that trickles, each piece in its time, would never end."""

from __future__ import annotations

RATE_SECONDS = 60.0
"""Seconds of waiting for a message after which it is looked at how much of it has come."""


class Rate:
    """What came of a message within a minute of waiting for it, for one association."""

    __slots__ = ("_arrived", "_begun", "_least", "_waited")

    def __init__(self, least: int) -> None:
        """A message has to bring `least` bytes a minute."""
        self._least = least
        self._begun = False
        self._waited = 0.0
        self._arrived = 0

    def pause(self) -> None:
        """No message has begun: silence before one is no part of it."""
        self._begun = False

    def begin(self) -> None:
        """A message has begun."""
        self._begun, self._waited, self._arrived = True, 0.0, 0

    def suffices(self, count: int, seconds: float) -> bool:
        """Whether it may go on, after `count` bytes that came after a wait of `seconds`."""
        if not self._begun:
            return True
        self._waited += seconds
        self._arrived += count
        if self._waited < RATE_SECONDS:
            return True
        enough = self._arrived >= self._least
        self._waited, self._arrived = 0.0, 0
        return enough
