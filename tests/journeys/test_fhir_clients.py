"""FHIR clients of others work unchanged: fhirclient, fhirpy, fhir-kit-client, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fhirclient import client as smart
from fhirclient.models.humanname import HumanName
from fhirclient.models.identifier import Identifier
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound
from images import ct
from javascript import node
from pydicom import dcmread
from region import ADMINISTRATOR, credit_code
from running import PASSWORD, RunningExchange, fhir, parts

from exchange import organizations, users
from exchange.policy import Role

ISSUER = "urn:oid:2.25.101"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """An exchange with a hospital, and its information system."""
    exchange = RunningExchange(tmp_path_factory.mktemp("clients"), {})
    exchange.run("init")
    with exchange.opened() as opened, opened.on_behalf_of(ADMINISTRATOR) as access:
        organizations.register(
            access,
            code="beicheng",
            name="北城医院",
            credit_code=credit_code("12120000123450001"),
            issuer="2.25.101",
            entities=[],
            sharing=True,
        )
        users.add(
            access,
            name="his",
            display_name="his",
            role=Role.SYSTEM,
            organization="beicheng",
            password=PASSWORD,
        )
    exchange.start()
    yield exchange
    exchange.stop()


def test_fhirclient_registers_a_patient_writes_searches_and_deletes(
    running: RunningExchange,
) -> None:
    server = smart.FHIRClient(settings={"app_id": "his", "api_base": f"{running.url}/fhir"}).server
    server.session.headers["Authorization"] = f"Bearer {running.token('his')}"
    name = HumanName({"family": "王", "given": ["芳"], "use": "official"})
    patient = Patient({"birthDate": "1990-05-06", "gender": "female"})
    patient.name, patient.identifier = [name], [Identifier({"system": ISSUER, "value": "F1"})]

    made = patient.create(server)
    found = [*Patient.where({"identifier": f"{ISSUER}|F1"}).perform_resources_iter(server)]

    assert made["id"] == found[0].id
    assert found[0].name[0].family == "王"
    assert found[0].birthDate.isostring == "1990-05-06"
    weight = Observation(
        {
            "status": "preliminary",
            "code": {"text": "weight"},
            "subject": {"reference": f"Patient/{made['id']}"},
        }
    )
    weight.id = weight.create(server)["id"]
    weight.status = "final"
    weight.update(server)
    read = Observation.read(weight.id, server)
    assert (read.status, read.meta.versionId) == ("final", "2")
    assert read.subject.resolved(Patient).id == made["id"]
    read.delete(server)


def test_smart_imaging_access_leads_from_a_patient_to_the_images_with_one_token(
    running: RunningExchange, tmp_path: Path
) -> None:
    """SMART Imaging Access: discovery, the patient's studies with their endpoint, WADO-RS there."""
    with running.web("his") as app:
        known = app.get("/fhir/.well-known/smart-configuration").json()
        assert "smart-imaging-access" in known["capabilities"]
        assert known["token_endpoint"] == f"{running.url}/oauth/token"
        image = ct(tmp_path / "image.dcm", patient="S1", study="1.2.826.7")
        running.dicomweb("his").store_instances([dcmread(tmp_path / "image.dcm")])
        (patient,) = fhir(app, "Patient", identifier=f"{ISSUER}|S1")

        for narrowed in ("", "&_lastUpdated=gt2020-01-01", "&identifier=urn:oid:1.2.826.7"):
            query = f"patient={patient['id']}&_include=ImagingStudy:endpoint{narrowed}"
            bundle = app.get(f"/fhir/ImagingStudy?{query}").json()
            study, endpoint = (one["resource"] for one in bundle["entry"])
            assert study["subject"]["reference"] == f"Patient/{patient['id']}"
            numbers = [(one.get("system"), one["value"]) for one in study["identifier"]]
            assert ("urn:dicom:uid", "urn:oid:1.2.826.7") in numbers
            assert study["endpoint"][0]["reference"] == f"Endpoint/{endpoint['id']}"
            assert endpoint["connectionType"]["code"] == "dicom-wado-rs"
            assert study["modality"][0]["code"] == "CT"

        address = f"{endpoint['address']}/studies/1.2.826.7"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        retrieved = app.get(address, headers={"Accept": accept})
        assert retrieved.status_code == 200, retrieved.text
        (content,) = parts(retrieved.content, retrieved.headers["content-type"])
        assert dcmread(BytesIO(content)).SOPInstanceUID == image.SOPInstanceUID
    without = httpx2.get(address, headers={"Accept": accept}, timeout=180)
    assert without.status_code == 401


def test_fhirpy_saves_patches_and_is_told_what_is_wrong(running: RunningExchange) -> None:
    client = SyncFHIRClient(f"{running.url}/fhir", authorization=f"Bearer {running.token('his')}")
    patient = client.resource(
        "Patient",
        name=[{"family": "赵", "given": ["云"]}],
        identifier=[{"system": ISSUER, "value": "P1"}],
        gender="male",
    )

    patient.save()
    patient["birthDate"] = "1985-01-02"
    patient.save(fields=["birthDate"])

    found = client.resources("Patient").search(identifier=f"{ISSUER}|P1").first()
    assert found is not None
    assert found["birthDate"] == "1985-01-02"
    weight: Any = client.resource(
        "Observation", status="final", code={"text": "weight"}, subject=patient.to_reference()
    )
    weight.save()
    assert weight["subject"].to_resource()["id"] == patient.id
    wrong = client.resource("Observation", status="finished", code={"text": "weight"})
    with pytest.raises(OperationOutcome, match="observation-status"):
        wrong.save()
    weight.delete()
    with pytest.raises(ResourceNotFound):
        client.reference("Observation", weight.id).to_resource()


def test_fhir_kit_client_does_all_that_it_can_with_an_exchange(running: RunningExchange) -> None:
    told = node("kit_client.mjs", f"{running.url}/fhir", running.token("his"), ISSUER)

    steps = {one["step"]: one["told"] for one in told}
    assert steps.pop("smart")["tokenUrl"] == f"{running.url}/oauth/token"
    assert steps == {
        "capability": "4.0.1",
        "read": [{"family": "赵", "given": ["敏"]}],
        "patched": ["final", "72 kg", "3"],
        "vread": "preliminary",
        "resolved": True,
        "searched": [2, 4],
        "posted": 4,
        "compartment": 4,
        "transaction": "201 Created",
        "batch": True,
        "everything": 7,
        "validated": "error",
        "history": 3,
        "gone": [410, "OperationOutcome"],
    }
