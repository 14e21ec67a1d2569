"""A hospital takes a merge back: each record is again of whom it was of by itself, whichever record
stood in the place of which, and nobody is shown the images of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from region import ADMINISTRATOR, ID_CARD, Region
from sqlalchemy import select, update

from exchange import discrepancies, identity, query, recording, rejection
from exchange.errors import Conflicting, Invalid
from exchange.identity import RESIDENT_ID
from exchange.registration import Register, Registration
from exchange_storage.records import Patient, Person
from exchange_storage.search import Level, Number, Values

ZHANG: dict[str, Any] = {
    "PatientName": "Zhang^San=张^三",
    "PatientBirthDate": "19491231",
    "PatientSex": "F",
}


def register(
    city: Region, number: str, card: str | None = None, into: str = "", code: str = "beicheng"
) -> None:
    """The hospital's feed tells of a patient, all of it: a PUT."""
    told = Registration(
        number=number,
        name="Zhang^San=张^三",
        birth_date="19491231",
        sex="F",
        identifiers=((RESIDENT_ID, card),) if card else (),
        replaced_by_number=into,
        render=lambda row, version, _: f"Patient/{row} {version}".encode(),
    )
    with city.exchange.on_behalf_of(city.system(code)) as access:
        recording.several(access, [Register(told)])


def persons(city: Region) -> Mapping[str, int | None]:
    """The person of each patient, by number."""
    with city.exchange.database.reading() as session:
        return {one.patient_id: one.person_id for one in session.scalars(select(Patient))}


def together(city: Region, *numbers: str) -> list[set[str]]:
    """The numbers, those of one person in one set; who is of no person is alone."""
    of: dict[object, set[str]] = {}
    for number, person in persons(city).items():
        if number in numbers:
            of.setdefault(person or number, set()).add(number)
    return sorted(of.values(), key=sorted)


def studies(city: Region, code: str, number: str) -> list[str]:
    """Which studies the hospital finds under a number of its own."""
    with city.exchange.on_behalf_of(city.system(code)) as access:
        own = Number(city.ids[code], Values((number,)))
        found = query.find(access, Level.STUDY, [own], limit=10).found
        return sorted(one.study.study_instance_uid for one in found if one.study is not None)


def test_the_record_that_got_its_person_by_a_merge_loses_it_with_the_merge(city: Region) -> None:
    city.send("nanhu", patient="NX", study="1.2.9", instance="1.4.9", card=ID_CARD)
    city.send("beicheng", patient="X1", study="1.2.1", instance="1.4.1", card=ID_CARD)
    city.send("beicheng", patient="X2", study="1.2.2", instance="1.4.2")
    register(city, "X2")
    register(city, "X1", ID_CARD, into="X2")
    assert studies(city, "nanhu", "NX") == ["1.2.1", "1.2.2", "1.2.9"]

    register(city, "X1", ID_CARD)  # taken back
    for _ in range(2):
        assert together(city, "NX", "X1", "X2") == [{"NX", "X1"}, {"X2"}]
        assert studies(city, "nanhu", "NX") == ["1.2.1", "1.2.9"]
        assert studies(city, "beicheng", "X2") == ["1.2.2"]
        assert studies(city, "beicheng", "X1") == ["1.2.1", "1.2.9"]
        register(city, "X2")  # written again, and looked at again
        city.identify()


def test_a_card_that_came_with_an_image_while_another_one_stood_says_whose_it_is_thereafter(
    city: Region,
) -> None:
    other = identity.resident_id("110105194912310046")
    assert other is not None
    register(city, "X1", ID_CARD)
    register(city, "X2")
    register(city, "X1", ID_CARD, into="X2")
    city.send("beicheng", patient="X2", card=other.number)
    city.send("nanhu", patient="NY", study="1.2.9", instance="1.4.9", card=other.number)
    assert together(city, "X1", "X2", "NY") == [{"NY"}, {"X1", "X2"}]  # for a reviewer to decide

    register(city, "X1", ID_CARD)
    assert together(city, "X1", "X2", "NY") == [{"NY", "X2"}, {"X1"}]


def test_whom_an_earlier_release_left_linked_is_let_go_when_looked_at_again(city: Region) -> None:
    register(city, "X1", ID_CARD)
    register(city, "X2")
    register(city, "X1", ID_CARD, into="X2")
    with city.exchange.database.writing() as session:
        session.execute(update(Patient).values(replaced_by_id=None))
    assert together(city, "X1", "X2") == [{"X1", "X2"}]

    register(city, "X2")
    assert together(city, "X1", "X2") == [{"X1"}, {"X2"}]


def test_who_came_to_their_person_another_way_keeps_them(city: Region) -> None:
    """A link of which the log of links says nothing stands by itself."""
    register(city, "X1")
    register(city, "X2")
    with city.exchange.database.writing() as session:
        person = Person(resident_id=None, created=session.scalars(select(Patient.created)).all()[0])
        session.add(person)
        session.flush()
        session.execute(
            update(Patient).where(Patient.patient_id == "X1").values(person_id=person.id)
        )
    register(city, "X1", into="X2")
    assert len(together(city, "X1", "X2")) == 1
    register(city, "X1")
    assert persons(city) == {"X1": person.id, "X2": None}


NUMBERS = ("A", "B", "C", "D")
CARDS = ("", "", "first", "second")
told = st.tuples(
    st.sampled_from(NUMBERS), st.sampled_from(CARDS), st.sampled_from(("", "", *NUMBERS))
)
_examples = count(1)


@dataclass
class Model:
    """Whose the records should be: what the feed has said last of cards and merges."""

    card: dict[str, str] = field(default_factory=dict)
    into: dict[str, str] = field(default_factory=dict)

    def tell(self, number: str, card: str, into: str) -> bool:
        """Whether it can be: a record does not stand in its own place."""
        following = into
        while following:
            if following == number:
                return False
            following = self.into.get(following, "")
        if card:  # to say nothing of a card is not to correct it
            self.card[number] = card
        self.into[number] = into
        return True

    def says(self, number: str) -> str:
        """The card that a record has, or those have in whose place it stands."""
        below = {self.says(one) for one in NUMBERS if self.into.get(one) == number} - {""}
        return self.card.get(number, "") or (below.pop() if len(below) == 1 else "")

    def together(self) -> list[set[str]]:
        of: dict[str, set[str]] = {"card first": {"nanhu"}}
        for number in NUMBERS:
            last = number
            while self.into.get(last):
                last = self.into[last]
            card = self.says(last)
            of.setdefault(f"card {card}" if card else last, set()).add(number)
        return sorted(of.values(), key=sorted)


@example([("A", "first", "B"), ("A", "first", "")])
@example([("A", "first", "B"), ("B", "", "C"), ("A", "first", ""), ("B", "", "")])
@example([("A", "", "B"), ("B", "", "C"), ("C", "first", ""), ("B", "", "")])
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 3,
    deadline=None,
)
@given(st.lists(told, max_size=12))
def test_persons_are_those_whom_the_cards_and_merges_that_stand_make_one(
    city: Region, feed: list[tuple[str, str, str]]
) -> None:
    """Whatever was said, merged and taken back before, in whichever order."""
    turn = next(_examples)
    made = {
        kind: stem + identity._check_digit(stem)
        for place, kind in enumerate(("first", "second"))
        for stem in (f"11{turn:04}19491231{place:02}2",)
    } | {"": ""}

    def named(number: str) -> str:
        return f"{number}{turn}"

    model = Model()
    register(city, named("nanhu"), made["first"], code="nanhu")
    for number in NUMBERS:
        register(city, named(number))
    for number, card, into in feed:
        if not model.tell(number, card, into):
            with pytest.raises(Conflicting):
                register(city, named(number), made[card], named(into))
            continue
        register(city, named(number), made[card], into and named(into))
        city.identify()
        expected = [{named(one) for one in group} for group in model.together()]
        assert together(city, *map(named, ("nanhu", *NUMBERS))) == expected


# Images that came under another number while the merge stood


def waiting(city: Region) -> list[tuple[str, str, str]]:
    """What waits for review: study, the number it is shown under, the one its images came under."""
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return sorted(
            (one.study_instance_uid, one.patient_id, one.told_number)
            for one in discrepancies.waiting(access)
        )


def chained(city: Region) -> None:
    """M1 was merged into M2, that into M3; of M1's study came an image under each number."""
    for number in ("M3", "M2", "M1"):
        register(city, number)
    city.send("beicheng", patient="M1", study="1.2.1", instance="1.4.1", **ZHANG)
    register(city, "M2", into="M3")
    register(city, "M1", into="M2")
    for row, number in enumerate(("M2", "M3", "M3"), 2):
        city.send("beicheng", patient=number, study="1.2.1", instance=f"1.4.{row}", **ZHANG)


def test_images_that_came_under_another_number_wait_for_review_once_the_merge_is_taken_back(
    city: Region,
) -> None:
    chained(city)
    assert waiting(city) == []

    register(city, "M1")
    both = [("1.2.1", "M1", "M2"), ("1.2.1", "M1", "M3")]
    assert waiting(city) == both
    for number in ("M1", "M2", "M3"):  # their own feed, which says nothing of the images
        register(city, number, into="M3" if number == "M2" else "")
    assert waiting(city) == both

    register(city, "M1", into="M2")  # after all
    assert waiting(city) == []
    register(city, "M2")
    assert waiting(city) == [("1.2.1", "M1", "M3")]


def test_they_wait_where_the_study_was_deleted_and_sent_anew_under_the_other_number(
    city: Region,
) -> None:
    chained(city)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113039", study="1.2.1")
    city.send("beicheng", patient="M2", study="1.2.1", instance="1.4.9", **ZHANG)

    register(city, "M1")
    assert ("1.2.1", "M1", "M2") in waiting(city)


def test_somebody_says_whose_they_are(city: Region) -> None:
    chained(city)
    register(city, "M1")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        first, second = discrepancies.waiting(access)
        with pytest.raises(Invalid, match="exchange reject"):
            discrepancies.settle(access, first.number, discrepancies.ANOTHER)
        discrepancies.settle(access, second.number, discrepancies.SAME)
    register(city, "M1", into="M2")
    register(city, "M1")
    assert waiting(city) == [("1.2.1", "M1", "M2")]


def test_a_card_that_comes_under_another_number_is_that_records_not_the_studys(
    city: Region,
) -> None:
    chained(city)
    city.send("beicheng", patient="M3", study="1.2.1", instance="1.4.9", card=ID_CARD, **ZHANG)
    city.send("nanhu", patient="NX", study="1.2.9", instance="1.4.10", card=ID_CARD)
    assert together(city, "M1", "M2", "M3", "NX") == [{"M1", "M2", "M3", "NX"}]

    register(city, "M1")
    assert together(city, "M1", "M2", "M3", "NX") == [{"M1"}, {"M2", "M3", "NX"}]
