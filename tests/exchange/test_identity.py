"""One person at several hospitals: linked by a valid ID card that agrees, and by nothing less."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from region import ID_CARD, WORKER, Region
from sqlalchemy import select

from exchange import identity, jobs
from exchange.errors import Refused
from exchange.identity import ResidentID, resident_id
from exchange_storage.records import AuditRecord, Job, Link, Patient, Person, Study

OTHER_CARD = "110105194912310046"
"""Valid too, of another woman born on that day."""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("11010519491231002X", ResidentID("11010519491231002X", "19491231", "F")),
        (" 11010519491231002x ", ResidentID("11010519491231002X", "19491231", "F")),
        ("110105491231002", ResidentID("11010519491231002X", "19491231", "F")),
        ("110105194912310011", ResidentID("110105194912310011", "19491231", "M")),
    ],
)
def test_a_card_tells_birth_date_and_sex(text: str, read: ResidentID) -> None:
    assert resident_id(text) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing"),
        ("110105194912310021", "wrong check digit"),
        ("440524188001010014", "right check digit, born in 1880"),
        ("110105194902300025", "the thirtieth of February"),
        ("110105299912310021", "born in the future"),
        ("110105194912310003", "order 000"),
        ("010105194912310022", "area beginning with 0"),
        ("1101051949123100", "16 digits"),
        ("11010519491231002XX", "19 characters"),
        ("１１０１０５１９４９１２３１００２Ｘ", "full-width digits"),
        ("111111111111111", "placeholder"),
        ("111111111111111111", "placeholder"),
        ("999999999999999999", "placeholder"),
        ("000000000000000", "placeholder"),
        ("123456789012345", "placeholder"),
        ("无", "placeholder"),
    ],
)
def test_what_is_typed_where_there_is_no_card_is_no_card(text: str, why: str) -> None:
    assert resident_id(text) is None, why


def card(area: int, birth: str, order: int) -> str:
    stem = f"{area:06}{birth}{order:03}"
    return stem + identity._check_digit(stem)


cards = st.builds(
    card,
    st.integers(110000, 659999),
    st.dates(min_value=date(1900, 1, 1), max_value=date(2025, 12, 31)).map(
        lambda born: f"{born:%Y%m%d}"
    ),
    st.integers(1, 999),
)


@given(cards)
def test_every_card_is_read_as_it_is_written(number: str) -> None:
    read = resident_id(number)

    assert read is not None
    assert (read.number, read.birth_date) == (number, number[6:14])
    assert read.sex == ("M" if int(number[16]) % 2 else "F")


@given(cards, st.integers(0, 17), st.sampled_from("0123456789X"))
def test_one_wrong_character_is_always_noticed(number: str, place: int, other: str) -> None:
    """ISO 7064 MOD 11-2 detects every single substitution: 11 is prime, no weight is 0 mod 11."""
    assume(number[place] != other)

    assert resident_id(number[:place] + other + number[place + 1 :]) is None


@given(cards, st.integers(0, 16))
def test_two_characters_that_changed_places_are_always_noticed(number: str, place: int) -> None:
    """And every transposition of neighbours, whose weights differ mod 11."""
    assume(number[place] != number[place + 1])
    swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]

    assert resident_id(swapped) is None


@given(st.text(max_size=30))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    resident_id(text)


def persons(city: Region) -> dict[str, int | None]:
    """The person of each patient, by hospital and number."""
    codes = {row: code for code, row in city.ids.items()}
    with city.exchange.database.reading() as session:
        return {
            f"{codes[patient.organization_id]}:{patient.patient_id}": patient.person_id
            for patient in session.scalars(select(Patient))
        }


def test_the_same_card_at_two_hospitals_is_one_person_and_is_told_with_its_evidence(
    city: Region,
) -> None:
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="B9", study="1.2.2", instance="1.4.2", card="110105491231002")
    city.identify()

    linked = persons(city)
    assert linked["beicheng:A1"] == linked["nanhu:B9"] is not None
    with city.exchange.database.reading() as session:
        assert session.scalars(select(Person.resident_id)).all() == [ID_CARD]
        links = session.scalars(select(Link)).all()
        assert [link.decision for link in links] == ["link", "link"]
        assert "resident ID card" in links[0].evidence["rule"]
        audited = session.scalars(select(AuditRecord).where(AuditRecord.action == "link")).all()
        assert len(audited) == 2
        assert not any(ID_CARD in record.content for record in audited)
        # Both studies now tell of another record of the same person: they are derived again.
        assert all(revision >= 2 for revision in session.scalars(select(Study.revision)))


@pytest.mark.parametrize(
    "other",
    [
        {"card": None},
        {"card": OTHER_CARD},
        {"card": "110105194912310021"},
        {"card": ID_CARD, "PatientBirthDate": "19491230"},
        {"card": ID_CARD, "PatientBirthDate": ""},
        {"card": ID_CARD, "PatientSex": "M"},
        {"card": ID_CARD, "PatientSex": ""},
        {"card": ID_CARD, "PatientSex": "O"},
    ],
)
def test_what_does_not_agree_is_not_linked(city: Region, other: dict[str, str]) -> None:
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("nanhu", patient="B9", study="1.2.2", instance="1.4.2", **other)  # type: ignore[arg-type]
    city.identify()

    linked = persons(city)
    assert linked["beicheng:A1"] is not None
    assert linked["nanhu:B9"] != linked["beicheng:A1"]


def test_the_same_name_birth_date_and_patient_number_are_not_the_same_person(
    city: Region,
) -> None:
    city.send("beicheng", patient="100", study="1.2.1", instance="1.4.1")
    city.send("nanhu", patient="100", study="1.2.2", instance="1.4.2")
    city.identify()

    assert set(persons(city).values()) == {None}


def test_of_two_cards_nobody_can_tell_which_is_the_patients(city: Region) -> None:
    city.send("beicheng", study="1.2.1", instance="1.4.1", card=ID_CARD, PatientBirthDate="")
    city.send("beicheng", study="1.2.2", instance="1.4.2", card=OTHER_CARD)
    city.identify()

    assert persons(city) == {"beicheng:P1": None}


def test_a_second_card_does_not_exchange_a_link_silently(city: Region) -> None:
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.identify()
    before = persons(city)
    city.send("beicheng", patient="A1", study="1.2.2", instance="1.4.2", card=OTHER_CARD)
    city.identify()

    assert persons(city) == before


def test_a_card_that_comes_with_a_later_study_links_what_was_there(city: Region) -> None:
    city.send("nanhu", patient="B9", study="1.2.2", instance="1.4.2", card=ID_CARD)
    city.send("beicheng", patient="A1", study="1.2.1", instance="1.4.1")
    city.identify()
    assert persons(city)["beicheng:A1"] is None

    city.send("beicheng", patient="A1", study="1.2.3", instance="1.4.3", card=ID_CARD)
    city.identify()

    linked = persons(city)
    assert linked["beicheng:A1"] == linked["nanhu:B9"]


def test_identifying_again_changes_nothing(city: Region) -> None:
    city.send("beicheng", patient="A1", card=ID_CARD)
    city.identify()
    before = persons(city)
    with city.exchange.on_behalf_of(WORKER) as access:
        assert identity.identify(access, 1) is not None
        assert identity.identify(access, 404) is None

    assert persons(city) == before
    with city.exchange.database.reading() as session:
        assert len(session.scalars(select(Link)).all()) == 1


def test_ten_records_of_one_card_received_and_identified_at_once_make_one_person(
    city: Region,
) -> None:
    together = threading.Barrier(10)

    def work(number: int) -> int | None:
        together.wait()
        city.send(
            ("beicheng", "nanhu", "dongshan")[number % 3],
            patient=f"P{number}",
            study=f"1.2.{number}",
            instance=f"1.4.{number}",
            card=ID_CARD,
        )
        together.wait()
        with city.exchange.on_behalf_of(WORKER) as access:
            person = identity.identify(access, number + 1)
        return person.id if person else None

    with ThreadPoolExecutor(10) as pool:
        made = set(pool.map(work, range(10)))

    assert len(made) == 1
    assert set(persons(city).values()) == made


def test_only_the_exchange_itself_links(city: Region) -> None:
    city.send("beicheng", card=ID_CARD)
    with city.exchange.database.writing() as session:
        session.scalars(select(Patient)).one().person_id = None  # as if it had come another way
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("beicheng")) as access,
    ):
        identity.identify(access, 1)
    assert persons(city) == {"beicheng:P1": None}

    with city.exchange.on_behalf_of(WORKER) as access:
        identity.identify(access, 1)
    assert persons(city) == {"beicheng:P1": 1}


def test_a_record_that_brings_news_is_identified_once(city: Region) -> None:
    for number in range(5):
        city.send("beicheng", instance=f"1.4.{number}", card=ID_CARD)

    with city.exchange.database.reading() as session:
        asked = session.scalars(select(Job).where(Job.kind == jobs.IDENTIFY)).all()
    assert [job.asked for job in asked] == [1]
