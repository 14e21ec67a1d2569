"""Rejected instances: taken out of use by their hospital's own note (IHE RAD TF-3 4.66, IOCM).

A rejected instance stays where it is and is no longer primary, so that nothing finds or serves it;
what is sent again under its UID is kept and not served either. A rejection can be withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import bindparam, insert, literal, select, update
from sqlalchemy.orm import Session

from exchange import audit, jobs, organizations
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange_storage.prepared import Prepared
from exchange_storage.records import Change, Instance, Rejection, Series, Study

REFERENCES = 20_000
"""Instances that one note may reject."""

CODES: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Document titles of rejection notes (DCM, PS3.16 CID 7011)."""

_REJECTED = Prepared(
    select(literal(1))
    .select_from(Rejection)
    .where(
        Rejection.sop_instance_uid == bindparam("uid"),
        Rejection.organization_id == bindparam("organization"),
        Rejection.withdrawn.is_(None),
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Note:
    """A rejection note: why, and which instances, as (study, SOP Instance UID)."""

    code: str
    references: tuple[tuple[str, str], ...]


def is_rejected(session: Session, organization: int, sop_instance_uid: str) -> bool:
    """Whether the hospital has rejected its instance of this UID, come or not."""
    given = {"uid": sop_instance_uid, "organization": organization}
    return _REJECTED.first(session.connection(), given) is not None


def apply(access: Access, session: Session, note: Note, note_uid: str) -> int:
    """Reject what `note` names, in the transaction that keeps the note; returns how many it hid.

    Another hospital's instances are not touched, and that it was tried is recorded. Raises Invalid.
    """
    if note.code not in CODES:
        raise Invalid("not a code of a rejection note")
    if len(note.references) > REFERENCES:
        raise Invalid(f"a rejection note names at most {REFERENCES} instances")
    now = datetime.now(UTC)
    hidden = 0
    foreign = 0
    for study_uid, uid in dict.fromkeys(note.references):
        found = session.execute(
            select(Instance.id, Instance.organization_id).where(
                Instance.sop_instance_uid == uid, Instance.is_primary
            )
        ).one_or_none()
        if found is not None and found.organization_id != access.organization:
            foreign += 1
            continue
        known = select(Rejection.id).where(
            Rejection.organization_id == access.organization,
            Rejection.sop_instance_uid == uid,
            Rejection.note_sop_instance_uid == note_uid,
        )
        if session.scalars(known).first() is None:
            session.add(
                Rejection(
                    organization_id=access.organization,
                    study_instance_uid=study_uid[:64],
                    sop_instance_uid=uid,
                    instance_id=found.id if found is not None else None,
                    code=note.code,
                    note_sop_instance_uid=note_uid,
                    rejected=now,
                )
            )
        if found is not None:
            session.flush()
            _serve(session, found.id, False, now, "reject")
            hidden += 1
    session.flush()
    access.note(
        Action.REJECT,
        reason=CODES[note.code],
        study=note.references[0][0] if note.references else "",
        detail={"note": note_uid, "instances": hidden},
    )
    if foreign:
        access.note(
            Action.REJECT,
            outcome=audit.Outcome.REFUSED,
            reason="instances of another hospital",
            detail={"note": note_uid, "instances": foreign},
        )
    return hidden


def reject(access: Access, organization: str, code: str, uids: Sequence[str]) -> int:
    """Reject a hospital's instances by command. Raises Refused, NotFound, Invalid."""
    access.require(Action.ADMINISTER, detail={"code": organization})

    def unit(session: Session) -> int:
        if code not in CODES:
            raise Invalid(f"the code is one of {', '.join(CODES)}")
        owner = organizations.by_code(session, organization).id
        hidden = 0
        for uid in uids:
            row = session.execute(
                select(Instance.id, Study.study_instance_uid)
                .join(Series, Series.id == Instance.series_id)
                .join(Study, Study.id == Series.study_id)
                .where(
                    Instance.sop_instance_uid == uid,
                    Instance.is_primary,
                    Instance.organization_id == owner,
                )
            ).one_or_none()
            if row is None:
                raise NotFound("this hospital has no such instance in use")
            session.add(
                Rejection(
                    organization_id=owner,
                    study_instance_uid=row.study_instance_uid,
                    sop_instance_uid=uid,
                    instance_id=row.id,
                    code=code,
                    note_sop_instance_uid=f"command {access.now:%Y%m%d%H%M%S%f}"[:64],
                    rejected=access.now,
                )
            )
            session.flush()
            _serve(session, row.id, False, access.now, "reject")
            access.note(Action.REJECT, reason=CODES[code], study=row.study_instance_uid)
            hidden += 1
        return hidden

    return access.write(unit)


def restore(access: Access, organization: str, uid: str) -> None:
    """Withdraw every rejection of an instance: it is served again. Raises Refused, NotFound.

    Raises Invalid when another instance has taken its place meanwhile.
    """
    access.require(Action.ADMINISTER, detail={"code": organization})

    def unit(session: Session) -> None:
        owner = organizations.by_code(session, organization).id
        mine = (
            Rejection.organization_id == owner,
            Rejection.sop_instance_uid == uid,
            Rejection.withdrawn.is_(None),
        )
        rejections = session.scalars(select(Rejection).where(*mine)).all()
        if not rejections:
            raise NotFound("this hospital has not rejected such an instance")
        taken = select(Instance.id).where(Instance.sop_instance_uid == uid, Instance.is_primary)
        if session.scalars(taken).first() is not None:
            raise Invalid("another instance has this UID now: it would have to be rejected first")
        session.execute(update(Rejection).where(*mine).values(withdrawn=access.now))
        row = next((one.instance_id for one in rejections if one.instance_id is not None), None)
        if row is not None:
            _serve(session, row, True, access.now, "restore")
        access.note(
            Action.REJECT, reason="withdrawn", study=rejections[0].study_instance_uid,
            detail={"instance": uid},
        )  # fmt: skip

    access.write(unit)


def _serve(session: Session, instance: int, primary: bool, at: datetime, action: str) -> None:
    """Have an instance be primary or not; the study, its documents and the change feed follow."""
    session.execute(update(Instance).where(Instance.id == instance).values(is_primary=primary))
    row = session.execute(
        select(Study.id, Study.study_instance_uid, Series.series_instance_uid, Instance)
        .select_from(Instance)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Instance.id == instance)
    ).one()
    session.execute(
        update(Study).where(Study.id == row.id).values(changed=at, revision=Study.revision + 1)
    )
    session.execute(
        insert(Change).values(
            recorded=at,
            action=action,
            instance_id=instance,
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_instance_uid=row.Instance.sop_instance_uid,
        )
    )
    jobs.ask(session, jobs.REFRESH, str(row.id), at)
