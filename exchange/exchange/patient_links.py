"""Patients' links: a person has their own study, or a series of it, by a link and a code.

A clinician who may see the study hands the link out, or the desk of the hospital whose it is. The
link, which may be printed, is one thing, its codes are another: each opens it once. Whoever has
opened it is a guest, `policy.Role.GUEST`: what the link leads to is decided at every request, as
for the hospital that has handed it out, and nothing else is there for them.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from exchange import guessing, query, registry, retrieval, secret_links, subject
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import ExchangeError, Gone, Invalid, NotAuthenticated, NotFound, Refused
from exchange.policy import Action, Named, Purpose, Requester, Role
from exchange.secret_links import State, account, digest
from exchange.sessions import NOTED, Lifetime
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Organization,
    Patient,
    PatientLink,
    PatientLinkCode,
    Study,
    User,
)
from exchange_storage.rows import Columns
from exchange_storage.search import Match, Values

E = TypeVar("E", bound=ExchangeError)

OPENINGS = 10
"""So many codes a link has, at most."""

DIGITS = 8
"""Of a code: one in a hundred million."""

WRONG = 10
"""So many wrong codes end a link."""

LISTED = 100
"""Links that are listed, at most: the last."""


@dataclass(frozen=True, slots=True)
class Made:
    """A link, and its secret and codes, which are told this once."""

    link: PatientLink
    secret: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A link as who hands out sees it. Nothing of it says who the patient is."""

    link: PatientLink
    state: State
    openings: int
    opened: int
    maker: User
    study: Study | None


@dataclass(frozen=True, slots=True)
class Known:
    """A guest whose link and code are right, before the link has opened."""

    requester: Requester
    code: int
    """Its row number."""


@dataclass(frozen=True, slots=True)
class Guest:
    """Whose session it is: somebody who has opened a link."""

    link: PatientLink
    organization: Organization

    def asking(self, requester: Requester) -> Requester:
        """The same request, as the guest's."""
        return _guest(requester, self.link)


def make(
    access: Access, study_instance_uid: str, *, series: str = "", days: int = 7, openings: int = 3
) -> Made:
    """A link to a study that the maker may hand out, or to one `series` of it.

    Raises NotFound, Invalid, and Refused with the policy's reason.
    """
    access.require(Action.HAND_OUT, study=study_instance_uid)
    until = secret_links.until(access, days, openings, OPENINGS)
    row = access.session.execute(
        select(Patient, Study)
        .join(Study, Study.patient_id == Patient.id)
        .where(Study.study_instance_uid == study_instance_uid)
    ).one_or_none()
    if row is None:
        raise NotFound(guessing.NO_STUDY)
    about: dict[str, Any] = {"patient": row.Patient.id, "study": study_instance_uid}
    with guessing.to_those_who_know(access, row.Patient, study_instance_uid):
        access.require(Action.HAND_OUT, query.facts(access, row.Patient), **about)
    if not retrieval.is_served(access, row.Study.id, series):
        raise NotFound("no such series")
    maker = account(access)
    hospital = access.organization
    secret = secrets.token_urlsafe(32)
    codes = _codes(openings)

    def unit(session: Session) -> PatientLink:
        made = PatientLink(
            digest=digest(secret),
            study_instance_uid=study_instance_uid,
            series_instance_uid=series,
            maker_id=maker.id,
            organization_id=hospital,
            made=access.now,
            until=until,
        )
        session.add(made)
        session.flush()
        for code in codes:
            session.add(PatientLinkCode(link_id=made.id, digest=_of_code(secret, code)))
        detail = {"link": made.id, "series": series, "days": days, "openings": openings}
        access.note(Action.HAND_OUT, reason="a link made for the patient", detail=detail, **about)
        return made

    return Made(access.write(unit), secret, codes)


def at_desk(
    access: Access, patient_id: str, accession_number: str, *, days: int = 7, openings: int = 3
) -> Made:
    """A link to a study of the asker's own hospital, whose two numbers the patient has shown.

    Raises NotFound, Invalid where several studies have them, and Refused.
    """
    access.require(Action.HAND_OUT, detail={"what": "at the desk"})
    own = (
        select(Study.study_instance_uid)
        .join(Patient, Patient.id == Study.patient_id)
        .where(
            Patient.organization_id == access.organization,
            Patient.patient_id == patient_id,
            search.where([Match("AccessionNumber", Values((accession_number,)))]),
        )
        .limit(2)
    )
    found = access.session.scalars(own).all() if patient_id and accession_number else []
    if not found:
        raise NotFound("your hospital has no study with these two numbers")
    if len(found) > 1:
        raise Invalid("several studies have these two numbers: a clinician makes the link")
    return make(access, found[0], days=days, openings=openings)


def given(access: Access) -> tuple[Listed, ...]:
    """The last links that the asker has made, newest first; of an administrator the hospital's.

    Raises Refused.
    """
    access.require(Action.HAND_OUT, detail={"what": "links"})
    codes = (
        select(
            PatientLinkCode.link_id,
            func.count().label("openings"),
            func.count(PatientLinkCode.opened).label("opened"),
        )
        .group_by(PatientLinkCode.link_id)
        .subquery()
    )
    rows = access.session.execute(
        select(PatientLink, User, Study, codes.c.openings, codes.c.opened)
        .join(User, User.id == PatientLink.maker_id)
        .join(codes, codes.c.link_id == PatientLink.id)
        .outerjoin(Study, Study.study_instance_uid == PatientLink.study_instance_uid)
        .where(_theirs(access))
        .order_by(PatientLink.id.desc())
        .limit(LISTED)
    ).all()
    access.note(Action.HAND_OUT, reason="links listed", detail={"answered": len(rows)})
    return tuple(
        Listed(
            row.PatientLink,
            _state(access, row.PatientLink, used_up=row.opened >= row.openings),
            row.openings,
            row.opened,
            row.User,
            row.Study,
        )
        for row in rows
    )


def revoke(access: Access, number: int) -> None:
    """Take a link back that `given` lists; who has it open sees nothing more from now on.

    Raises Refused, NotFound.
    """
    access.require(Action.HAND_OUT, detail={"link": number})

    def unit(session: Session) -> None:
        link = session.scalars(
            select(PatientLink).where(PatientLink.id == number, _theirs(access))
        ).one_or_none()
        if link is None:
            raise NotFound("you have made no link of this number")
        if link.revoked is None:
            link.revoked = access.now
        access.note(
            Action.HAND_OUT,
            reason="a link taken back",
            **subject.of_study(session, link.study_instance_uid),
            detail={"link": number},
        )

    access.write(unit)


def known(access: Access, secret: str, code: str) -> Known:
    """The guest who has this link and one of its codes, which has opened nothing yet.

    A wrong code is counted. Raises NotAuthenticated, and Gone when the link has ended.
    """
    link = access.session.scalars(
        select(PatientLink)
        .join(User, User.id == PatientLink.maker_id)
        .where(PatientLink.digest == digest(secret), registry.MAY_SIGN_IN)
    ).one_or_none()
    if link is None:
        raise _refused(access, None, NotAuthenticated("the link is not known, or not complete"))
    opened = access.session.scalars(
        select(PatientLinkCode.opened).where(PatientLinkCode.link_id == link.id)
    ).all()
    if _state(access, link, used_up=None not in opened) is not State.OPEN:
        raise _refused(access, link, Gone("the link has ended; ask the hospital for another"))
    typed = "".join(one for one in unicodedata.normalize("NFKC", code) if one.isdecimal())
    held = access.session.scalars(
        select(PatientLinkCode).where(
            PatientLinkCode.link_id == link.id,
            PatientLinkCode.digest == _of_code(secret, typed),
        )
    ).one_or_none()
    if held is None:
        count = update(PatientLink).where(PatientLink.id == link.id)
        access.write(lambda session: session.execute(count.values(wrong=PatientLink.wrong + 1)))
        raise _refused(access, link, NotAuthenticated("the code is wrong"))
    if held.opened is not None:
        raise _refused(access, link, NotAuthenticated("this code was used; take the next one"))
    return Known(_guest(access.requester, link), held.id)


def enter(access: Access, code: int) -> str:
    """Open the link with the code that `known` has found; the secret of the session.

    Raises NotFound and Refused, as the policy decides on what the link leads to, and
    NotAuthenticated when the code was used meanwhile.
    """
    named = access.requester.named
    if named is None:
        raise Refused("only who has a link opens it")
    found = query.study(access, named.study)
    secret = _SIGN + secrets.token_urlsafe(32)

    def unit(session: Session) -> bool:
        opened = session.execute(
            update(PatientLinkCode)
            .where(PatientLinkCode.id == code, PatientLinkCode.opened.is_(None))
            .values(opened=access.now, used=access.now, session=digest(secret))
            .returning(PatientLinkCode.id)
        ).first()
        if opened is not None:
            access.note(
                Action.AUTHENTICATE,
                reason="a patient's link opened",
                patient=found.patient.id,
                study=named.study,
                detail={"code": code},
            )
        return opened is not None

    if not access.write(unit):  # somebody was quicker
        raise NotAuthenticated("this code was used; take the next one")
    return secret


def is_guests(secret: str) -> bool:
    """Whether the secret of a session is of one that `enter` has begun."""
    return secret.startswith(_SIGN)


def of(access: Access, secret: str, lifetime: Lifetime) -> Guest | None:
    """The guest whose session this is; None when it, or the link, has ended."""
    row = _HELD.first(
        access.session.connection(),
        {
            "session": digest(secret),
            "used": access.now - lifetime.idle,
            "began": access.now - lifetime.whole,
            "now": access.now,
        },
    )
    if row is None:
        return None
    code, link, organization = _COLUMNS.records(row)
    if access.now - code.used >= min(NOTED, lifetime.idle / 4):
        # Not by the object: one that was ended meanwhile must not come back.
        used = update(PatientLinkCode).where(PatientLinkCode.id == code.id)
        access.write(lambda session: session.execute(used.values(used=access.now)))
    return Guest(link, organization)


def end(access: Access, secret: str) -> None:
    """The session with this secret is over, if there is one."""
    over = update(PatientLinkCode).where(PatientLinkCode.session == digest(secret))
    access.write(lambda session: session.execute(over.values(session=None)))


def _refused(access: Access, link: PatientLink | None, error: E) -> E:
    """`error`, recorded as a refusal."""
    access.note(
        Action.AUTHENTICATE,
        outcome=Outcome.REFUSED,
        reason=str(error),
        **(subject.of_study(access.session, link.study_instance_uid) if link else {}),
        detail={"link": link.id} if link else {"what": "a patient's link"},
    )
    return error


def _guest(requester: Requester, link: PatientLink) -> Requester:
    return replace(
        requester,
        name=f"link {link.id}",
        role=Role.GUEST,
        organization=link.organization_id,
        purpose=Purpose.PATIENT_REQUEST,
        named=Named(link.study_instance_uid, link.series_instance_uid),
    )


def _state(access: Access, link: PatientLink, *, used_up: bool) -> State:
    return secret_links.state(access, link, used_up=used_up, locked=link.wrong >= WRONG)


def _theirs(access: Access) -> Any:
    """The links that are the asker's to look after."""
    if access.requester.role is Role.ADMINISTRATOR:
        return PatientLink.organization_id == access.organization
    return PatientLink.maker_id == account(access).id


def _codes(count: int) -> tuple[str, ...]:
    """Different ones."""
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes[f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"] = None
    return tuple(codes)


def _of_code(secret: str, code: str) -> str:
    return digest(f"{secret}:{code}")


_SIGN = "link."
"""With this begins the secret of a guest's session: that of a user's has no dot."""

_COLUMNS = Columns(PatientLinkCode, PatientLink, Organization)
_HELD = Prepared(
    select(*_COLUMNS.selected)
    .join(PatientLink, PatientLink.id == PatientLinkCode.link_id)
    .join(User, User.id == PatientLink.maker_id)
    .join(Organization, Organization.id == PatientLink.organization_id)
    .where(
        PatientLinkCode.session == bindparam("session"),
        PatientLinkCode.used > bindparam("used"),
        PatientLinkCode.opened > bindparam("began"),
        PatientLink.revoked.is_(None),
        PatientLink.until > bindparam("now"),
        registry.MAY_SIGN_IN,
    )
)
