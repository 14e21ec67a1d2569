"""Callers whom nobody knows: audited one by one at first, then counted.

Who is not known yet must not be able to grow the trail, which is kept for ever and has one writer
at a time. So within a minute only the first refusals of a caller are records of their own; the
others are counted, and one record tells how many they were.
"""

from __future__ import annotations

import threading
from collections import Counter
from time import monotonic
from weakref import WeakKeyDictionary

from exchange.access import Exchange
from exchange.audit import Outcome
from exchange.policy import Action, Requester, Role

OF_NAME = 3
"""Refusals of one name from one address that are records of their own within `WINDOW`."""
OF_ADDRESS = 10
"""The same for all names together from one address."""
OF_ALL = 100
"""The same for everybody together."""
WINDOW = 60.0
"""Seconds."""

NAMED = 10
"""Addresses that are named in the record of those counted: those with the most refusals."""


def record(exchange: Exchange, unknown: Requester, reason: str) -> None:
    """Audit that `unknown` was refused, or count it. Raises Unavailable."""
    settle(exchange)
    if _of(exchange).add(unknown):
        with exchange.on_behalf_of(unknown) as access:
            access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=reason)


def settle(exchange: Exchange) -> None:
    """Audit how many were only counted, once their minute is over. Raises Unavailable.

    A door asks for it with every caller, so that the count does not wait for another refusal.
    """
    window = _of(exchange)
    counted = window.ended()
    try:
        for door in sorted({door for door, _ in counted}):
            _tell(exchange, door, Counter({at: n for (by, at), n in counted.items() if by == door}))
    except BaseException:
        window.take_back(counted)  # rather told late, or twice, than never
        raise


def _tell(exchange: Exchange, door: str, counted: Counter[str]) -> None:
    ourselves = Requester(
        name="exchange", role=Role.EXCHANGE, organization=None, purpose=None, door=door
    )
    told = {"count": counted.total(), "addresses": dict(counted.most_common(NAMED))}
    with exchange.on_behalf_of(ourselves) as access:
        reason = "more were refused than are recorded one by one"
        access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=reason, detail=told)


class _Window:
    """The refusals of one minute. Each process counts by itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = monotonic()
        self._recorded: Counter[tuple[str, ...]] = Counter()
        self._counted: Counter[tuple[str, str]] = Counter()

    def add(self, unknown: Requester) -> bool:
        """Whether this one is a record of its own; else it is counted."""
        whose = ((unknown.address, unknown.name), (unknown.address,), ())
        with self._lock:
            bounds = zip(whose, (OF_NAME, OF_ADDRESS, OF_ALL), strict=True)
            if any(self._recorded[one] >= most for one, most in bounds):
                self._counted[unknown.door, unknown.address] += 1
                return False
            self._recorded.update(whose)
            return True

    def ended(self) -> Counter[tuple[str, str]]:
        """What was counted, by door and address, when the minute is over; then begin a new one."""
        with self._lock:
            if monotonic() - self._since < WINDOW:
                return Counter()
            counted, self._counted = self._counted, Counter()
            self._recorded, self._since = Counter(), monotonic()
            return counted

    def take_back(self, counted: Counter[tuple[str, str]]) -> None:
        """Keep what could not be told for the next time."""
        with self._lock:
            self._counted.update(counted)


_LOCK = threading.Lock()
_WINDOWS: WeakKeyDictionary[Exchange, _Window] = WeakKeyDictionary()


def _of(exchange: Exchange) -> _Window:
    with _LOCK:
        return _WINDOWS.setdefault(exchange, _Window())
