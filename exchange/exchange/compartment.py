"""All that there is about patients, decided row by row and told page by page (FHIR R4 3.1.2).

    held = compartment.page(access, Wanted(patients=(7,)), after=0, limit=100)

Not a question by values but a walk: for Patient/$everything, and for what is exported in bulk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    Select,
    SQLColumnExpression,
    and_,
    bindparam,
    exists,
    literal,
    literal_column,
    or_,
    select,
)

from exchange import attachments, visibility
from exchange.access import Access
from exchange.policy import Action
from exchange.visibility import Reach
from exchange_storage.prepared import Prepared
from exchange_storage.records import Compartment, Resource, Revision, SearchDate
from exchange_storage.rows import as_list, one_of, one_of_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted; all that the asker may see where nothing is said."""

    kinds: tuple[str, ...] = ()
    patients: tuple[int, ...] | None = None
    """Row numbers of the patient records in whose compartments it is."""
    of_patients: bool = False
    """Only what is in some patient's compartment."""
    since: datetime | None = None
    """Changed at that moment or later."""
    until: datetime | None = None
    """Changed at that moment or before."""
    care: tuple[int, int] | None = None
    """Care given in this span, microseconds since 1970; what has no such date as well."""
    care_parameters: tuple[str, ...] = ()
    """Under what the dates of care are kept, such as ``Observation.date``."""
    with_lost: bool = False
    """Whether what has lost its content is told without it, rather than raising Unavailable."""


@dataclass(frozen=True, slots=True)
class Held:
    """The current version of a resource."""

    row: int
    kind: str
    logical_id: str
    patient: int | None
    content: bytes = field(repr=False)
    """Empty where it is lost."""


@dataclass(frozen=True, slots=True)
class Page:
    """Resources in the order of their rows, and whether there may be more behind the last."""

    held: tuple[Held, ...]
    more: bool


def page(access: Access, wanted: Wanted, *, after: int, limit: int) -> Page:
    """The first `limit` that the asker may see of the rows behind `after`.

    Raises Refused, Unavailable.
    """
    told = {"what": "everything", "kinds": list(wanted.kinds), "after": after}
    access.require(Action.RETRIEVE, detail=told)
    form = _Form(
        kinds=bool(wanted.kinds),
        patients=wanted.patients is not None,
        of_patients=wanted.of_patients,
        since=wanted.since is not None,
        until=wanted.until is not None,
        care=wanted.care_parameters if wanted.care else (),
        reach=visibility.reach(access.requester, Action.RETRIEVE),
    )
    given: dict[str, Any] = visibility.parameters(access.requester, access.now)
    given |= {"after": after, "limit": limit}
    if wanted.kinds:
        given["kinds"] = json.dumps(sorted(wanted.kinds))
    if wanted.patients is not None:
        given["patients"] = as_list(wanted.patients)
    if wanted.since is not None:
        given["since"] = wanted.since
    if wanted.until is not None:
        given["until"] = wanted.until
    if wanted.care is not None:
        given |= {"care_from": wanted.care[0], "care_before": wanted.care[1]}
    rows = _walk(form).all(access.session.connection(), given)
    read = attachments.unless_lost if wanted.with_lost else attachments.whole
    found = tuple(
        Held(row.id, row.kind, row.logical_id, row.patient_id, read(access.objects, row.content))
        for row in rows
    )
    patients = {one.patient for one in found if one.patient is not None}
    access.note(
        Action.RETRIEVE,
        patient=min(patients) if len(patients) == 1 else None,
        detail={**told, "answered": len(found), "patients": sorted(patients)},
    )
    return Page(found, len(found) == limit)


def about(access: Access, rows: Iterable[int]) -> dict[int, frozenset[int]]:
    """The patient records that resources, by their rows, are about: all, not the first alone.

    It is for the caller to have been permitted the resources.
    """
    wanted = {"wanted": as_list(rows)}
    found: dict[int, set[int]] = {}
    for statement in (_FIRST, _FURTHER):
        for row in statement.all(access.session.connection(), wanted):
            known = found.setdefault(row.id, set())
            if row.patient_id is not None:
                known.add(row.patient_id)
    return {row: frozenset(patients) for row, patients in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What is wanted without its values: what a statement is built from."""

    kinds: bool
    patients: bool
    of_patients: bool
    since: bool
    until: bool
    care: Sequence[str]
    reach: Reach


@lru_cache(256)
def _walk(form: _Form) -> Prepared:
    def built(dialect: str) -> Select[*tuple[Any, ...]]:
        statement: Select[*tuple[Any, ...]] = (
            select(
                Resource.id,
                Resource.kind,
                Resource.logical_id,
                Resource.patient_id,
                Revision.content,
            )
            .join(
                Revision,
                and_(Revision.resource_id == Resource.id, Revision.version == Resource.version),
            )
            .where(
                Resource.id > bindparam("after", type_=Resource.id.type),
                ~Resource.deleted,
                visibility.clinical_within(form.reach),
            )
        )
        if form.kinds:
            statement = statement.where(one_of_texts(Resource.kind, "kinds", dialect))
        if form.patients:
            # As a set of rows: else the planner may look through all of them in their order.
            patient = cast("SQLColumnExpression[int]", Resource.patient_id)
            first = select(Resource.id).where(one_of(patient, "patients", dialect))
            further = select(Compartment.resource_id).where(
                one_of(Compartment.patient_id, "patients", dialect)
            )
            statement = statement.where(Resource.id.in_(first.union(further)))
        if form.of_patients:
            statement = statement.where(Resource.patient_id.is_not(None))
        if form.since:
            statement = statement.where(Resource.changed >= bindparam("since"))
        if form.until:
            statement = statement.where(Resource.changed <= bindparam("until"))
        if form.care:
            statement = statement.where(_cared_for(form.care))
        return statement.order_by(Resource.id).limit(bindparam("limit"))

    return Prepared(built)


def _cared_for(parameters: Sequence[str]) -> Any:
    dated = and_(
        SearchDate.resource_id == Resource.id,
        SearchDate.parameter.in_([literal_column(f"'{name}'") for name in parameters]),
    )
    within = and_(
        SearchDate.low < bindparam("care_before", type_=SearchDate.low.type),
        SearchDate.high > bindparam("care_from", type_=SearchDate.high.type),
    )
    found = select(literal(1)).select_from(SearchDate)
    return or_(
        ~exists(found.where(dated).correlate(Resource)),
        exists(found.where(dated, within).correlate(Resource)),
    )


_FIRST = Prepared(
    lambda dialect: select(Resource.id, Resource.patient_id).where(
        one_of(Resource.id, "wanted", dialect)
    )
)
_FURTHER = Prepared(
    lambda dialect: select(Compartment.resource_id.label("id"), Compartment.patient_id).where(
        one_of(Compartment.resource_id, "wanted", dialect)
    )
)
