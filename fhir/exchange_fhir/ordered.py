"""Orders, told in FHIR: as a ServiceRequest where the hospital wrote none, and always as a Task.

A Task says where the order stands by what modalities tell (MPPS), since the ServiceRequest of a
hospital stays as that wrote it (FHIR R4 12.12, 12.1: request and event are two resources).
The handler of jobs of the kind `jobs.REQUEST`.
"""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from exchange import recording, requests
from exchange.access import Access
from exchange.orders import Status
from exchange.recording import Derive
from exchange.requests import Standing
from exchange_fhir.datatypes import (
    DCM,
    DICOM_UID,
    SNOMED,
    Json,
    code,
    concept,
    display_name,
    instant,
    moment,
    present,
    reference,
    text,
)
from exchange_fhir.writing import Place, draft

REQUESTS: Mapping[Status, str] = {
    Status.SCHEDULED: "active",
    Status.IN_PROGRESS: "active",
    Status.COMPLETED: "completed",
    Status.DISCONTINUED: "revoked",
    Status.CANCELED: "revoked",
}
"""Request status (R4 12.12)."""

TASKS: Mapping[Status, str] = {
    Status.SCHEDULED: "requested",
    Status.IN_PROGRESS: "in-progress",
    Status.COMPLETED: "completed",
    Status.DISCONTINUED: "failed",
    Status.CANCELED: "cancelled",
}
"""Task status (R4 12.1)."""

_IMAGING = concept(SNOMED, "363679005", "Imaging")
_FULFIL = concept("http://hl7.org/fhir/CodeSystem/task-code", "fulfill")
_FHIR = {"STAT": "stat", "HIGH": "urgent"}


def refresh(access: Access, order: int, *, base: str, timezone: ZoneInfo) -> int:
    """Tell of the order with this row number; how many resources have changed.

    On behalf of the exchange itself. Safe to repeat. Raises Refused, Unavailable.
    """
    standing = requests.standing(access, order)
    if standing is None:
        return 0
    place = Place(base=base, timezone=timezone)
    told = [_task(standing, timezone)]
    if not standing.order.is_requested:
        told.insert(0, _request(standing, timezone))
    acts = [Derive(draft(one, place, one["id"])) for one in told]
    return sum(one.made for one in recording.several(access, acts))


def _request(standing: Standing, timezone: ZoneInfo) -> Json:
    order = standing.order
    modality = code(order.modality)
    performer = present(display=display_name(order.performing_physician_name))
    station = present(
        type="Device" if order.station_ae_title or order.station_name else None,
        display=text(order.station_name or order.station_ae_title),
    )
    return present(
        resourceType="ServiceRequest",
        id=order.request,
        identifier=[_accession(standing), _study(standing)],
        status=REQUESTS[Status(order.status)],
        intent="order",
        category=[_IMAGING],
        priority=_FHIR.get(order.priority, "routine"),
        code=present(text=text(order.procedure_description) or modality),
        orderDetail=[concept(DCM, modality)] if modality else None,
        subject=reference("Patient", order.patient_id),
        occurrenceDateTime=moment(order.scheduled_date, order.scheduled_time, timezone),
        authoredOn=instant(order.placed),
        requester=present(display=display_name(order.requesting_physician_name)),
        performer=[
            reference("Organization", standing.organization),
            *(one for one in (performer, station) if one),
        ],
        reasonCode=[{"text": said}] if (said := text(order.reason)) else None,
        bodySite=[{"text": part}] if (part := text(order.body_part_examined)) else None,
    )


def _task(standing: Standing, timezone: ZoneInfo) -> Json:
    order = standing.order
    request = reference("ServiceRequest", order.request)
    status = Status(order.status)
    ended = status in {Status.COMPLETED, Status.DISCONTINUED}
    return present(
        resourceType="Task",
        id=requests.task_id(order.request),
        identifier=[_accession(standing)],
        basedOn=[request],
        status=TASKS[status],
        intent="order",
        priority=_FHIR.get(order.priority, "routine"),
        code=_FULFIL,
        focus=request,
        **{"for": reference("Patient", order.patient_id)},
        executionPeriod=present(
            start=_at(standing.began, timezone),
            end=_at(standing.ended, timezone) if ended else None,
        ),
        authoredOn=instant(order.placed),
        lastModified=instant(order.changed),
        owner=reference("Organization", standing.organization),
        output=[{"type": {"text": "Study Instance UID"}, "valueIdentifier": _study(standing)}]
        if status is Status.COMPLETED
        else None,
    )


def _accession(standing: Standing) -> Json:
    return {
        "type": concept("v2-0203", "ACSN"),
        "value": text(standing.order.accession_number),
        "assigner": reference("Organization", standing.organization),
    }


def _study(standing: Standing) -> Json:
    return {"system": DICOM_UID, "value": f"urn:oid:{standing.order.study_instance_uid}"}


def _at(told: str, timezone: ZoneInfo) -> str:
    return moment(told[:8], told[8:], timezone)
