"""Who is meant: a number is certain, a name with a birth date is probable, and only the permitted
are matched."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, ID_CARD, Region

from exchange import consent, matching
from exchange.errors import Invalid, NotFound, Refused
from exchange.identity import RESIDENT_ID
from exchange.matching import Grade, Match, Sought
from exchange.policy import Purpose, Requester

WANG = Sought(names=("Wang^XiaoDong",), birth_date="19491231", sex="F")


@pytest.fixture
def known(city: Region) -> Region:
    """Wang Xiaodong is known at two hospitals by her card, at a third by name only."""
    city.send("beicheng", patient="B1", card=ID_CARD, PatientTelephoneNumbers="138 0013 8000")
    city.send("nanhu", patient="N1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("dongshan", patient="D1", study="1.2.3", instance="1.4.3", PatientName="=王^小东")
    city.send("dongshan", patient="D2", study="1.2.4", instance="1.4.4",
              PatientName="Li^Si=李^四", PatientBirthDate="19800101")  # fmt: skip
    return city


def match(city: Region, asker: Requester, sought: Sought, *, certain: bool = False) -> list[Match]:
    with city.exchange.on_behalf_of(asker) as access:
        return matching.match(access, sought, limit=10, only_certain=certain)


def told(matches: list[Match]) -> list[tuple[str, Grade]]:
    return [(one.found.patient.patient_id, one.grade) for one in matches]


def test_a_name_with_a_birth_date_is_probable_in_hanzi_and_in_pinyin(known: Region) -> None:
    matches = match(known, known.clinician("nanhu"), WANG)

    assert {one for one, _ in told(matches)} == {"B1", "N1", "D1"}
    assert {grade for _, grade in told(matches)} == {Grade.PROBABLE}
    assert all("the same birth date" in one.reasons for one in matches)
    by_hanzi = match(
        known, known.clinician("nanhu"), Sought(names=("王^小东",), birth_date="19491231")
    )
    assert {one for one, _ in told(by_hanzi)} == {"B1", "N1", "D1"}


def test_a_card_or_a_hospitals_number_is_certain(known: Region) -> None:
    doctor = known.clinician("nanhu")
    card = Sought(identifiers=((f"urn:oid:{RESIDENT_ID}", ID_CARD),))
    number = Sought(identifiers=(("urn:oid:2.25.103", "D2"),))

    assert told(match(known, doctor, card)) == [("B1", Grade.CERTAIN), ("N1", Grade.CERTAIN)]
    assert told(match(known, doctor, number)) == [("D2", Grade.CERTAIN)]
    assert match(known, doctor, Sought(identifiers=(("urn:oid:2.25.102", "D2"),))) == []


def test_a_number_that_the_birth_date_contradicts_is_not_certain(known: Region) -> None:
    sought = Sought(identifiers=(("2.25.103", "D2"),), birth_date="19491231", sex="F")

    (one,) = match(known, known.clinician("nanhu"), sought)

    assert (one.grade, "another birth date" in one.reasons) == (Grade.PROBABLE, True)


def test_only_certain_matches_are_of_one_person_or_none(known: Region) -> None:
    doctor = known.clinician("nanhu")
    both = Sought(identifiers=((RESIDENT_ID, ID_CARD), ("2.25.103", "D2")))

    assert match(known, doctor, WANG, certain=True) == []
    assert match(known, doctor, both, certain=True) == []
    assert len(match(known, doctor, both)) == 3


def test_who_may_not_be_seen_is_not_matched(known: Region) -> None:
    asker = known.clinician("nanhu", Purpose.OPERATIONS)
    assert told(match(known, asker, WANG)) == [("N1", Grade.PROBABLE)]
    with known.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "B1")

    assert {one for one, _ in told(match(known, known.clinician("nanhu"), WANG))} == {"N1", "D1"}
    with pytest.raises(Refused):
        match(known, ADMINISTRATOR, WANG)


def test_a_match_that_could_be_anybody_is_not_looked_for(known: Region) -> None:
    for sought in (Sought(), Sought(names=("Wang^*",)), Sought(birth_date="19491231", sex="F")):
        with pytest.raises(Invalid):
            match(known, known.clinician("nanhu"), sought)


@pytest.mark.parametrize(
    ("one", "other", "nearly"),
    [
        ("19491231", "19491221", True),
        ("19490112", "19491201", True),
        ("19491231", "19941231", True),
        ("19491231", "19501130", False),
        ("19491231", "1949", False),
    ],
)
def test_a_birth_date_may_differ_by_one_slip(one: str, other: str, nearly: bool) -> None:
    assert matching._nearly(one, other) is nearly


def numbers(city: Region, asker: Requester, issuer: str, value: str) -> set[str]:
    with city.exchange.on_behalf_of(asker) as access:
        found = matching.cross_references(access, issuer, value)
    return {one.patient.patient_id for one in found}


def test_a_number_leads_to_the_numbers_of_the_same_person_elsewhere(known: Region) -> None:
    doctor = known.clinician("dongshan")

    assert numbers(known, doctor, "urn:oid:2.25.101", "B1") == {"B1", "N1"}
    assert numbers(known, doctor, f"urn:oid:{RESIDENT_ID}", ID_CARD) == {"B1", "N1"}
    assert numbers(known, doctor, "2.25.103", "D1") == {"D1"}
    with pytest.raises(NotFound):
        numbers(known, doctor, "2.25.101", "B9")
    with pytest.raises(Invalid):
        numbers(known, doctor, "2.25.999", "B1")


def test_a_number_leads_to_nobody_whom_the_asker_may_not_see(known: Region) -> None:
    with known.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "B1")

    with pytest.raises(NotFound):
        numbers(known, known.clinician("dongshan"), "2.25.101", "B1")
    assert numbers(known, known.clinician("nanhu"), "2.25.102", "N1") == {"N1"}
