"""$meta of a type and of all: which tags, security labels and profiles are in use (FHIR R4)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door, is_fhir, outcome
from sqlalchemy import select

from exchange import labels as in_use
from exchange_storage.records import AuditRecord

TAG = {"system": "http://beicheng.example/tags", "code": "teaching"}


def labels(asker: Asker, path: str = "") -> dict[str, Any]:
    """The labels in use."""
    response = asker.get(f"{path}$meta")
    assert response.status_code == 200, response.text
    told = response.json()
    is_fhir(told)
    (one,) = told["parameter"]
    assert one["name"] == "return"
    return {name: value for name, value in one["valueMeta"].items() if name != "extension"}


def test_the_labels_in_use_are_told_of_a_type_and_of_all(door: Door) -> None:
    door.city.send("beicheng")
    door.city.send("nanhu", patient="P2", study="1.2.2", instance="1.4.2")
    beicheng, nanhu = door.system("beicheng"), door.system("nanhu")
    assert labels(beicheng) == labels(beicheng, "Observation/") == {}
    teaching, urgent = TAG, {"code": "urgent"}
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    profile = "http://beicheng.example/weight|1"
    first = beicheng.made(WEIGHT | {"meta": {"tag": [teaching, urgent], "profile": [profile]}})
    beicheng.made(WEIGHT | {"meta": {"tag": [teaching], "security": [label]}})
    place = {"resourceType": "Location", "name": "Ward", "meta": {"tag": [{"code": "ward"}]}}
    nanhu.made(place)
    assert labels(nanhu, "Observation/") == {
        "profile": [profile],
        "security": [label],
        "tag": [urgent, teaching],
    }
    assert labels(nanhu, "Location/") == {"tag": [{"code": "ward"}]}
    assert labels(nanhu)["tag"] == [urgent, {"code": "ward"}, teaching]
    assert labels(nanhu, "ImagingStudy/") == labels(nanhu, "Encounter/") == {}
    assert beicheng.send("DELETE", f"Observation/{first['id']}").status_code == 204
    assert labels(nanhu, "Observation/") == {"security": [label], "tag": [teaching]}
    assert outcome(nanhu.get("Nothing/$meta"), 404, "not-supported")
    assert nanhu.get("Observation/$meta", accept="application/fhir+xml").text.count("teaching") == 1


def test_the_labels_of_what_is_withheld_are_not_told(door: Door) -> None:
    door.city.send("beicheng")
    beicheng = door.system("beicheng")
    beicheng.made(WEIGHT | {"meta": {"tag": [TAG]}})
    denied = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"text": "sharing"}],
        "patient": {"reference": "Patient/1"},
        "policyRule": {"coding": [{"code": "OPTOUT"}]},
    }
    nanhu = door.clinician("nanhu")
    assert labels(nanhu) == labels(nanhu, "Observation/") == {"tag": [TAG]}
    beicheng.made(denied)
    assert labels(nanhu) == labels(nanhu, "Observation/") == {}
    assert labels(beicheng) == {"tag": [TAG]}
    administrator = door.administrator()
    assert outcome(administrator.get("Observation/$meta"), 403, "forbidden")
    with door.city.exchange.database.reading() as session:
        newest = select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(1)
        record = session.scalars(newest).one()
    assert record.outcome == "refused"
    detail = json.loads(record.content)["detail"]
    assert (detail["what"], detail["interaction"]) == ("Observation", "labels")


def test_the_labels_in_use_are_an_entry_of_a_batch(hospital: Door) -> None:
    system = hospital.system("beicheng")
    bundle = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": url}}
                  for url in ("$meta", "Observation/$meta")],
    }  # fmt: skip
    told = system.send("POST", "", bundle).json()
    is_fhir(told)
    for entry, path in zip(told["entry"], ("", "Observation/"), strict=True):
        assert entry["resource"] == system.get(f"{path}$meta").json()


def test_more_labels_than_can_be_told_are_refused(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.city.send("beicheng")
    system = door.system("beicheng")
    many = [{"code": f"t{number}"} for number in range(5)]
    system.made(WEIGHT | {"meta": {"tag": many}})
    monkeypatch.setattr(in_use, "MOST", 4)
    assert "ask of one type" in outcome(system.get("Observation/$meta"), 400, "too-costly")
    monkeypatch.setattr(in_use, "MOST", 5)
    assert labels(system, "Observation/") == {"tag": many}
    monkeypatch.setattr(in_use, "LOOKED_THROUGH", 4)
    assert "bear labels" in outcome(system.get("Observation/$meta"), 400, "too-costly")
