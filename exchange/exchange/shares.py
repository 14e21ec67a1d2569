"""Shares: a clinician refers a colleague to a study, or a series of it, by a link, for a time.

A share gives nobody more than the policy permits them: what the link leads to is decided for
whoever opens it, who is the one colleague it was made for: the series is where to look, and no
fence. Made, opened and taken back, it stands in the trail.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session, aliased

from exchange import facts, policy, query, registry, retrieval, secret_links, subject, visibility
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import Gone, Invalid, NotFound, Refused
from exchange.policy import Action, Deny, Purpose, Requester, Role
from exchange.query import Found
from exchange.secret_links import State, account, digest
from exchange_storage import search
from exchange_storage.records import Organization, Share, User
from exchange_storage.search import Level

OPENINGS = 50
"""So often a link is opened, at most."""

NOTE = 500
"""Characters of what the sharer says."""

COLLEAGUES = 20
"""Colleagues whom one question finds, at most."""

LISTED = 100
"""Shares that are listed, at most: the last."""


@dataclass(frozen=True, slots=True)
class Colleague:
    """A clinician with whom one can share."""

    user: User
    organization: Organization


@dataclass(frozen=True, slots=True)
class Listed:
    """A share as its sharer or its recipient sees it."""

    share: Share
    state: State
    other: Colleague
    """The recipient for the sharer, the sharer for the recipient."""
    found: Found | None
    """The study, where the one who looks may see it."""

    @property
    def note(self) -> str:
        """What the sharer said of it, for who may see it."""
        return self.share.note if self.found is not None else ""


@dataclass(frozen=True, slots=True)
class Made:
    """A share, and the secret of its link, which is told this once."""

    share: Share
    secret: str


def colleagues(access: Access, text: str) -> tuple[Colleague, ...]:
    """Clinicians whose name or sign-in name holds `text`, the asker left out. Raises Refused."""
    access.require(Action.SHARE, detail={"what": "colleagues"})
    told = text.strip()
    if not told or len(told) > 64:
        return ()
    rows = access.session.execute(
        _colleagues()
        .where(
            or_(
                User.display_name.contains(told, autoescape=True),
                User.name.contains(told, autoescape=True),
            ),
            User.name != access.requester.name,
        )
        .order_by(User.display_name, User.name)
        .limit(COLLEAGUES)
    )
    found = tuple(Colleague(row.User, row.Organization) for row in rows)
    access.note(Action.SHARE, reason="colleagues looked for", detail={"answered": len(found)})
    return found


def share(
    access: Access,
    study_instance_uid: str,
    recipient: int,
    *,
    series: str = "",
    note: str = "",
    days: int = 7,
    openings: int = 10,
) -> Made:
    """Refer a colleague, by their row number, to a study that both may see, or a `series` of it.

    Raises NotFound, Invalid, and Refused, also where the policy denies it to the colleague.
    """
    access.require(Action.SHARE, study=study_instance_uid)
    until = secret_links.until(access, days, openings, OPENINGS)
    if len(note) > NOTE:
        raise Invalid(f"a note has at most {NOTE} characters")
    found = query.study(access, study_instance_uid)
    about: dict[str, Any] = {"patient": found.patient.id, "study": study_instance_uid}
    access.require(Action.SHARE, query.facts(access, found.patient), **about)
    if access.requester.purpose is not Purpose.TREATMENT:
        reason = "studies are shared with colleagues for treatment only"
        access.note(Action.SHARE, outcome=Outcome.REFUSED, reason=reason, **about)
        raise Refused(reason)
    if found.study is None or not retrieval.is_served(access, found.study.id, series):
        raise NotFound("no such series")
    sharer = account(access)
    row = access.session.execute(
        _colleagues().where(User.id == recipient, User.id != sharer.id)
    ).one_or_none()
    if row is None:
        raise NotFound("no colleague has this name")
    _permitted(access, row.User, found)
    secret = secrets.token_urlsafe(32)

    def unit(session: Session) -> Share:
        made = Share(
            digest=digest(secret),
            study_instance_uid=study_instance_uid,
            sharer_id=sharer.id,
            recipient_id=recipient,
            purpose=Purpose.TREATMENT,
            note=note,
            made=access.now,
            until=until,
            most=openings,
            series_instance_uid=series,
        )
        session.add(made)
        session.flush()
        detail = {
            "share": made.id,
            "series": series,
            "recipient": row.User.name,
            "days": days,
            "openings": openings,
        }
        access.note(Action.SHARE, reason="shared with a colleague", detail=detail, **about)
        return made

    return Made(access.write(unit), secret)


def open_link(access: Access, secret: str) -> Listed:
    """What the link leads to, for the one colleague it was made for; it is counted.

    Raises NotFound for any other secret and anybody else, Gone when it has ended, Refused.
    """
    access.require(Action.SHARE, detail={"what": "a link"})
    recipient = account(access)
    found = access.session.scalars(
        select(Share).where(Share.digest == digest(secret), Share.recipient_id == recipient.id)
    ).one_or_none()
    if found is None:
        raise NotFound("this link is not for you, or there is no such link")
    about = subject.of_study(access.session, found.study_instance_uid)
    about["detail"] = {"share": found.id}
    if _state(access, found) is not State.OPEN:
        access.note(Action.SHARE, outcome=Outcome.REFUSED, reason="the link has ended", **about)
        raise Gone("the link has ended; ask your colleague for another")
    study = query.study(access, found.study_instance_uid, told=True)  # by the link

    def unit(session: Session) -> bool:
        opened = session.execute(
            update(Share)
            .where(
                Share.id == found.id,
                Share.revoked.is_(None),
                Share.until > access.now,
                Share.opened < Share.most,
            )
            .values(opened=Share.opened + 1, last_opened=access.now)
            .returning(Share.id)
        ).first()
        if opened is not None:
            access.note(Action.SHARE, reason="a shared study opened", **about)
        return opened is not None

    if not access.write(unit):  # somebody was quicker
        raise Gone("the link has ended; ask your colleague for another")
    sharer = access.session.execute(_everybody().where(User.id == found.sharer_id)).one()
    return Listed(found, State.OPEN, Colleague(sharer.User, sharer.Organization), study)


def revoke(access: Access, number: int) -> None:
    """Take one of the asker's own shares back. Raises Refused, NotFound."""
    access.require(Action.SHARE, detail={"share": number})
    sharer = account(access)

    def unit(session: Session) -> None:
        mine = session.scalars(
            select(Share).where(Share.id == number, Share.sharer_id == sharer.id)
        ).one_or_none()
        if mine is None:
            raise NotFound("you have shared nothing under this number")
        if mine.revoked is None:
            mine.revoked = access.now
        access.note(
            Action.SHARE,
            reason="a share taken back",
            **subject.of_study(session, mine.study_instance_uid),
            detail={"share": number},
        )

    access.write(unit)


def given(access: Access) -> tuple[Listed, ...]:
    """The asker's own last shares, the newest first. Raises Refused."""
    return _listed(access, Share.sharer_id, Share.recipient_id)


def received(access: Access) -> tuple[Listed, ...]:
    """What colleagues have shared with the asker, the newest first. Raises Refused."""
    return _listed(access, Share.recipient_id, Share.sharer_id)


def _listed(access: Access, mine: Any, others: Any) -> tuple[Listed, ...]:
    access.require(Action.SHARE, detail={"what": "shares"})
    user, other, organization = account(access), aliased(User), aliased(Organization)
    rows = access.session.execute(
        select(Share, other, organization)
        .join(other, other.id == others)
        .join(organization, organization.id == other.organization_id)
        .where(mine == user.id)
        .order_by(Share.id.desc())
        .limit(LISTED)
    ).all()
    access.note(Action.SHARE, reason="shares listed", detail={"answered": len(rows)})
    studies = _studies(access, [row[0].study_instance_uid for row in rows])
    return tuple(
        Listed(
            row[0],
            _state(access, row[0]),
            Colleague(row[1], row[2]),
            studies.get(row[0].study_instance_uid),
        )
        for row in rows
    )


def _studies(access: Access, uids: Sequence[str]) -> Mapping[str, Found]:
    """Those of the studies that the asker may see."""
    wanted = tuple(dict.fromkeys(uids))
    if not wanted:
        return {}
    answer = query.find(
        access,
        Level.STUDY,
        [search.Match("StudyInstanceUID", search.Values(wanted))],
        limit=len(wanted),
        asked="shares",
    )
    return {one.study.study_instance_uid: one for one in answer.found if one.study is not None}


def _permitted(access: Access, recipient: User, found: Found) -> None:
    """Raises Refused where the policy would deny the study to the recipient."""
    asker = Requester(
        name=recipient.name,
        role=Role(recipient.role),
        organization=recipient.organization_id,
        purpose=Purpose.TREATMENT,
    )
    of_patient = facts.of(
        access.session, visibility.parameters(asker, access.now), [found.patient.id]
    )[found.patient.id]
    decision = policy.decide(asker, Action.RETRIEVE, of_patient)
    if isinstance(decision, Deny):
        access.note(
            Action.SHARE,
            outcome=Outcome.REFUSED,
            reason=decision.reason,
            patient=found.patient.id,
            study=found.study.study_instance_uid if found.study else "",
            detail={"recipient": recipient.name},
        )
        raise Refused(f"your colleague may not see it: {decision.reason}")


def _state(access: Access, one: Share) -> State:
    return secret_links.state(access, one, used_up=one.opened >= one.most)


def _everybody() -> Any:
    return select(User, Organization).join(Organization, Organization.id == User.organization_id)


def _colleagues() -> Any:
    return _everybody().where(registry.MAY_SIGN_IN, User.role == Role.CLINICIAN)
