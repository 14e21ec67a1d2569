"""What waits for review is served under no other patient's name, and goes with what it is of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import select

from exchange import conflicts, rejection, retention
from exchange.access import Access
from exchange.errors import Invalid
from exchange_storage.records import Conflict, Destroyed, Instance


def promoted(city: Region) -> None:
    """The one conflict that waits is promoted."""
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (waiting,) = conflicts.waiting(access)
        conflicts.promote(access, waiting.number)


def in_use(city: Region) -> list[int]:
    """The sizes of what is served."""
    with city.exchange.database.reading() as session:
        return list(session.scalars(select(Instance.size).where(Instance.is_primary)))


def test_an_image_of_another_patient_does_not_take_the_place_of_one_of_the_studys(
    city: Region,
) -> None:
    city.send("beicheng", body=b"first")
    city.send("beicheng", body=b"other one", patient="P2")
    with pytest.raises(Invalid, match=r"another patient: keep .* under new UIDs"):
        promoted(city)
    assert in_use(city) == [5]


def test_an_image_of_the_same_patient_does(city: Region) -> None:
    city.send("beicheng", body=b"first")
    city.send("beicheng", body=b"other one", PatientName="Wang^Xiaodong")
    promoted(city)
    assert in_use(city) == [9]


# What is deleted


def kept(city: Region) -> list[str]:
    """The SOP Instance UIDs of all that is kept, in use or not."""
    with city.exchange.database.reading() as session:
        return sorted(session.scalars(select(Instance.sop_instance_uid)))


def deleted(city: Region, by: str) -> None:
    """What the study 1.2.1 has under 1.4.1 is deleted."""
    note = rejection.Note("113039", (("1.2.1", "1.4.1"),))
    match by:
        case "note":
            with city.exchange.on_behalf_of(city.system("beicheng")) as access:
                access.write(lambda session: rejection.apply(access, session, note, "1.9.1"))
        case "command":
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                rejection.reject(access, "beicheng", "113039", study="1.2.1")
        case "door":
            with city.exchange.on_behalf_of(city.system("beicheng")) as access:
                rejection.reject_own(access, "113039", "1.2.1")
        case _:
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                retention.set_rule(access, "beicheng", "", 1)
            with city.exchange.on_behalf_of(WORKER) as access:
                access.now += timedelta(days=30)
                (study,) = retention.expired(access, free=True)
                retention.destroy(access, study)


def held(city: Region, study: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.hold(access, study, "court")


def lifted(city: Region, study: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        retention.lift(access, study)


BY = pytest.mark.parametrize("by", ["note", "command", "door", "retention"])


@BY
@pytest.mark.parametrize("settled", [None, conflicts.keep, conflicts.promote])
def test_what_waits_beside_an_instance_goes_with_it(
    city: Region, by: str, settled: Callable[[Access, int], None] | None
) -> None:
    city.send("beicheng", body=b"first")
    city.send("beicheng", body=b"other one")
    if settled is not None:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            settled(access, conflicts.waiting(access)[0].number)
    deleted(city, by)
    assert kept(city) == []
    with city.exchange.database.reading() as session:
        assert session.scalars(select(Conflict)).all() == []
        assert len(session.scalars(select(Destroyed)).all()) == 2


@BY
def test_what_another_hospital_has_sent_under_the_same_uid_stays(city: Region, by: str) -> None:
    city.send("beicheng", body=b"first")
    city.send("nanhu", body=b"other one", patient="N1")
    deleted(city, by)
    assert kept(city) == ["1.4.1"]
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert [one.sender for one in conflicts.waiting(access)] == ["nanhu"]


@BY
def test_a_copy_that_claims_a_study_under_a_hold_stays(city: Region, by: str) -> None:
    city.send("beicheng", body=b"first")
    city.send("beicheng", body=b"other one", study="1.2.7")
    held(city, "1.2.7")
    deleted(city, by)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert [one.study_instance_uid for one in conflicts.waiting(access)] == ["1.2.7"]


def test_once_a_hold_is_lifted_the_copies_go_too_and_not_what_came_anew(city: Region) -> None:
    city.send("beicheng", body=b"first")
    city.send("beicheng", body=b"other one")
    held(city, "1.2.1")
    deleted(city, "note")
    assert kept(city) == ["1.4.1", "1.4.1"]
    city.send("beicheng", body=b"sent anew by it")
    city.send("beicheng", body=b"and something else again")  # waits beside that
    lifted(city, "1.2.1")
    assert in_use(city) == [15]
    assert kept(city) == ["1.4.1", "1.4.1"]
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert len(conflicts.waiting(access)) == 1


def test_a_note_deletes_also_what_had_only_come_to_review(city: Region) -> None:
    first = rejection.Note("113001", (("1.2.1", "1.4.1"),))
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        access.write(lambda session: rejection.apply(access, session, first, "1.9.0"))
    city.send("beicheng")  # rejected before it came
    assert kept(city) == ["1.4.1"]
    deleted(city, "note")
    assert kept(city) == []


def test_what_was_rejected_before_it_came_goes_when_its_study_has_expired(city: Region) -> None:
    first = rejection.Note("113001", (("1.2.1", "1.4.1"),))
    with city.exchange.on_behalf_of(city.system("beicheng")) as access:
        access.write(lambda session: rejection.apply(access, session, first, "1.9.0"))
    city.send("beicheng")
    city.send("beicheng", instance="1.4.2", body=b"in use")
    deleted(city, "retention")
    assert kept(city) == []
