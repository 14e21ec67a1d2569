"""Availability: a hospital's nodes are told what of its studies can be fetched (PS3.4 annex R).

Told are the nodes that are registered for it, of their own hospital's studies, when one is quiet
and again when more of it has come. What another hospital has is found by asking, where it is
decided who may know.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from exchange import jobs, organizations, registry
from exchange.access import Access
from exchange.audit import Outcome
from exchange.policy import Action
from exchange_storage.records import (
    ApplicationEntity,
    Instance,
    Job,
    Patient,
    PerformedStep,
    Series,
    Study,
)

INSTANCES = 50_000
"""Instances of which one notification tells, at most: the first ones of the study."""

TOLD = "instance availability"
"""In the trail's detail, as what: a notification, and how it ended."""

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What a node is told of a study: the instances of each series."""

    uid: str
    """The same whenever the same is told again, so that a receiver knows it."""
    entity: ApplicationEntity
    patient: int
    """Row number."""
    study_instance_uid: str
    series: Mapping[str, Sequence[Reference]]
    step: str
    """SOP Instance UID of the performed procedure step that made the study; "" if there is not
    exactly one."""


def plan(access: Access, studies: Sequence[int]) -> int:
    """Have the nodes told of studies that are quiet now, by row numbers; returns of how many each
    is, added up.

    Raises Refused.
    """
    access.require(Action.FORWARD)
    told = [
        (entity, study)
        for entity, study in access.session.execute(
            select(ApplicationEntity, Study.id)
            .join(Patient, Patient.organization_id == ApplicationEntity.organization_id)
            .join(Study, Study.patient_id == Patient.id)
            .where(
                Study.id.in_(studies),
                ApplicationEntity.told_of_availability,
                registry.takes_part(ApplicationEntity.organization_id),
            )
        )
        if organizations.can_be_called(entity)
    ]
    if not told:
        return 0

    def unit(session: Session) -> None:
        for entity, study in told:
            jobs.ask(session, jobs.NOTIFY, f"{entity.id}:{study}", access.now)

    access.write(unit)
    return len(told)


def notification(access: Access, subject: str) -> Notification | None:
    """What a job of the subject that `plan` gave it is to tell now; None if that is nothing.

    What becomes of it is recorded by `ended`. Raises Refused.
    """
    access.require(Action.FORWARD)
    entity_id, _, study_id = subject.partition(":")
    entity = access.session.scalars(
        select(ApplicationEntity).where(
            ApplicationEntity.id == int(entity_id),
            registry.takes_part(ApplicationEntity.organization_id),
        )
    ).one_or_none()
    found = access.session.execute(
        select(Study, Patient)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Study.id == int(study_id))
    ).one_or_none()
    if entity is None or found is None or not entity.told_of_availability:
        return None
    if found.Patient.organization_id != entity.organization_id:
        return None
    study = found.Study
    kept = access.session.execute(
        select(Series.series_instance_uid, Instance.sop_class_uid, Instance.sop_instance_uid)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study.id, Instance.is_primary)
        .order_by(Series.id, Instance.id)
        .limit(INSTANCES)
    ).all()
    if not kept:
        return None
    series: dict[str, list[Reference]] = {}
    for uid, sop_class, instance in kept:
        series.setdefault(uid, []).append((sop_class, instance))
    steps = access.session.scalars(
        select(PerformedStep.sop_instance_uid)
        .where(
            PerformedStep.organization_id == entity.organization_id,
            PerformedStep.study_instance_uid == study.study_instance_uid,
        )
        .limit(2)
    ).all()
    about = f"{entity.id} {study.study_instance_uid} {study.revision}"
    return Notification(
        uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, about).int}",
        entity=entity,
        patient=found.Patient.id,
        study_instance_uid=study.study_instance_uid,
        series=series,
        step=steps[0] if len(steps) == 1 else "",
    )


def ended(
    access: Access, subject: str, told: Notification, *, answered: bool, why: str = ""
) -> None:
    """Record that the node of a job has taken what it was told; or has not, for what `why` says.

    Where it has not `answered`, it is told of no other study before that is tried again; where it
    has, what waits for it is due. Raises Refused.
    """
    access.require(Action.FORWARD)
    outcome = Outcome.FAILED if why else Outcome.SUCCESS
    failed = f"not taken: {why}" if answered else f"not answered: {why}"

    def unit(session: Session) -> None:
        if answered:
            jobs.bring_on(session, jobs.NOTIFY, _to_the_same(subject), access.now)
        else:
            jobs.put_off(session, jobs.NOTIFY, subject, _to_the_same(subject), access.now)
        access.note(
            Action.FORWARD,
            outcome=outcome,
            reason=failed if why else "confirmed",
            patient=told.patient,
            study=told.study_instance_uid,
            detail={
                "what": TOLD,
                "to": told.entity.title,
                "instances": sum(map(len, told.series.values())),
            },
        )

    access.write(unit)


def _to_the_same(subject: str) -> ColumnElement[bool]:
    entity, _, _ = subject.partition(":")
    return Job.subject.startswith(f"{int(entity)}:")
