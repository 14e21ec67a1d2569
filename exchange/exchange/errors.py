"""What the exchange answers instead of what was asked for; every door has an answer for each.

    ExchangeError
    ├── NotAuthenticated   nobody whom the exchange knows
    ├── Refused            known, but the policy says no; carries the reason
    ├── NotFound           nothing is held under that name
    │   └── Gone           it was, and was taken out of use or deleted
    ├── Invalid            what was asked or sent does not make sense
    │   └── UnknownPatient it is about a patient who is not known; carries the row number
    ├── Conflicting        it contradicts what is held, so that it cannot be done
    ├── Stale              what the asker relied on is not so: another version, not one match
    ├── TooBroad           the question would have too many answers
    ├── TooLarge           more than the exchange accepts in one piece
    ├── NoRoom             the object store is full
    └── Unavailable        a part does not answer now; the same may be asked again
        └── Damaged        it is not there whole, until its hospital sends it again

Messages are for the asker: they name the next step and hold no patient data.
"""

from __future__ import annotations


class ExchangeError(Exception):
    """The root of the tree; only its subclasses are raised."""


class NotAuthenticated(ExchangeError):
    """Nobody whom the exchange knows, or a credential that it does not accept."""


class TooManyTries(NotAuthenticated):
    """So many credentials were wrong that nobody looks at another for a while."""


class Refused(ExchangeError):
    """The policy says no. The message is the reason of the decision."""


class NotFound(ExchangeError):
    """Nothing is held under that name."""


class Gone(NotFound):
    """Something was held under that name, and was taken out of use or deleted."""


class Invalid(ExchangeError):
    """What was asked or sent does not make sense; asking it again will not help."""


class UnknownPatient(Invalid):
    """What was sent is about a patient who is not known, or may not be seen."""

    def __init__(
        self, told: str = "a patient that it refers to is not known", *, patient: int = 0
    ) -> None:
        super().__init__(told)
        self.patient = patient
        """The row number that was named."""


class Conflicting(ExchangeError):
    """What was asked contradicts what is held; the message says with what."""


class Stale(ExchangeError):
    """What the asker made a condition is not so: another version is held, or not one match."""


class TooBroad(ExchangeError):
    """The question would have too many answers; ask with a more selective key."""


class TooLarge(ExchangeError):
    """More than the exchange accepts in one piece."""


class NoRoom(ExchangeError):
    """The object store is full; nothing was kept."""


class Unavailable(ExchangeError):
    """A part of the exchange does not answer now; the same may be asked again."""


class Damaged(Unavailable):
    """The object is known not to be what was received: it is there again when it is sent again."""
