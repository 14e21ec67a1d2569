"""Rejected instances: taken out of use by their hospital's own note (IHE RAD TF-3 4.66, IOCM).

A rejected instance is no longer primary, so that nothing finds or serves it. What becomes of it,
and of what is sent again under its UID, depends on why it was rejected: see `BEHAVIOURS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import NoReturn

from sqlalchemy import ColumnElement, and_, bindparam, exists, insert, or_, select, update
from sqlalchemy.orm import Session

from exchange import (
    audit,
    destruction,
    guessing,
    jobs,
    organizations,
    otherwise,
    retrieval,
    subject,
)
from exchange.access import Access
from exchange.errors import Gone, Invalid, NotFound, Refused, TooLarge
from exchange.policy import Action
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Change,
    Instance,
    Patient,
    Rejection,
    Series,
    Study,
)
from exchange_storage.rows import shared

REFERENCES = 20_000
"""Instances that one note may reject."""

REJECTED_BEFORE = "the hospital has rejected this instance"
"""Why an instance that comes after its rejection is kept for review."""

NOTHING = "nothing is in use under this name; nothing was rejected"

CODES: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Document titles of rejection notes (DCM, PS3.16 CID 7011)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What one kind of rejection means for the instances that a note names."""

    deletes: bool = False
    """Whether they are deleted, unless a legal hold keeps them; else they are kept and hidden."""
    again: bool = False
    """Whether what is sent under their UIDs afterwards is taken as new; else it is kept, hidden."""
    explained: bool = False
    """Whether it is withdrawn only with a reason, which is audited."""


BEHAVIOURS: Mapping[str, Behaviour] = {
    "113001": Behaviour(),
    "113037": Behaviour(explained=True),
    "113038": Behaviour(),
    "113039": Behaviour(deletes=True, again=True),
}
"""By document title: poor images may turn out to be the only ones; unsafe ones (of another patient,
of the wrong side) come back only with a reason; those of a wrong worklist entry are sent corrected
under new UIDs; what no policy keeps is deleted."""

REJECTED = exists().where(
    Rejection.sop_instance_uid == bindparam("uid"),
    Rejection.organization_id == bindparam("organization"),
    Rejection.withdrawn.is_(None),
    *(Rejection.code != code for code, one in BEHAVIOURS.items() if one.again),
)
"""Whether the hospital `organization` has rejected its instance `uid` for good, come or not."""

_REJECTED = Prepared(select(REJECTED))

OTHER = shared(Instance)
"""An instance beside the one that a condition is about."""

IN_FORCE = and_(
    Rejection.withdrawn.is_(None),
    or_(
        Rejection.code.not_in([code for code, one in BEHAVIOURS.items() if one.again]),
        Rejection.instance_id.is_not(None),
        ~exists().where(
            OTHER.sop_instance_uid == Rejection.sop_instance_uid,
            OTHER.organization_id == Rejection.organization_id,
            OTHER.received > Rejection.rejected,
        ),
    ),
)
"""Whether a rejection still says anything: not of what was deleted and came anew since."""

BATCH = 500
"""Instances of one statement."""


@dataclass(frozen=True, slots=True)
class Note:
    """A rejection note: why, and which instances, as (study, SOP Instance UID)."""

    code: str
    references: tuple[tuple[str, str], ...]
    classes: Mapping[str, str] = field(default_factory=dict)
    """The SOP Class UIDs that it gives, by SOP Instance UID."""


def is_rejected(session: Session, organization: int, sop_instance_uid: str) -> bool:
    """Whether the hospital has rejected its instance of this UID for good, come or not."""
    given = {"uid": sop_instance_uid, "organization": organization}
    return bool(_REJECTED.number(session.connection(), given))


def is_note(session: Session, organization: int, sop_instance_uid: str) -> bool:
    """Whether this is a rejection note of the hospital's that was followed."""
    found = select(Rejection.id).where(
        Rejection.organization_id == organization,
        Rejection.note_sop_instance_uid == sop_instance_uid,
    )
    return session.scalars(found.limit(1)).first() is not None


def apply(access: Access, session: Session, note: Note, note_uid: str) -> int:
    """Reject what `note` names, in the transaction that keeps the note; returns how many it hid.

    The note itself is not served either: it goes to where the images have gone (`deliveries`).
    Another hospital's instances are not touched, and that it was tried is recorded. Raises Invalid,
    also where one of its hospital's has another SOP class or study than it says: then it is in
    doubt which is meant.
    """
    if note.code not in CODES:
        raise Invalid("not a code of a rejection note")
    if len(note.references) > REFERENCES:
        raise Invalid(f"a rejection note names at most {REFERENCES} instances")
    now = datetime.now(UTC)
    hidden, foreign = Counter[str](), Counter[str]()
    told: dict[str, None] = {}
    of_study = {uid: study for study, uid in note.references}
    remaining = iter(of_study.items())
    while some := list(islice(remaining, BATCH)):
        uids = [uid for uid, _ in some]
        found = _primary(session, Instance.sop_instance_uid.in_(uids))
        of_others = [one for one in found if one.instance.organization_id != access.organization]
        others = {one.uid for one in of_others}
        mine = [one for one in found if one.uid not in others]
        before = []
        if BEHAVIOURS[note.code].deletes:
            own = Instance.organization_id == access.organization
            before = _hidden(session, own, Instance.sop_instance_uid.in_(uids))
        for one in (*before, *mine):
            study, sop_class = of_study[one.uid], note.classes.get(one.uid)
            if study not in {"", one.study} or (sop_class or one.sop_class) != one.sop_class:
                raise Invalid(
                    f"a reference has another SOP class or study: nothing was rejected ({one.uid})"
                )
        rows = {one.uid: one.instance.id for one in (*before, *mine)}
        known = set(
            session.scalars(
                select(Rejection.sop_instance_uid).where(
                    Rejection.organization_id == access.organization,
                    Rejection.sop_instance_uid.in_(uids),
                    Rejection.note_sop_instance_uid == note_uid,
                )
            )
        )
        session.add_all(
            Rejection(
                organization_id=access.organization,
                study_instance_uid=study_uid[:64],
                sop_instance_uid=uid,
                instance_id=rows.get(uid),
                code=note.code,
                note_sop_instance_uid=note_uid,
                rejected=now,
            )
            for uid, study_uid in some
            if uid not in others and uid not in known
        )
        session.flush()
        named = set(uids) - others
        _take_out(access, session, access.organization, mine, named, note.code, now)
        hidden.update(one.study for one in mine)
        foreign.update(one.study for one in of_others)
        come = {one.uid: one.study for one in (*before, *mine)}
        told |= dict.fromkeys(come.get(uid, study) for uid, study in some if uid not in others)
    note_itself = _primary(
        session,
        Instance.sop_instance_uid == note_uid,
        Instance.organization_id == access.organization,
    )
    serve(session, note_itself, False, now, "reject")
    # What has not come, and may be said to be of any study, is of no other hospital's.
    beside = list(islice((one for one in told if one not in hidden), BATCH))
    theirs = set(
        session.scalars(
            select(Study.study_instance_uid)
            .join(Patient, Patient.id == Study.patient_id)
            .where(
                Study.study_instance_uid.in_(beside), Patient.organization_id != access.organization
            )
        )
    )
    subjects = [*hidden, *dict.fromkeys("" if one in theirs else one for one in beside)]
    for study in subjects or ([] if foreign else [""]):
        access.note(
            Action.REJECT,
            reason=CODES[note.code],
            **subject.of_study(session, study),
            detail={"note": note_uid, "instances": hidden[study]},
        )
    for study, count in islice(foreign.items(), BATCH):
        access.note(
            Action.REJECT,
            outcome=audit.Outcome.REFUSED,
            reason="instances of another hospital",
            **subject.of_study(session, study),
            detail={"note": note_uid, "instances": count},
        )
    return hidden.total()


def reject(
    access: Access,
    organization: str,
    code: str,
    uids: Sequence[str] = (),
    *,
    study: str = "",
    series: str = "",
) -> int:
    """Reject a hospital's instances by command, by their UIDs or all of a study or series.

    All of them, or none. Raises Refused, NotFound, Invalid.
    """
    about = {"code": organization, "rejection": code}
    access.require(Action.ADMINISTER, study=study, detail=about)
    _require_code(code)
    if sum(map(bool, (uids, study, series))) != 1:
        raise Invalid("name either instances, or a study, or a series")
    if len(uids) > REFERENCES:
        raise Invalid(f"at most {REFERENCES} instances at a time")

    def unit(session: Session) -> int:
        owner = organizations.administered(access, organization, session).id
        condition = (
            Study.study_instance_uid == study
            if study
            else Series.series_instance_uid == series
            if series
            else Instance.sop_instance_uid.in_(uids)
        )
        found = _primary(session, condition, Instance.organization_id == owner)
        if BEHAVIOURS[code].deletes:
            found += _hidden(session, condition, Instance.organization_id == owner)
        missing = set(uids) - {one.uid for one in found}
        if missing or not found:
            named = next(iter(sorted(missing)), study or series)
            raise NotFound(f"this hospital has nothing in use under {named}; nothing was rejected")
        _reject(access, session, owner, code, found, about)
        return len(found)

    return access.write(unit)


def _require_code(code: str) -> None:
    if code not in CODES:
        known = ", ".join(f"{one} ({words})" for one, words in CODES.items())
        raise Invalid(f"the code is one of {known}")


@dataclass(frozen=True, slots=True)
class Rejected:
    """How much was rejected, and whether a legal hold kept it from being deleted."""

    count: int
    held: bool


def reject_own(
    access: Access,
    code: str,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> Rejected:
    """Reject the asking hospital's own study, a series of it, or an instance, without a note.

    All of it, or nothing. Raises Refused (also for another hospital's, which is recorded, and is
    NotFound to who may not know of it), NotFound, Gone for what was rejected or deleted before,
    Invalid, TooLarge.
    """
    about = {
        "rejection": code,
        "series": series_instance_uid,
        "instance": sop_instance_uid,
    }
    access.require(Action.REJECT, study=study_instance_uid, detail=about)
    owner = access.organization
    _require_code(code)

    def unit(session: Session) -> Rejected:
        within = [Study.study_instance_uid == study_instance_uid]
        if series_instance_uid is not None:
            within.append(Series.series_instance_uid == series_instance_uid)
        if sop_instance_uid is not None:
            within.append(Instance.sop_instance_uid == sop_instance_uid)
        found = _primary(session, *within)
        if BEHAVIOURS[code].deletes:
            found += _hidden(session, *within, Instance.organization_id == owner)
        if not found:
            _nothing(session, owner, study_instance_uid, series_instance_uid, sop_instance_uid)
        if any(one.instance.organization_id != owner for one in found):
            reason = "instances of another hospital"
            access.note(
                Action.REJECT,
                outcome=audit.Outcome.REFUSED,
                reason=reason,
                **subject.of_study(session, study_instance_uid),
                detail=about,
            )
            theirs = select(Patient).join(Study, Study.patient_id == Patient.id)
            of_study = theirs.where(Study.study_instance_uid == study_instance_uid)
            if not guessing.knows(access, session.scalars(of_study).one(), session):
                raise NotFound(NOTHING) from Refused(reason)
            raise Refused(f"these are {reason}: only that one can reject them")
        if len(found) > REFERENCES:
            raise TooLarge(f"at most {REFERENCES} instances at a time: reject them by series")
        held = BEHAVIOURS[code].deletes and destruction.is_held(session, study_instance_uid)
        _reject(access, session, owner, code, found, about)
        return Rejected(len(found), held)

    return access.write(unit)


def _nothing(
    session: Session, owner: int, study: str, series: str | None, instance: str | None
) -> NoReturn:
    """Raises Gone to the hospital whose instances were there, else NotFound."""
    before = select(Rejection.id).where(
        Rejection.organization_id == owner,
        Rejection.study_instance_uid == study,
        Rejection.sop_instance_uid == instance,
        Rejection.withdrawn.is_(None),
    )
    named = session.scalars(before.limit(1)).first() is not None
    if named or retrieval.was_served(session, study, series, instance, owner=owner):
        raise Gone("this was rejected or deleted before")
    raise NotFound(NOTHING)


def _reject(
    access: Access,
    session: Session,
    owner: int,
    code: str,
    found: Sequence[Located],
    about: Mapping[str, object],
) -> None:
    """Reject what was found, in the transaction of `session`, without a note of the hospital's."""
    session.add_all(
        Rejection(
            organization_id=owner,
            study_instance_uid=one.study,
            sop_instance_uid=one.uid,
            instance_id=one.instance.id,
            code=code,
            note_sop_instance_uid=f"command {access.now:%Y%m%d%H%M%S%f}"[:64],
            rejected=access.now,
        )
        for one in found
    )
    session.flush()
    _take_out(access, session, owner, found, {one.uid for one in found}, code, access.now)
    for uid in sorted({one.study for one in found}):
        count = sum(one.study == uid for one in found)
        access.note(
            Action.REJECT,
            reason=CODES[code],
            **subject.of_study(session, uid),
            detail={**about, "instances": count},
        )


@dataclass(frozen=True, slots=True)
class Located:
    """An instance, and what it is part of."""

    instance: Instance
    series: str
    study_row: int
    study: str

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.instance.sop_instance_uid

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return self.instance.sop_class_uid


def located(session: Session, *conditions: ColumnElement[bool]) -> list[Located]:
    """The instances that fulfil the conditions."""
    rows = session.execute(
        select(Instance, Series.series_instance_uid, Study.id, Study.study_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(*conditions)
    )
    return [Located(*row) for row in rows]


def _primary(session: Session, *conditions: ColumnElement[bool]) -> list[Located]:
    return located(session, Instance.is_primary.is_(True), *conditions)


def _hidden(
    session: Session, *conditions: ColumnElement[bool], codes: Collection[str] = CODES.keys()
) -> list[Located]:
    """What its hospital has rejected for one of the reasons `codes`, and is kept."""
    rejected = exists().where(
        Rejection.instance_id == Instance.id,
        Rejection.organization_id == Instance.organization_id,
        Rejection.withdrawn.is_(None),
        Rejection.code.in_(codes),
    )
    return located(session, Instance.is_primary.is_(False), rejected, *conditions)


def hold_lifted(access: Access, session: Session, study_instance_uid: str) -> None:
    """Delete what was rejected to be deleted while a hold kept it, in the transaction that lifts
    it; not what came anew since."""
    within = Study.study_instance_uid == study_instance_uid
    for code in (code for code, one in BEHAVIOURS.items() if one.deletes):
        rejected = (Rejection.withdrawn.is_(None), Rejection.code == code)
        named = select(Rejection.organization_id, Rejection.sop_instance_uid).where(
            Rejection.study_instance_uid == study_instance_uid, *rejected
        )
        uids: dict[int, set[str]] = {}
        for owner, uid in session.execute(named):
            uids.setdefault(owner, set()).add(uid)
        for one in _hidden(session, within, codes={code}):
            uids.setdefault(one.instance.organization_id, set()).add(one.uid)
        before = exists().where(
            Rejection.sop_instance_uid == Instance.sop_instance_uid,
            Rejection.organization_id == Instance.organization_id,
            or_(Rejection.instance_id == Instance.id, Rejection.rejected >= Instance.received),
            *rejected,
        )
        for owner, some in sorted(uids.items()):
            _delete(access, session, owner, some, code, access.now, before)


def _take_out(
    access: Access,
    session: Session,
    owner: int,
    found: Sequence[Located],
    uids: Collection[str],
    code: str,
    at: datetime,
) -> None:
    """Hide what was found, and delete all that `owner` has sent under `uids` where its kind of
    rejection says so and no hold keeps it: what was hidden before, and waits for review, too.
    """
    serve(session, [one for one in found if one.instance.is_primary], False, at, "reject")
    if BEHAVIOURS[code].deletes:
        _delete(access, session, owner, uids, code, at)


def _delete(
    access: Access,
    session: Session,
    owner: int,
    uids: Collection[str],
    code: str,
    at: datetime,
    *conditions: ColumnElement[bool],
) -> None:
    """Delete what is not in use, unless a hold keeps it: that is recorded."""
    for study, gone in sorted(destruction.beside(session, owner, uids, *conditions).items()):
        if destruction.is_held(session, study):
            access.note(
                Action.DESTROY,
                outcome=audit.Outcome.REFUSED,
                reason="the study is under a legal hold: hidden, not deleted",
                **subject.of_study(session, study),
                detail={"instances": len(gone)},
            )
            continue
        destruction.destroy(session, study, gone, reason="rejected", at=at)
        about = subject.of_study(session, study)
        access.note(Action.DESTROY, reason=CODES[code], **about, detail={"instances": len(gone)})


def serve(
    session: Session, found: Sequence[Located], primary: bool, at: datetime, action: str
) -> None:
    """Have instances be primary or not; studies, their documents and the change feed follow."""
    if not found:
        return
    numbers = [one.instance.id for one in found]
    for start in range(0, len(numbers), BATCH):
        session.execute(
            update(Instance)
            .where(Instance.id.in_(numbers[start : start + BATCH]))
            .values(is_primary=primary)
        )
    session.execute(
        insert(Change),
        [
            {
                "recorded": at,
                "action": action,
                "instance_id": one.instance.id,
                "study_instance_uid": one.study,
                "series_instance_uid": one.series,
                "sop_instance_uid": one.uid,
            }
            for one in found
        ],
    )
    otherwise.recount(session, otherwise.touched(session, numbers))
    for study in sorted({one.study_row for one in found}):
        session.execute(
            update(Study).where(Study.id == study).values(changed=at, revision=Study.revision + 1)
        )
        jobs.hasten(session, jobs.REFRESH, str(study), at)
