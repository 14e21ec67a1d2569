"""What a hospital's associations are held to: how many, how fast, and who must be named in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from exchange import organizations, users
from exchange.access import Access, Exchange
from exchange.errors import Invalid
from exchange.policy import Action, Requester
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization


class UserIdentity(StrEnum):
    """What is done with the user whom an association names (DICOM PS3.7 D.3.3.7)."""

    OFF = "off"
    """Nothing: nobody looks at it."""
    LOG = "log"
    """The name stands in the log and in the audit trail, as what the system says."""
    REQUIRE = "require"
    """An association is for a user of the hospital's who has proved who they are, or is refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a hospital may do at a time in one process; None for no limit of its own."""

    associations: int | None = None
    rate: int | None = None
    """Instances a second."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a hospital's associations are held to."""

    limits: Limits = field(default_factory=Limits)
    user_identity: UserIdentity = UserIdentity.LOG


_OF_HOSPITAL = Prepared(
    select(
        Organization.association_limit, Organization.rate_limit, Organization.user_identity
    ).where(Organization.id == bindparam("organization"))
)


def of(exchange: Exchange, requester: Requester) -> Admission:
    """What holds for the hospital for which the requester acts. Raises Unavailable."""
    with exchange.on_behalf_of(requester) as access:
        given = {"organization": requester.organization}
        row = _OF_HOSPITAL.first(access.session.connection(), given)
    if row is None:
        return Admission()
    return Admission(Limits(row.association_limit, row.rate_limit), UserIdentity(row.user_identity))


def again(
    exchange: Exchange, known: Requester, certificate_fingerprint: str = ""
) -> Requester | None:
    """Who is at the other end of an association that has begun as `known`'s, as it is registered
    now; None, which is recorded, where that is not the hospital's system any more, or the user who
    has proved who they are may not sign in.

    Raises Unavailable.
    """
    found = organizations.caller(exchange, known.name, known.address, certificate_fingerprint)
    if found is None:
        return None
    found = replace(found, person=known.person)
    if found.organization != known.organization:
        reason = "the association is not this hospital's any more"
    elif not _may_go_on(exchange, found):
        reason = "the user of the association may not sign in any more"
    else:
        return found
    organizations.refused(exchange, known.name, known.address, reason)
    return None


def _may_go_on(exchange: Exchange, known: Requester) -> bool:
    if known.person is None or not known.person.verified:
        return True
    with exchange.on_behalf_of(known) as access:
        user = users.standing(access, known.person.name)
    return user is not None and user.organization_id == known.organization


def held_to(access: Access, code: str) -> Admission:
    """What the hospital with this code is held to, for who administers it. Raises Refused,
    NotFound."""
    access.require(Action.ADMINISTER)
    return stated(organizations.administered(access, code))


def stated(hospital: Organization) -> Admission:
    """What a hospital's row says that it is held to."""
    return Admission(
        Limits(hospital.association_limit, hospital.rate_limit),
        UserIdentity(hospital.user_identity),
    )


def limit(access: Access, code: str, limits: Limits) -> None:
    """Set a hospital's limits, from its next association on. Raises Refused, NotFound, Invalid."""
    about = {"code": code, "associations": limits.associations, "rate": limits.rate}
    access.require(Action.ADMINISTER, detail=about)
    if any(
        one is not None and not 0 < one < 1_000_000 for one in (limits.associations, limits.rate)
    ):
        raise Invalid("a limit is a number from 1 to 999999")

    def unit(session: Session) -> None:
        organization = organizations.administered(access, code, session)
        organization.association_limit = limits.associations
        organization.rate_limit = limits.rate
        access.note(Action.ADMINISTER, reason="limits set", detail=about)

    access.write(unit)


def name_users(access: Access, code: str, rule: UserIdentity) -> None:
    """Say what is done with users whom a hospital's associations name, from the next one on.

    Raises Refused, NotFound.
    """
    about = {"code": code, "user identity": rule}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        organizations.administered(access, code, session).user_identity = rule
        access.note(Action.ADMINISTER, reason="user identity set", detail=about)

    access.write(unit)
