"""Priors: what the performing hospital should have of a patient before a visit.

An order has the relevant studies of other hospitals sent to the node that its hospital registered
for that. It is asked again when the patient becomes known as somebody, or another study comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from exchange import body_parts, jobs, organizations, query, registry
from exchange.access import Access
from exchange.policy import Action, Purpose, Requester, Role
from exchange_storage import search
from exchange_storage.records import (
    ApplicationEntity,
    Delivered,
    Delivery,
    Job,
    Order,
    Organization,
    Patient,
    Series,
)
from exchange_storage.search import Level

OPEN = ("SCHEDULED", "IN PROGRESS")
"""Statuses of orders that still want priors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which of a patient's earlier studies are worth having: at most so many, of so many days."""

    studies: int = 5
    days: int = 5 * 365


def awaiting(session: Session, person: int | None) -> Sequence[int]:
    """The open orders for a person, of all hospitals, by row number."""
    if person is None:
        return []
    return session.scalars(
        select(Order.id)
        .join(Patient, Patient.id == Order.patient_id)
        .where(Patient.person_id == person, Order.status.in_(OPEN))
    ).all()


def fetch(access: Access, order: int, choice: Choice) -> int:
    """Have the relevant priors of an order's patient, from other hospitals, sent to the performing
    hospital's node; returns how many are on their way now.

    The node is the first that the hospital registered for priors (`receives_priors`).
    Raises Refused.
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
    if row is None or row.Order.status not in OPEN:
        return 0
    node = _node(session, row.Organization)
    if node is None or row.Patient.person_id is None:
        return 0
    wanted = _wanted(access, row.Order, row.Organization, choice)
    if not wanted:
        return 0

    def unit(session: Session) -> int:
        made = 0
        _called_off(session, order, wanted, node)
        for uid in wanted:
            known = session.execute(
                select(Delivery, Job.id, Order.status)
                .outerjoin(Job, jobs.of(jobs.FORWARD, Delivery.id) & ~Job.dead)
                .outerjoin(Order, Order.id == Delivery.order_id)
                .where(Delivery.study_instance_uid == uid, Delivery.entity_id == node.id)
                .order_by((Delivery.order_id == order).desc(), Delivery.id)
            ).all()
            if any(
                one.Delivery.instances or (one.id is not None and one.status != "CANCELED")
                for one in known
            ):
                continue  # there or on its way; what is added to it later follows by itself
            if known:  # called off, withheld or given up before anything was sent
                delivery = known[0].Delivery
                delivery.order_id, delivery.delivered = order, None
            else:
                delivery = Delivery(
                    study_instance_uid=uid, asked=access.now, order_id=order, entity_id=node.id
                )
                session.add(delivery)
            session.flush()
            jobs.ask(session, jobs.FORWARD, str(delivery.id), access.now)
            made += 1
        if made:
            access.note(
                Action.FORWARD,
                reason="priors",
                patient=row.Patient.id,
                detail={"order": order, "studies": made, "to": node.title},
            )
        return made

    return access.write(unit)


def _called_off(
    session: Session, order: int, wanted: Sequence[str], node: ApplicationEntity
) -> None:
    """What the order has on its way to another node than `node`, which takes that one's place."""
    elsewhere = select(Delivery.id).where(
        Delivery.order_id == order,
        Delivery.study_instance_uid.in_(wanted),
        Delivery.entity_id != node.id,
    )
    session.execute(delete(Delivered).where(Delivered.delivery_id.in_(elsewhere)))
    session.execute(delete(Delivery).where(Delivery.id.in_(elsewhere)))


def _node(session: Session, organization: Organization) -> ApplicationEntity | None:
    nodes = session.scalars(
        select(ApplicationEntity)
        .where(
            ApplicationEntity.organization_id == organization.id,
            ApplicationEntity.receives_priors,
            registry.takes_part(ApplicationEntity.organization_id),
        )
        .order_by(ApplicationEntity.id)
    )
    return next((one for one in nodes if organizations.can_be_called(one)), None)


def _wanted(access: Access, order: Order, organization: Organization, choice: Choice) -> list[str]:
    """The studies worth having, by UID, the most relevant first.

    Found as the performing hospital finds them: what it may not see is not there.
    """
    on_behalf = Requester(
        name=access.requester.name,
        role=Role.SYSTEM,
        organization=organization.id,
        purpose=Purpose.TREATMENT,
        door=access.requester.door,
    )
    with access.exchange.on_behalf_of(on_behalf) as theirs:
        found = query.find(
            theirs, Level.STUDY, [search.SamePerson(order.patient_id)], limit=1000
        ).found
        rows = theirs.session.execute(
            select(Series.study_id, Series.body_part)
            .distinct()
            .where(Series.study_id.in_([one.study.id for one in found if one.study is not None]))
        ).all()
    parts: dict[int, set[str]] = {}
    for study, part in rows:
        parts.setdefault(study, set()).add(part)
    oldest = f"{access.now - timedelta(days=choice.days):%Y%m%d}"
    scored = sorted(
        (
            (
                relevance(
                    order.modality,
                    order.body_part_examined,
                    one.summary.modalities,
                    parts.get(one.study.id, set()),
                ),
                one.study.study_date,
                one.study.study_instance_uid,
            )
            for one in found
            if one.study is not None
            and one.owner.id != organization.id
            and one.study.study_date >= oldest
        ),
        reverse=True,
    )
    return [uid for score, _, uid in scored if score > 0][: choice.studies]


def relevance(modality: str, body_part: str, modalities: Sequence[str], parts: set[str]) -> int:
    """How much an earlier study tells for an order: 4 same part, 2 another part of one of its
    regions, and 1 more for the same modality.

    Parts and regions are compared where both are known (see `body_parts`); a study that tells no
    part may be of any.
    """
    same_modality = modality.upper() in modalities
    known = {body_parts.folded(part): part for part in parts if body_parts.folded(part)}
    asked = body_parts.folded(body_part)
    if not asked or not known:
        return int(same_modality)
    if asked in known:
        return 4 + same_modality
    wanted = body_parts.regions(body_part)
    if any(wanted & body_parts.regions(part) for part in known.values()):
        return 2 + same_modality
    return 0
