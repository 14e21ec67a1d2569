"""Coding schemes of DICOM and code systems of FHIR: one concept in either (PS3.16 section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from exchange.demographics import clipped
from exchange.order_codes import LOCAL, Code
from exchange_fhir.datatypes import DCM, SNOMED, URI, Json, code

SYSTEMS: Mapping[str, str] = {
    "DCM": DCM,
    "LN": "http://loinc.org",
    "SCT": SNOMED,
    "UCUM": "http://unitsofmeasure.org",
    "RADLEX": "http://radlex.org",
    "FMA": "http://sig.biostr.washington.edu/projects/fm/",
    "NCIt": "http://ncimeta.nci.nih.gov",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "C4": "http://www.ama-assn.org/go/cpt",
}
"""Coding schemes of DICOM (PS3.16 table 8-1) that are code systems of FHIR."""

UIDS: Mapping[str, str] = {
    "DCM": "1.2.840.10008.2.16.4",
    "LN": "2.16.840.1.113883.6.1",
    "SCT": "2.16.840.1.113883.6.96",
    "UCUM": "2.16.840.1.113883.6.8",
    "RADLEX": "2.16.840.1.113883.6.256",
    "FMA": "2.16.840.1.113883.6.119",
    "NCIt": "2.16.840.1.113883.3.26.1.1",
    "I10": "2.16.840.1.113883.6.3",
    "C4": "2.16.840.1.113883.6.12",
}
"""Their UIDs (the same table), by which some name them in FHIR too."""

_DESIGNATORS = {
    **{system: designator for designator, system in SYSTEMS.items()},
    **{f"urn:oid:{uid}": designator for designator, uid in UIDS.items()},
}
_OWN = re.compile(r"99[!-\[\]-~]{1,14}")
"""A private designator: a hospital that writes one as the system is taken at its word."""


def codes(concept: Json) -> Sequence[Code]:
    """The codes of a CodeableConcept, as DICOM has them: first the one that somebody chose.

    What cannot be said in DICOM is left out: what has no code, a code with a backslash.
    """
    codings = sorted(concept.get("coding", []), key=lambda one: not one.get("userSelected"))
    return tuple(_codes(codings, concept.get("text", "")))


def _codes(codings: Iterable[Json], said: str) -> Iterator[Code]:
    for one in codings:
        value, system = code(one.get("code", "")), code(one.get("system", ""))
        if not value or len(value) > 255 or "\\" in value:
            continue
        designator = _DESIGNATORS.get(system) or (system if _OWN.fullmatch(system) else LOCAL)
        version = code(one.get("version", ""))
        told = Code(
            value=value,
            scheme=designator,
            meaning=clipped(line(one.get("display") or said or value), 64),
            version=version if len(version) <= 16 and "\\" not in version else "",
            system=system if designator == LOCAL and len(system) <= 255 else "",
        )
        is_itself = system == URI and told.is_uri
        yield replace(told, scheme="", version="", system="") if is_itself else told


def line(value: str) -> str:
    """`value` as DICOM has short texts: in one line, and a backslash would divide it."""
    return code(value).replace("\\", "/")
