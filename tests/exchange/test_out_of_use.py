"""What is rejected, deleted or set aside finds nobody, and finds again once it is restored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from region import ADMINISTRATOR, WORKER, Region

from exchange import conflicts, query, registration, rejection, restoration, retention
from exchange.registration import Registration
from exchange_storage.search import Level, Match, Values


def found(city: Region, keyword: str, value: str) -> list[str]:
    """The studies that a clinician finds by one attribute."""
    with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
        asked = [Match(keyword, Values((value,)))]
        answer = query.find(access, Level.STUDY, asked, limit=100)
    return sorted(one.study.study_instance_uid for one in answer.found if one.study is not None)


def numbered(city: Region, *numbers: str) -> list[list[str]]:
    """The studies that a clinician finds by each accession number."""
    return [found(city, "AccessionNumber", number) for number in numbers]


def named(city: Region, *names: str) -> list[list[str]]:
    return [found(city, "PatientName", name) for name in names]


def reject(city: Region, code: str, *uids: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", code, uids)


def restore(city: Region, *uids: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", uids)


def promote(city: Region) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (one,) = conflicts.waiting(access)
        conflicts.promote(access, one.number)


def told(city: Region, name: str, *further: str) -> None:
    """Beicheng's own feed tells of its patient P1."""
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        registration.register(
            access,
            Registration(
                number="P1",
                name=name,
                birth_date="19491231",
                sex="F",
                further_names=further,
                render=lambda *_: b"{}",
            ),
        )


# Accession numbers


def test_the_accession_number_of_a_rejected_image_finds_its_study_no_more(city: Region) -> None:
    city.send("beicheng", AccessionNumber="MINE")
    for instance in ("1.4.2", "1.4.3"):
        city.send("beicheng", instance=instance, AccessionNumber="OTHER")
    reject(city, "113038", "1.4.2")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], ["1.2.1"]]  # another image says it
    reject(city, "113038", "1.4.3")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], []]
    restore(city, "1.4.3")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], ["1.2.1"]]
    reject(city, "113039", "1.4.2", "1.4.3")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], []]


def test_nor_where_it_was_the_first_image_that_had_it(city: Region) -> None:
    city.send("beicheng", AccessionNumber="OTHER")
    city.send("beicheng", instance="1.4.2", AccessionNumber="MINE")
    city.send("beicheng", instance="1.4.3", AccessionNumber="MINE")
    reject(city, "113038", "1.4.1")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], []]
    city.send("beicheng", instance="1.4.4", AccessionNumber="MINE")
    reject(city, "113038", "1.4.2", "1.4.3")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], []]
    restore(city, "1.4.1")
    assert numbered(city, "MINE", "OTHER") == [["1.2.1"], ["1.2.1"]]
    reject(city, "113038", "1.4.4")
    assert numbered(city, "MINE", "OTHER") == [[], ["1.2.1"]]


def test_nor_where_no_other_image_has_any(city: Region) -> None:
    city.send("beicheng", AccessionNumber="OTHER")
    city.send("beicheng", instance="1.4.2")
    reject(city, "113038", "1.4.1")
    assert numbered(city, "OTHER") == [[]]
    restore(city, "1.4.1")
    assert numbered(city, "OTHER") == [["1.2.1"]]


def test_a_study_all_of_which_is_rejected_is_found_by_each_number_once_it_is_restored(
    city: Region,
) -> None:
    city.send("beicheng", AccessionNumber="A1")
    city.send("beicheng", instance="1.4.2", AccessionNumber="A2")
    reject(city, "113038", "1.4.1", "1.4.2")
    assert numbered(city, "A1", "A2") == [[], []]
    restore(city, "1.4.1", "1.4.2")
    assert numbered(city, "A1", "A2") == [["1.2.1"], ["1.2.1"]]


def test_what_takes_the_place_of_an_image_is_found_by_and_not_what_it_takes_it_of(
    city: Region,
) -> None:
    city.send("beicheng", instance="1.4.9", AccessionNumber="MINE")
    city.send("beicheng", AccessionNumber="OTHER", PatientName="Gao^Xin=高^新")
    city.send("beicheng", body=b"another", AccessionNumber="THIRD", PatientName="Li^San=李^三")
    assert numbered(city, "OTHER", "THIRD") == [["1.2.1"], []]
    assert named(city, "Gao^Xin", "Li^San") == [["1.2.1"], []]
    promote(city)
    assert numbered(city, "OTHER", "THIRD") == [[], ["1.2.1"]]
    assert named(city, "Gao^Xin", "Li^San") == [[], ["1.2.1"]]


# Names


def test_the_name_of_a_rejected_image_finds_the_patient_no_more(city: Region) -> None:
    city.send("beicheng")
    city.send("beicheng", instance="1.4.2", PatientName="Gao^Xin=高^新")
    city.send("beicheng", study="1.2.2", instance="1.5.1", PatientName="Gao^Xin=高^新")
    reject(city, "113038", "1.4.2")
    assert named(city, "Gao^Xin", "高新") == [["1.2.1", "1.2.2"]] * 2  # another image says it
    reject(city, "113001", "1.5.1")
    assert named(city, "Gao^Xin", "高新", "王小东") == [[], [], ["1.2.1"]]
    restore(city, "1.5.1")
    assert named(city, "Gao^Xin", "高新") == [["1.2.1", "1.2.2"]] * 2
    reject(city, "113039", "1.4.2", "1.5.1")
    assert named(city, "Gao^Xin", "高新", "王小东") == [[], [], ["1.2.1"]]


def test_nor_does_the_name_of_one_that_no_rule_keeps_any_longer(city: Region) -> None:
    city.send("beicheng", PatientName="Gao^Xin=高^新")
    told(city, "Wang^XiaoDong=王^小东")
    city.send("beicheng", study="1.2.2", instance="1.5.1", PatientName="Gao^Xin=高^新")
    city.send("beicheng", study="1.2.3", instance="1.6.1", Modality="MR")
    assert named(city, "高新") == [["1.2.1", "1.2.2", "1.2.3"]]
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.set_rule(access, "beicheng", "CT", 1)
        retention.set_rule(access, "beicheng", "MR", 9999)
    with city.exchange.on_behalf_of(WORKER) as access:
        access.now += timedelta(days=30)
        for study in retention.expired(access, free=True):
            retention.destroy(access, study)
    assert named(city, "高新", "王小东") == [[], ["1.2.3"]]


@pytest.mark.parametrize(
    "before",
    [
        lambda city: told(city, "Wang^XiaoDong=王^小东", "Gao^Xin=高^新"),
        lambda city: city.send(
            "beicheng", study="1.2.2", instance="1.5.1", PatientName="Gao^Xin=高^新"
        ),
    ],
    ids=["the hospital's own feed", "another image"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_name_that_others_say_too_finds_all_the_same(
    city: Region, before: Callable[[Region], object], first: bool
) -> None:
    city.send("beicheng")
    if first:
        before(city)
    city.send("beicheng", instance="1.4.2", PatientName="Gao^Xin=高^新")
    if not first:
        before(city)
    reject(city, "113038", "1.4.2")
    assert "1.2.1" in found(city, "PatientName", "高新")
