"""A person's timeline: what all hospitals have of them, in one order, the newest first.

What may not be seen is not in it; which hospital withholds its records, and why, it tells whoever
may see a record of the same person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, and_, exists, select

from exchange import beside, people, policy, query, visibility
from exchange.access import Access
from exchange.policy import Action, Deny
from exchange.query import Found
from exchange_storage import search
from exchange_storage.records import (
    Instance,
    Order,
    Organization,
    Patient,
    Resource,
    Revision,
    Series,
    Study,
)
from exchange_storage.search import Criterion, Level

ORDERS = 500
"""Orders of one person that are looked at, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of a timeline, what somebody wants to see; an empty value wants everything."""

    organization: str = ""
    """The code of a hospital."""
    modality: str = ""
    body_part: str = ""
    first: str = ""
    """YYYYMMDD, included; as is:"""
    last: str = ""


@dataclass(frozen=True, slots=True)
class StudyEntry:
    """A study, and what its series say of it."""

    found: Found
    study: Study
    body_parts: tuple[str, ...]
    is_reported: bool = False
    """Whether a hospital wrote a report on it, besides those that are part of it."""

    @property
    def moment(self) -> str:
        """YYYYMMDDHHMMSS, as the hospital's clocks showed it."""
        return _moment(self.study.study_date, self.study.study_time)

    @property
    def organization(self) -> Organization:
        """Whose it is."""
        return self.found.owner


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """An order of which there are no images yet."""

    order: Order
    organization: Organization

    @property
    def moment(self) -> str:
        """YYYYMMDDHHMMSS at which it is to begin."""
        return _moment(self.order.scheduled_date, self.order.scheduled_time)


@dataclass(frozen=True, slots=True)
class Said:
    """What a clinical resource says in a line."""

    moment: str
    """YYYYMMDDHHMMSS on the hospitals' clocks, with zeros for what is not known; "" for never."""
    title: str
    text: str
    status: str
    studies: tuple[str, ...] = ()
    """Study Instance UIDs to which it refers."""


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """A report, a result, or another clinical resource that a hospital wrote."""

    kind: str
    """The resource type."""
    logical_id: str
    said: Said
    organization: Organization
    order: Order | None = None
    """Of a ServiceRequest the order that it is, which says what became of it."""

    @property
    def moment(self) -> str:
        """When it was, see `Said`."""
        return self.said.moment


TimelineEntry = StudyEntry | OrderEntry | RecordEntry

Reading = Callable[[str, bytes], Said | None]
"""What a resource of a kind, in JSON, says; None for one that has no place in a timeline."""

KINDS = (
    *("DiagnosticReport", "Observation", "Condition", "Procedure", "Encounter", "Immunization"),
    *("AllergyIntolerance", "MedicationRequest", "MedicationStatement", "DocumentReference"),
    *("ServiceRequest", "CarePlan", "FamilyMemberHistory", "ClinicalImpression"),
)
"""Clinical resources that stand in a timeline."""

RECORDS = 500
"""Clinical resources of one person that are read, at most: those that changed last."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A hospital whose records of the person the asker may not see, and why."""

    organization: Organization
    reason: str
    """Of the decision."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the timeline can be narrowed to, by what is in it."""

    organizations: tuple[Organization, ...]
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A page of a person's timeline."""

    about: Found
    """The record that was asked for."""
    records: tuple[tuple[Patient, Organization], ...]
    """All records of the person that the asker may see."""
    entries: tuple[TimelineEntry, ...]
    more: bool
    total: int
    """Studies on all pages."""
    withheld: tuple[Withheld, ...]
    choices: Choices


def of(
    access: Access,
    patient: int,
    wanted: Wanted,
    *,
    limit: int,
    offset: int = 0,
    reading: Reading | None = None,
) -> Timeline:
    """The timeline of the person whose patient record has this row number.

    `limit` studies from `offset` on, with the orders between them, and the clinical resources if
    there is a `reading` of them. Raises NotFound, Refused.
    """
    about = query.patient(access, patient)
    same = {about.patient.id, *beside.links(access, [about.patient]).get(about.patient.id, ())}
    records = people.of_records(access, same)
    # One study more at the front: the orders after it belong to the page before.
    before = 1 if offset else 0
    answer = query.find(
        access,
        Level.STUDY,
        [search.SamePerson(patient), *_criteria(access, wanted)],
        limit=limit + before,
        offset=offset - before,
        total=True,
    )
    written = [] if reading is None else _records(access, records, wanted, reading)
    reported = {study for one in written if _reports(one) for study in one.said.studies}
    body_parts = _body_parts(access, answer.found)
    studies = [
        StudyEntry(
            one,
            one.study,
            body_parts.get(one.study.id, ()),
            one.study.study_instance_uid in reported,
        )
        for one in answer.found
        if one.study is not None
    ]
    until = studies[0].moment if before and studies else None
    studies = studies[before:]
    since = studies[-1].moment if answer.more and studies else None
    told = {one.order.id for one in written if one.order is not None}
    orders = [one for one in _orders(access, records, wanted) if one.order.id not in told]
    between: list[TimelineEntry] = [*orders, *written]
    others = [
        one
        for one in between
        if (until is None or one.moment < until) and (since is None or one.moment >= since)
    ]
    entries: list[TimelineEntry] = [*studies, *others]
    entries.sort(key=lambda one: one.moment, reverse=True)
    return Timeline(
        about=about,
        records=tuple(records.values()),
        entries=tuple(entries),
        more=answer.more,
        total=answer.total or 0,
        withheld=withheld(access, about.patient),
        choices=_choices(access, records),
    )


def withheld(access: Access, patient: Patient) -> tuple[Withheld, ...]:
    """The hospitals whose records of the same person the asker may not see, and why not.

    Only for a record that the asker may see; what was told is recorded. Raises Refused.
    """
    access.require(Action.SEARCH, query.facts(access, patient), patient=patient.id)
    if patient.person_id is None:
        return ()
    rows = access.session.execute(
        select(Patient, Organization)
        .join(Organization, Organization.id == Patient.organization_id)
        .where(
            Patient.person_id == patient.person_id,
            ~Patient.withdrawn,
            ~visibility.visible(access.requester, Action.SEARCH),
        )
        .order_by(Organization.code, Patient.id),
        visibility.parameters(access.requester, access.now),
    )
    told: dict[int, Withheld] = {}
    about = {patient.id}
    for record, organization in rows:
        decision = policy.decide(access.requester, Action.SEARCH, query.facts(access, record))
        if isinstance(decision, Deny):
            told.setdefault(organization.id, Withheld(organization, decision.reason))
            about.add(record.id)
    if told:
        access.note(
            Action.SEARCH,
            patient=patient.id,
            reason="told that records are withheld",
            detail={
                "withheld": {one.organization.code: one.reason for one in told.values()},
                "patients": sorted(about),
            },
        )
    return tuple(told.values())


def _criteria(access: Access, wanted: Wanted) -> Iterable[Criterion]:
    if wanted.organization:
        of_code = select(Organization.id).where(Organization.code == wanted.organization)
        yield search.Owned(tuple(access.session.scalars(of_code)))
    if wanted.modality:
        yield search.ModalitiesInStudy(search.Values((wanted.modality,)))
    if wanted.body_part:
        yield search.Holds((search.BodyPart(search.Values((wanted.body_part,))),))
    if wanted.first or wanted.last:
        span = search.Range(wanted.first or None, wanted.last or None)
        yield search.Match("StudyDate", span)


def _served(*more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether the series has an instance that is served."""
    return exists(
        select(Instance.id).where(Instance.series_id == Series.id, Instance.is_primary, *more)
    )


def _body_parts(access: Access, found: Sequence[Found]) -> Mapping[int, tuple[str, ...]]:
    """The body parts of studies, by study row; one query for all."""
    studies = [one.study.id for one in found if one.study is not None]
    rows = access.session.execute(
        select(Series.study_id, Series.body_part)
        .where(Series.study_id.in_(studies), Series.body_part != "", _served())
        .order_by(Series.id)
    )
    parts: dict[int, dict[str, None]] = defaultdict(dict)
    for study, part in rows:
        parts[study][part] = None
    return {study: tuple(named) for study, named in parts.items()}


def _reports(one: RecordEntry) -> bool:
    return one.kind == "DiagnosticReport" and one.said.status not in {
        "entered-in-error",
        "cancelled",
        "registered",
    }


def _came() -> ColumnElement[bool]:
    """Whether there are images of the order."""
    return exists(
        select(Study.id)
        .join(Series, Series.study_id == Study.id)
        .where(Study.study_instance_uid == Order.study_instance_uid, _served())
    )


def _orders(access: Access, records: Iterable[int], wanted: Wanted) -> list[OrderEntry]:
    """Orders for the patient records that stand alone: no image of them has come."""
    conditions: list[ColumnElement[bool]] = [Order.patient_id.in_(tuple(records)), ~_came()]
    if wanted.organization:
        conditions.append(Organization.code == wanted.organization)
    if wanted.modality:
        conditions.append(Order.modality == wanted.modality)
    if wanted.body_part:
        conditions.append(Order.body_part_examined == wanted.body_part)
    if wanted.first:
        conditions.append(Order.scheduled_date >= wanted.first)
    if wanted.last:
        conditions.append(Order.scheduled_date <= wanted.last)
    rows = access.session.execute(
        select(Order, Organization)
        .join(Organization, Organization.id == Order.organization_id)
        .where(*conditions)
        .order_by(Order.scheduled_date.desc(), Order.id.desc())
        .limit(ORDERS)
    )
    return [OrderEntry(order, organization) for order, organization in rows]


def _records(
    access: Access, records: Iterable[int], wanted: Wanted, reading: Reading
) -> list[RecordEntry]:
    """What hospitals wrote about the patient records, as far as the asker may see it."""
    if wanted.modality or wanted.body_part:
        return []  # of which only images and their orders are
    conditions: list[ColumnElement[bool]] = [
        Resource.patient_id.in_(tuple(records)),
        Resource.kind.in_(KINDS),
        ~Resource.deleted,
        visibility.visible_clinical(access.requester, Action.SEARCH),
    ]
    if wanted.organization:
        conditions.append(Organization.code == wanted.organization)
    rows = access.session.execute(
        select(
            Resource.kind,
            Resource.logical_id,
            Revision.content,
            Organization,
            Resource.patient_id,
        )
        .join(
            Revision,
            and_(Revision.resource_id == Resource.id, Revision.version == Resource.version),
        )
        .join(Organization, Organization.id == Resource.organization_id)
        .where(*conditions)
        .order_by(Resource.changed.desc(), Resource.id.desc())
        .limit(RECORDS),
        visibility.parameters(access.requester, access.now),
    )
    found = []
    patients: set[int] = set()
    for kind, logical_id, content, organization, patient in rows:
        said = reading(kind, content)
        if said is None:
            continue
        day = said.moment[:8]
        if (not wanted.first or day >= wanted.first) and (not wanted.last or day <= wanted.last):
            found.append(RecordEntry(kind, logical_id, said, organization))
            patients.add(patient or 0)  # all are about one: see the conditions
    found = _with_orders(access, records, found)
    if found:
        access.note(
            Action.SEARCH,
            patient=min(patients),
            reason="clinical resources in a timeline",
            detail={
                "answered": len(found),
                "resources": [one.logical_id for one in found[:100]],
                "patients": sorted(patients),
            },
        )
    return found


def _with_orders(
    access: Access, records: Iterable[int], found: Sequence[RecordEntry]
) -> list[RecordEntry]:
    """The same, where ServiceRequests have their orders and, once there are images, the study."""
    requests = {one.logical_id for one in found if one.kind == "ServiceRequest"}
    if not requests:
        return list(found)
    rows = access.session.execute(
        select(Order, _came())
        .where(Order.patient_id.in_(tuple(records)), Order.request.in_(requests))
        .order_by(Order.id)
    )
    orders = {order.request: (order, came) for order, came in rows}
    return [_ordered(one, *orders.get(one.logical_id, (None, False))) for one in found]


def _ordered(one: RecordEntry, order: Order | None, came: bool) -> RecordEntry:
    if order is None or one.kind != "ServiceRequest":
        return one
    studies = tuple(dict.fromkeys((*one.said.studies, *[order.study_instance_uid] * came)))
    return replace(one, order=order, said=replace(one.said, studies=studies))


def _choices(access: Access, records: Mapping[int, tuple[Patient, Organization]]) -> Choices:
    rows = access.session.execute(
        select(Series.modality, Series.body_part)
        .join(Study, Study.id == Series.study_id)
        .where(Study.patient_id.in_(tuple(records)), _served())
        .distinct()
    ).all()
    hospitals = {organization.id: organization for _, organization in records.values()}
    return Choices(
        tuple(sorted(hospitals.values(), key=lambda one: one.code)),
        tuple(sorted({modality for modality, _ in rows} - {""})),
        tuple(sorted({part for _, part in rows} - {""})),
    )


def _moment(date: str, time: str) -> str:
    return f"{date:0<8}{time[:6]:0<6}"
