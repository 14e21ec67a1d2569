"""What is asked in a transaction besides what it changes: operations, and searches by POST.

They are answered of what the transaction has made, and decided and recorded as if each had come
alone (FHIR R4 3.1.0.11.2, 3.2.0.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bundles import WEIGHT, answered, entry, newest, sent, statuses
from fhir_door import Door, opened, outcome
from region import region
from sqlalchemy import func, select

from exchange_storage.records import AuditRecord

TAG = {"system": "urn:tags", "code": "teaching"}


@pytest.fixture(scope="module")
def hospital(lasting_database_url: str) -> Iterator[Door]:
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="P1", study="1.2.1", instance="1.4.1")
        city.send("nanhu", patient="N1", study="1.2.2", instance="1.4.2")
        yield opened(city)


def of(kind: str, **values: Any) -> dict[str, Any]:
    """The Parameters of an operation or of a search."""
    given = [{"name": name, kind: value} for name, value in values.items()]
    return {"resourceType": "Parameters", "parameter": given}


def records(hospital: Door) -> int:
    with hospital.city.exchange.database.reading() as session:
        return session.scalar(select(func.count()).select_from(AuditRecord)) or 0


def test_what_is_asked_in_a_transaction_is_answered_of_what_it_has_made(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = WEIGHT | {"id": "w1"}
    patient = system.read("Patient/1")

    together = sent(
        system,
        "transaction",
        entry("GET", "Patient/1/$everything?_type=Observation"),
        entry("POST", "Observation/_search", of("valueString", _id="w1")),
        entry("POST", "Observation/_search?_id=w1"),
        entry("POST", "Patient/$match", of("resource", resource=patient)),
        entry("GET", "Observation/$lastn?patient=1"),
        entry("GET", "Observation/w1/$meta"),
        entry("POST", "Observation/$validate", WEIGHT),
        entry("PUT", "Observation/w1", made),
    )

    assert statuses(together) == ["200"] * 7 + ["201"]
    everything, by_parameters, by_query, match, latest, meta, valid, _ = answered(together)
    for page in (everything, by_parameters, by_query, latest):
        assert "w1" in [one["resource"]["id"] for one in page["resource"]["entry"]]
    assert match["resource"]["entry"][0]["resource"]["id"] == "1"
    assert meta["resource"] == system.read("Observation/w1/$meta")
    assert valid["resource"]["resourceType"] == "OperationOutcome"


def test_what_is_wrong_with_what_is_only_asked_about_is_told_and_the_rest_is_done(
    hospital: Door,
) -> None:
    system = hospital.system("beicheng")
    wrong = {"resourceType": "Observation", "status": "quite final"}

    together = sent(
        system,
        "transaction",
        entry("POST", "Observation/$validate", wrong),
        entry("POST", "Observation", WEIGHT),
    )

    assert statuses(together) == ["200", "201"]
    assert answered(together)[0]["resource"]["issue"][0]["severity"] == "error"
    before = newest(system)
    for method, url in (("POST", "Observation"), ("PUT", "Observation/a$b"), ("PUT", "a/$b")):
        refused = sent(system, "transaction", entry(method, url, wrong))
        assert refused.status_code in {400, 404, 422}
    assert outcome(
        sent(system, "transaction", entry("POST", "_search", wrong)), 415, "not-supported"
    )
    assert newest(system) == before


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "Patient/1/$everything"),
        ("POST", "Patient/_search?_id=1"),
        ("GET", "Patient/1/$meta"),
    ],
)
def test_what_is_asked_in_a_transaction_is_decided_and_recorded_as_if_it_had_come_alone(
    hospital: Door, method: str, url: str
) -> None:
    assert sent(hospital.asker(None), "transaction", entry(method, url)).status_code == 401
    for asker, status in ((hospital.clinician("dongshan"), 200), (hospital.administrator(), 403)):
        before = records(hospital)
        assert asker.send(method, url).status_code == status
        each = records(hospital) - before
        assert statuses(sent(asker, "transaction", entry(method, url))) == [str(status)]
        assert records(hospital) == before + 2 * each


def test_labels_are_added_and_taken_away_with_all_else_or_not_at_all(hospital: Door) -> None:
    system = hospital.system("beicheng")
    name = f"Observation/{system.made(WEIGHT)['id']}"
    label = of("valueMeta", meta={"tag": [TAG]})

    both = sent(
        system,
        "transaction",
        entry("POST", f"{name}/$meta-add", label),
        entry("POST", "Observation", WEIGHT),
    )

    assert statuses(both) == ["200", "201"]
    (told,) = answered(both)[0]["resource"]["parameter"]
    assert (told["name"], told["valueMeta"]["tag"]) == ("return", [TAG])
    assert system.read(name)["meta"] == told["valueMeta"]
    before = newest(system)
    gone = entry("POST", f"{name}/$meta-delete", label)
    refused = sent(system, "transaction", gone, entry("DELETE", "Observation?code=a&_id=a,b&x=1"))
    assert refused.status_code == 400
    stale = sent(system, "transaction", gone, entry("DELETE", name))
    assert outcome(stale, 400, "invalid")
    assert newest(system) == before
    other = entry("POST", f"{name}/$meta-add", label)
    assert sent(hospital.system("nanhu"), "transaction", other).status_code in {403, 404}
    assert newest(system) == before
    assert statuses(sent(system, "transaction", gone)) == ["200"]
    assert "tag" not in system.read(name)["meta"]


def test_labels_that_are_not_told_change_nothing(hospital: Door) -> None:
    system = hospital.system("beicheng")
    name = f"Observation/{system.made(WEIGHT)['id']}"
    wrong = entry("POST", f"{name}/$meta-add", {"resourceType": "Parameters"})

    refused = sent(system, "transaction", wrong)

    assert "valueMeta" in outcome(refused, 400, "required")
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[0]"]
