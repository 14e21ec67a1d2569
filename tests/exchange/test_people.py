"""A person is found once over all hospitals, and each match says on what it rests."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from region import ADMINISTRATOR, HOSPITALS, ID_CARD, Region

from exchange import audit, consent, people
from exchange.errors import Invalid, Refused
from exchange.people import Answer, Basis


@pytest.fixture
def filled(city: Region) -> Region:
    """Wang Xiaodong at two hospitals by her card, a namesake, and another patient number B1."""
    city.send("beicheng", patient="B1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="N1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    namesake: Any = {"PatientBirthDate": "19800101", "PatientSex": "M"}
    city.send("dongshan", patient="D1", study="1.2.3", instance="1.4.3", **namesake)
    other: Any = {"PatientName": "Li^Na=李^娜", "PatientBirthDate": "19700707"}
    city.send("dongshan", patient="B1", study="1.2.4", instance="1.4.4", **other)
    city.identify()
    return city


def found(city: Region, text: str, born: str = "", who: str = "beicheng") -> Answer:
    with city.exchange.on_behalf_of(city.clinician(who)) as access:
        return people.find(access, text, born)


def numbers(answer: Answer) -> list[list[str]]:
    return [
        sorted(f"{known.organization.name}:{known.patient.patient_id}" for known in entry.records)
        for entry in answer.entries
    ]


WANG = sorted([f"{HOSPITALS['beicheng'][0]}:B1", f"{HOSPITALS['nanhu'][0]}:N1"])


@pytest.mark.parametrize("text", [ID_CARD, ID_CARD.lower(), f" {ID_CARD}"])
def test_an_id_card_finds_one_person_at_all_hospitals(filled: Region, text: str) -> None:
    answer = found(filled, text)
    assert numbers(answer) == [WANG]
    assert answer.entries[0].rests_on == (Basis.RESIDENT_ID,)


def test_a_number_of_any_hospital_finds_the_person_and_everybody_else_who_has_it(
    filled: Region,
) -> None:
    assert numbers(found(filled, "N1")) == [WANG]
    both = found(filled, "B1")
    assert sorted(numbers(both)) == sorted([WANG, [f"{HOSPITALS['dongshan'][0]}:B1"]])
    assert {entry.rests_on for entry in both.entries} == {(Basis.NUMBER,)}


@pytest.mark.parametrize("text", ["王小东", "wang xiaodong", "WangXiaoDong", "王小", "xiaodong"])
def test_a_name_in_hanzi_or_pinyin_finds_all_who_bear_it(filled: Region, text: str) -> None:
    answer = found(filled, text)
    assert sorted(numbers(answer)) == sorted([WANG, [f"{HOSPITALS['dongshan'][0]}:D1"]])
    assert {entry.rests_on for entry in answer.entries} == {(Basis.NAME,)}


def test_a_name_that_only_sounds_alike_is_told_from_the_same_name(filled: Region) -> None:
    answer = found(filled, "王晓东")
    assert {entry.rests_on for entry in answer.entries} == {(Basis.ALIKE,)}


def test_a_birth_date_tells_namesakes_apart_and_finds_by_itself(filled: Region) -> None:
    assert numbers(found(filled, "王小东", "19491231")) == [WANG]
    alone = found(filled, "", "19491231")
    assert numbers(alone) == [WANG]
    assert alone.entries[0].rests_on == (Basis.BIRTH_DATE,)


def test_who_may_not_see_a_record_does_not_learn_of_it(filled: Region) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "N1")
    assert numbers(found(filled, ID_CARD)) == [[f"{HOSPITALS['beicheng'][0]}:B1"]]
    assert numbers(found(filled, ID_CARD, who="dongshan")) == []
    assert numbers(found(filled, "N1", who="dongshan")) == []


@pytest.mark.parametrize(("text", "born"), [("", ""), ("王", "1949"), ("x" * 200, "")])
def test_a_question_that_asks_for_nothing_is_refused_with_a_hint(
    filled: Region, text: str, born: str
) -> None:
    with pytest.raises(Invalid):
        found(filled, text, born)


def test_a_system_administrator_finds_nobody(filled: Region) -> None:
    with pytest.raises(Refused), filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        people.find(access, ID_CARD)


def test_the_question_stands_in_the_audit_trail(filled: Region) -> None:
    found(filled, ID_CARD)
    with filled.exchange.database.reading() as session:
        (record, *_) = audit.latest(session)
    told = json.loads(record.content)
    assert b64decode(told["detail"]["asked"]).decode() == ID_CARD
    assert len(told["detail"]["patients"]) == 2
