"""FHIR clients that others wrote work unchanged: fhirclient and fhirpy, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fhirclient import client as smart
from fhirclient.models.humanname import HumanName
from fhirclient.models.identifier import Identifier
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound
from region import ADMINISTRATOR, credit_code
from running import PASSWORD, RunningExchange

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
