"""Deliveries: studies on their way to somebody, by a route or as priors, and how far they came.

A delivery is durable, and its work is a job: tried again for `jobs.ATTEMPTS_AT_OTHERS`, then on the
dead-letter list. What a destination has confirmed is not sent twice. To another hospital goes what
that hospital may see, as it knows the patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, String, cast, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from exchange import jobs, retrieval, routing, subject
from exchange.access import Access
from exchange.audit import Outcome
from exchange.errors import NotFound, Refused
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage import search
from exchange_storage.records import (
    ApplicationEntity,
    Delivered,
    Delivery,
    Instance,
    Job,
    Order,
    Organization,
    Patient,
    Route,
    Study,
)
from exchange_storage.search import Level

MATCHES = 100_000
"""Instances of one study that are forwarded, at most."""

_MANY = 10_000


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
    notes: frozenset[str]
    """Digests of rejection notes: not every destination has a use for them."""
    withheld: bool
    """The receiver may not have the study: what it is sent, if anything, is not all there is."""


def parcel(access: Access, number: int, *, timezone: ZoneInfo) -> Parcel | None:
    """What a delivery is to send now, decided for whoever receives it, and recorded.

    None when there is nothing to send any more, or that may be: the delivery ends without being
    delivered. Raises jobs.Later outside the hours of its route;
    Refused with the policy's reason.
    """
    access.require(Action.FORWARD)
    session = access.session
    delivery = session.get(Delivery, number)
    if delivery is None:
        return None
    route = session.get(Route, delivery.route_id) if delivery.route_id is not None else None
    order = session.get(Order, delivery.order_id) if delivery.order_id is not None else None
    if order is not None and order.status == "CANCELED":
        return None
    entity_id = route.entity_id if route is not None else delivery.entity_id
    entity = session.get(ApplicationEntity, entity_id) if entity_id is not None else None
    if route is not None and route.hours:
        wait = routing.until(route.hours, access.now.astimezone(timezone))
        if wait:
            raise jobs.Later(wait)
    receiver = session.get(Organization, entity.organization_id) if entity is not None else None
    row = session.execute(
        select(Study.id, Patient.organization_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Study.study_instance_uid == delivery.study_instance_uid)
    ).one_or_none()
    if row is None or (route is None and entity is None):
        return None
    asks = receiver.id if receiver is not None else row.organization_id
    if not session.get_one(Organization, asks).active:
        reason = "the receiving organization was deactivated"
        access.note(
            Action.FORWARD,
            outcome=Outcome.REFUSED,
            reason=reason,
            **subject.of_study(session, delivery.study_instance_uid),
            detail={"delivery": number},
        )
        raise Refused(reason)
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
        notes: tuple[retrieval.Selected, ...] = ()
        if delivery.instances:  # who has got images hears that they were rejected
            with suppress(Refused, NotFound):  # as who may not know of the patient is answered
                notes = retrieval.rejection_notes(theirs, delivery.study_instance_uid)
    sent = session.scalars(
        select(Instance.digest)
        .join(Delivered, Delivered.instance_id == Instance.id)
        .where(Delivered.delivery_id == number)
    ).all()
    withheld = not selected and retrieval.is_served(access, row.id)
    ends = not selected and not notes and (withheld or not delivery.instances)
    access.note(
        Action.FORWARD,
        outcome=Outcome.REFUSED if withheld else Outcome.SUCCESS,
        reason="withheld" if withheld else "nothing is left of it" if ends else "",
        **subject.of_study(session, delivery.study_instance_uid),
        detail={
            "delivery": number,
            "to": entity.title if entity is not None else route and route.url,
        },
    )
    if ends:
        return None
    return Parcel(
        number,
        delivery.study_instance_uid,
        entity,
        route.url if route is not None else "",
        receiver.issuer if receiver is not None else "",
        (*selected, *notes),
        frozenset(sent),
        frozenset(held.digest for one in notes for held in one.instances),
        withheld,
    )


def confirmed(
    access: Access,
    number: int,
    taken: Sequence[retrieval.Held],
    *,
    complete: bool,
    failed: int = 0,
    why: str = "",
    answered: bool = True,
) -> None:
    """The destination has confirmed these instances; `complete`: and that is all.

    So many have `failed` in this attempt, and the last of them for what `why` says: an outcome
    that the trail has too (PS3.15 A.5.3.7).
    What waits for the same destination is tried at once where it has `answered`, were it only to
    refuse an instance. A delivery that was
    called off meanwhile is nobody else's: its number is not given again. Raises Refused.
    """
    access.require(Action.FORWARD)

    def unit(session: Session) -> None:
        delivery = session.get(Delivery, number)
        if delivery is None:
            access.note(
                Action.FORWARD,
                reason="confirmed after it was called off",
                detail={"delivery": number, "instances": len(taken)},
            )
            return
        rows = session.scalars(
            select(Instance.id).where(
                Instance.sop_instance_uid.in_({one.sop_instance_uid for one in taken}),
                Instance.key.in_({one.key for one in taken}),
            )
        ).all()
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
        if answered and (rows or failed):
            others = Job.id.in_(_to_the_same(session, number))
            jobs.bring_on(session, jobs.FORWARD, others, access.now)
        access.note(
            Action.FORWARD,
            outcome=Outcome.FAILED if failed else Outcome.SUCCESS,
            reason=f"not taken: {why}" if failed else "confirmed",
            **subject.of_study(session, delivery.study_instance_uid),
            detail={
                "what": retrieval.SENT,
                "delivery": number,
                "to": _destination(session, delivery),
                "instances": len(rows),
                "failed": failed,
                "complete": complete,
            },
        )

    access.write(unit)


def unanswered(access: Access, number: int) -> None:
    """The destination of a delivery did not answer: nothing else is tried there before this one is
    tried again.

    Raises Refused.
    """
    access.require(Action.FORWARD)

    def unit(session: Session) -> None:
        others = Job.id.in_(_to_the_same(session, number))
        jobs.put_off(session, jobs.FORWARD, str(number), others, access.now)
        delivery = session.get(Delivery, number)
        if delivery is None:
            return
        access.note(
            Action.FORWARD,
            outcome=Outcome.FAILED,
            reason="not answered",
            **subject.of_study(session, delivery.study_instance_uid),
            detail={"delivery": number, "to": _destination(session, delivery)},
        )

    access.write(unit)


def _destination(session: Session, delivery: Delivery) -> str:
    """AE title or URL to which a delivery goes."""
    route = session.get(Route, delivery.route_id) if delivery.route_id is not None else None
    number = route.entity_id if route is not None else delivery.entity_id
    entity = session.get(ApplicationEntity, number) if number is not None else None
    return entity.title if entity is not None else route.url if route is not None else ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delivery that has not been made, as a list of them shows it."""

    number: int
    organization: str
    """The hospital whose route it is, or for whose order."""
    route: str
    """Name of the route; "" for a prior."""
    study_instance_uid: str
    destination: str
    asked: datetime
    given_up: bool
    """On the dead-letter list, until someone retries it."""
    attempts: int
    due: datetime | None
    """When it is tried next; None when it was given up."""
    last_error: str


def waiting(access: Access, *, given_up: bool = False, limit: int = 1000) -> Sequence[Waiting]:
    """What is on its way, or only what was given up, the oldest first; a hospital's own.

    To the region's administrators, all hospitals'. Raises Refused.
    """
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="deliveries listed")
    of_route, of_order = aliased(Organization), aliased(Organization)
    of_node, node = aliased(Organization), aliased(ApplicationEntity)
    rows = access.session.execute(
        select(Delivery, Job, Route, of_route.code, of_order.code, node.title, of_node.code)
        .select_from(Delivery)
        .join(Job, jobs.of(jobs.FORWARD, Delivery.id))
        .outerjoin(Route, Route.id == Delivery.route_id)
        .outerjoin(of_route, of_route.id == Route.organization_id)
        .outerjoin(Order, Order.id == Delivery.order_id)
        .outerjoin(of_order, of_order.id == Order.organization_id)
        .outerjoin(node, or_(node.id == Route.entity_id, node.id == Delivery.entity_id))
        .outerjoin(of_node, of_node.id == node.organization_id)
        .where(Delivery.delivered.is_(None), Job.dead if given_up else true(), _asked_by(access))
        .order_by(Delivery.id)
        .limit(limit)
    )
    return [
        Waiting(
            number=delivery.id,
            organization=routes or orders or "",
            route=route.name if route is not None else "",
            study_instance_uid=delivery.study_instance_uid,
            destination=f"{hospital}:{title}" if title else route.url,
            asked=delivery.asked,
            given_up=job.dead,
            attempts=job.attempts,
            due=None if job.dead else job.due,
            last_error=job.last_error,
        )
        for delivery, job, route, routes, orders, title, hospital in rows
    ]


def retry(access: Access, number: int | None = None) -> int:
    """Try again now what was given up or failed before: one delivery, or all; returns how many.

    Raises Refused, and NotFound when there is no such delivery of this number.
    """
    access.require(Action.ADMINISTER, detail={"delivery": number})

    def unit(session: Session) -> int:
        wanted = select(Job.id).where(Job.kind == jobs.FORWARD, or_(Job.dead, Job.attempts > 0))
        if number is not None:
            wanted = wanted.where(Job.subject == str(number))
        if access.requester.organization is not None:
            own = select(cast(Delivery.id, String)).where(_asked_by(access))
            wanted = wanted.where(Job.subject.in_(own))
        tried = session.scalars(
            update(Job)
            .where(Job.id.in_(wanted))
            .values(dead=False, attempts=0, due=access.now)
            .returning(Job.id)
        ).all()
        if number is not None and not tried:
            raise NotFound("no delivery of this number has failed; `exchange route waiting`")
        access.note(
            Action.ADMINISTER,
            reason="deliveries retried",
            detail={"delivery": number, "count": len(tried)},
        )
        return len(tried)

    return access.write(unit)


def _asked_by(access: Access) -> ColumnElement[bool]:
    """Whether a delivery is by a route or for an order of the hospital for which the asker acts."""
    own = access.requester.organization
    if own is None:
        return true()
    return or_(
        Delivery.route_id.in_(select(Route.id).where(Route.organization_id == own)),
        Delivery.order_id.in_(select(Order.id).where(Order.organization_id == own)),
    )


def _to_the_same(session: Session, number: int) -> Sequence[int]:
    """The jobs of this delivery and of others to its destination."""
    delivery = session.get(Delivery, number)
    if delivery is None:
        return []
    route = session.get(Route, delivery.route_id) if delivery.route_id is not None else None
    entity = route.entity_id if route is not None else delivery.entity_id
    same = (
        or_(Route.entity_id == entity, Delivery.entity_id == entity)
        if entity is not None
        else Route.url == (route.url if route is not None else "")
    )
    return session.scalars(
        select(Job.id)
        .join(Delivery, jobs.of(jobs.FORWARD, Delivery.id))
        .outerjoin(Route, Route.id == Delivery.route_id)
        .where(
            same,
            Delivery.delivered.is_(None),
            ~Job.dead,
        )
        .order_by(Delivery.id != number)
        .limit(_MANY)
    ).all()
