"""Administrators read who looked at whom; reading is recorded like everything else."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, ID_CARD, Region

from exchange import conflicts, query, retrieval, trail
from exchange.errors import NotFound, Refused
from exchange.policy import Requester, Role
from exchange_storage.search import Criterion, Identifier, Level, Number, Values


@pytest.fixture
def looked_at(city: Region) -> Region:
    """One person known at two hospitals; a clinician of a third has opened one study."""
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="B1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("nanhu", patient="B2", study="1.2.3", instance="1.4.3")
    with city.exchange.on_behalf_of(city.clinician("dongshan")) as access:
        retrieval.instances(access, "1.2.2")
    with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
        query.find(access, Level.STUDY, [], limit=10)
    return city


def test_asked_at_one_hospital_the_trail_tells_of_the_person_at_every_hospital(
    looked_at: Region,
) -> None:
    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        found = trail.records(access, patient=("beicheng", "A1"))

    with looked_at.exchange.on_behalf_of(looked_at.clinician("beicheng")) as access:
        query.find(access, Level.STUDY, [Number(access.organization, Values(("A1",)))], limit=10)
    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (search, *_) = trail.records(access, limit=1, patient=("nanhu", "B1"))
    assert (search["requester"], search["action"]) == ("dr.beicheng", "search")
    looks = [(one["requester"], one["study"]) for one in found if one["action"] == "retrieve"]
    assert looks == [("dr.dongshan", "1.2.2")]
    assert all(one["study"] != "1.2.3" for one in found)


def administrator(city: Region, code: str) -> Requester:
    return Requester(
        name=f"admin.{code}",
        role=Role.ADMINISTRATOR,
        organization=city.ids[code],
        purpose=None,
        door="portal",
    )


@pytest.mark.parametrize(
    "asked",
    [[], [Identifier(ID_CARD)]],
    ids=["among the patients of others", "as another record of the person"],
)
def test_every_hospital_is_told_who_found_its_patient(
    looked_at: Region, asked: list[Criterion]
) -> None:
    with looked_at.exchange.on_behalf_of(looked_at.clinician("dongshan")) as access:
        answer = query.find(access, Level.PATIENT, asked, limit=10)
    found = {(one.owner.code, one.patient.patient_id) for one in answer.found}
    assert {("beicheng", "A1"), ("nanhu", "B1")} <= found

    for code, number in found:
        with looked_at.exchange.on_behalf_of(administrator(looked_at, code)) as access:
            (search, *_) = trail.records(access, patient=(code, number))
            assert (search["requester"], search["action"]) == ("dr.dongshan", "search")
            assert search in trail.records(access)
            own = [one.patient.id for one in answer.found if one.owner.code == code]
            assert search["patient"] in own
            assert search["detail"]["patients"] == sorted(own)  # and of nobody else's
    with looked_at.exchange.on_behalf_of(administrator(looked_at, "dongshan")) as access:
        (whole, *_) = trail.records(access, requester="dr.dongshan")
    assert whole["detail"]["patients"] == sorted(one.patient.id for one in answer.found)


def test_the_trail_is_narrowed_to_a_user_or_a_study(looked_at: Region) -> None:
    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        by_user = trail.records(access, requester="dr.beicheng")
        by_study = trail.records(access, study="1.2.3")

    assert [one["action"] for one in by_user] == ["search"]
    assert [one["action"] for one in by_study] == ["store"]


def test_reading_the_trail_is_recorded_and_names_whom_it_was_about(looked_at: Region) -> None:
    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        trail.records(access, patient=("beicheng", "A1"))
    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        last = trail.records(access, limit=1, requester=ADMINISTRATOR.name)[0]

    assert (last["action"], last["patient"]) == ("audit", 1)


def test_a_clinician_reads_no_trail_and_an_unknown_patient_has_none(looked_at: Region) -> None:
    with (
        pytest.raises(Refused),
        looked_at.exchange.on_behalf_of(looked_at.clinician("nanhu")) as access,
    ):
        trail.records(access)
    with (
        pytest.raises(NotFound),
        looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        trail.records(access, patient=("nanhu", "A1"))


def test_conflicts_that_wait_are_listed_with_sender_and_reason(looked_at: Region) -> None:
    looked_at.send("nanhu", patient="A1", study="1.2.1", instance="1.4.9")

    with looked_at.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (one,) = conflicts.waiting(access)
    with (
        pytest.raises(Refused),
        looked_at.exchange.on_behalf_of(looked_at.system("nanhu")) as access,
    ):
        conflicts.waiting(access)

    assert (one.sop_instance_uid, one.study_instance_uid, one.sender) == ("1.4.9", "1.2.1", "nanhu")
    assert one.reason == "the study belongs to another organization"
