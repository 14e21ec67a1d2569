"""Log lines that are alike, at most one a minute: it says how many were left out before it.

What goes wrong once goes wrong for every instance that a hospital sends, hundreds of times a
second: a full disk must not be made fuller by a log that says so, nor must all else be lost in it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

PAUSE = 60.0
"""Seconds before a line that is like another is told again."""

KINDS = 1000
"""Kinds of lines that are remembered."""


class Throttle(logging.Filter):
    """Holds back warnings and errors that are like one of the last minute.

    Alike are lines of one logger with the same words and values, and an exception from the same
    place; or for which it was said (``extra={"alike": …}``) what they have in common.
    """

    def __init__(self, place: Callable[[BaseException], str], *, pause: float = PAUSE) -> None:
        super().__init__()
        self._place = place
        self._pause = pause
        self._lock = threading.Lock()
        self._told: dict[Hashable, tuple[float, int]] = {}
        """When each kind was told last, and how many were held back since."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Observations of our own are no text, and each is told: what comes often is only counted.
        if record.levelno < logging.WARNING or not isinstance(record.msg, str):
            return True
        raised = record.exc_info[1] if record.exc_info else None
        alike: Any = getattr(record, "alike", None) or record.getMessage()
        kind = (record.name, record.levelno, alike, self._place(raised) if raised else "")
        now = time.monotonic()
        with self._lock:
            at, held = self._told.get(kind, (-self._pause, 0))
            if now - at < self._pause:
                self._told[kind] = at, held + 1
                return False
            if len(self._told) >= KINDS:
                self._forget(now)
            self._told[kind] = now, 0
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like it before)", None
        return True

    def _forget(self, now: float) -> None:
        recent = {kind: told for kind, told in self._told.items() if now - told[0] < self._pause}
        self._told = recent if len(recent) < KINDS else {}
