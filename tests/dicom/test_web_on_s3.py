"""A city's exchange, on S3 and PostgreSQL, answers DICOMweb as that of one machine, as cheaply."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import minio
import numpy as np
import pydicom
import pytest
import urllib3
from pictures import RAMP, image_of
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless
from ready import Lender
from real_parts import S3Address
from region import region
from web_door import EXPLICIT, SERIES, STUDY, Door, data_set, empty, file, opened, parts_of

from exchange import retrieval
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.s3 import S3Store
from exchange_storage.spool import SpooledStore

CINE = 2000
FRAME = 400
"""Frames of the long cine, and bytes of each."""


def images() -> list[bytes]:
    """A CT, a cine without and one with compression, a long cine, a presentation state."""
    cine = np.stack([RAMP + 300 * number for number in range(4)])
    native = file(image_of(cine, NumberOfFrames=4, SOPInstanceUID=f"{SERIES}.3"))
    compressed = pydicom.dcmread(io.BytesIO(native))
    compressed.compress(RLELossless, generate_instance_uid=False)
    long = data_set(NumberOfFrames=CINE, Rows=64, Columns=64, SOPInstanceUID=f"{SERIES}.4")
    long.PixelData = encapsulate(
        [b"\xff\x4f\xff\x51" + bytes([n % 251]) * (FRAME - 4) for n in range(CINE)]
    )
    long["PixelData"].VR, long["PixelData"].is_undefined_length = "OB", True
    window, series, image = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = "500", "2000"
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = EXPLICIT, f"{SERIES}.1"
    series.SeriesInstanceUID, series.ReferencedImageSequence = SERIES, [image]
    state = data_set(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1",
        SOPInstanceUID=f"{SERIES}.5",
        ReferencedSeriesSequence=[series],
        SoftcopyVOILUTSequence=[window],
        PresentationLUTShape="INVERSE",
        **dict.fromkeys(("Rows", "Columns", "PixelData", "SmallestImagePixelValue")),
    )
    return [
        file(image_of()),
        file(image_of(cine, NumberOfFrames=4, SOPInstanceUID=f"{SERIES}.2")),
        file(compressed, str(RLELossless)),
        file(long, str(JPEG2000Lossless)),
        file(state),
    ]


IMAGES = images()


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with empty(tmp_path_factory.mktemp("machine")) as door:
        assert door.send(*IMAGES).status_code == 200
        yield door


@pytest.fixture(scope="module")
def city_door(
    s3_server: S3Address, lender: Lender, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    """The same images, moved from the spool into the bucket."""
    place = tmp_path_factory.mktemp("city")
    remote = S3Store.connect(
        s3_server.endpoint, s3_server.access_key, s3_server.secret_key, "exchange-web-tests",
        secure=False, staging=place / "staging",
    )  # fmt: skip
    objects = SpooledStore(FilesystemStore(place / "spool"), remote)
    hospitals = ("beicheng", "nanhu")
    with (
        lender.lent() as url,
        region(url, objects, hospitals=hospitals) as city,
        opened(city) as door,
    ):
        assert door.send(*IMAGES).status_code == 200
        small = city.exchange.objects.put_down()
        assert small.moved + objects.drain().moved == len(IMAGES)
        assert objects.waiting() == 0
        yield door
        for stored in list(remote.list()):
            remote.delete(stored.key)


ONE = f"studies/{STUDY}/series/{SERIES}/instances/{SERIES}"
WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (f"studies/{STUDY}", {"Accept": WHOLE}),
        (f"studies/{STUDY}/metadata", {}),
        (f"{ONE}.1", {"Accept": "application/dicom"}),
        (f"{ONE}.1/frames/1", {"Accept": OCTETS}),
        (f"{ONE}.2/frames/2,4,1", {"Accept": OCTETS}),
        (f"{ONE}.3/frames/3", {"Accept": OCTETS}),
        (f"{ONE}.3/frames/3", {"Accept": "application/octet-stream"}),
        (f"{ONE}.4/frames/1,1000,2000", {"Accept": OCTETS}),
        (f"{ONE}.2/bulkdata/7FE00010", {"Accept": "application/octet-stream"}),
        (f"{ONE}.2/bulkdata/7FE00010", {"Accept": "*/*", "Range": "bytes=100-8000"}),
        (f"{ONE}.2/bulkdata/7FE00010", {"Accept": "*/*", "Range": "bytes=-7"}),
        (f"{ONE}.2/bulkdata/7FE00010", {"Accept": "*/*", "Range": "bytes=99999999-"}),
        (f"studies/{STUDY}/series/{SERIES}/bulkdata", {}),
        (f"{ONE}.1/rendered", {"Accept": "image/png"}),
        (f"{ONE}.2/frames/3/rendered?window=0,900&viewport=30,30", {"Accept": "image/jpeg"}),
        (f"{ONE}.3/rendered", {"Accept": "image/gif"}),
        (f"{ONE}.5/rendered?annotation=patient,technique", {"Accept": "image/png"}),
        (f"{ONE}.2/thumbnail", {"Accept": "image/jpeg"}),
        (f"studies/{STUDY}/thumbnail", {"Accept": "image/png"}),
    ],
)  # fmt: skip
def test_a_city_answers_as_one_machine_does(
    one_machine: Door, city_door: Door, path: str, fields: dict[str, str]
) -> None:
    def told(door: Door) -> tuple[int, str, bytes]:
        answer = door.get(path, **fields)
        kind, _, boundary = answer.headers["content-type"].partition("boundary=")
        content = answer.content.replace(door.root.encode(), b"")
        if boundary:
            content = content.replace(boundary.encode(), b"")
        return answer.status_code, kind, content

    expected = told(one_machine)
    assert expected[0] == (416 if "99999999" in fields.get("Range", "") else expected[0])
    assert expected[0] in (200, 206, 416)
    assert told(city_door) == expected


def test_what_the_bucket_has_lost_is_left_out_of_the_study(city_door: Door) -> None:
    with city_door.city.exchange.on_behalf_of(city_door.city.clinician("beicheng")) as access:
        held = retrieval.instances(access, STUDY).instances
    objects, key = city_door.city.exchange.objects, held[-1].key
    content = objects.get(key)
    objects.delete(key)
    try:
        answer = city_door.get(f"studies/{STUDY}", Accept=WHOLE)
    finally:
        objects.put(key, content)

    assert (answer.status_code, len(parts_of(answer))) == (206, len(IMAGES) - 1)
    assert "not in the archive's store" in answer.headers["warning"]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that the S3 server answered with, by request."""
    sizes: list[int] = []
    get_object = minio.Minio.get_object

    def counted(self: minio.Minio, *asked: Any, **how: Any) -> urllib3.BaseHTTPResponse:
        answer: urllib3.BaseHTTPResponse = get_object(self, *asked, **how)
        sizes.append(int(answer.headers["Content-Length"]))
        return answer

    monkeypatch.setattr(minio.Minio, "get_object", counted)
    return sizes


def test_one_frame_of_a_long_cine_costs_one_frame_of_the_bucket(
    city_door: Door, fetched: list[int]
) -> None:
    assert city_door.get(f"{ONE}.4/frames/1000", Accept=OCTETS).status_code == 200
    fetched.clear()

    for number in (1, 1001, CINE):
        answer = city_door.get(f"{ONE}.4/frames/{number}", Accept=OCTETS)
        assert parts_of(answer)[0][1][4:] == bytes([(number - 1) % 251]) * (FRAME - 4)

    # One request each: the fragment and its head, the last to the delimiter behind it.
    assert fetched == [FRAME + 8, FRAME + 8, FRAME + 16]


def test_a_range_of_bulk_data_is_a_range_of_the_bucket(city_door: Door, fetched: list[int]) -> None:
    path = f"{ONE}.2/bulkdata/7FE00010"
    assert city_door.get(path, Accept="*/*", Range="bytes=0-1").status_code == 206
    fetched.clear()

    assert city_door.get(path, Accept="*/*", Range="bytes=1000-1099").status_code == 206

    assert 100 in fetched
    assert sum(fetched) < 20_000  # what else is read is the head of the data set, if at all
