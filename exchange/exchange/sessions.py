"""Sessions: who has signed in at a browser, by a secret of which the index keeps only the digest.

A session ends by signing out, with the user's account, with its password, after a time without
use, or after its whole lifetime; whatever ends it holds from the next request on.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from exchange import registry
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import Refused
from exchange.policy import Action, Purpose, Role
from exchange.secret_links import digest
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, User, UserSession
from exchange_storage.rows import Columns

NOTED = timedelta(minutes=1)
"""A use is noted so long after the last that was: a page of pictures does not write for each."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session lasts."""

    idle: timedelta
    """Without any request."""
    whole: timedelta
    """However busy it is."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whose session it is."""

    user: User
    organization: Organization | None
    purpose: Purpose


def begin(access: Access, user: User, purpose: Purpose, lifetime: Lifetime) -> str:
    """Sign `user` in, who has just shown to be the requester; returns the secret of 256 bits.

    What has ended by itself is cleared away on the occasion. Raises Refused.
    """
    access.require(Action.AUTHENTICATE)
    if access.requester.role is Role.SYSTEM:
        reason = "a hospital's system does not sign in at a browser"
        access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=reason)
        raise Refused(reason)
    secret = secrets.token_urlsafe(32)

    def unit(session: Session) -> None:
        over = or_(
            UserSession.used <= access.now - lifetime.idle,
            UserSession.began <= access.now - lifetime.whole,
        )
        session.execute(delete(UserSession).where(over))
        made = UserSession(
            user_id=user.id,
            digest=digest(secret),
            purpose=purpose,
            began=access.now,
            used=access.now,
        )
        session.add(made)
        session.flush()
        access.note(
            Action.AUTHENTICATE, reason="signed in at a browser", detail={"session": made.id}
        )

    access.write(unit)
    return secret


def of(access: Access, secret: str, lifetime: Lifetime) -> SignedIn | None:
    """Whose session has this secret; None when it has ended, or never was."""
    row = _HELD.first(
        access.session.connection(),
        {
            "digest": digest(secret),
            "used": access.now - lifetime.idle,
            "began": access.now - lifetime.whole,
        },
    )
    if row is None:
        return None
    held, user, organization = _COLUMNS.records(row)
    if access.now - held.used >= min(NOTED, lifetime.idle / 4):
        # Not by the object: one that was ended meanwhile must not come back.
        used = update(UserSession).where(UserSession.id == held.id).values(used=access.now)
        access.write(lambda session: session.execute(used))
    belongs = organization if user.organization_id is not None else None
    return SignedIn(user, belongs, Purpose(held.purpose))


def end(access: Access, secret: str) -> None:
    """Sign out: the session with this secret is over, if there is one."""

    def unit(session: Session) -> None:
        held = session.scalars(
            select(UserSession).where(UserSession.digest == digest(secret))
        ).one_or_none()
        if held is not None:
            session.delete(held)
            access.note(Action.AUTHENTICATE, reason="signed out", detail={"session": held.id})

    access.write(unit)


_COLUMNS = Columns(UserSession, User, Organization)
_HELD = Prepared(
    select(*_COLUMNS.selected)
    .join(User, User.id == UserSession.user_id)
    .outerjoin(Organization, Organization.id == User.organization_id)
    .where(
        UserSession.digest == bindparam("digest"),
        UserSession.used > bindparam("used"),
        UserSession.began > bindparam("began"),
        registry.MAY_SIGN_IN,
    )
)
