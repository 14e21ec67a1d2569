"""The clinician of the demo, who asks by HTTP, and what is made of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from exchange.errors import Unavailable

if TYPE_CHECKING:
    from sample_city import Record


@dataclass(frozen=True, slots=True)
class Clinician:
    """Someone who asks by HTTP."""

    http: urllib3.PoolManager
    url: str
    name: str
    password: str

    def token(self) -> str:
        """Sign in (RFC 6749 section 4.4)."""
        answer = self.http.request(
            "POST",
            f"{self.url}/oauth/token",
            body=urlencode({"grant_type": "client_credentials"}),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                **urllib3.make_headers(basic_auth=f"{self.name}:{self.password}"),
            },
        )
        if answer.status != 200:
            raise Unavailable(f"signing in was answered with {answer.status}")
        return str(answer.json()["access_token"])

    def get(self, path: str, token: str, accept: str, **query: str) -> urllib3.BaseHTTPResponse:
        """Ask for something, as this clinician."""
        return self.http.request(
            "GET",
            f"{self.url}{path}" + (f"?{urlencode(query)}" if query else ""),
            headers={"Authorization": f"Bearer {token}", "Accept": accept},
        )


def patient_id(clinician: Clinician, token: str, mine: Record) -> str:
    """The id by which FHIR knows this record. Raises Unavailable."""
    (patient,) = bundle(
        clinician,
        token,
        "/fhir/Patient",
        identifier=mine.patient_id,
        organization=registered_code(mine.hospital),
    )
    return str(patient["id"])


def studies_by_fhir(clinician: Clinician, token: str, mine: Record) -> set[str]:
    """The Study Instance UIDs that FHIR finds of it. Raises Unavailable."""
    found = bundle(
        clinician, token, "/fhir/ImagingStudy", patient=patient_id(clinician, token, mine)
    )
    return {str(one["id"]) for one in found}


def bundle(clinician: Clinician, token: str, path: str, **query: str) -> list[dict[str, Any]]:
    """The resources of a searchset."""
    answer = clinician.get(path, token, "application/fhir+json", **query)
    if answer.status != 200:
        raise Unavailable(f"{path} was answered with {answer.status}")
    return [entry["resource"] for entry in answer.json().get("entry", ())]


def value(study: dict[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON."""
    return str(study[tag]["Value"][0])


def registered_code(hospital: str) -> str:
    """The hospital's code as the exchange registers it."""
    return hospital.lower()
