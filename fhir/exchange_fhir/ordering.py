"""Requests for images and their appointments, as the worklist needs them (FHIR R4 12.12, 12.5).

    code → modality, procedure     identifier → accession number, UIDs     occurrence → when
    orderDetail → protocol         locationReference → room                encounter → admission

IHE Scheduled Workflow's mapping of an imaging service request: the accession number is the
identifier of type ACSN, the modality a code of DICOM's in `orderDetail`, `code` or `category`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from exchange.order_codes import Code, Codes, Kind
from exchange.orders import Status
from exchange.requests import (
    APPOINTMENT,
    DEPARTMENTS,
    KIND,
    LOCATION,
    Booked,
    Requested,
    Room,
)
from exchange_fhir import coding_schemes, elements, json_format
from exchange_fhir.coding_schemes import line
from exchange_fhir.datatypes import DCM, DICOM_UID, SNOMED, Json, code

AE_TITLE = "urn:dicom:ae-title"
"""System of the identifier by which a reference names a modality: its AE title."""

IMAGING = frozenset(
    {
        (SNOMED, "363679005"),
        ("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD"),
        ("http://terminology.hl7.org/CodeSystem/v2-0074", "IMG"),
        ("http://terminology.hl7.org/CodeSystem/observation-category", "imaging"),
    }
)
"""Categories of requests for images."""

OTHER_MODALITY = "OT"
"""Of a request for images that names no modality (PS3.3 C.7.3.1.1.1)."""

PRIORITIES: Mapping[str, str] = {
    "stat": "STAT",
    "urgent": "HIGH",
    "asap": "HIGH",
    "routine": "ROUTINE",
}
"""Request priorities as Requested Procedure Priority (PS3.3 C.4.11) has them."""

STATUSES: Mapping[str, Status] = {
    "active": Status.SCHEDULED,
    "completed": Status.COMPLETED,
    "draft": Status.CANCELED,
    "on-hold": Status.CANCELED,
    "revoked": Status.CANCELED,
    "entered-in-error": Status.CANCELED,
    "unknown": Status.CANCELED,
}
"""Where the order stands by the request's status: on the worklist only while it is active."""

ORDERS = frozenset({"order", "original-order", "reflex-order", "filler-order", "instance-order"})
"""Intents of what is to be done, not only proposed or planned."""

BOOKED = frozenset({"booked", "arrived", "checked-in", "fulfilled"})
"""Statuses of appointments that stand."""

_MODALITY = re.compile(r"[A-Z][A-Z0-9]{1,7}", re.ASCII)


def order(resource: Json, base: str, timezone: ZoneInfo) -> Requested | Booked | None:
    """What a resource that is valid says of the worklist; None where it says nothing."""
    match resource["resourceType"]:
        case str(kind) if kind == KIND:
            return _requested(resource, base, timezone)
        case str(kind) if kind == APPOINTMENT:
            return _booked(resource, base, timezone)
    return None


def _requested(resource: Json, base: str, timezone: ZoneInfo) -> Requested | None:
    categories = set(_codings(resource, "category"))
    modality = next(
        (
            value
            for element in ("orderDetail", "code", "category")
            for system, value in _codings(resource, element)
            if system == DCM and _MODALITY.fullmatch(value)
        ),
        OTHER_MODALITY if categories & IMAGING else "",
    )
    number = _identifier(resource, "ACSN")
    status = STATUSES[resource["status"]]
    if not modality or not number or resource.get("intent") not in ORDERS:
        return None
    if resource.get("doNotPerform"):
        return None
    performers = resource.get("performer", [])
    when = resource.get("occurrenceDateTime") or resource.get("occurrencePeriod", {}).get("start")
    date, time = _local(when, timezone)
    locations = resource.get("locationReference", [])
    title, station = _station([*locations, *performers])
    room, called = _room(resource, locations, base)
    return Requested(
        status=status,
        accession_number=number,
        requested_procedure_id=_identifier(resource, "FILL") or _identifier(resource, "PLAC"),
        study_instance_uid=_study(resource),
        modality=modality,
        body_part_examined=_said(resource.get("bodySite", [])),
        procedure_description=_said([resource.get("code", {})]),
        station_ae_title=title,
        station_name=station,
        scheduled_date=date,
        scheduled_time=time,
        performing_physician_name=_shown(performers, base, "Practitioner", "PractitionerRole"),
        requesting_physician_name=line(resource.get("requester", {}).get("display", "")),
        priority=PRIORITIES.get(resource.get("priority", ""), "ROUTINE"),
        reason=_said(resource.get("reasonCode", [])),
        location=called or _said(resource.get("locationCode", [])),
        room=room,
        admission_id=line(resource.get("encounter", {}).get("identifier", {}).get("value", "")),
        codes=_coded(resource, modality),
        performers=_named(performers, base, *DEPARTMENTS),
        performer_numbers=tuple(
            number for one in performers if (number := one.get("identifier", {}).get("value"))
        ),
    )


def _booked(resource: Json, base: str, timezone: ZoneInfo) -> Booked:
    actors = [one["actor"] for one in resource.get("participant", []) if "actor" in one]
    date, time = _local(resource.get("start"), timezone)
    title, station = _station(actors)
    places = [
        one
        for one in actors
        if (elements.target(one.get("reference", ""), f"{base}/")[0] or one.get("type")) == LOCATION
        or _contained(resource, one)
    ]
    room, called = _room(resource, places, base)
    return Booked(
        requests=tuple(one for _, one in _named(resource.get("basedOn", []), base, KIND)),
        is_booked=resource.get("status") in BOOKED,
        scheduled_date=date,
        scheduled_time=time,
        station_ae_title=title,
        station_name=station or _shown(actors, base, "Device", "Location"),
        location=called,
        room=room,
    )


def _coded(resource: Json, modality: str) -> Codes:
    """Its procedure, and the protocols to perform: those of the procedure where none are named.

    A code that only says which modality it is names a procedure where there is no other.
    """

    def only_modality(one: Code) -> bool:
        return (one.scheme, one.value) == ("DCM", modality)

    procedure = sorted(coding_schemes.codes(resource.get("code", {})), key=only_modality)
    details = [coding_schemes.codes(one) for one in resource.get("orderDetail", [])]
    named, itself = (
        [kept for one in concepts if (kept := [each for each in one if not only_modality(each)])]
        for concepts in (details, [procedure])
    )
    return {Kind.PROCEDURE: [procedure] if procedure else [], Kind.PROTOCOL: named or itself}


def _codings(resource: Json, element: str) -> Iterator[tuple[str, str]]:
    told: Any = resource.get(element, [])
    for concept in told if isinstance(told, list) else [told]:
        for one in concept.get("coding", []):
            yield one.get("system", ""), one.get("code", "")


def _identifier(resource: Json, type_: str) -> str:
    for one in resource.get("identifier", []):
        types = {coding.get("code") for coding in one.get("type", {}).get("coding", [])}
        if type_ in types and one.get("value"):
            return code(one["value"])
    return ""


def _study(resource: Json) -> str:
    for one in resource.get("identifier", []):
        if one.get("system") == DICOM_UID:
            uid = one.get("value", "").removeprefix("urn:oid:")
            if re.fullmatch(r"[0-9.]{1,64}", uid, re.ASCII):
                return str(uid)
    return ""


def _local(when: str | None, timezone: ZoneInfo) -> tuple[str, str]:
    """A dateTime as DICOM's date and time in the hospitals' zone; a month or a year is no day."""
    if when is None or len(when) < 10:
        return "", ""
    if "T" not in when:
        return when.replace("-", ""), ""
    try:
        at = datetime.fromisoformat(when).astimezone(timezone)
    except (ValueError, OverflowError):
        return "", ""
    return f"{at:%Y%m%d}", f"{at:%H%M%S}"


def _station(references: list[Json]) -> tuple[str, str]:
    """AE title and name of the first modality that is named by its AE title."""
    for one in references:
        told = one.get("identifier", {})
        if told.get("system") == AE_TITLE and told.get("value"):
            return told["value"].strip(), line(one.get("display", ""))
    return "", ""


def _named(references: list[Json], base: str, *kinds: str) -> tuple[tuple[str, str], ...]:
    found = (elements.target(one.get("reference", ""), f"{base}/") for one in references)
    return tuple(one for one in found if one[0] in kinds)


def _shown(references: list[Json], base: str, *kinds: str) -> str:
    for one in references:
        kind, _ = elements.target(one.get("reference", ""), f"{base}/")
        if (kind or one.get("type")) in kinds and one.get("display"):
            return line(one["display"])
    return ""


def _room(resource: Json, locations: list[Json], base: str) -> tuple[Room | None, str]:
    """Where it is to be done: the first place that is not the modality itself and has a name, by
    itself or contained; and an entry of the directory before that, which may have one."""
    room: Room | None = None
    for one in locations:
        if one.get("identifier", {}).get("system") == AE_TITLE:
            continue
        if called := one.get("display") or _contained(resource, one).get("name"):
            return room, line(called)
        kind, logical_id = elements.target(one.get("reference", ""), f"{base}/")
        if kind == LOCATION and room is None:
            room = Room(logical_id, _name)
    return room, ""


def _contained(resource: Json, reference: Json) -> Json:
    """The Location inside the resource to which a reference leads."""
    named = reference.get("reference", "")
    for one in resource.get("contained", []) if named.startswith("#") else ():
        if one.get("resourceType") == LOCATION and one.get("id") == named[1:]:
            return dict(one)
    return {}


def _name(content: bytes) -> str:
    return line(json_format.parse(content).get("name", ""))


def _said(concepts: list[Json]) -> str:
    """What the first of some concepts says in words."""
    for one in concepts:
        shown = (coding.get("display", "") for coding in one.get("coding", []))
        if said := one.get("text") or next(filter(None, shown), ""):
            return line(said)
    return ""
