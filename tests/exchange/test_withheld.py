"""What was withheld was asked for by somebody: the trail says by whom, of whose, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from region import ADMINISTRATOR, ID_CARD, Region, region

from exchange import clinical_search, consent, query, retrieval, trail
from exchange.clinical_search import Question
from exchange.policy import Requester, Role
from exchange_storage.search import Criterion, Level, Match, Number, SamePerson, Values

DENIED = "the patient has not consented to sharing"
STUDIES = ("1.2.2", "1.2.3")


@pytest.fixture
def city(database_url: str) -> Iterator[Region]:
    """Beicheng has two studies of a person who denies sharing, and one of another who does not."""
    with region(database_url) as made:
        for number, study in enumerate(STUDIES):
            made.send("beicheng", patient="A1", study=study, instance=f"1.4.{number}", card=ID_CARD)
        made.send("beicheng", patient="A2", study="1.2.4", instance="1.4.9", PatientName="Li^Na")
        made.identify()
        with made.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_out(access, "beicheng", "A1")
        yield made


def uids(*studies: str) -> list[Criterion]:
    return [Match("StudyInstanceUID", Values(studies))]


def administrator(city: Region, code: str) -> Requester:
    return Requester(
        name=f"admin.{code}",
        role=Role.ADMINISTRATOR,
        organization=city.ids[code],
        purpose=None,
        door="portal",
    )


def refused(city: Region, whom: Requester = ADMINISTRATOR, **sought: Any) -> list[dict[str, Any]]:
    with city.exchange.on_behalf_of(whom) as access:
        found = trail.records(access, limit=100, **sought)
    return [one for one in found if one["outcome"] == "refused"]


def fetch(city: Region, level: Level, criteria: Sequence[Criterion], asked: bytes = b"") -> int:
    with city.exchange.on_behalf_of(city.system("nanhu")) as access:
        return len(
            retrieval.select_instances(
                access, level, criteria, limit=10, purpose="images", asked=asked
            )
        )


def test_who_fetched_a_withheld_study_got_nothing_and_stands_in_the_trail_of_study_and_patient(
    city: Region,
) -> None:
    assert fetch(city, Level.STUDY, uids("1.2.2"), b"1.2.2") == 0

    (by_study,) = refused(city, study="1.2.2")
    assert refused(city, patient=("beicheng", "A1")) == [by_study]
    assert not refused(city, study="1.2.3")
    assert (by_study["action"], by_study["requester"]) == ("retrieve", "NANHU")
    assert (by_study["reason"], by_study["door"]) == (DENIED, "dimse")
    assert by_study["study"] == "1.2.2"
    assert by_study["detail"]["asked"]


def test_of_a_patient_whose_images_are_withheld_each_study_is_on_the_record(city: Region) -> None:
    assert fetch(city, Level.PATIENT, [SamePerson(1)]) == 0

    for study in STUDIES:
        assert [one["detail"]["withheld"] for one in refused(city, study=study)] == [1]


@pytest.mark.parametrize(
    ("level", "asked", "studies"),
    [
        (Level.STUDY, uids("1.2.2"), STUDIES[:1]),
        (Level.SERIES, uids("1.2.2"), STUDIES[:1]),
        (Level.STUDY, [], STUDIES),
        (Level.PATIENT, [Match("PatientSex", Values(("F",)))], ()),
    ],
    ids=["a study", "its series", "whatever there is", "patients"],
)
def test_a_question_that_would_have_found_what_is_withheld_is_found_by_it(
    city: Region, level: Level, asked: list[Criterion], studies: Sequence[str]
) -> None:
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        query.find(access, level, asked, limit=10, asked="as it came")

    (one,) = refused(city, patient=("beicheng", "A1"))
    assert (one["action"], one["reason"], one["requester"]) == ("search", DENIED, "dr.nanhu")
    assert [bool(refused(city, study=study)) for study in STUDIES] == [
        study in studies for study in STUDIES
    ]
    assert not refused(city, study="1.2.4")
    assert not refused(city, patient=("beicheng", "A2"))


def test_a_page_that_has_more_behind_it_tells_of_what_was_withheld_before_it(city: Region) -> None:
    for number in (5, 6):
        city.send("nanhu", patient=f"B{number}", study=f"1.2.{number}", instance=f"1.5.{number}")
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        answer = query.find(access, Level.STUDY, uids("1.2.2", "1.2.5", "1.2.6"), limit=1)

    assert answer.more
    assert [one["study"] for one in refused(city, study="1.2.2")] == ["1.2.2"]


def test_another_hospitals_number_that_is_withheld_is_on_the_record(city: Region) -> None:
    number = Number(city.ids["beicheng"], Values(("A1",)))
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        assert not query.find(access, Level.STUDY, [number], limit=10, asked="A1").found

    (one,) = refused(city, patient=("beicheng", "A1"))
    assert (one["reason"], one["detail"]["level"]) == (DENIED, "STUDY")


@pytest.mark.parametrize(
    "level", [Level.STUDY, Level.SERIES, Level.IMAGE], ids=lambda one: one.name
)
@pytest.mark.parametrize("study", ["1.2.2", "1.2.99"])
def test_who_names_a_number_and_a_study_is_on_the_record_for_that_study_and_no_other(
    city: Region, level: Level, study: str
) -> None:
    number = Number(city.ids["beicheng"], Values(("A1",)))
    assert fetch(city, level, [number, *uids(study)]) == 0
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        assert not query.find(access, level, [number, *uids(study)], limit=10).found

    known = [study] if study in STUDIES else []
    records = refused(city, patient=("beicheng", "A1"))
    assert [one["action"] for one in records] == ["search", "retrieve"]
    assert [list(trail.studies(one)) for one in records] == [known] * 2
    assert [len(refused(city, study=one)) for one in STUDIES] == [
        2 * (one == study) for one in STUDIES
    ]


def test_of_a_patient_fetched_by_number_each_study_is_on_the_record(city: Region) -> None:
    number = Number(city.ids["beicheng"], Values(("A1",)))
    assert fetch(city, Level.PATIENT, [number]) == 0

    assert [len(refused(city, study=study)) for study in STUDIES] == [1, 1]


def test_what_is_permitted_or_unknown_leaves_no_refusal(city: Region) -> None:
    with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
        query.find(access, Level.STUDY, [], limit=10)
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        query.find(access, Level.STUDY, uids("1.2.4", "1.2.99"), limit=10)
        clinical_search.find(access, Question(kind="Observation", limit=10))

    assert not refused(city)


def test_the_hospital_of_the_patient_is_told_all_and_that_of_who_asked_what_they_named(
    city: Region,
) -> None:
    fetch(city, Level.STUDY, uids("1.2.2"), b"StudyInstanceUID=1.2.2")
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        query.find(access, Level.STUDY, [], limit=10, asked="whatever there is")

    theirs = refused(city, administrator(city, "beicheng"))
    assert [sorted(trail.studies(one)) for one in theirs] == [[*STUDIES], ["1.2.2"]]
    assert [trail.of_patients(one) for one in theirs] == [[1], [1]]
    own = refused(city, administrator(city, "nanhu"))
    assert [trail.studies(one) for one in own] == [[], ["1.2.2"]]
    assert [trail.of_patients(one) for one in own] == [[], []]
    assert [one["detail"]["withheld"] for one in own] == [2, 1]
    assert not refused(city, administrator(city, "dongshan"))
