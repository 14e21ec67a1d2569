"""What a hospital's systems send by IHE profiles (PIXm, MHD), and a real server that takes it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx2
from bundles import entry
from fhir_door import Door, opened
from hosting import hosted
from region import ID_CARD, region

ISSUER = "urn:oid:2.25.101"
RESIDENT_ID = "urn:oid:2.16.156.10011.1.3"
MHD = "https://profiles.ihe.net/ITI/MHD/StructureDefinition"
PDF = b"%PDF-1.4 a discharge summary\n"
CDA = '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>出院小结</title></ClinicalDocument>'.encode()


@contextmanager
def served(url: str) -> Iterator[Door]:
    """A real server: Wang was at beicheng (Patient/1) and at nanhu (Patient/2)."""
    with region(url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="W2", study="1.2.2", instance="1.4.2", card=ID_CARD)
        door = opened(city)
        with (
            hosted(door.client.app) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=180) as client,
        ):
            door.client = client  # type: ignore[assignment]
            yield door


def patient(number: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "active": True,
        "identifier": [{"system": ISSUER, "value": number}],
        "name": [{"use": "official", "family": "赵", "given": ["云"]}],
        "gender": "male",
        "birthDate": "1985-05-06",
    } | more


def provided(content: bytes, media_type: str, author: str, number: str) -> list[Any]:
    """The entries of a Provide Document Bundle with comprehensive metadata (ITI-65)."""
    list_, reference, binary = (f"urn:uuid:{uuid4()}" for _ in range(3))
    subject = {"reference": "Patient/1"}
    coded = "http://loinc.org"
    submission_set = {
        "resourceType": "List",
        "meta": {"profile": [f"{MHD}/IHE.MHD.Comprehensive.SubmissionSet"]},
        "extension": [
            {"url": f"{MHD}/ihe-sourceId", "valueIdentifier": {"value": "urn:oid:2.25.101.1"}},
            {
                "url": f"{MHD}/ihe-designationType",
                "valueCodeableConcept": {"coding": [{"system": coded, "code": "18842-5"}]},
            },
        ],
        "identifier": [
            {"use": "usual", "system": "urn:ietf:rfc:3986", "value": f"urn:oid:{number}"}
        ],
        "status": "current",
        "mode": "working",
        "code": {
            "coding": [
                {
                    "system": "https://profiles.ihe.net/ITI/MHD/CodeSystem/MHDlistTypes",
                    "code": "submissionset",
                }
            ]
        },
        "subject": subject,
        "date": "2026-11-20T10:00:00+08:00",
        "source": {"reference": author},
        "entry": [{"item": {"reference": reference}}],
    }
    document = {
        "resourceType": "DocumentReference",
        "meta": {"profile": [f"{MHD}/IHE.MHD.Comprehensive.DocumentReference"]},
        "contained": [patient("W1", id="source", active=None)],
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{number}.1"},
        "status": "current",
        "type": {"coding": [{"system": coded, "code": "18842-5"}]},
        "category": [{"coding": [{"system": coded, "code": "11490-0"}]}],
        "subject": subject,
        "date": "2026-11-20T10:00:00+08:00",
        "author": [{"reference": author}],
        "securityLabel": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
                        "code": "N",
                    }
                ]
            }
        ],
        "content": [
            {
                "attachment": {
                    "contentType": media_type,
                    "language": "zh-CN",
                    "url": binary,
                    "size": len(content),
                    "hash": base64.b64encode(hashlib.sha1(content).digest()).decode(),  # noqa: S324
                    "title": "出院小结",
                    "creation": "2026-11-19T09:00:00+08:00",
                },
                "format": {
                    "system": "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode",
                    "code": "urn:ihe:iti:xds:2017:mimeTypeSufficient",
                },
            }
        ],
        "context": {
            "event": [{"coding": [{"system": coded, "code": "48768-6"}]}],
            "period": {"start": "2026-11-01", "end": "2026-11-20"},
            "facilityType": {"coding": [{"code": "HOSP"}]},
            "practiceSetting": {"coding": [{"code": "394802001"}]},
            "sourcePatientInfo": {"reference": "#source"},
            "related": [{"identifier": {"system": "urn:orders", "value": number}}],
        },
    }
    document["contained"][0].pop("active")  # type: ignore[index]
    data = base64.b64encode(content).decode()
    context = {"resourceType": "Binary", "contentType": media_type, "data": data}
    return [
        entry("POST", "List", submission_set, list_),
        entry("POST", "DocumentReference", document, reference),
        entry("POST", "Binary", context | {"securityContext": subject}, binary),
    ]
