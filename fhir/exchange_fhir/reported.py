"""What reports say, as resources: DiagnosticReport, Observation, DocumentReference and Binary.

Of a structured report its title, conclusion and measurements (TID 1500, dose reports: every NUM
content item is an Observation); of an encapsulated document the document itself. As the DICOM SR to
FHIR mapping of PS3.16 and HL7's imaging guides have it: the report refers to its ImagingStudy.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from exchange import reports
from exchange.access import Access
from exchange.reports import Concept, Document, Item, Report, Subject
from exchange_fhir import json_format
from exchange_fhir.coding_schemes import SYSTEMS
from exchange_fhir.datatypes import (
    DICOM_UID,
    Json,
    concept,
    display_name,
    moment,
    present,
    reference,
    text,
)
from exchange_fhir.writing import Place, draft

OBSERVATIONS = 500
"""Observations of one report, at most."""

CONCLUSION = 100_000
"""Characters of a conclusion that are told."""

CONCLUSIONS = frozenset({"121077", "121073", "19005-8"})
"""Conclusion and Impression: what items of these concepts say, concludes the report."""

CONCLUSION_SECTIONS = frozenset({"121076", "121072"})
"""Conclusions and Impressions: all text below a container of these concepts does."""

FINDING_SITES = frozenset({"363698007", "G-C0E3"})
"""Finding Site, of a measurement or of the group that it is in."""

_RADIOLOGY = concept("v2-0074", "RAD", "Radiology")
_IMAGING_STUDY = concept("http://loinc.org", "18748-4", "Diagnostic imaging study")
_UCUM_NONE = "1"


def refresh(
    access: Access,
    subject: Subject,
    found: Sequence[Report | Document],
    *,
    base: str,
    timezone: ZoneInfo,
) -> int:
    """Keep what the reports of a study say as resources; returns how many have changed.

    `base` is the address of the FHIR server. On behalf of the exchange itself. Raises Refused.
    """
    place = Place(base=base, timezone=timezone)
    drafts = [
        draft(resource, place, resource["id"])
        for one in found
        for resource in resources(one, subject, timezone)
    ]
    return reports.keep(access, subject.study_instance_uid, drafts)


def resources(one: Report | Document, subject: Subject, timezone: ZoneInfo) -> list[Json]:
    """The resources that a report or document is."""
    match one:
        case Report():
            return _of_report(one, subject, timezone)
        case Document():
            return _of_document(one, subject, timezone)


def _of_report(report: Report, subject: Subject, timezone: ZoneInfo) -> list[Json]:
    final = report.is_complete and report.is_verified and not report.is_preliminary
    status = "final" if final else ("preliminary" if report.is_complete else "partial")
    at = moment(report.date, report.time, timezone)
    measured = [
        _observation(number, item, site, report, subject, at, final=final)
        for number, (item, site) in enumerate(_measurements(report.items), 1)
        if number <= OBSERVATIONS
    ]
    observations = [one for one in measured if one]
    conclusion = "\n".join(_conclusions(report.items, inside=False))[:CONCLUSION]
    whole = present(
        resourceType="DiagnosticReport",
        id=reports.logical_id(subject.study_instance_uid, report.sop_instance_uid),
        identifier=[_identifier(report.sop_instance_uid)],
        basedOn=_based_on(report.accession_number),
        status=status,
        category=[_RADIOLOGY],
        code=_concept(report.title) or _IMAGING_STUDY,
        subject=reference("Patient", subject.patient),
        effectiveDateTime=at,
        issued=at if "T" in at else None,
        resultsInterpreter=[
            {"display": shown} for name in report.verifiers if (shown := display_name(name))
        ],
        result=[reference("Observation", one["id"]) for one in observations],
        imagingStudy=[reference("ImagingStudy", subject.study_instance_uid)],
        conclusion=text(conclusion),
    )
    return [whole, *observations]


def _observation(
    number: int,
    item: Item,
    site: Concept | None,
    report: Report,
    subject: Subject,
    at: str,
    *,
    final: bool,
) -> Json:
    """The Observation of a NUM content item; nothing where it is no number."""
    value = _quantity(item)
    code = _concept(item.concept)
    if not value or not code:
        return {}
    return present(
        resourceType="Observation",
        id=reports.logical_id(subject.study_instance_uid, report.sop_instance_uid, number),
        partOf=[reference("ImagingStudy", subject.study_instance_uid)],
        status="final" if final else "preliminary",
        category=[concept("observation-category", "imaging", "Imaging")],
        code=code,
        subject=reference("Patient", subject.patient),
        effectiveDateTime=at,
        valueQuantity=value,
        bodySite=_concept(_site(item.items) or site),
    )


def _of_document(document: Document, subject: Subject, timezone: ZoneInfo) -> list[Json]:
    named = reports.logical_id(subject.study_instance_uid, document.sop_instance_uid)
    at = moment(document.date, document.time, timezone)
    kind = _concept(document.concept) or present(text=text(document.title) or "document")
    found: list[Json] = []
    attachment = present(
        contentType=document.media_type,
        url=f"Binary/{named}" if document.content is not None else None,
        size=len(document.content) if document.content is not None else None,
        title=text(document.title),
        creation=at,
    )
    if document.content is not None:
        found.append(
            present(
                resourceType="Binary",
                id=named,
                contentType=document.media_type,
                securityContext=reference("Patient", subject.patient),
                data=base64.b64encode(document.content).decode(),
            )
        )
    study = reference("ImagingStudy", subject.study_instance_uid)
    found.append(
        present(
            resourceType="DocumentReference",
            id=named,
            masterIdentifier=_identifier(document.sop_instance_uid),
            status="current",
            type=kind,
            subject=reference("Patient", subject.patient),
            date=at if "T" in at else None,
            content=[{"attachment": attachment}],
            context={"related": [study]},
        )
    )
    found.append(
        present(
            resourceType="DiagnosticReport",
            id=named,
            identifier=[_identifier(document.sop_instance_uid)],
            basedOn=_based_on(document.accession_number),
            status="unknown",  # an encapsulated document does not say
            category=[_RADIOLOGY],
            code=kind,
            subject=reference("Patient", subject.patient),
            effectiveDateTime=at,
            imagingStudy=[study],
            presentedForm=[attachment],
        )
    )
    return found


def _measurements(
    items: Sequence[Item], site: Concept | None = None
) -> Iterator[tuple[Item, Concept | None]]:
    """NUM items in their order, each with the finding site of the group that it is in."""
    site = _site(items) or site
    for item in items:
        if item.value_type == "NUM":
            yield item, site
        yield from _measurements(item.items, site)


def _site(items: Sequence[Item]) -> Concept | None:
    for item in items:
        if item.code is not None and item.concept and item.concept.code in FINDING_SITES:
            return item.code
    return None


def _conclusions(items: Sequence[Item], *, inside: bool) -> Iterator[str]:
    for item in items:
        code = item.concept.code if item.concept is not None else ""
        concludes = inside or code in CONCLUSIONS
        said = text(item.said or (item.code.meaning if item.code else ""))
        if concludes and said and item.relationship == "CONTAINS":
            yield said
        yield from _conclusions(item.items, inside=inside or code in CONCLUSION_SECTIONS)


def _quantity(item: Item) -> Json:
    try:
        value = Decimal(item.number)
    except InvalidOperation:
        return {}
    if not value.is_finite() or abs(value.adjusted()) > 30:
        return {}
    unit = item.unit
    ucum = unit is not None and unit.scheme == "UCUM"
    return present(
        unit=text(unit.meaning or unit.code) if unit and unit.code != _UCUM_NONE else None,
        system=SYSTEMS["UCUM"] if ucum else None,
        code=unit.code if ucum and unit and re.fullmatch(r"\S+", unit.code) else None,
    ) | {"value": json_format.Written(format(value, "f"))}


def _concept(told: Concept | None) -> Json:
    if told is None:
        return {}
    system = SYSTEMS.get(told.scheme, "")
    code = " ".join(told.code.split())
    return present(
        coding=[present(system=system, code=code, display=text(told.meaning))] if code else None,
        text=text(told.meaning),
    )


def _identifier(sop_instance_uid: str) -> Json:
    return {"system": DICOM_UID, "value": f"urn:oid:{sop_instance_uid}"}


def _based_on(accession_number: str) -> list[Json]:
    value = text(accession_number)
    if not value:
        return []
    identifier = {"type": concept("v2-0203", "ACSN"), "value": value}
    return [{"type": "ServiceRequest", "identifier": identifier}]
