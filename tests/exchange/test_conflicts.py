"""What waits for review is settled without one patient's image under another's name."""

from __future__ import annotations

import pytest
from region import ADMINISTRATOR, Region
from sqlalchemy import select

from exchange import conflicts
from exchange.errors import Invalid
from exchange_storage.records import Instance


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
