"""Membership: hospitals that take part in the exchange no longer, and again.

Of a hospital that was deactivated nobody asks, and nothing is sent to it; what it has sent stays,
and others see it by the agreements as before.
"""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from exchange import commitment, organizations, registry
from exchange.access import Access
from exchange.policy import Action
from exchange_storage.records import User, UserSession


def deactivate(access: Access, code: str) -> None:
    """Stop a hospital, from this commit on: its systems are refused and are no destinations, its
    users sign in no longer, and its sessions and associations end.

    Raises Refused, for who is not of the region, and NotFound.
    """
    _change(access, code, active=False)


def activate(access: Access, code: str) -> None:
    """Let a hospital that was deactivated take part again, with the systems and users that it has,
    and bring it the reports on its storage commitments that it was owed.

    Raises Refused, for who is not of the region, and NotFound.
    """
    _change(access, code, active=True)


def _change(access: Access, code: str, *, active: bool) -> None:
    access.require_region(detail={"code": code})

    def unit(session: Session) -> None:
        hospital = organizations.by_code(session, code)
        if hospital.active is not active:
            hospital.active, hospital.changed = active, access.now
            if active:
                commitment.resume(session, hospital.id, access.now)
        if not active:
            staff = select(User.id).where(User.organization_id == hospital.id)
            session.execute(delete(UserSession).where(UserSession.user_id.in_(staff)))
        registry.changed(session)
        reason = f"organization {'activated' if active else 'deactivated'}"
        access.note(Action.ADMINISTER, reason=reason, detail={"code": code})

    access.write(unit)
