"""Retrieval hands out what was sent, in order, to whom it may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from region import Region, region
from sqlalchemy import select

from exchange import retrieval
from exchange.errors import Invalid, NotFound
from exchange.policy import Purpose
from exchange_storage.records import AuditRecord


@pytest.fixture(scope="module")
def filled(lasting_database_url: str) -> Iterator[Region]:
    """A study of two series, on each kind of database; its instances arrived out of order."""
    with region(lasting_database_url) as city:
        for series, number in (("10", "10"), ("10", "9"), ("9", "1"), ("10", "x"), ("9", "2")):
            city.send(
                "beicheng",
                series=f"1.3.{series}",
                instance=f"1.4.{series}.{ord(number[0])}.{number.replace('x', '0')}",
                body=f"{series}/{number}".encode(),
                SeriesNumber=series,
                InstanceNumber=number,
            )
        yield city


def bodies(
    city: Region, study: str, series: str | None = None, instance: str | None = None
) -> list[bytes]:
    with city.exchange.on_behalf_of(city.clinician("nanhu")) as access:
        held = retrieval.instances(access, study, series, instance).instances
    return [one.read() for one in held]  # after the gate has closed


def test_a_study_comes_in_the_order_of_series_and_instance_numbers(filled: Region) -> None:
    assert bodies(filled, "1.2.1") == [b"9/1", b"9/2", b"10/9", b"10/x", b"10/10"]


def test_a_series_and_an_instance_come_alone(filled: Region) -> None:
    assert bodies(filled, "1.2.1", "1.3.9") == [b"9/1", b"9/2"]
    assert bodies(filled, "1.2.1", None, "1.4.9.49.1") == [b"9/1"]


def test_a_part_of_an_instance_can_be_read(filled: Region) -> None:
    with filled.exchange.on_behalf_of(filled.clinician("nanhu")) as access:
        (held,) = retrieval.instances(access, "1.2.1", "1.3.9", "1.4.9.49.1").instances

    assert held.size == 3
    assert held.read(1) == b"/1"
    assert b"".join(held.stream(0, 2)) == b"9/"


@pytest.mark.parametrize(
    ("study", "series", "instance"),
    [
        ("1.2.404", None, None),
        ("1.2.1", "1.3.404", None),
        ("1.2.1", "1.3.10", "1.4.9.49.1"),
        ("1.2.1", None, "1.4.404"),
        ("1.2.%", None, None),
        ("", None, None),
    ],
)
def test_what_is_not_held_is_not_found(
    filled: Region, study: str, series: str | None, instance: str | None
) -> None:
    with pytest.raises(NotFound):
        bodies(filled, study, series, instance)


@pytest.mark.parametrize("odd", ["1.2.1\0", "\ud800", "1" * 100_000])
def test_what_no_index_could_hold_is_not_found_either_or_called_invalid(
    filled: Region, odd: str
) -> None:
    with pytest.raises((NotFound, Invalid)):
        bodies(filled, odd)


def test_success_and_refusal_are_audited_with_study_patient_and_size(filled: Region) -> None:
    bodies(filled, "1.2.1")
    with (
        pytest.raises(NotFound),
        filled.exchange.on_behalf_of(filled.clinician("nanhu", Purpose.OPERATIONS)) as access,
    ):
        retrieval.instances(access, "1.2.1")

    with filled.exchange.database.reading() as session:
        refused, success = session.scalars(
            select(AuditRecord).order_by(AuditRecord.sequence.desc()).limit(2)
        )
    for record, outcome in ((success, "success"), (refused, "refused")):
        assert (record.action, record.outcome) == ("retrieve", outcome)
        assert (record.study_instance_uid, record.patient_id) == ("1.2.1", 1)
    assert '"bytes":19' in success.content
    assert '"instances":5' in success.content
