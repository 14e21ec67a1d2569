"""Whose a resource is stays found while patients are merged, linked, corrected and sent again."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest
from exporting import ASYNC, NDJSON, work
from fhir_door import Asker, Door
from region import ADMINISTRATOR, HOSPITALS, ID_CARD, Region
from reindexing import named
from sqlalchemy import select
from whose import CODES, EACH, NAMES, each_is_found, owns, peopled, written

from exchange import conflicts, consent
from exchange.errors import ExchangeError
from exchange.identity import RESIDENT_ID
from exchange_storage import resource_index
from exchange_storage.records import Patient, Resource

OTHER_CARD = "110105194912310046"
"""Valid, made up, and of a woman of the same day."""


def registered(random: Random, at: int, number: int) -> dict[str, Any]:
    """A patient as the hospital's feed tells of them, replaced by another one or not, with one card
    or another one or none."""
    issuer = HOSPITALS[CODES[at]][1]
    into = random.choice([None, *owns(at)])
    card = random.choice([None, ID_CARD, ID_CARD, OTHER_CARD])
    family, given = random.choice(NAMES).split("^")
    cards = [{"system": f"urn:oid:{RESIDENT_ID}", "value": card}] if card else []
    return {
        "resourceType": "Patient",
        "identifier": [{"system": f"urn:oid:{issuer}", "value": f"P{at}.{number}"}, *cards],
        "name": [{"family": family, "given": [given]}],
        "gender": "female",
        "birthDate": "1949-12-31",
        **({"link": [{"other": {"reference": into}, "type": "replaced-by"}]} if into else {}),
    }


def imported(door: Door, system: Asker, *resources: dict[str, Any]) -> None:
    content = b"\n".join(orjson.dumps(one) for one in resources)
    headers = system.headers | {"Content-Type": NDJSON, "Prefer": ASYNC}
    assert system.client.post("/fhir/$import", content=content, headers=headers).status_code == 202
    work(door)


def provenance(target: str) -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "id": target.replace("/", "-").lower(),
        "recorded": "2026-11-28T08:00:00Z",
        "target": [{"reference": target}],
        "agent": [{"who": {"display": "x"}, "type": {"coding": [{"code": "author"}]}}],
    }


def act(random: Random, door: Door, at: int) -> str:
    """Something that changes who patients are, or whose something is; what it was, if done."""
    system, number = door.system(CODES[at]), random.randrange(EACH)
    done = random.choice(["feed", "feed", "import", "together", "again", "study", "traced"])
    uid = f"1.2.{at}.{random.randrange(EACH * 2)}"
    match done:
        case "feed":  # merges, takes merges back, links, unlinks and renames
            name = owns(at)[number]
            told = registered(random, at, number) | {"id": name.partition("/")[2]}
            response = system.send("PUT", name, told)
            return f"{done} {response.status_code}"
        case "import":
            others = [written(random, at) for _ in range(3)]
            imported(door, system, registered(random, at, number), *others)
        case "together":
            entries = [
                {"resource": one, "request": {"method": "PUT", "url": f"{kind}/{one['id']}"}}
                for one in (written(random, at), written(random, at))
                for kind in (one["resourceType"],)
            ]
            told = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            return f"{done} {system.send('POST', '', told).status_code}"
        case "again":  # with another Patient ID: nothing of the study is moved by that
            instance = f"1.4.{uid}.{random.randrange(9)}"
            door.city.send(
                CODES[at], patient=f"P{at}.{number}", study=uid, instance=instance, PatientName=""
            )  # by a name in it the patient would be found as well
            with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                waiting = conflicts.waiting(access)
            for each in waiting:
                try:
                    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                        conflicts.promote(access, each.number)
                except ExchangeError:
                    done = "refused again"
        case "study":
            response = system.send("PUT", f"Provenance/imagingstudy-{uid}",
                                   provenance(f"ImagingStudy/{uid}"))  # fmt: skip
            return f"{done} {response.status_code}"
        case "traced":
            target = f"Observation/o{at}-{random.randrange(4)}"
            one = provenance(target)
            response = system.send("PUT", f"Provenance/{one['id']}", one)
            return f"{done} {response.status_code}"
    return done


@pytest.mark.parametrize("seed", range(2))
def test_whoever_patients_turn_out_to_be_what_is_theirs_is_found(city: Region, seed: int) -> None:
    random = Random(seed)
    door = peopled(city)
    done = Counter[str]()
    for step in range(80):
        done[act(random, door, random.randrange(len(CODES)))] += 1
        city.identify()
        if step == 40:
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                at = seed % len(CODES)
                consent.opt_out(access, CODES[at], f"P{at}.{random.randrange(EACH)}")
    with city.exchange.database.reading() as session:
        everything = session.scalars(select(Resource.id)).all()
        assert resource_index.misplaced(session, everything) == set()
        assert session.scalars(select(Patient.id).where(Patient.replaced_by_id.is_not(None))).all()
        assert session.scalars(select(Patient.id).where(Patient.person_id.is_not(None))).all()
    each_is_found(door)
    assert named(door) == []


def test_what_was_told_of_a_study_before_it_came_is_its_patients_once_it_is_here(
    city: Region,
) -> None:
    door = peopled(city)
    told = provenance("ImagingStudy/1.2.9")
    assert door.system("beicheng").send("PUT", f"Provenance/{told['id']}", told).status_code == 201
    treating = door.clinician("nanhu")
    question = "Provenance?target=ImagingStudy/1.2.9"
    assert treating.ids(question) == []

    city.send("beicheng", patient="P0.0", study="1.2.9", instance="1.4.9")

    assert treating.ids(question) == [f"Provenance/{told['id']}"]
    assert named(door) == []


def test_what_another_hospital_tells_of_a_study_that_comes_stays_its_own(city: Region) -> None:
    door = peopled(city)
    told = provenance("ImagingStudy/1.2.9")
    assert door.system("nanhu").send("PUT", f"Provenance/{told['id']}", told).status_code == 201

    city.send("beicheng", patient="P0.0", study="1.2.9", instance="1.4.9")

    assert door.clinician("beicheng").ids("Provenance") == []
    assert named(door) == []
