"""Routes: which of a hospital's studies are sent on by themselves, and to whom.

A route is a hospital's own rule. When a study of it is quiet, `plan` makes a delivery for each rule
that the study meets; `deliveries` tells how those go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from urllib.parse import urlsplit

from sqlalchemy import and_, bindparam, delete, exists, func, select, true
from sqlalchemy.orm import Session, aliased

from exchange import body_parts, calling, jobs, organizations, priors, registry
from exchange.access import Access
from exchange.errors import Invalid, NotFound
from exchange.policy import Action
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    ApplicationEntity,
    Delivered,
    Delivery,
    Instance,
    Job,
    Organization,
    Patient,
    Route,
    Series,
    Study,
)

VALUES = 32
"""Values of one condition."""

_PLANNED = Prepared(
    select(
        Study.study_instance_uid,
        Patient.organization_id,
        Patient.person_id,
        exists(
            select(Route.id).where(Route.organization_id == Patient.organization_id, Route.active)
        ).label("has_routes"),
        exists(
            select(Delivery.id).where(
                Delivery.study_instance_uid == Study.study_instance_uid, Delivery.instances > 0
            )
        ).label("has_begun"),
    )
    .join(Patient, Patient.id == Study.patient_id)
    .where(Study.id == bindparam("study"))
)

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What of a hospital's studies goes where; an empty condition is met by all.

    A study is meant when one of its instances meets all conditions; then all of it goes.
    """

    name: str
    modality: str = ""
    """``CT``, or several: ``CT,MR``; capitals or not."""
    body_part: str = ""
    """Body Part Examined, one or several, as `modality`; however it is written, and whatever lies
    in the same region (see `body_parts.alike`)."""
    source: str = ""
    """Calling AE title, or client, that sent it; one or several, as they are written."""
    hours: str = ""
    """``HH:MM-HH:MM``, local time; may span midnight."""
    destination: str = ""
    """``TITLE`` of an entity that listens, ``code:TITLE`` for one of another hospital."""
    url: str = ""
    """Base of a DICOMweb service, instead of `destination`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A route as a list of them shows it."""

    organization: str
    route: Route
    destination: str
    """``code:TITLE`` of an entity, or the base of a DICOMweb service."""
    waiting: int
    """Studies on their way, those that were given up left out."""
    given_up: int
    delivered: int
    withheld: int
    """Not sent, since the policy keeps them from the receiver; or what came of them last."""
    gone: int
    """Deleted or rejected before anything of them was sent, or since they were withheld."""


def add(access: Access, organization: str, rule: Rule) -> None:
    """Add a route of a hospital's. Raises Refused, NotFound, Invalid."""
    access.require(Action.ADMINISTER, detail={"code": organization, "route": rule.name})
    if not 0 < len(rule.name.strip()) <= 64:
        raise Invalid("a route has a name of 1 to 64 characters")
    span = _HOURS.fullmatch(rule.hours)
    if rule.hours and (span is None or rule.hours[:5] == rule.hours[6:]):
        raise Invalid("hours are written HH:MM-HH:MM, and end at another time than they begin")
    if bool(rule.destination) == bool(rule.url):
        raise Invalid("a route leads to an application entity or to a DICOMweb service")
    if rule.url and (len(rule.url) > 2048 or not _URL.fullmatch(rule.url)):
        raise Invalid("the base of a DICOMweb service is an http or https URL without a login")
    if rule.url and not _leads_somewhere(rule.url):
        raise Invalid("no route leads to a link-local, multicast or reserved address")
    modality, body_part = _values(rule.modality.upper()), _values(rule.body_part.upper())
    source = _values(rule.source)

    def unit(session: Session) -> None:
        owner = organizations.administered(access, organization, session)
        taken = select(Route.id).where(Route.organization_id == owner.id, Route.name == rule.name)
        if session.scalars(taken).first() is not None:
            raise Invalid("this hospital has a route of this name already")
        entity = _listening(session, owner, rule.destination) if rule.destination else None
        session.add(
            Route(
                organization_id=owner.id,
                name=rule.name,
                modality=modality,
                body_part=body_part,
                source=source,
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
        owner = organizations.administered(access, organization, session)
        route = session.scalars(
            select(Route).where(Route.organization_id == owner.id, Route.name == name)
        ).one_or_none()
        if route is None:
            raise NotFound("this hospital has no route of this name; `exchange route list`")
        made = select(Delivery.id).where(Delivery.route_id == route.id)
        session.execute(delete(Delivered).where(Delivered.delivery_id.in_(made)))
        session.execute(delete(Delivery).where(Delivery.route_id == route.id))
        session.delete(route)
        access.note(Action.ADMINISTER, reason="route removed", detail=about)

    access.write(unit)


def everything(access: Access) -> Sequence[Listed]:
    """All routes, and how many studies wait, were given up, delivered, withheld, or are gone.

    To a hospital's administrator, its own. Raises Refused.
    """
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="routes listed")
    session, own = access.session, access.requester.organization
    of_node = aliased(Organization)
    rows = session.execute(
        select(Organization.code, Route, ApplicationEntity.title, of_node.code)
        .select_from(Route)
        .join(Organization, Organization.id == Route.organization_id)
        .outerjoin(ApplicationEntity, ApplicationEntity.id == Route.entity_id)
        .outerjoin(of_node, of_node.id == ApplicationEntity.organization_id)
        .where(true() if own is None else Route.organization_id == own)
        .order_by(Organization.code, Route.name)
    ).all()
    open_ = Delivery.delivered.is_(None)
    # Work that has ended and delivered nothing: it was not to be, or there was nothing any more.
    ended = and_(open_, Job.id.is_(None))
    is_there = exists(
        select(Instance.id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_instance_uid == Delivery.study_instance_uid, Instance.is_primary)
    )
    counted = {
        route: counts
        for route, *counts in session.execute(
            select(
                Delivery.route_id,
                func.count().filter(open_, ~Job.dead),
                func.count().filter(open_, Job.dead),
                func.count(Delivery.delivered),
                func.count().filter(ended, is_there),
                func.count().filter(ended, ~is_there),
            )
            .outerjoin(Job, jobs.of(jobs.FORWARD, Delivery.id))
            .group_by(Delivery.route_id)
        )
    }
    return [
        Listed(
            code,
            route,
            f"{hospital}:{title}" if title else route.url,
            *counted.get(route.id, (0, 0, 0, 0, 0)),
        )
        for code, route, title, hospital in rows
    ]


def plan(access: Access, study: int) -> int:
    """Make deliveries of a study that is quiet now, by its row number; returns how many are due.

    Open orders for the same person are looked at again: the study may be a prior of theirs.
    Raises Refused.
    """
    access.require(Action.FORWARD)
    row = _PLANNED.first(access.session.connection(), {"study": study})
    if row is None:
        return 0
    routes: Sequence[Route] = ()
    if row.has_routes:
        to = func.coalesce(ApplicationEntity.organization_id, Route.organization_id)
        routes = access.session.scalars(
            select(Route)
            .outerjoin(ApplicationEntity, ApplicationEntity.id == Route.entity_id)
            .where(
                Route.organization_id == row.organization_id, Route.active, registry.takes_part(to)
            )
        ).all()
    met = [route for route in routes if _meets(access.session, study, route)]
    awaited = priors.awaiting(access.session, row.person_id)
    if not met and not awaited and not row.has_begun:
        return 0

    def unit(session: Session) -> int:
        for order in awaited:
            jobs.ask(session, jobs.PRIORS, str(order), access.now)
        # Who has got some of it gets the rest, and hears what was rejected since.
        begun = select(Delivery).where(
            Delivery.study_instance_uid == row.study_instance_uid, Delivery.instances > 0
        )
        due = list(session.scalars(begun))
        for route in met:
            delivery = session.scalars(
                select(Delivery).where(
                    Delivery.route_id == route.id,
                    Delivery.study_instance_uid == row.study_instance_uid,
                )
            ).one_or_none()
            if delivery is None:
                delivery = Delivery(
                    study_instance_uid=row.study_instance_uid, asked=access.now, route_id=route.id
                )
                session.add(delivery)
            if delivery not in due:
                due.append(delivery)
        for delivery in due:
            delivery.delivered = None
        session.flush()
        for delivery in due:
            jobs.ask(session, jobs.FORWARD, str(delivery.id), access.now)
        return len(due)

    return access.write(unit)


def until(hours: str, now: datetime) -> float:
    """Seconds until the span begins that `hours` writes, by the clock of `now`; 0 within it."""
    match = _HOURS.fullmatch(hours)
    if match is None:
        return 0.0
    first_hour, first_minute, last_hour, last_minute = (int(part) for part in match.groups())
    first, last, at = time(first_hour, first_minute), time(last_hour, last_minute), now.time()
    within = first <= at < last if first <= last else at >= first or at < last
    if within:
        return 0.0
    begins = datetime.combine(now.date(), first, now.tzinfo)
    if begins <= now:
        begins = datetime.combine(now.date() + timedelta(days=1), first, now.tzinfo)
    return begins.timestamp() - now.timestamp()  # also on a day of 23 or 25 hours


def _leads_somewhere(url: str) -> bool:
    """Whether a host that is written as an address may be called; a name is seen when it is."""
    try:
        return calling.may_be_called(urlsplit(url).hostname or "")
    except ValueError:
        return True


def _values(text: str) -> str:
    """The values of a condition, as they are kept. Raises Invalid."""
    values = [value.strip() for value in text.split(",") if value.strip()]
    if len(values) > VALUES or len(",".join(values)) > 255:
        raise Invalid(f"a condition has at most {VALUES} values and 255 characters")
    return ",".join(values)


def _meets(session: Session, study: int, route: Route) -> bool:
    wanted = (
        select(Series.body_part)
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study, Instance.is_primary)
        .distinct()
    )
    for column, values in (
        (func.upper(Series.modality), route.modality.upper()),
        (Instance.source, route.source),
    ):
        if values:
            wanted = wanted.where(column.in_(values.split(",")))
    parts = session.scalars(wanted).all()
    meant = [one for one in route.body_part.split(",") if one]
    return bool(parts) and (
        not meant or any(body_parts.alike(one, part) for one in meant for part in parts)
    )


def _listening(session: Session, owner: Organization, destination: str) -> ApplicationEntity:
    code, _, title = destination.rpartition(":")
    hospital = organizations.by_code(session, code) if code else owner
    if not hospital.active:
        raise Invalid("that hospital was deactivated; `exchange organization activate` comes first")
    found = session.scalars(
        select(ApplicationEntity).where(
            ApplicationEntity.organization_id == hospital.id,
            ApplicationEntity.title == title,
            ApplicationEntity.port.is_not(None),
        )
    ).all()
    entity = next((one for one in found if organizations.can_be_called(one)), None)
    if entity is None:
        raise NotFound(
            "the hospital has no application entity of this title that listens at one address; "
            "`exchange organization add-ae CODE TITLE@ADDRESS:PORT` registers one"
        )
    return entity
