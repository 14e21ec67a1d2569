"""Bundles of interactions, as a hospital's system sends them, and what is answered."""

from __future__ import annotations

from typing import Any

from fhir_door import Asker, is_fhir
from httpx2 import Response

WEIGHT: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
    "subject": {"reference": "Patient/1"},
    "valueQuantity": {"value": 72.5, "unit": "kg"},
}


def entry(method: str, url: str, resource: Any = None, name: str = "", **request: str) -> Any:
    told: dict[str, Any] = {"request": {"method": method, "url": url} | request}
    if resource is not None:
        told["resource"] = resource
    return told | ({"fullUrl": name} if name else {})


def sent(asker: Asker, kind: str, *entries: Any, **headers: str) -> Response:
    bundle = {"resourceType": "Bundle", "type": kind} | ({"entry": entries} if entries else {})
    return asker.send("POST", "", bundle, **headers)


def answered(response: Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    bundle = response.json()
    is_fhir(bundle)
    found: list[dict[str, Any]] = bundle["entry"]
    return found


def statuses(response: Response) -> list[str]:
    return [one["response"]["status"].partition(" ")[0] for one in answered(response)]


def newest(asker: Asker) -> Any:
    return asker.bundle("_history?_count=1", mode_of="history").get("entry")
