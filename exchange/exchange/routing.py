"""Routes and deliveries: what of a hospital's studies is sent on, to whom, and how far it has come.

A route is a hospital's own rule. When a study of it is quiet, `plan` makes a delivery for each rule
that the study meets; a job sends it, and again what comes later. What a destination has confirmed
is not sent twice. To another hospital goes what that hospital may see, as it knows the patient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from exchange import jobs, organizations, retrieval
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage import search
from exchange_storage.records import (
    ApplicationEntity,
    Delivered,
    Delivery,
    Instance,
    Order,
    Organization,
    Patient,
    Route,
    Series,
    Study,
)
from exchange_storage.search import Level

MATCHES = 100_000
"""Instances of one study that are forwarded, at most."""

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What of a hospital's studies goes where; an empty condition is met by all."""

    name: str
    modality: str = ""
    body_part: str = ""
    source: str = ""
    """Calling AE title, or client, that sent it."""
    hours: str = ""
    """``HH:MM-HH:MM``, local time."""
    destination: str = ""
    """``TITLE`` of an entity that listens, ``code:TITLE`` for one of another hospital."""
    url: str = ""
    """Base of a DICOMweb service, instead of `destination`."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery to be made: what is still to be sent, and where."""

    number: int
    study_instance_uid: str
    entity: ApplicationEntity | None
    url: str
    receiver: str
    """OID under which the receiving hospital numbers patients; "" for a DICOMweb service."""
    selected: tuple[retrieval.Selected, ...]
    sent: frozenset[str]
    """Digests of what was confirmed before."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A route as a list of them shows it."""

    organization: str
    route: Route
    destination: str
    waiting: int
    delivered: int


def add(access: Access, organization: str, rule: Rule) -> None:
    """Add a route of a hospital's. Raises Refused, NotFound, Invalid."""
    access.require(Action.ADMINISTER, detail={"code": organization, "route": rule.name})
    if not 0 < len(rule.name.strip()) <= 64:
        raise Invalid("a route has a name of 1 to 64 characters")
    if rule.hours and not _HOURS.fullmatch(rule.hours):
        raise Invalid("hours are written HH:MM-HH:MM")
    if bool(rule.destination) == bool(rule.url):
        raise Invalid("a route leads to an application entity or to a DICOMweb service")
    if rule.url and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", rule.url):
        raise Invalid("the base of a DICOMweb service is an http or https URL")

    def unit(session: Session) -> None:
        owner = organizations.by_code(session, organization)
        taken = select(Route.id).where(Route.organization_id == owner.id, Route.name == rule.name)
        if session.scalars(taken).first() is not None:
            raise Invalid("this hospital has a route of this name already")
        entity = _listening(session, owner, rule.destination) if rule.destination else None
        session.add(
            Route(
                organization_id=owner.id,
                name=rule.name,
                modality=rule.modality,
                body_part=rule.body_part,
                source=rule.source,
                hours=rule.hours,
                entity_id=entity.id if entity is not None else None,
                url=rule.url.rstrip("/"),
                created=access.now,
            )
        )
        access.note(
            Action.ADMINISTER,
            reason="route added",
            detail={"code": organization, "route": rule.name, "to": rule.destination or rule.url},
        )

    access.write(unit)


def remove(access: Access, organization: str, name: str) -> None:
    """Remove a route; what is on its way by it is not sent any more. Raises Refused, NotFound."""
    about = {"code": organization, "route": name}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        owner = organizations.by_code(session, organization)
        route = session.scalars(
            select(Route).where(Route.organization_id == owner.id, Route.name == name)
        ).one_or_none()
        if route is None:
            raise NotFound("this hospital has no route of this name")
        made = select(Delivery.id).where(Delivery.route_id == route.id)
        session.execute(delete(Delivered).where(Delivered.delivery_id.in_(made)))
        session.execute(delete(Delivery).where(Delivery.route_id == route.id))
        session.delete(route)
        access.note(Action.ADMINISTER, reason="route removed", detail=about)

    access.write(unit)


def everything(access: Access) -> Sequence[Listed]:
    """All routes, with how many studies wait and were delivered. Raises Refused."""
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="routes listed")
    rows = access.session.execute(
        select(Organization.code, Route, ApplicationEntity.title)
        .select_from(Route)
        .join(Organization, Organization.id == Route.organization_id)
        .outerjoin(ApplicationEntity, ApplicationEntity.id == Route.entity_id)
        .order_by(Organization.code, Route.name)
    ).all()
    listed = []
    for code, route, title in rows:
        done, waiting = access.session.execute(
            select(
                func.count(Delivery.delivered),
                func.count().filter(Delivery.delivered.is_(None)),
            ).where(Delivery.route_id == route.id)
        ).one()
        listed.append(Listed(code, route, title or route.url, waiting, done))
    return listed


def plan(access: Access, study: int) -> int:
    """Make deliveries of a study that is quiet now, by its row number; returns how many are due.

    Raises Refused.
    """
    access.require(Action.FORWARD)
    owner = access.session.scalars(
        select(Patient.organization_id)
        .join(Study, Study.patient_id == Patient.id)
        .where(Study.id == study)
    ).one_or_none()
    routes = access.session.scalars(
        select(Route).where(Route.organization_id == owner, Route.active)
    ).all()
    met = [route for route in routes if _meets(access.session, study, route)]
    if not met:
        return 0
    uid = access.session.get_one(Study, study).study_instance_uid

    def unit(session: Session) -> int:
        due = 0
        for route in met:
            delivery = session.scalars(
                select(Delivery).where(
                    Delivery.route_id == route.id, Delivery.study_instance_uid == uid
                )
            ).one_or_none()
            if delivery is None:
                delivery = Delivery(study_instance_uid=uid, asked=access.now, route_id=route.id)
                session.add(delivery)
                session.flush()
            delivery.delivered = None
            session.flush()
            jobs.ask(session, jobs.FORWARD, str(delivery.id), access.now)
            due += 1
        return due

    return access.write(unit)


def parcel(access: Access, number: int, *, timezone: ZoneInfo) -> Parcel | None:
    """What a delivery is to send now, decided for whoever receives it, and recorded.

    None when there is nothing to send any more. Raises jobs.Later outside the hours of its route;
    Refused with the policy's reason.
    """
    access.require(Action.FORWARD)
    session = access.session
    delivery = session.get(Delivery, number)
    if delivery is None:
        return None
    route = session.get(Route, delivery.route_id) if delivery.route_id is not None else None
    entity_id = route.entity_id if route is not None else delivery.entity_id
    entity = session.get(ApplicationEntity, entity_id) if entity_id is not None else None
    if route is not None and route.hours:
        wait = _until(route.hours, access.now.astimezone(timezone))
        if wait:
            raise jobs.Later(wait)
    receiver = session.get(Organization, entity.organization_id) if entity is not None else None
    owner = session.scalars(
        select(Patient.organization_id)
        .join(Study, Study.patient_id == Patient.id)
        .where(Study.study_instance_uid == delivery.study_instance_uid)
    ).one_or_none()
    if owner is None or (route is None and entity is None):
        return None
    asks = receiver.id if receiver is not None else owner
    wanted = search.Match("StudyInstanceUID", search.Values((delivery.study_instance_uid,)))
    # Decided as if the receiver had asked for it: nothing reaches a hospital that it could not get.
    on_behalf = Requester(
        name=access.requester.name,
        role=Role.SYSTEM,
        organization=asks,
        purpose=Purpose.TREATMENT,
        door=access.requester.door,
    )
    with access.exchange.on_behalf_of(on_behalf) as theirs:
        selected = retrieval.select_instances(
            theirs, Level.STUDY, [wanted], limit=MATCHES, purpose="images, forwarded"
        )
    sent = session.scalars(
        select(Instance.digest)
        .join(Delivered, Delivered.instance_id == Instance.id)
        .where(Delivered.delivery_id == number)
    ).all()
    access.note(
        Action.FORWARD,
        study=delivery.study_instance_uid,
        detail={
            "delivery": number,
            "to": entity.title if entity is not None else route and route.url,
        },
    )
    return Parcel(
        number,
        delivery.study_instance_uid,
        entity,
        route.url if route is not None else "",
        receiver.issuer if receiver is not None else "",
        selected,
        frozenset(sent),
    )


def confirmed(access: Access, number: int, keys: Sequence[str], *, complete: bool) -> None:
    """The destination has confirmed the objects with these keys; `complete`: and that is all."""
    access.require(Action.FORWARD)

    def unit(session: Session) -> None:
        rows = session.scalars(select(Instance.id).where(Instance.key.in_(keys))).all()
        known = set(
            session.scalars(select(Delivered.instance_id).where(Delivered.delivery_id == number))
        )
        session.add_all(
            Delivered(delivery_id=number, instance_id=row) for row in rows if row not in known
        )
        session.execute(
            update(Delivery)
            .where(Delivery.id == number)
            .values(
                instances=Delivery.instances + len(set(rows) - known),
                delivered=access.now if complete else None,
            )
        )
        access.note(
            Action.FORWARD,
            reason="confirmed",
            detail={"delivery": number, "instances": len(rows), "complete": complete},
        )

    access.write(unit)


def retry(access: Access) -> int:
    """Try again every delivery that was given up; returns how many. Raises Refused."""
    access.require(Action.ADMINISTER)

    def unit(session: Session) -> int:
        access.note(Action.ADMINISTER, reason="deliveries retried")
        return sum(
            jobs.retry(session, job.id)
            for job in jobs.dead_letters(session, 10_000)
            if job.kind == jobs.FORWARD
        )

    return access.write(unit)


def _meets(session: Session, study: int, route: Route) -> bool:
    wanted = (
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study, Instance.is_primary)
    )
    for column, value in (
        (Series.modality, route.modality),
        (Series.body_part_examined, route.body_part),
        (Instance.source, route.source),
    ):
        if value:
            wanted = wanted.where(column == value)
    return bool(session.scalar(select(exists(wanted))))


def _until(hours: str, now: datetime) -> float:
    """Seconds until the span begins that `hours` writes; 0 within it."""
    match = _HOURS.fullmatch(hours)
    if match is None:
        return 0.0
    first_hour, first_minute, last_hour, last_minute = (int(part) for part in match.groups())
    first, last, at = time(first_hour, first_minute), time(last_hour, last_minute), now.time()
    within = first <= at < last if first <= last else at >= first or at < last
    if within:
        return 0.0
    begins = datetime.combine(now.date(), first, now.tzinfo)
    return ((begins if begins > now else begins + timedelta(days=1)) - now).total_seconds()


def _listening(session: Session, owner: Organization, destination: str) -> ApplicationEntity:
    code, _, title = destination.rpartition(":")
    hospital = organizations.by_code(session, code) if code else owner
    found = session.scalars(
        select(ApplicationEntity).where(
            ApplicationEntity.organization_id == hospital.id,
            ApplicationEntity.title == title,
            ApplicationEntity.port.is_not(None),
        )
    ).all()
    entity = next((one for one in found if organizations.can_be_called(one)), None)
    if entity is None:
        raise NotFound("no application entity of this title listens at one address of the hospital")
    return entity


# Priors


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which of a patient's earlier studies are worth having: at most so many, of so many days."""

    studies: int = 5
    days: int = 5 * 365


def fetch_priors(access: Access, order: int, choice: Choice) -> int:
    """Have the relevant priors of an order's patient, from other hospitals, sent to the performing
    hospital's node; returns how many. Raises Refused.

    The node is the first that the hospital registered for priors (`receives_priors`).
    """
    access.require(Action.FORWARD)
    session = access.session
    row = session.execute(
        select(Order, Patient, Organization)
        .select_from(Order)
        .join(Patient, Patient.id == Order.patient_id)
        .join(Organization, Organization.id == Order.organization_id)
        .where(Order.id == order)
    ).one_or_none()
    if row is None or row.Order.status not in {"SCHEDULED", "IN PROGRESS"}:
        return 0
    nodes = session.scalars(
        select(ApplicationEntity)
        .where(
            ApplicationEntity.organization_id == row.Organization.id,
            ApplicationEntity.receives_priors,
        )
        .order_by(ApplicationEntity.id)
    ).all()
    node = next((one for one in nodes if organizations.can_be_called(one)), None)
    if node is None or row.Patient.person_id is None:
        return 0
    on_behalf = Requester(
        name=access.requester.name,
        role=Role.SYSTEM,
        organization=row.Organization.id,
        purpose=Purpose.TREATMENT,
        door=access.requester.door,
    )
    from exchange import query  # here, since query builds on more than a route needs

    with access.exchange.on_behalf_of(on_behalf) as theirs:
        found = query.find(
            theirs,
            Level.STUDY,
            [search.SamePerson(row.Patient.id)],
            limit=1000,
        ).found
        parts = {
            study: set(
                theirs.session.scalars(
                    select(Series.body_part_examined).distinct().where(Series.study_id == study)
                )
            )
            for study in (one.study.id for one in found if one.study is not None)
        }
    oldest = f"{access.now - timedelta(days=choice.days):%Y%m%d}"
    scored = sorted(
        (
            (
                relevance(
                    row.Order.modality,
                    row.Order.body_part_examined,
                    one.summary.modalities,
                    parts[one.study.id],
                ),
                one.study.study_date,
                one.study.study_instance_uid,
            )
            for one in found
            if one.study is not None
            and one.owner.id != row.Organization.id
            and one.study.study_date >= oldest
        ),
        reverse=True,
    )
    wanted = [uid for score, _, uid in scored if score > 0][: choice.studies]
    if not wanted:
        return 0

    def unit(session: Session) -> int:
        made = 0
        for uid in wanted:
            known = select(Delivery.id).where(
                Delivery.study_instance_uid == uid, Delivery.entity_id == node.id
            )
            if session.scalars(known).first() is not None:
                continue
            delivery = Delivery(
                study_instance_uid=uid, asked=access.now, order_id=order, entity_id=node.id
            )
            session.add(delivery)
            session.flush()
            jobs.ask(session, jobs.FORWARD, str(delivery.id), access.now)
            made += 1
        access.note(
            Action.FORWARD,
            reason="priors",
            patient=row.Patient.id,
            detail={"order": order, "studies": made, "to": node.title},
        )
        return made

    return access.write(unit)


def relevance(
    modality: str, body_part: str, modalities: Sequence[str], body_parts: set[str]
) -> int:
    """How much an earlier study tells for an order: 3 same part and modality, 2 part, 1 modality.

    Parts are compared where both are known; a study that tells no part may be of any.
    """
    same_modality = modality in modalities
    known = body_parts - {""}
    if body_part and known:
        return (2 + same_modality) if body_part in known else 0
    return int(same_modality)
