"""Where something comes from is told to whoever may see it, and to nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT, answered, entry, sent
from fhir_door import Asker, Door
from region import ADMINISTRATOR

from exchange import consent

NEW = "urn:uuid:7f3c1d8e-0000-4000-8000-000000000001"


def provenance(*targets: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "target": [{"reference": one} for one in targets],
        "recorded": "2026-11-26T08:00:00+08:00",
        "agent": [{"who": {"display": "检验科"}}],
    } | more


@pytest.fixture
def hospital(door: Door) -> Asker:
    """beicheng has Patient/1 and Patient/2, nanhu has Patient/3."""
    door.city.send("beicheng", patient="P1")
    door.city.send("beicheng", patient="P2", study="1.2.2", instance="1.4.2")
    door.city.send("nanhu", patient="N1", study="1.2.3", instance="1.4.3")
    return door.system("beicheng")


def kept(asker: Asker, patient: str | None = "Patient/1") -> str:
    """An Observation, of a patient or of nobody."""
    about = {"subject": {"reference": patient}} if patient else {}
    told = {name: one for name, one in WEIGHT.items() if name != "subject"} | about
    return f"Observation/{asker.made(told)['id']}"


def about(asker: Asker, patient: str) -> list[str]:
    """What is told with all that there is about a patient of where it comes from."""
    return sorted(asker.ids(f"{patient}/$everything?_type=Provenance"))


def opt_out(door: Door, number: str) -> None:
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", number)


def test_who_may_see_what_it_is_about_sees_where_it_comes_from(door: Door, hospital: Asker) -> None:
    weight = kept(hospital)
    made = hospital.made(provenance(weight, f"{weight}/_history/1", "ImagingStudy/1.2.2"))
    path, other = f"Provenance/{made['id']}", door.clinician("nanhu")

    other.read(path)
    assert other.ids(f"Provenance?target={weight}") == [path]
    assert path in other.ids("Patient/1/Provenance") or other.ids("Provenance") == [path]
    opt_out(door, "P2")

    other.refused(path, 404, "not-found")
    assert other.ids("Provenance") == []
    other.read(weight)
    hospital.read(path)


def test_what_is_made_together_may_stand_in_any_order(door: Door, hospital: Asker) -> None:
    response = sent(
        hospital,
        "transaction",
        entry("POST", "Provenance", provenance(NEW)),
        entry("PUT", "Observation/told", WEIGHT | {"id": "told"}, name=NEW),
        Prefer="return=representation",
    )

    made = answered(response)[0]["resource"]
    assert made["target"] == [{"reference": "Observation/told"}]
    door.clinician("nanhu").read(f"Provenance/{made['id']}")


def test_where_some_of_it_may_not_be_seen_nothing_is_told(door: Door, hospital: Asker) -> None:
    """An Observation of nobody is its hospital's alone, and another hospital's is no more ours."""
    foreign = kept(door.system("nanhu"), "Patient/3")
    for private in (kept(hospital, None), foreign):
        made = hospital.made(provenance(kept(hospital), private))
        door.clinician("nanhu").refused(f"Provenance/{made['id']}", 404, "not-found")
        hospital.read(f"Provenance/{made['id']}")


def test_what_is_moved_to_another_patient_takes_along_where_it_comes_from(
    door: Door, hospital: Asker
) -> None:
    weight = kept(hospital)
    first = hospital.made(provenance(weight, "Patient/1"))
    path = f"Provenance/{hospital.made(provenance(weight))['id']}"
    of_it = f"Provenance/{hospital.made(provenance(path))['id']}"
    both = f"Provenance/{first['id']}"
    other = door.clinician("nanhu")
    opt_out(door, "P2")
    for one in (path, of_it, both):
        other.read(one)

    moved = hospital.read(weight) | {"subject": {"reference": "Patient/2"}}
    assert hospital.send("PUT", weight, moved).status_code == 200

    for one in (path, of_it, both):
        other.refused(one, 404, "not-found")
    assert other.ids("Provenance") == []
    assert about(hospital, "Patient/2") == sorted([path, of_it, both])
    assert about(hospital, "Patient/1") == [both]

    back = hospital.read(weight) | {"subject": {"reference": "Patient/1"}}
    assert hospital.send("PUT", weight, back).status_code == 200
    for one in (path, of_it, both):
        other.read(one)
    assert about(hospital, "Patient/2") == []


def test_what_comes_and_goes_is_told_of_to_whom_it_is_told_itself(
    door: Door, hospital: Asker
) -> None:
    path = f"Provenance/{hospital.made(provenance('Observation/coming', 'Patient/1'))['id']}"
    other = door.clinician("nanhu")
    opt_out(door, "P2")
    other.read(path)

    coming = WEIGHT | {"id": "coming", "subject": {"reference": "Patient/2"}}
    assert hospital.send("PUT", "Observation/coming", coming).status_code == 201
    other.refused(path, 404, "not-found")
    assert hospital.send("DELETE", "Observation/coming").status_code in {200, 204}
    other.read(path)
    assert hospital.send("PUT", "Observation/coming", coming).status_code in {200, 201}
    other.refused(path, 404, "not-found")


@pytest.mark.parametrize("turn", [1, -1])
def test_what_is_moved_in_a_transaction_takes_along_what_is_about_it_there(
    door: Door, hospital: Asker, turn: int
) -> None:
    weight = kept(hospital)
    before = f"Provenance/{hospital.made(provenance(weight))['id']}"
    other = door.clinician("nanhu")
    opt_out(door, "P2")
    moved = hospital.read(weight) | {"subject": {"reference": "Patient/2"}}
    entries = [entry("PUT", weight, moved, name=NEW), entry("POST", "Provenance", provenance(NEW))]

    response = sent(hospital, "transaction", *entries[::turn], Prefer="return=representation")

    made = [one["resource"] for one in answered(response)]
    told = next(one for one in made if one["resourceType"] == "Provenance")
    assert told["target"] == [{"reference": weight}]
    for one in (before, f"Provenance/{told['id']}"):
        hospital.read(one)
        other.refused(one, 404, "not-found")
