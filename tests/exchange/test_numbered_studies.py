"""A study whose images do not all say the same of it is found by what each of them says."""

from __future__ import annotations

import pytest
from region import Region

from exchange import query
from exchange_storage.search import (
    AnyOf,
    Criterion,
    Level,
    Match,
    Matching,
    Not,
    Pattern,
    Prefix,
    Values,
)


def found(city: Region, *criteria: Criterion, level: Level = Level.STUDY) -> list[str]:
    with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
        answer = query.find(access, level, criteria, limit=100)
    return sorted(one.study.study_instance_uid for one in answer.found if one.study is not None)


def numbered(matching: Matching) -> Match:
    return Match("AccessionNumber", matching)


@pytest.fixture
def two_numbers(city: Region) -> Region:
    """A study of which some images have a second accession number, and a study beside it."""
    for instance, number in enumerate(("A1", "A1", "B2", "B2", "")):
        city.send("beicheng", instance=f"1.4.{instance}", AccessionNumber=number)
    city.send("beicheng", study="1.2.2", instance="1.5.1", AccessionNumber="C3")
    city.send("beicheng", study="1.2.3", instance="1.6.1")
    return city


@pytest.mark.parametrize(
    ("matching", "studies"),
    [
        (Values(("A1",)), ["1.2.1"]),
        (Values(("B2",)), ["1.2.1"]),
        (Values(("A1", "B2", "C3")), ["1.2.1", "1.2.2"]),
        (Pattern("B*"), ["1.2.1"]),
        (Pattern("*2"), ["1.2.1"]),
        (Pattern("?*"), ["1.2.1", "1.2.2"]),
        (Prefix("B"), ["1.2.1"]),
        (Values(("D4",)), []),
    ],
)
def test_a_study_with_two_accession_numbers_is_found_by_either_once(
    two_numbers: Region, matching: Matching, studies: list[str]
) -> None:
    assert found(two_numbers, numbered(matching)) == studies
    others = sorted({"1.2.1", "1.2.2", "1.2.3"} - set(studies))
    assert found(two_numbers, Not(numbered(matching))) == others
    day = Match("StudyDate", Values(("20261101",)))
    assert found(two_numbers, AnyOf((numbered(matching),)), day) == studies


def test_its_series_are_found_by_either_too(two_numbers: Region) -> None:
    for number in ("A1", "B2"):
        assert found(two_numbers, numbered(Values((number,))), level=Level.SERIES) == ["1.2.1"]


def test_the_number_that_came_first_is_answered(two_numbers: Region) -> None:
    with two_numbers.exchange.on_behalf_of(two_numbers.clinician("beicheng")) as access:
        (answered,) = query.find(access, Level.STUDY, [numbered(Values(("B2",)))], limit=100).found
    assert answered.study is not None
    assert answered.study.accession_number == "A1"


def test_what_the_first_image_does_not_say_of_the_study_a_later_one_does(city: Region) -> None:
    city.send("beicheng", StudyDate="", StudyTime="")
    city.send(
        "beicheng",
        instance="1.4.2",
        AccessionNumber="A1",
        StudyDescription="Chest",
        ReferringPhysicianName="Li^Na",
    )
    city.send("beicheng", instance="1.4.3", StudyDescription="Head")
    for keyword, value in (
        ("AccessionNumber", "A1"),
        ("StudyDescription", "Chest"),
        ("ReferringPhysicianName", "Li^Na"),
        ("StudyDate", "20261101"),
        ("StudyTime", "101500"),
    ):
        assert found(city, Match(keyword, Values((value,)))) == ["1.2.1"]
    assert found(city, Match("StudyDescription", Values(("Head",)))) == []


def test_a_time_is_not_taken_from_another_day(city: Region) -> None:
    city.send("beicheng", StudyTime="")
    city.send("beicheng", instance="1.4.2", StudyDate="20261102", StudyTime="090000")
    assert found(city, Match("StudyTime", Values(("090000",)))) == []
