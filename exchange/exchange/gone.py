"""What is there no longer: patient records, studies and resources that were deleted, page by page.

    found = gone.page(access, Wanted(kinds=("Observation",), since=…), after=None, limit=100)

For who keeps copies: of each they are told that it is gone whom it would be shown to if it were
still there. A study is gone when nothing of it is served any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Select,
    String,
    bindparam,
    cast,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from exchange import visibility
from exchange.access import Access
from exchange.compartment import Wanted
from exchange.decided import served
from exchange.policy import Action
from exchange.visibility import Reach
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Compartment,
    Destroyed,
    Patient,
    Rejection,
    Resource,
    Study,
)
from exchange_storage.rows import as_list, one_of, one_of_texts
from exchange_storage.search import Level

Place = tuple[datetime, str, str]
"""When it went, its type and its logical id: pages are in this order."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is gone, and whether there may be more behind the last."""

    places: Sequence[Place]
    more: bool


def page(access: Access, wanted: Wanted, *, after: Place | None, limit: int) -> Page:
    """The first `limit` behind `after`, of the types that are wanted, gone `since` and `until`.

    Raises Refused.
    """
    told = {"what": "gone", "kinds": list(wanted.kinds)}
    access.require(Action.RETRIEVE, detail=told)
    if wanted.since is None:
        raise ValueError("what is gone is asked for since a moment")
    form = _Form(
        kinds=tuple(one for one in ("Patient", "ImagingStudy") if one in wanted.kinds),
        patients=wanted.patients is not None,
        of_patients=wanted.of_patients,
        until=wanted.until is not None,
        after=after is not None,
        reach=visibility.reach(access.requester, Action.RETRIEVE),
    )
    given: dict[str, Any] = visibility.parameters(access.requester, access.now)
    given |= {"since": wanted.since, "limit": limit}
    given["kinds"] = json.dumps(sorted({*wanted.kinds} - {"Patient", "ImagingStudy"}))
    if wanted.patients is not None:
        given["patients"] = as_list(wanted.patients)
    if wanted.until is not None:
        given["until"] = wanted.until
    if after is not None:
        given |= dict(zip(("last0", "last1", "last2"), after, strict=True))
    rows = _gone(form).all(access.session.connection(), given)
    patients = sorted({row.patient for row in rows} - {None})
    access.note(
        Action.RETRIEVE,
        patient=patients[0] if len(patients) == 1 else None,
        detail={**told, "answered": len(rows), "patients": patients},
    )
    return Page([(row.changed, row.kind, row.name) for row in rows], len(rows) == limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What is wanted without its values."""

    kinds: Sequence[str]
    """Of what has tables of its own."""
    patients: bool
    of_patients: bool
    until: bool
    after: bool
    reach: Reach


@lru_cache(256)
def _gone(form: _Form) -> Prepared:
    def built(dialect: str) -> Select[Any]:
        found = [_resources(form, dialect)]
        if "Patient" in form.kinds:
            found.append(_patients(form, dialect))
        if "ImagingStudy" in form.kinds:
            found.append(_studies(form, dialect))
        all_of_them = union_all(*found).subquery()
        keys = [all_of_them.c[name] for name in ("changed", "kind", "name")]
        statement = select(all_of_them)
        if form.after:
            last = [bindparam(f"last{at}", type_=key.type) for at, key in enumerate(keys)]
            statement = statement.where(tuple_(*keys) > tuple_(*last))
        return statement.order_by(*keys).limit(bindparam("limit"))

    return Prepared(built)


def _resources(form: _Form, dialect: str) -> Select[Any]:
    """What hospitals wrote and deleted: it still says whom it was about."""
    kind, name = cast(Resource.kind, String()), cast(Resource.logical_id, String())
    patient: Any = Resource.patient_id
    found = _within(form, Resource, kind, name, patient).where(
        Resource.deleted,
        one_of_texts(Resource.kind, "kinds", dialect),
        visibility.clinical_within(form.reach),
    )
    if form.patients:
        further = select(Compartment.resource_id).where(
            one_of(Compartment.patient_id, "patients", dialect)
        )
        found = found.where(or_(one_of(patient, "patients", dialect), Resource.id.in_(further)))
    return found.where(patient.is_not(None)) if form.of_patients else found


def _patients(form: _Form, dialect: str) -> Select[Any]:
    """Records that their hospitals took back."""
    kind, name = literal_column("'Patient'", String()), cast(Patient.id, String())
    found = _within(form, Patient, kind, name, Patient.id).where(
        ~served(Level.PATIENT), visibility.within(form.reach)
    )
    return found.where(one_of(Patient.id, "patients", dialect)) if form.patients else found


def _studies(form: _Form, dialect: str) -> Select[Any]:
    """Studies of which all was rejected or deleted; not those that were never served."""
    kind, name = (
        literal_column("'ImagingStudy'", String()),
        cast(Study.study_instance_uid, String()),
    )
    taken_out = [
        exists().where(record.study_instance_uid == Study.study_instance_uid)
        for record in (Rejection, Destroyed)
    ]
    found = _within(form, Study, kind, name, Study.patient_id).join(
        Patient, Patient.id == Study.patient_id
    )
    found = found.where(~served(Level.STUDY), or_(*taken_out), visibility.within(form.reach))
    return found.where(one_of(Patient.id, "patients", dialect)) if form.patients else found


def _within(form: _Form, record: Any, kind: Any, name: Any, patient: Any) -> Select[Any]:
    """Of a record what is told, within the span of time."""
    told = select(
        record.changed.label("changed"),
        kind.label("kind"),
        name.label("name"),
        patient.label("patient"),
    ).where(record.changed >= bindparam("since", type_=record.changed.type))
    if form.until:
        told = told.where(record.changed <= bindparam("until", type_=record.changed.type))
    return told
