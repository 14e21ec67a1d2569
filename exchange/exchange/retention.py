"""How long studies are kept, by hospital and modality; and legal holds, which win over every rule.

Without a rule nothing is deleted. A study has expired when there is a rule for each of its
modalities and the longest of them is over, counted from the day on which it was received. What was
rejected and is kept counts with it, the note that rejected it does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, true, update
from sqlalchemy.orm import Session

from exchange import destruction, jobs, organizations, rejection, subject
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange.sop_classes import KEY_OBJECT_SELECTION
from exchange_storage.records import (
    Conflict,
    Instance,
    LegalHold,
    Organization,
    Patient,
    Rejection,
    RetentionRule,
    Series,
    Study,
)
from exchange_storage.rows import shared

DAYS = 100 * 365
"""Days of the longest rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as a list of them shows it."""

    organization: str
    modality: str
    """"" for any modality that has no rule of its own."""
    days: int


@dataclass(frozen=True, slots=True)
class Expired:
    """A study that no rule keeps any more."""

    row: int
    study_instance_uid: str
    organization: str
    received: datetime
    instances: int
    held: bool
    """Under a legal hold: it stays."""


def set_rule(access: Access, organization: str, modality: str, days: int) -> None:
    """Keep a hospital's studies of a modality ("" for any other) so many days.

    Raises Refused, NotFound, Invalid.
    """
    about = {"code": organization, "modality": modality, "days": days}
    access.require(Action.ADMINISTER, detail=about)
    if not 1 <= days <= DAYS:
        raise Invalid(f"a study is kept 1 to {DAYS} days")
    modality = modality.strip().upper()
    if len(modality) > 16:
        raise Invalid("a modality has at most 16 characters")

    def unit(session: Session) -> None:
        owner = organizations.administered(access, organization, session)
        rule = session.scalars(
            select(RetentionRule).where(
                RetentionRule.organization_id == owner.id, RetentionRule.modality == modality
            )
        ).one_or_none()
        if rule is None:
            rule = RetentionRule(
                organization_id=owner.id, modality=modality, days=days, made=access.now
            )
            session.add(rule)
        rule.days, rule.made = days, access.now
        access.note(Action.ADMINISTER, reason="retention rule set", detail=about)

    access.write(unit)


def remove_rule(access: Access, organization: str, modality: str) -> None:
    """Keep them for ever again. Raises Refused, NotFound."""
    modality = modality.strip().upper()
    about = {"code": organization, "modality": modality}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        owner = organizations.administered(access, organization, session)
        removed = session.execute(
            delete(RetentionRule)
            .where(RetentionRule.organization_id == owner.id, RetentionRule.modality == modality)
            .returning(RetentionRule.id)
        ).all()
        if not removed:
            raise NotFound("this hospital has no such rule; `exchange retention list` shows them")
        access.note(Action.ADMINISTER, reason="retention rule removed", detail=about)

    access.write(unit)


def rules(access: Access) -> Sequence[Rule]:
    """All rules; to a hospital's administrator, its own. Raises Refused."""
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="retention rules listed")
    rows = access.session.execute(
        select(Organization.code, RetentionRule.modality, RetentionRule.days)
        .join(Organization, Organization.id == RetentionRule.organization_id)
        .where(_administered(access))
        .order_by(Organization.code, RetentionRule.modality)
    )
    return [Rule(*row) for row in rows]


def hold(access: Access, study_instance_uid: str, reason: str) -> bool:
    """Place a legal hold on a study, kept already or still to come; returns whether anything of it
    is kept, or waits for review. Raises Refused, Invalid.
    """
    access.require(Action.ADMINISTER, study=study_instance_uid)
    if not re.fullmatch(r"[0-9.]{1,64}", study_instance_uid):
        raise Invalid("a Study Instance UID has 1 to 64 digits and dots")
    if not reason.strip() or len(reason) > 4096:
        raise Invalid("a hold needs a reason of at most 4096 characters: --reason")

    def unit(session: Session) -> bool:
        _own_study(access, session, study_instance_uid)
        session.add(
            LegalHold(
                study_instance_uid=study_instance_uid,
                reason=reason,
                placed_by=access.requester.name,
                placed=access.now,
            )
        )
        about = subject.of_study(session, study_instance_uid)
        access.note(Action.ADMINISTER, reason="hold placed", **about)
        return _has_come(session, study_instance_uid)

    return access.write(unit)


def _has_come(session: Session, study_instance_uid: str) -> bool:
    kept = (
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_instance_uid == study_instance_uid)
    )
    waiting = select(Conflict.id).where(
        Conflict.claimed["StudyInstanceUID"].as_string() == study_instance_uid
    )
    return any(session.scalars(one.limit(1)).first() is not None for one in (kept, waiting))


def lift(access: Access, study_instance_uid: str) -> None:
    """Lift every hold of a study, and delete what was rejected for that and only hidden meanwhile.

    Raises Refused, NotFound.
    """
    access.require(Action.ADMINISTER, study=study_instance_uid)

    def unit(session: Session) -> None:
        _own_study(access, session, study_instance_uid)
        lifted = session.execute(
            update(LegalHold)
            .where(LegalHold.study_instance_uid == study_instance_uid, LegalHold.lifted.is_(None))
            .values(lifted=access.now)
            .returning(LegalHold.id)
        ).all()
        if not lifted:
            raise NotFound("there is no hold on this study; `exchange hold list` shows them")
        about = subject.of_study(session, study_instance_uid)
        access.note(Action.ADMINISTER, reason="hold lifted", **about)
        rejection.hold_lifted(access, session, study_instance_uid)

    access.write(unit)


def holds(access: Access) -> Sequence[LegalHold]:
    """The holds in force, the oldest first; to a hospital's administrator, of its own studies.

    Raises Refused.
    """
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="holds listed")
    wanted = select(LegalHold).where(LegalHold.lifted.is_(None)).order_by(LegalHold.id)
    if (own := access.requester.organization) is not None:
        wanted = wanted.where(LegalHold.study_instance_uid.in_(_studies(own)))
    return access.session.scalars(wanted).all()


def _administered(access: Access) -> ColumnElement[bool]:
    """Whether a rule is of a hospital that the asker administers."""
    own = access.requester.organization
    return true() if own is None else RetentionRule.organization_id == own


def _studies(organization: int) -> Select[str]:
    return (
        select(Study.study_instance_uid)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Patient.organization_id == organization)
    )


def _own_study(access: Access, session: Session, study_instance_uid: str) -> None:
    """Raise NotFound unless the study is of the asker's hospital, or they are the region's."""
    own = access.requester.organization
    if own is None:
        return
    found = _studies(own).where(Study.study_instance_uid == study_instance_uid)
    if session.execute(found).first() is None:
        raise NotFound("this hospital has no such study")


def expired(access: Access, *, limit: int = 1000, free: bool = False) -> Sequence[Expired]:
    """Up to `limit` studies that no rule keeps any more, each hospital's oldest first; with `free`
    only those under no hold, so that those do not stand in the way of others. Raises Refused.
    """
    access.require(Action.DESTROY)
    session = access.session
    days: dict[int, dict[str, int]] = {}
    for rule in session.scalars(select(RetentionRule).where(_administered(access))):
        days.setdefault(rule.organization_id, {})[rule.modality] = rule.days
    found: list[Expired] = []
    count = (
        select(func.count())
        .select_from(Instance)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == Study.id)
        .scalar_subquery()
    )
    held = exists().where(
        LegalHold.study_instance_uid == Study.study_instance_uid, LegalHold.lifted.is_(None)
    )
    for owner, of_modality in sorted(days.items()):
        # What is deleted leaves the row of its study.
        some = exists().where(Instance.series_id == Series.id, Series.study_id == Study.id)
        kept = exists().where(Series.study_id == Study.id, _COUNTS, ~_over(access.now, of_modality))
        wanted = (
            select(Study.id, Study.study_instance_uid, Organization.code, Study.received)
            .add_columns(count, held)
            .join(Patient, Patient.id == Study.patient_id)
            .join(Organization, Organization.id == Patient.organization_id)
            .where(
                Patient.organization_id == owner,
                Study.received < access.now - timedelta(days=min(of_modality.values())),
                some,
                ~kept,
            )
            .order_by(Study.received, Study.id)
            .limit(limit - len(found))
        )
        rows = session.execute(wanted.where(~held) if free else wanted)
        found += [Expired(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]
        if len(found) >= limit:
            break
    return found


_SPEAKS = ~and_(
    Instance.is_primary.is_(False),
    Instance.sop_class_uid == KEY_OBJECT_SELECTION,
    ~exists().where(
        Rejection.sop_instance_uid == Instance.sop_instance_uid,
        Rejection.instance_id == Instance.id,
    ),
)
"""Whether an instance is of its study's modalities: a rejection note, hidden though nobody has
rejected it, is not."""

_BESIDE = shared(Series)
_COUNTS = or_(
    exists().where(Instance.series_id == Series.id, _SPEAKS),
    and_(
        exists().where(Instance.series_id == Series.id),
        ~exists().where(
            Instance.series_id == _BESIDE.id, _BESIDE.study_id == Series.study_id, _SPEAKS
        ),
    ),
)
"""Whether a series has a say in how long its study is kept: there is something in it, and more than
rejection notes if there is in the study."""


def _over(now: datetime, days: dict[str, int]) -> ColumnElement[bool]:
    """Whether the rule for a series is over, in SQL; there has to be one."""
    modality = func.upper(Series.modality)
    named = [one for one in days if one]
    over = [
        and_(modality == one, Study.received < now - timedelta(days=days[one])) for one in named
    ]
    if "" in days:
        other = Study.received < now - timedelta(days=days[""])
        over.append(and_(modality.not_in(named), other))
    return or_(*over)


def destroy(access: Access, study: Expired) -> int:
    """Delete what is kept of an expired study; returns how many instances. Its row stays, so that
    its UID is not another patient's one day.

    What waits for review under the UID of one of its instances goes with it, unless it claims to be
    of a study under a hold. Raises Refused, and Invalid while the study itself is under one.
    """
    access.require(Action.DESTROY, study=study.study_instance_uid)
    if access.requester.organization is not None:
        organizations.administered(access, study.organization)

    def unit(session: Session) -> int:
        destruction.require_no_hold(session, study.study_instance_uid)
        rows = [
            (instance, series)
            for instance, series in session.execute(
                select(Instance, Series.series_instance_uid)
                .join(Series, Series.id == Instance.series_id)
                .where(Series.study_id == study.row)
            )
        ]
        gone = {study.study_instance_uid: rows}
        for claimed, some in _beside(session, study, rows):
            if claimed not in gone and destruction.is_held(session, claimed):
                continue
            gone[claimed] = gone.get(claimed, []) + some
        for uid, some in gone.items():
            destruction.destroy(session, uid, some, reason="retention", at=access.now)
            about = subject.of_study(session, uid)
            access.note(
                Action.DESTROY, reason="retention", **about, detail={"instances": len(some)}
            )
        session.execute(
            update(Study)
            .where(Study.id == study.row)
            .values(changed=access.now, revision=Study.revision + 1)
        )
        jobs.hasten(session, jobs.REFRESH, str(study.row), access.now)
        return sum(len(some) for some in gone.values())

    return access.write(unit)


def _beside(
    session: Session, study: Expired, rows: Sequence[tuple[Instance, str]]
) -> list[tuple[str, list[tuple[Instance, str]]]]:
    """What the same hospital has sent under the same UIDs, or under UIDs of the study that it had
    rejected before, and is not among `rows`: by the study that it claims."""
    known = {instance.id for instance, _ in rows}
    uids: dict[int, set[str]] = {}
    for instance, _ in rows:
        uids.setdefault(instance.organization_id, set()).add(instance.sop_instance_uid)
    for owner, named in uids.items():
        named |= set(
            session.scalars(
                select(Rejection.sop_instance_uid).where(
                    Rejection.organization_id == owner,
                    Rejection.study_instance_uid == study.study_instance_uid,
                )
            )
        )
    return [
        (claimed, new)
        for owner, named in uids.items()
        for claimed, some in destruction.beside(session, owner, named).items()
        if (new := [one for one in some if one[0].id not in known])
    ]
