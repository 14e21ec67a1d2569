"""Reading the audit trail: who looked at whom, asked by an administrator and itself recorded.

An administrator who belongs to a hospital reads what its own people did, and what anybody did
with the records of its own patients; all else is as if it were not there. Of what others did it
is told of its own patients alone, also where the record is about those of others beside them.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, exists, false, or_, select, true, union_all

from exchange import audit, organizations
from exchange.access import Access
from exchange.errors import NotFound
from exchange.policy import Action
from exchange.withheld import STUDIES as WITHHELD
from exchange_storage import search
from exchange_storage.prepared import Prepared
from exchange_storage.records import AuditPatient, AuditRecord, Patient, PatientIdentifier, Study
from exchange_storage.rows import as_list, one_of
from exchange_storage.search import SamePerson

BATCH = 500
"""Records that are read at a time while the trail is looked through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What a record must be like to be looked at; None where that does not matter."""

    sequences: frozenset[int] | None = None
    since: datetime | None = None
    before: datetime | None = None
    actions: frozenset[str] | None = None
    outcomes: frozenset[str] | None = None
    requesters: frozenset[str] | None = None
    patients: frozenset[int] | None = None
    """Patient rows."""
    studies: frozenset[str] | None = None
    organizations: frozenset[int] | None = None
    """Rows of the hospitals for which it was asked."""

    def narrowed(self, **further: Any) -> Sought:
        """What is sought already, and `further` as well."""
        told: dict[str, Any] = {}
        for name, value in further.items():
            held = getattr(self, name)
            if held is None or value is None:
                told[name] = held if value is None else value
            elif isinstance(value, datetime):
                told[name] = max(held, value) if name == "since" else min(held, value)
            else:
                told[name] = held & value
        return replace(self, **told)


def records(
    access: Access,
    *,
    limit: int = 50,
    requester: str = "",
    study: str = "",
    patient: tuple[str, str] | None = None,
) -> Sequence[dict[str, Any]]:
    """The last records that match, the newest first, as `audit.Entry.content` wrote them but for
    the patients of other hospitals.

    `patient` is a hospital's code and its number for the patient; it means the same person's
    records at the other hospitals too. Raises Refused, NotFound.
    """
    access.require(Action.AUDIT)
    access.catch_up()
    matching = select(AuditRecord.content).where(_told(access))
    row = None
    if requester:
        matching = matching.where(AuditRecord.requester == requester)
    if study:
        matching = matching.where(_of_study([study]))
    if patient is not None:
        code, number = patient
        owner = organizations.by_code(access.session, code)
        row = access.session.scalars(
            select(Patient.id).where(
                Patient.organization_id == owner.id, Patient.patient_id == number, _own(access)
            )
        ).one_or_none()
        if row is None or not number:
            raise NotFound("this hospital has no patient with this number")
        same = select(Patient.id).where(search.where([SamePerson(row)]), _own(access))
        matching = matching.where(_about(same))
    access.note(
        Action.AUDIT,
        reason="the trail was read",
        patient=row,
        study=study,
        detail={"requester": requester, "limit": limit},
    )
    newest = matching.order_by(AuditRecord.sequence.desc()).limit(limit)
    return _told_of(access, access.session.scalars(newest).all())


def one(access: Access, sequence: int) -> dict[str, Any]:
    """The record with this number. Raises Refused, NotFound."""
    detail = {"what": f"AuditEvent/{sequence}"}
    access.require(Action.AUDIT, detail=detail)
    access.catch_up()
    matching = _matching(access, Sought(sequences=frozenset({sequence})))
    content = access.session.scalars(matching.with_only_columns(AuditRecord.content)).one_or_none()
    if content is None:
        raise NotFound("no such record of the trail")
    (told,) = _told_of(access, [content])
    access.note(
        Action.AUDIT,
        reason="the trail was read",
        patient=told["patient"],
        study=told["study"],
        detail=detail,
    )
    return told


def seek(
    access: Access, sought: Sought, *, asked: str = "", after: int | None = None, oldest: bool
) -> Iterator[dict[str, Any]]:
    """The records that are sought, the newest first, or with `oldest` the oldest.

    They begin behind the one numbered `after`. That the trail is read is recorded here, `asked` as
    the question was asked. Raises Refused.
    """
    told = {"what": "AuditEvent", "asked": audit.for_the_trail(asked)}
    access.require(Action.AUDIT, detail=told)
    access.catch_up()
    about, studies = sorted(sought.patients or ()), sought.studies or ()
    access.note(
        Action.AUDIT,
        reason="the trail was read",
        patient=about[0] if len(about) == 1 else None,
        study=min(studies) if len(studies) == 1 else "",
        detail=told | ({"patients": about} if len(about) > 1 else {}),
    )
    return _walked(access, sought, after, oldest=oldest)


def _walked(
    access: Access, sought: Sought, after: int | None, *, oldest: bool
) -> Iterator[dict[str, Any]]:
    number = AuditRecord.sequence
    matching = _matching(access, sought).order_by(number if oldest else number.desc()).limit(BATCH)
    while True:
        page = matching
        if after is not None:
            page = page.where(number > after if oldest else number < after)
        rows = access.session.execute(page).all()
        yield from _told_of(access, [row.content for row in rows])
        if len(rows) < BATCH:
            return
        after = rows[-1].sequence


def same_patient(access: Access, row: int) -> tuple[int, ...]:
    """A patient row with all others of that person whose records the asker is to look after."""
    same = select(Patient.id).where(search.where([SamePerson(row)]), _own(access))
    return tuple(sorted({row, *access.session.scalars(same)}))


def patients(access: Access, identifiers: Sequence[tuple[int | None, str, str]]) -> tuple[int, ...]:
    """The patient rows with one of the numbers, of those that the asker is to look after.

    A number is that of the hospital with a row number, or, with None, one that `system` issued;
    without that, of any.
    """
    found: list[ColumnElement[bool]] = []
    for owner, system, value in identifiers:
        known = select(PatientIdentifier.patient_id).where(PatientIdentifier.value == value)
        if owner is not None:
            found.append((Patient.organization_id == owner) & (Patient.patient_id == value))
        elif system:
            found.append(Patient.id.in_(known.where(PatientIdentifier.system == system)))
        else:
            found.append((Patient.patient_id == value) | Patient.id.in_(known))
    rows = select(Patient.id).where(or_(*found), _own(access)).limit(BATCH)
    return tuple(sorted(access.session.scalars(rows)))


def _matching(access: Access, sought: Sought) -> Select[int, str]:
    found = select(AuditRecord.sequence, AuditRecord.content).where(_told(access))
    if sought.since is not None:
        found = found.where(AuditRecord.recorded >= sought.since)
    if sought.before is not None:
        found = found.where(AuditRecord.recorded < sought.before)
    columns: Mapping[Any, frozenset[Any] | None] = {
        AuditRecord.sequence: sought.sequences,
        AuditRecord.action: sought.actions,
        AuditRecord.outcome: sought.outcomes,
        AuditRecord.requester: sought.requesters,
        AuditRecord.organization_id: sought.organizations,
    }
    for column, wanted in columns.items():
        if wanted is not None:
            found = found.where(column.in_(sorted(wanted)))
    if sought.studies is not None:
        found = found.where(_of_study(sorted(sought.studies)))
    if sought.patients is not None:
        rows = sorted(sought.patients)
        found = found.where(_about(select(Patient.id).where(Patient.id.in_(rows))))
    return found


def _told(access: Access) -> ColumnElement[bool]:
    """The records of which an administrator is told."""
    hospital = access.requester.organization
    if hospital is None:
        return true()
    own = select(Patient.id).where(Patient.organization_id == hospital)
    # Looked at record by record, the newest first: the hospital's patients may be very many.
    one_of_several = exists().where(
        AuditPatient.sequence == AuditRecord.sequence, AuditPatient.patient_id.in_(own)
    )
    return or_(
        AuditRecord.organization_id == hospital, AuditRecord.patient_id.in_(own), one_of_several
    )


def _about(patients: Select[int]) -> ColumnElement[bool]:
    """Whether a record is about one of a few patients, alone or as one of several."""
    several = select(AuditPatient.sequence).where(AuditPatient.patient_id.in_(patients))
    return or_(AuditRecord.patient_id.in_(patients), AuditRecord.sequence.in_(several))


def _of_study(studies: Sequence[str]) -> ColumnElement[bool]:
    """Whether a record is about one of a few studies, alone or as one of several withheld.

    Those are looked for among the records about their patients, which an index leads to.
    """
    named = [AuditRecord.content.contains(f'"{one}":', autoescape=True) for one in studies]
    theirs = select(Study.patient_id).where(Study.study_instance_uid.in_(studies))
    beside = select(AuditPatient.sequence).where(AuditPatient.patient_id.in_(theirs))
    number = select(AuditRecord.sequence)
    found = union_all(
        number.where(AuditRecord.study_instance_uid.in_(studies)),
        number.where(AuditRecord.patient_id.in_(theirs), or_(false(), *named)),
        number.where(AuditRecord.sequence.in_(beside), or_(false(), *named)),
    )
    return AuditRecord.sequence.in_(found)


def _own(access: Access) -> ColumnElement[bool]:
    """The patient records after which an administrator is to look."""
    hospital = access.requester.organization
    return true() if hospital is None else Patient.organization_id == hospital


def of_patients(told: Mapping[str, Any]) -> list[int]:
    """All patient rows that a record is about, the one that stands for them first."""
    several = told["detail"].get("patients")
    named = [told["patient"], *(several if isinstance(several, list) else ())]
    return list(dict.fromkeys(one for one in named if type(one) is int))


def studies(told: Mapping[str, Any]) -> list[str]:
    """All studies that a record is about."""
    named = [told["study"]] if told["study"] else []
    return list(dict.fromkeys([*named, *told["detail"].get(WITHHELD, ())]))


def _told_of(access: Access, contents: Iterable[str]) -> list[dict[str, Any]]:
    """Records as the asker is told of them.

    Of what was withheld from its own people a hospital is told what they named themselves: else
    its administrators would learn what its clinicians may not.
    """
    told: list[dict[str, Any]] = [json.loads(one) for one in contents]
    hospital = access.requester.organization
    if hospital is None:
        return told
    of_others = [
        one for one in told if one["organization"] != hospital or WITHHELD in one["detail"]
    ]
    named = {patient for one in of_others for patient in of_patients(one)}
    if not named:
        return told
    wanted = {"named": as_list(named), "hospital": hospital}
    own = {row.id for row in _OWN.all(access.session.connection(), wanted)}
    for one in of_others:
        patients = [row for row in of_patients(one) if row in own]
        one["patient"] = patients[0] if patients else None
        detail = one["detail"]
        if "patients" in detail:
            detail["patients"] = sorted(patients)
        if WITHHELD in detail:
            asked = _asked(detail) if one["organization"] == hospital else b""
            theirs = detail[WITHHELD].items()
            detail[WITHHELD] = {
                study: row for study, row in theirs if row in own or study.encode() in asked
            }
            one["study"] = next(iter(detail[WITHHELD])) if len(detail[WITHHELD]) == 1 else ""
    return told


def _asked(detail: Mapping[str, Any]) -> bytes:
    """The question of a record, as it came; b"" where it was too long to be kept."""
    question = str(detail.get("asked", ""))
    return b"" if question.startswith("sha256:") else b64decode(question)


_OWN = Prepared(
    lambda dialect: select(Patient.id).where(
        one_of(Patient.id, "named", dialect),
        Patient.organization_id == bindparam("hospital", type_=Patient.organization_id.type),
    )
)
