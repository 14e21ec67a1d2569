"""WADO-URI: one object, or a picture of it, named by query parameters."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless
from region import ADMINISTRATOR
from web_door import EXPLICIT, IMAGE, SERIES, STUDY, Door, body_of, data_set, file

from exchange import consent, trail

RAMP = np.arange(64 * 48, dtype="<u2").reshape(48, 64)
HERE = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": IMAGE}


@pytest.fixture
def image(door: Door) -> bytes:
    """Of the two frames of a cine, the second the reverse of the first; it is in the archive."""
    made = data_set(
        Rows=48,
        Columns=64,
        NumberOfFrames=2,
        PixelRepresentation=0,
        SmallestImagePixelValue=None,
        PhotometricInterpretation="MONOCHROME2",
        PixelSpacing=[1, 1],
        PixelData=RAMP.tobytes() + RAMP[::-1, ::-1].tobytes(),
        WindowCenter="1536",
        WindowWidth="3072",
    )
    made["PixelData"].VR = "OW"
    written = file(made)
    assert door.send(written).status_code == 200
    return written


def asked(door: Door, who: str = "dr.beicheng", **query: Any) -> httpx2.Response:
    given = {name: value for name, value in (HERE | query).items() if value is not None}
    return door.get(f"wado?{urlencode(given)}", who)


def shown(answer: httpx2.Response) -> np.ndarray[Any, Any]:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_the_object_is_had_as_it_is(door: Door, image: bytes) -> None:
    answer = asked(door, contentType="application/dicom")

    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert body_of(answer.content) == body_of(image)
    other = asked(door, contentType="application/dicom", transferSyntax=str(JPEG2000Lossless))
    assert other.status_code == 406


def test_a_picture_is_had_as_it_was_asked(door: Door, image: bytes) -> None:
    plain = asked(door)
    assert (plain.headers["content-type"], shown(plain).shape) == ("image/jpeg", (48, 64))
    assert "Warning" not in plain.headers

    sharp = asked(door, contentType="image/png", windowCenter=100, windowWidth=1)
    assert np.array_equal(shown(sharp), np.where(RAMP > 99.5, 255, 0))
    assert shown(asked(door, rows=24)).shape == (24, 32)
    assert shown(asked(door, rows=24, columns=16)).shape == (12, 16)
    part = asked(door, contentType="image/png", region="0.5,0.25,1,0.75")
    whole = asked(door, contentType="image/png")
    assert np.array_equal(shown(part), shown(whole)[12:36, 32:])
    assert shown(asked(door, region="0.5,0.25,1,0.75", rows=48)).shape == (48, 64)
    second = asked(door, contentType="image/png", frameNumber=2)
    assert np.array_equal(shown(second), shown(whole)[::-1, ::-1])
    assert len(asked(door, imageQuality=10).content) < len(plain.content)
    told = asked(door, charset="utf-8", nonsense="x")
    assert "charset, one that is not known" in told.headers["Warning"]


def test_what_is_no_image_is_had_as_the_object(door: Door) -> None:
    report = file(data_set(Rows=None, PixelData=None))
    assert door.send(report).status_code == 200

    assert pydicom.dcmread(io.BytesIO(asked(door).content)).SOPInstanceUID == IMAGE
    assert asked(door, contentType="image/jpeg").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"requestType": "QIDO"}, 400),
        ({"studyUID": None}, 400),
        ({"objectUID": "x"}, 400),
        ({"objectUID": "1.2.3"}, 404),
        ({"anonymize": "yes"}, 400),
        ({"presentationUID": "1.2"}, 400),
        ({"windowCenter": "5"}, 400),
        ({"windowCenter": "5", "windowWidth": "wide"}, 400),
        ({"rows": "0"}, 400),
        ({"region": "0,0,1"}, 400),
        ({"region": "0.5,0,0.5,1"}, 400),
        ({"region": "0,0,nan,1"}, 400),
        ({"imageQuality": "101"}, 400),
        ({"frameNumber": "0"}, 400),
        ({"frameNumber": "3"}, 404),
        ({"contentType": "text/html"}, 406),
        ({"contentType": "nonsense"}, 400),
        ({"transferSyntax": "a", "contentType": "application/dicom"}, 400),
    ],
)
def test_what_cannot_be_had_is_told(
    door: Door, image: bytes, query: dict[str, str], status: int
) -> None:
    assert asked(door, **query).status_code == status


def test_the_uri_passes_the_gate(door: Door, image: bytes) -> None:
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    for number, content_type in enumerate(("application/dicom", "image/jpeg", None), 1):
        assert asked(door, "dr.nanhu", contentType=content_type).status_code == 404
        assert asked(door, "stranger", contentType=content_type).status_code == 401
        assert asked(door, contentType=content_type).status_code == 200
        with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            found = trail.records(access, patient=("beicheng", "P1"), limit=100)
        refused = [one for one in found if one["outcome"] == "refused"]
        assert [one["requester"] for one in refused] == ["dr.nanhu"] * number  # each once
