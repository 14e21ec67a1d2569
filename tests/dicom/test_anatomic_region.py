"""Images that say by a code alone which region they show are routed and found by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import ask
from caller import SUCCESS, Caller, element, image
from region import ADMINISTRATOR, WORKER
from serving import Served, serving
from sqlalchemy import select

from exchange import routing, timeline
from exchange.routing import Rule
from exchange.timeline import Wanted
from exchange_storage.records import Patient, Series, Study

THORAX = ("51185008", "SCT", "Thorax")


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    with serving(tmp_path, database_url=database_url) as made:
        yield made


def sequence(tag: int, item: bytes) -> bytes:
    whole = b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item
    return element(tag, "SQ", whole)


def coded(value: str, scheme: str, meaning: str) -> bytes:
    code = element(0x00080100, "SH", value) + element(0x00080102, "SH", scheme)
    return sequence(0x00082218, code + element(0x00080104, "LO", meaning))


def of_region(how: str) -> bytes:
    """An image of the chest, that says so in one of the ways there are."""
    whole = image()
    at = whole.index(b"\x10\x00\x10\x00PN")
    match how:
        case "coded":
            return whole[:at] + coded(*THORAX) + whole[at:]
        case "coded and named otherwise":
            at = whole.index(b"\x20\x00\x0d\x00UI")
            whole = whole[:at] + element(0x00180015, "CS", "LIVER") + whole[at:]
            at = whole.index(b"\x10\x00\x10\x00PN")
            return whole[:at] + coded(*THORAX) + whole[at:]
        case _:  # of all frames
            at = whole.index(b"\xe0\x7f\x10\x00")
            frames = sequence(0x00209071, coded(*THORAX))
            return whole[:at] + sequence(0x52009229, frames) + whole[at:]


def stored(served: Served, how: str) -> None:
    with Caller(served.port) as pacs:
        assert pacs.store(of_region(how), "1.4.1").status == SUCCESS


def routes(served: Served, body_part: str) -> int:
    """To how many routes for a body part the study goes."""
    exchange = served.city.exchange
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        url = "https://pacs.example/dicom"
        routing.add(access, "beicheng", Rule(name="on", url=url, body_part=body_part))
    with exchange.on_behalf_of(WORKER) as access:
        study = access.session.scalars(select(Study.id)).one()
        return routing.plan(access, study)


def in_timeline(served: Served, part: str) -> list[tuple[str, ...]]:
    """The body parts of the studies that a clinician finds by a body part."""
    city = served.city
    with city.exchange.on_behalf_of(city.clinician("beicheng")) as access:
        patient = access.session.scalars(select(Patient.id)).one()
        shown = timeline.of(access, patient, Wanted(body_part=part), limit=10)
    return [one.body_parts for one in shown.entries if isinstance(one, timeline.StudyEntry)]


@pytest.mark.parametrize("how", ["coded", "of all frames"])
def test_a_study_whose_region_is_coded_is_routed_and_found_as_of_that_body_part(
    served: Served, how: str
) -> None:
    stored(served, how)
    assert in_timeline(served, "CHEST") == [("CHEST",)]
    assert in_timeline(served, "HEAD") == []
    assert routes(served, "LUNG") == 1


def test_what_body_part_examined_says_goes_before_the_code(served: Served) -> None:
    stored(served, "coded and named otherwise")
    assert in_timeline(served, "LIVER") == [("LIVER",)]
    assert in_timeline(served, "CHEST") == []
    assert routes(served, "CHEST") == 0


def test_a_pacs_is_told_no_body_part_examined_that_the_images_do_not_have(served: Served) -> None:
    stored(served, "coded")
    series = {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "", "BodyPartExamined": ""}
    (answer,) = ask(served.port, "SERIES", series).matches
    assert answer.BodyPartExamined == ""
    assert ask(served.port, "SERIES", series | {"BodyPartExamined": "CHEST"}).matches == ()
    with served.city.exchange.database.reading() as session:
        assert session.scalars(select(Series.body_part)).one() == "CHEST"
