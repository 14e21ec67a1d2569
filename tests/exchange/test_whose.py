"""A record of what was done with a study says whose study it is: it is found by the patient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from region import ADMINISTRATOR, ID_CARD, Region

from exchange import conflicts, exports, orders, persons, rejection, restoration, retention, trail
from exchange.access import Access
from exchange.orders import Placed
from exchange.policy import Requester, Role

STUDY, IMAGE = "1.2.1", "1.4.1"
NOTE = rejection.Note("113001", ((STUDY, IMAGE),))


@pytest.fixture
def filled(city: Region) -> Region:
    """Wang was at Beicheng, and at Nanhu."""
    city.send("beicheng", patient="A1", study=STUDY, instance=IMAGE, card=ID_CARD)
    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.identify()
    return city


def follow(access: Access) -> None:
    access.write(lambda session: rejection.apply(access, session, NOTE, "1.9.1"))


def hold_and_lift(access: Access) -> None:
    retention.hold(access, STUDY, "court")
    retention.lift(access, STUDY)


def reject_and_restore(access: Access) -> None:
    rejection.reject(access, "beicheng", "113001", [IMAGE])
    restoration.restore(access, "beicheng", [IMAGE])


ACTS: dict[str, tuple[str, Callable[[Access], object], set[str]]] = {
    "files": (
        "clinician",
        lambda access: exports.ask(access, STUDY, without_names=True),
        {"files asked for"},
    ),
    "a hold": (
        "administrator",
        hold_and_lift,
        {"hold placed", "hold lifted"},
    ),
    "a rejection note": ("system", follow, {"Rejected for Quality Reasons"}),
    "a rejection by command": (
        "administrator",
        reject_and_restore,
        {"Rejected for Quality Reasons", "withdrawn"},
    ),
}


def asking(city: Region, role: str, code: str = "beicheng") -> Requester:
    match role:
        case "administrator":
            return ADMINISTRATOR
        case "system":
            return city.system(code)
    return city.clinician(code)


def about(city: Region, code: str, number: str, whom: Requester = ADMINISTRATOR) -> list[Any]:
    with city.exchange.on_behalf_of(whom) as access:
        return list(trail.records(access, limit=100, patient=(code, number)))


@pytest.mark.parametrize("act", ACTS)
def test_what_was_done_with_a_study_is_found_by_its_patient(filled: Region, act: str) -> None:
    role, done, reasons = ACTS[act]
    with filled.exchange.on_behalf_of(asking(filled, role)) as access:
        done(access)

    found = {one["reason"] for one in about(filled, "beicheng", "A1") if one["study"] == STUDY}
    assert reasons <= found


def test_who_tried_to_reject_another_hospitals_images_is_found_by_their_patient(
    filled: Region,
) -> None:
    with filled.exchange.on_behalf_of(filled.system("nanhu")) as access:
        follow(access)

    admin = Requester(
        name="admin.beicheng",
        role=Role.ADMINISTRATOR,
        organization=filled.ids["beicheng"],
        purpose=None,
    )
    (refused,) = [
        one for one in about(filled, "beicheng", "A1", admin) if one["outcome"] == "refused"
    ]
    assert (refused["requester"], refused["study"]) == ("NANHU", STUDY)


def test_a_note_about_several_studies_is_recorded_for_each(filled: Region) -> None:
    filled.send("beicheng", patient="A2", study="1.2.5", instance="1.4.5")
    note = rejection.Note("113001", ((STUDY, IMAGE), ("1.2.5", "1.4.5")))
    with filled.exchange.on_behalf_of(filled.system("beicheng")) as access:
        access.write(lambda session: rejection.apply(access, session, note, "1.9.1"))

    for number in ("A1", "A2"):
        (rejected,) = [
            one for one in about(filled, "beicheng", number) if one["action"] == "reject"
        ]
        assert rejected["detail"]["instances"] == 1


def test_who_read_a_person_is_found_by_each_of_their_records(filled: Region) -> None:
    with filled.exchange.on_behalf_of(filled.clinician("dongshan")) as access:
        (known,) = persons.find(access, [], limit=10).found
    with filled.exchange.on_behalf_of(filled.clinician("dongshan")) as access:
        persons.one(access, known.person)

    for code, number in (("beicheng", "A1"), ("nanhu", "B1")):
        assert "retrieve" in {one["action"] for one in about(filled, code, number)}


def test_a_conflict_that_was_compared_and_settled_is_found_by_its_patient(filled: Region) -> None:
    filled.send("beicheng", patient="A1", study=STUDY, instance=IMAGE, body=b"other")
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
        conflicts.pair(access, waiting.number)
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        conflicts.discard(access, waiting.number)

    assert {"compared", "discarded"} <= {one["reason"] for one in about(filled, "beicheng", "A1")}


def test_an_administrator_who_listed_orders_is_found_by_whose_they_are(filled: Region) -> None:
    with filled.exchange.on_behalf_of(filled.system("beicheng")) as access:
        placed = Placed(
            patient_id="A1", accession_number="1", modality="CT", scheduled_date="20261201"
        )
        orders.place(access, placed)
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        orders.listed(access, organization="beicheng")

    assert "listed" in {one["reason"] for one in about(filled, "beicheng", "A1")}
