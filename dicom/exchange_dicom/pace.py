"""How much one hospital may do at a time in this process: associations, and instances a second.

No hospital may take the node from the others. Too many associations are rejected as transient, so
that the sender tries again; too many instances are answered later, so that nothing is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from exchange_dicom.association import Association

BURST = 2.0
"""Seconds' worth of instances that may come at once, after a rest."""


class Pace:
    """Counts associations and instances by hospital. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._associations: dict[int, set[Association]] = {}
        self._due: dict[int, float] = {}

    def enter(self, organization: int, limit: int | None, association: Association) -> bool:
        """Count another association of the hospital, unless it has `limit` of them already."""
        with self._lock:
            others = self._associations.setdefault(organization, set())
            if limit is not None and sum(not one.ended for one in others) >= limit:
                return False
            others.add(association)
            return True

    def leave(self, organization: int, association: Association) -> None:
        """An association has ended, and its connection is closed too."""
        with self._lock:
            self._associations[organization].discard(association)

    def pause(self, organization: int, rate: int | None) -> float:
        """Seconds to wait before the next instance is answered, at `rate` instances a second."""
        if not rate:
            return 0.0
        with self._lock:
            now = self._clock()
            due = max(self._due.get(organization, 0.0), now - BURST) + 1.0 / rate
            self._due[organization] = due
        return max(0.0, due - now)
