"""The web door gives nothing out that a scrub has found damaged, until it came again.

PS3.18 10.4.3: of several resources the others come (206), one alone is unavailable (503).
"""

from __future__ import annotations

import io
import zipfile
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from presentation_states import SHOWN, STATE, image_reference, state_of
from pydicom.uid import BasicTextSRStorage
from region import WORKER
from sqlalchemy import select
from web_door import IMAGE, SERIES, STUDY, Door, ct, file, parts_of, values

from exchange import retrieval, scrub
from exchange.errors import Damaged
from exchange_dicom import series_metadata, taking_along
from exchange_dicom.resources import Root
from exchange_storage.records import AuditRecord

WHOLE = f"studies/{STUDY}"
OF_SERIES = f"{WHOLE}/series/{SERIES}"
ONE = f"{OF_SERIES}/instances/{IMAGE}"
OTHER = f"{OF_SERIES}/instances/{SERIES}.2"
LONG = b"\1\2" * 40_000
"""A value that lies in the file, so that it is sent from there."""


def damage(door: Door, *uids: str) -> None:
    """Change the last bytes of these objects, and have a scrub read them."""
    objects = door.city.exchange.objects
    objects.put_down()
    for uid in uids:
        (kept,) = Path(objects.store._objects).rglob(f"{uid}.*.dcm")  # type: ignore[attr-defined]
        kept.write_bytes(kept.read_bytes()[:-4] + b"!!!!")
    with door.city.exchange.on_behalf_of(WORKER) as access:
        found = list(scrub.scrub(access, before=access.now + timedelta(days=1), limit=100))
    assert sum(isinstance(one, scrub.Damage) for one in found) >= len(uids)


def told(answer: httpx2.Response) -> None:
    """It is not there: who looks after it is named, and nobody is told to ask again soon."""
    assert answer.status_code == 503, answer.url
    assert "damaged" in answer.json()["detail"]
    assert "hospital has to send it again" in answer.json()["detail"]
    assert "retry-after" not in answer.headers
    assert "Wang" not in answer.text


@pytest.fixture(params=[b"\0\1\2\3\4\5\6\7", LONG], ids=["small", "large"])
def sent(door: Door, request: pytest.FixtureRequest) -> Door:
    """A study of three images, the first of which is damaged."""
    size = {"Rows": 200, "Columns": 200} if request.param is LONG else {}
    images = [ct(number, PixelData=request.param, **size) for number in (1, 2, 3)]
    assert door.send(*images).status_code == 200
    damage(door, IMAGE)
    return door


def test_one_image_that_is_damaged_is_said_to_be_so_and_not_given(sent: Door) -> None:
    for resource, accept in (
        ("", "application/dicom; transfer-syntax=*"),
        ("", "application/dicom"),
        ("", "application/zip"),
        ("", "*/*"),
        ("/rendered", "image/png"),
        ("/rendered", "image/gif"),
        ("/thumbnail", "*/*"),
        ("/frames/1", "*/*"),
        ("/bulkdata", "*/*"),
        ("/bulkdata/7FE00010", "*/*"),
        ("/pixeldata", "*/*"),
    ):
        told(sent.get(ONE + resource, Accept=accept))
        found = {200, 404} if resource == "/bulkdata" else {200}
        assert sent.get(OTHER + resource, Accept=accept).status_code in found
    wado = f"wado?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={IMAGE}"
    for query in ("", "&contentType=application/dicom", "&contentType=image/jpeg"):
        told(sent.get(wado + query))


@pytest.mark.parametrize("place", [WHOLE, OF_SERIES])
@pytest.mark.parametrize("syntax", ["*", "1.2.840.10008.1.2.1"])
def test_of_a_study_the_others_are_given_and_how_many_are_not_is_told(
    sent: Door, place: str, syntax: str
) -> None:
    dicom = f'multipart/related; type="application/dicom"; transfer-syntax={syntax}'

    answer = sent.get(place, Accept=dicom)

    assert (answer.status_code, len(parts_of(answer))) == (206, 2)
    assert "1 instances are left out: damaged" in answer.headers["warning"]
    packed = sent.get(place, Accept="application/zip")
    assert packed.status_code == 206
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert sorted(archive.namelist()) == [f"{SERIES}/{SERIES}.{n}.dcm" for n in (2, 3)]
    for resource in ("pixeldata", "rendered"):
        kind = "image/png" if resource == "rendered" else "application/octet-stream"
        answer = sent.get(f"{place}/{resource}", Accept=f'multipart/related; type="{kind}"')
        assert (answer.status_code, len(parts_of(answer))) == (206, 2), resource
        assert "1 instances are left out: damaged" in answer.headers["warning"]
    assert sent.get(f"{place}/thumbnail").status_code == 200
    with sent.city.exchange.database.reading() as session:
        trail = session.scalars(select(AuditRecord.content)).all()
    assert any('"damaged":1' in one and '"what":"images"' in one for one in trail)


def test_who_looks_for_it_is_told_that_it_is_unavailable(sent: Door) -> None:
    def told(place: str) -> list[str]:
        return values(sent.found(f"{place}?includefield=InstanceAvailability"), "00080056")

    assert sorted(told(f"{WHOLE}/instances")) == ["ONLINE", "ONLINE", "UNAVAILABLE"]
    assert told("studies") == told(f"{WHOLE}/series") == ["ONLINE"]


def test_when_it_came_again_it_is_given_again(sent: Door) -> None:
    large = len(sent.get(OTHER, Accept="application/dicom").content) > len(LONG)
    size = {"Rows": 200, "Columns": 200, "PixelData": LONG} if large else {}
    assert sent.send(ct(1, **size)).status_code == 200

    assert sent.get(ONE, Accept="application/dicom").status_code == 200
    answer = sent.get(WHOLE)
    assert (answer.status_code, len(parts_of(answer))) == (200, 3)


def test_a_study_of_which_all_is_damaged_is_not_said_to_be_unknown(door: Door) -> None:
    door.send(ct(1), ct(2))
    damage(door, IMAGE, f"{SERIES}.2")
    for resource in ("", "/metadata", "/rendered", "/thumbnail", "/bulkdata", "/pixeldata"):
        told(door.get(WHOLE + resource))
    assert len(door.found(f"{WHOLE}/instances")) == 2


@pytest.mark.parametrize("value", [b"\0\1\2\3\4\5\6\7", LONG], ids=["small", "large"])
def test_of_a_study_whose_images_are_not_in_the_store_the_others_are_given(
    door: Door, value: bytes
) -> None:
    """Which no scrub has looked for yet, or which is on its way from another machine."""
    size = {"Rows": 200, "Columns": 200} if value is LONG else {}
    door.send(*[ct(number, PixelData=value, **size) for number in range(1, 13)])
    objects = door.city.exchange.objects

    def lose(number: int) -> None:
        objects.put_down()
        pattern = f"{SERIES}.{number}.*.dcm"
        (kept,) = Path(objects.store._objects).rglob(pattern)  # type: ignore[attr-defined]
        kept.unlink()

    lose(12)  # behind what is read before the answer begins

    for accept in ('multipart/related; type="application/dicom"', "application/zip"):
        answer = door.get(WHOLE, Accept=accept)
        assert answer.status_code == 206
        assert "1 instances are left out: not in the archive's store" in answer.headers["warning"]
        if "zip" in accept:
            assert len(zipfile.ZipFile(io.BytesIO(answer.content)).namelist()) == 11
        else:
            assert len(parts_of(answer)) == 11
    assert door.get(f"{OF_SERIES}/instances/{SERIES}.12").status_code == 503
    assert door.send(ct(12, PixelData=value, **size)).status_code == 200
    assert door.get(WHOLE).status_code == 200
    for number in range(1, 13):
        lose(number)
    assert door.get(WHOLE).status_code == 503


@pytest.mark.parametrize("kind", ["application/dicom+json", "application/dicom+xml"])
def test_the_metadata_are_what_was_told_before_or_leave_it_out(door: Door, kind: str) -> None:
    door.send(ct(1), ct(2), ct(3, SeriesInstanceUID=f"{SERIES}0"))
    accept = kind if "json" in kind else f'multipart/related; type="{kind}"'
    assert door.get(f"{OF_SERIES}/metadata").status_code == 200  # whose document is kept by that
    damage(door, IMAGE, f"{SERIES}.3")
    told(door.get(f"{WHOLE}/series/{SERIES}0/metadata", Accept=accept))
    one = door.get(f"{ONE}/metadata", Accept=accept)
    if "json" in kind:
        assert (one.status_code, values(one.json(), "00080018")) == (200, [IMAGE])
    else:
        told(one)

    answer = door.get(f"{WHOLE}/metadata", Accept=accept)

    assert answer.status_code == 206
    if "json" in kind:
        assert values(answer.json(), "00080018") == [IMAGE, f"{SERIES}.2"]
        assert "1 instances are left out: damaged" in answer.headers["warning"]
        assert door.get(f"{OF_SERIES}/metadata").status_code == 200
    else:
        assert len(parts_of(answer)) == 1
        assert "2 instances are left out: damaged" in answer.headers["warning"]


def test_nothing_is_derived_from_what_is_damaged(door: Door) -> None:
    door.send(ct(1), ct(2))
    damage(door, IMAGE)
    with door.city.exchange.on_behalf_of(WORKER) as access:
        held = retrieval.of_study(access, 1)

    assert series_metadata.derive(door.city.exchange, held, Root(door.root)) == 0
    for reading in (held[0].read, held[0].stream, held[0].lying):
        with pytest.raises(Damaged):
            reading()


def test_a_presentation_state_shows_those_of_its_images_that_are_whole(door: Door) -> None:
    state = state_of(image_reference(), image_reference(f"{SERIES}.2"))
    assert door.send(ct(1), ct(2), file(state)).status_code == 200
    damage(door, IMAGE)

    parts = door.get(f"{SHOWN}/rendered", Accept='multipart/related; type="image/png"')

    assert (parts.status_code, len(parts_of(parts))) == (206, 1)
    told(door.get(f"{SHOWN}/rendered", Accept="image/png"))  # of the first, which is this one
    damage(door, f"{SERIES}.2")
    told(door.get(f"{SHOWN}/rendered", Accept='multipart/related; type="image/png"'))


def test_an_image_is_not_shown_by_a_presentation_state_that_is_damaged(door: Door) -> None:
    assert door.send(ct(1), file(state_of())).status_code == 200
    damage(door, STATE)

    told(door.get(f"{SHOWN}/rendered"))
    wado = f"wado?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={IMAGE}"
    told(door.get(f"{wado}&presentationSeriesUID={STUDY}.9&presentationUID={STATE}"))
    assert door.get(wado).status_code == 200


@pytest.mark.parametrize(
    ("without_names", "document"), [(False, False), (True, False), (True, True)]
)
def test_who_takes_a_study_along_reads_what_is_not_there_and_why(
    door: Door, without_names: bool, document: bool
) -> None:
    images = [ct(1), ct(2)] + [file(state_of(SOPClassUID=BasicTextSRStorage))] * document
    assert door.send(*images).status_code == 200
    damage(door, IMAGE)
    with door.city.exchange.on_behalf_of(door.city.clinician("beicheng")) as access:
        selected, receiver = retrieval.as_known(access, retrieval.instances(access, STUDY))
    progress: list[taking_along.Progress] = []

    packed = taking_along.archived(
        selected, receiver, (), without_names=without_names, advanced=progress.append
    )

    with zipfile.ZipFile(io.BytesIO(b"".join(packed))) as archive:
        assert len(archive.namelist()) == 3  # an image, the DICOMDIR and what says why
        said = archive.read("README.TXT").decode()
    assert "1 instances are not here: damaged" in said
    assert ("1 instances are not here: documents" in said) is document
    assert progress[-1].sent == 1
