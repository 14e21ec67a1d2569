"""FHIR datatypes from DICOM values (FHIR R4 section 2.24): JSON as dictionaries, nothing empty."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from exchange.clinical import version_of
from exchange_storage import names

Json = dict[str, Any]

DCM = "http://dicom.nema.org/resources/ontology/DCM"
"""The code system of DICOM's controlled terminology (PS3.16 Annex D), modalities among it."""
SNOMED = "http://snomed.info/sct"
URI = "urn:ietf:rfc:3986"
DICOM_UID = "urn:dicom:uid"
REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"

HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""What Unicode calls control characters, but for tab and the ends of lines."""
_DATE = re.compile(r"(\d{4})[.-]?(?:(\d\d)[.-]?(\d\d)?)?", re.ASCII)
_TIME = re.compile(r"(\d\d):?(?:(\d\d):?(?:(\d\d)(?:\.\d+)?)?)?", re.ASCII)
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+", re.ASCII)


def present(**fields: Any) -> Json:
    """The fields that hold something: FHIR JSON has no empty strings, lists and objects."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def text(value: str) -> str:
    """`value` as a FHIR string: no control characters, no white space around it."""
    return _CONTROL.sub("", value).strip()


def code(value: str) -> str:
    """`value` as a FHIR code: no white space but single spaces inside."""
    return " ".join(text(value).split())


def day(value: str) -> str:
    """A DICOM DA, or the part of one that is known, as a FHIR date; "" when it is none."""
    found = _DATE.fullmatch(value.strip())
    if not found:
        return ""
    year, month, of_month = found.groups()
    try:
        date(int(year), int(month or 1), int(of_month or 1))
    except ValueError:
        return ""
    return "-".join(part for part in (year, month, of_month) if part)


def moment(da: str, tm: str, timezone: ZoneInfo) -> str:
    """DICOM DA and TM as a FHIR dateTime in the hospital's zone; only the date without a time.

    FHIR asks for seconds where there is a time, so a TM in less detail is read as its beginning.
    """
    on, at = day(da), _TIME.fullmatch(tm.strip())
    if len(on) < 10 or not at:
        return on
    hour, minute, second = (int(part or 0) for part in at.groups())
    try:
        clock = time(hour, minute, min(second, 59))  # DICOM allows the leap second 60
    except ValueError:
        return on
    return datetime.combine(date.fromisoformat(on), clock, timezone).isoformat()


def instant(at: datetime) -> str:
    """A moment as a FHIR instant in UTC, to the microsecond: what `_lastUpdated` compares."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def derived_meta(changed: datetime) -> Json:
    """The meta of what is derived from a record that changed last at this moment."""
    return {"versionId": str(version_of(changed)), "lastUpdated": instant(changed)}


def number(value: str, least: int = 0) -> int | None:
    """A DICOM IS as an unsignedInt, or None where it is not one."""
    try:
        found = int(value)
    except ValueError:
        return None
    return found if least <= found < 2**31 else None


def coding(system: str, value: str, display: str = "") -> Json:
    """A Coding; a system of terminology.hl7.org by its last part."""
    full = system if "/" in system or ":" in system else _TERMINOLOGY + system
    return present(system=full, code=value, display=display)


def concept(system: str, value: str, display: str = "") -> Json:
    """A CodeableConcept of one coding."""
    return {"coding": [coding(system, value, display)]}


def reference(kind: str, identity: object) -> Json:
    """A relative reference to a resource of this server."""
    return {"reference": f"{kind}/{identity}", "type": kind}


def issuer_uri(issuer: str) -> str:
    """The issuer of a number as an identifier system, or "" where it is but a name."""
    if _OID.fullmatch(issuer):
        return f"urn:oid:{issuer}"
    return issuer if re.fullmatch(r"(urn:|https?://)\S+", issuer) else ""


def display_name(pn: str) -> str:
    """A PN as one line to read: the ideographic group where there is one."""
    found = human_names(pn)
    written = {one["extension"][0]["valueCode"]: str(one["text"]) for one in reversed(found)}
    return written.get("IDE") or next(reversed(written.values()), "")


def human_names(pn: str) -> list[Json]:
    """One HumanName for each component group of a PN (PS3.5 section 6.2), in their order."""
    groups = zip(pn.split("="), ("ABC", "IDE", "SYL"), strict=False)
    return [name for group, kind in groups if (name := _human_name(group, kind))]


def _human_name(group: str, representation: str) -> Json:
    family, given, middle, prefix, suffix = (
        *(text(part) for part in group.split("^")[:5]),
        *[""] * 5,
    )[:5]
    if not (family or given or middle):
        return {}
    han = bool(HAN.search(group))
    if han and not given and not middle:
        # Many systems write a Chinese name without its delimiter.
        family, given = names.split_hanzi("".join(family.split()))
    if han and representation == "ABC":
        representation = "IDE"  # hanzi stand in the first group of many senders
    whole = ("" if han else " ").join(
        part for part in (prefix, family, given, middle, suffix) if part
    )
    return present(
        extension=[{"url": REPRESENTATION, "valueCode": representation}],
        use="official",
        text=whole,
        family=family,
        given=[part for part in (given, middle) if part],
        prefix=[prefix] if prefix else None,
        suffix=[suffix] if suffix else None,
    )
