"""Who uses the system that calls: User Identity Negotiation (PS3.7 D.3.3.7).

A passcode, a ticket or a token opens doors: none of them is ever shown.
"""

from __future__ import annotations

from collections.abc import Callable

from exchange.errors import NotAuthenticated
from exchange.policy import Person, Requester
from exchange_dicom.pdu import UserIdentity, UserIdentityType

NAME_LENGTH = 64
"""Characters of a user's name that are recorded."""

Verify = Callable[[UserIdentity, Requester], Person]
"""Says who the user of the calling system is. Raises NotAuthenticated where that is not proved,
Unavailable."""

_NAMES = frozenset({UserIdentityType.USERNAME, UserIdentityType.USERNAME_AND_PASSCODE})
"""Of all kinds, those that say a name as such."""


def unverifiable(_identity: UserIdentity, _system: Requester) -> Person:
    """For a node that knows nobody."""
    raise NotAuthenticated("this kind of user identity cannot be verified here")


def name(identity: UserIdentity) -> str:
    """The user's name as it is recorded, or "" where the identity says none as such."""
    if identity.kind not in _NAMES:
        return ""
    text = identity.primary.decode("utf-8", "replace")[:NAME_LENGTH]
    return "".join(one if one.isprintable() else "?" for one in text)


def claimed(identity: UserIdentity) -> Person | None:
    """The user, as the system says; None where it says no name."""
    return Person(name=found, verified=False) if (found := name(identity)) else None


def told(identity: UserIdentity) -> str:
    """The identity as the log may have it."""
    if identity.kind not in _NAMES:
        return f"a user identity of type {identity.kind}"
    return f"the user {name(identity)!r} (type {identity.kind})"
