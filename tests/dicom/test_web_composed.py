"""Images that come as metadata and bulk data are kept as the images that they describe."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence
from web_door import EXPLICIT, IMAGE, LIMITS, SERIES, STUDY, Door, data_set, file, parts_of

from exchange import errors
from exchange_dicom import multipart, native_model, status, web_composed
from exchange_dicom.media_types import DICOM_JSON, DICOM_XML
from exchange_dicom.native_model import DEPTH

Bulk = tuple[str, str, bytes]
"""Content-Location, Content-Type, and what is there."""


def described(image: Dataset, **bulk: str) -> dict[str, Any]:
    """The DICOM JSON of an image, with the URIs of its bulk data by keyword."""
    if not hasattr(image, "file_meta"):  # read from a file it has no VRs to choose from any more
        image = pydicom.dcmread(io.BytesIO(file(image)))
        del image.file_meta
    model = json.loads(Dataset(image).to_json(bulk_data_threshold=1 << 30))
    for keyword, uri in bulk.items():
        tag = f"{pydicom.datadict.tag_for_keyword(keyword):08X}"
        model[tag] = {"vr": model[tag]["vr"], "BulkDataURI": uri}
    return dict(model)


def send(
    door: Door, metadata: list[bytes], *bulk: Bulk, kind: str = DICOM_JSON, **how: Any
) -> httpx2.Response:
    parts = [multipart.head({"Content-Type": kind}, "b") + one for one in metadata]
    for location, content_type, content in bulk:
        fields = {"Content-Type": content_type, "Content-Location": location}
        parts.append(multipart.head(fields, "b") + content)
    return door.post(
        b"".join(parts) + multipart.tail("b"),
        f'multipart/related; type="{kind}"; boundary=b',
        **how,
    )


def kept(door: Door, study: str = STUDY) -> list[Dataset]:
    answer = door.get(
        f"studies/{study}", Accept='multipart/related; type="application/dicom"; transfer-syntax=*'
    )
    assert answer.status_code == 200, answer.text
    return [pydicom.dcmread(io.BytesIO(content)) for _, content in parts_of(answer)]


def full() -> Dataset:
    """An image with something of every kind of value."""
    image = data_set(
        PatientName="Wang^XiaoDong=王^小东",
        FrameIncrementPointer=0x00181063,
        ImageOrientationPatient=[1, 0, 0, 0, 1, -0.000012345678],
        RealWorldValueFirstValueMapped=None,
        OperatorsName=["A^B", "丙^丁"],
        ReferencedImageSequence=Sequence([Dataset(), Dataset()]),
        RescaleSlope="1",
        InstitutionName="",
    )
    image.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    image.ReferencedImageSequence[1].PurposeOfReferenceCodeSequence = Sequence([])
    image.add_new(0x00189461, "FL", [1.5, -2.5])
    image.add_new(0x00720074, "FD", 1e-300)
    image.add_new(0x00090010, "LO", "SOMEBODY")
    image.add_new(0x00091001, "OB", b"\1\2\3\4")
    image.add_new(0x00091002, "UN", b"\5\6")
    return image


@pytest.mark.parametrize("kind", [DICOM_JSON, DICOM_XML])
def test_a_study_described_in_json_or_xml_is_the_study_itself(door: Door, kind: str) -> None:
    images = [full(), data_set(SOPInstanceUID=f"{SERIES}.2")]
    models = [described(one, PixelData=f"pixels/{n}") for n, one in enumerate(images)]
    documents = (
        [json.dumps(models).encode()]
        if kind == DICOM_JSON
        else [native_model.to_xml(one) for one in models]
    )
    bulk = [
        (f"pixels/{n}", "application/octet-stream", bytes(one.PixelData))
        for n, one in enumerate(images)
    ]

    answer = send(door, documents, *bulk, kind=kind)

    assert answer.status_code == 200, answer.text
    told = Dataset.from_json(answer.json())
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [
        IMAGE,
        f"{SERIES}.2",
    ]
    back = kept(door)
    assert [Dataset(one) for one in back] == images
    assert {one.file_meta.TransferSyntaxUID for one in back} == {EXPLICIT}
    assert door.found("studies?PatientName=王小东")


def test_the_answer_can_be_had_in_xml(door: Door) -> None:
    model = described(data_set())
    answer = send(door, [json.dumps([model]).encode()], Accept=DICOM_XML)

    assert (answer.status_code, answer.headers["content-type"]) == (200, DICOM_XML)
    told = Dataset.from_json(native_model.from_xml(answer.content))
    assert told.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == IMAGE
    assert send(door, [json.dumps([model]).encode()], Accept="text/html").status_code == 406


def test_what_the_exchange_describes_can_be_stored_elsewhere(door: Door, archive: Door) -> None:
    """The metadata and bulk data of one archive, as they are, given to another."""
    model = archive.get(f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}/metadata").json()[0]
    uri = model["7FE00010"]["BulkDataURI"]
    bulk = archive.http.get(
        uri,
        headers={"Authorization": "Bearer dr.beicheng", "Accept": "application/octet-stream"},
    )

    answer = send(
        door, [json.dumps([model]).encode()], (uri, bulk.headers["content-type"], bulk.content)
    )

    assert answer.status_code == 200, answer.text
    assert kept(door) == kept(archive)[:1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("JPEG2000.dcm", "image/jp2"),
        ("examples_jpeg2k.dcm", "image/jp2"),
        ("MR_small_RLE.dcm", "image/dicom-rle"),
        ("SC_rgb_rle_2frame.dcm", "image/dicom-rle"),
        ("SC_rgb_rle_2frame.dcm", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5"),
        ("MR_small_jpeg_ls_lossless.dcm", "image/jls"),
    ],
)
def test_compressed_frames_come_as_parts_one_after_the_other(
    door: Door, name: str, kind: str
) -> None:
    original = pydicom.dcmread(str(get_testdata_file(name)))
    count = int(original.get("NumberOfFrames", 1))
    frames = list(generate_frames(original.PixelData, number_of_frames=count))
    model = described(original, PixelData="cid:frames")
    if "transfer-syntax" not in kind:
        kind += f"; transfer-syntax={original.file_meta.TransferSyntaxUID}"

    answer = send(
        door, [json.dumps([model]).encode()], *(("cid:frames", kind, one) for one in frames)
    )

    assert answer.status_code == 200, answer.text
    (back,) = kept(door, original.StudyInstanceUID)
    assert back.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    assert np.array_equal(back.pixel_array, original.pixel_array)
    sent = list(generate_frames(back.PixelData, number_of_frames=count))
    assert [one.rstrip(b"\0") for one in sent] == [one.rstrip(b"\0") for one in frames]


def test_bulk_data_may_be_named_by_a_content_id_and_stand_in_a_sequence(door: Door) -> None:
    image = data_set(WaveformSequence=Sequence([Dataset()]))
    image.WaveformSequence[0].add_new(0x54001010, "OW", b"\1\2\3\4")
    model = described(image)
    model["54000100"]["Value"][0]["54001010"] = {"vr": "OW", "BulkDataURI": "cid:waves"}
    fields = {"Content-Type": "application/octet-stream", "Content-ID": "<waves>"}
    body = (
        multipart.head(fields, "b")
        + b"\1\2\3\4"
        + multipart.head({"Content-Type": DICOM_JSON}, "b")
        + json.dumps([model]).encode()
        + multipart.tail("b")
    )

    answer = door.post(body, f'multipart/related; type="{DICOM_JSON}"; boundary=b')

    assert answer.status_code == 200, answer.text
    assert Dataset(kept(door)[0]) == image


def test_one_image_whose_pixels_are_missing_does_not_keep_the_others_out(door: Door) -> None:
    models = [
        described(data_set(), PixelData="missing"),
        described(data_set(SOPInstanceUID=f"{SERIES}.2")),
    ]

    answer = send(
        door, [json.dumps(models).encode()], ("nobody", "application/octet-stream", b"12")
    )

    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    (failed,) = told.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == IMAGE
    assert failed.FailureReason == status.WEB[errors.Invalid].failure_reason
    assert len(told.OtherFailuresSequence) == 1
    warnings = ", ".join(answer.headers.get_list("warning"))
    assert "name bulk data that no part brings" in warnings
    assert "no metadata name a part of bulk data" in warnings
    assert door.instances() == 1


def test_the_study_of_the_url_is_enforced_for_metadata_too(door: Door) -> None:
    answer = send(door, [json.dumps([described(data_set())]).encode()], path="studies/1.2.3")

    assert answer.status_code == 409
    assert "not of the study that the URL names" in answer.headers["Warning"]
    assert door.instances() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"00280010": {"vr": "US", "Value": ["many"]}}, "(00280010) is not one of VR US"),
        ({"00280010": {"vr": "US", "Value": [70000]}}, "(00280010) is not one of VR US"),
        ({"00280010": {"vr": "US", "Value": 2}}, "is not an array"),
        ({"00280010": {"vr": "XX", "Value": [2]}}, "no VR of PS3.5"),
        ({"00280010": {"Value": [2]}}, "no VR of PS3.5"),
        ({"00280010": 2}, "no attribute by its tag"),
        ({"Rows": {"vr": "US", "Value": [2]}}, "no attribute by its tag"),
        ({"00081110": {"vr": "SQ", "Value": ["x"]}}, "not an object"),
        ({"00091001": {"vr": "OB", "InlineBinary": "???"}}, "is not one of VR OB"),
        ({"00091001": {"vr": "OB", "Value": ["x"]}}, "InlineBinary or bulk data"),
        ({"00081030": {"vr": "LO", "Value": ["x" * 70_000]}}, "too long for VR LO"),
        ({"7FE00010": {"vr": "OW", "BulkDataURI": ["x"]}}, "no part brings"),
        ({"00080018": {"vr": "UI", "Value": ["../x"]}}, "is not a UID"),
        ({"00080018": {"vr": "UI"}}, "is missing"),
    ],
)
def test_metadata_that_describe_no_image_fail_in_words(
    door: Door, change: dict[str, Any], words: str
) -> None:
    model = described(data_set()) | change

    answer = send(door, [json.dumps([model]).encode()])

    assert answer.status_code == 409
    assert words in answer.headers["Warning"]
    assert door.instances() == 0


@pytest.mark.parametrize(
    ("document", "kind", "http", "words"),
    [
        (b"{", DICOM_JSON, 400, "not JSON"),
        (b"[]", DICOM_JSON, 400, "no part has metadata"),
        (b"<x/>", DICOM_XML, 400, "NativeDicomModel"),
        (b"[" * 2000 + b"]" * 2000, DICOM_JSON, 400, "not JSON"),
        (b"[1]", DICOM_JSON, 409, "not an object"),
    ],
)
def test_metadata_that_cannot_be_read_are_refused(
    door: Door, document: bytes, kind: str, http: int, words: str
) -> None:
    answer = send(door, [document], kind=kind)

    assert answer.status_code == http
    assert words in answer.headers.get("Warning", "") + answer.text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("application/octet-stream; transfer-syntax=1.2.840.10008.1.2", "cannot come in"),
        ("application/octet-stream; transfer-syntax=x", "cannot come in"),
        ("image/tiff", "does not tell their transfer syntax"),
    ],
)
def test_pixels_in_a_form_that_nobody_can_read_are_refused(
    door: Door, kind: str, words: str
) -> None:
    model = described(data_set(), PixelData="p")

    answer = send(door, [json.dumps([model]).encode()], ("p", kind, b"12345678"))

    assert answer.status_code == 409
    assert words in answer.headers["Warning"]


def test_sequences_without_end_are_refused(door: Door) -> None:
    model: dict[str, Any] = {}
    for _ in range(DEPTH + 2):
        model = {"00081110": {"vr": "SQ", "Value": [model]}}

    answer = send(door, [json.dumps([described(data_set()) | model]).encode()])

    assert answer.status_code == 409
    assert "deep" in answer.headers["Warning"]


def test_too_much_of_it_is_refused_with_413(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    model = described(data_set(), PixelData="p")
    large = ("p", "application/octet-stream", bytes(LIMITS.instance_bytes))
    assert send(door, [json.dumps([model]).encode()], large).status_code == 413
    endless = ("p", "application/octet-stream", bytes(LIMITS.body_bytes))
    assert send(door, [json.dumps([model]).encode()], endless).status_code == 413
    monkeypatch.setattr(web_composed, "METADATA_LIMIT", 100)
    assert send(door, [json.dumps([model]).encode()]).status_code == 413
    assert door.instances() == 0


def test_one_part_does_not_fill_the_disk_by_being_named_again_and_again(door: Door) -> None:
    pixels = bytes(LIMITS.instance_bytes // 2)
    models = [
        described(data_set(SOPInstanceUID=f"{SERIES}.{n}"), PixelData="p") for n in range(1, 12)
    ]

    answer = send(door, [json.dumps(models).encode()], ("p", "application/octet-stream", pixels))

    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    assert len(told.ReferencedSOPSequence) == LIMITS.body_bytes // len(pixels)
    assert len(told.FailedSOPSequence) == len(models) - len(told.ReferencedSOPSequence)


def test_a_body_that_is_cut_off_leaves_nothing(door: Door, tmp_path: Path) -> None:
    model = described(data_set(), PixelData="p")
    whole = (
        multipart.head({"Content-Type": DICOM_JSON}, "b")
        + json.dumps([model]).encode()
        + multipart.head({"Content-Location": "p"}, "b")
        + b"1234"
    )

    answer = door.post(whole, f'multipart/related; type="{DICOM_JSON}"; boundary=b')

    assert answer.status_code == 400
    assert door.instances() == 0
    assert list((tmp_path / "objects").rglob("*.dcm")) == []


def test_a_clinician_stores_nothing_described_either(door: Door) -> None:
    answer = send(door, [json.dumps([described(data_set())]).encode()], who="dr.beicheng")

    assert answer.status_code == 403
    assert door.instances() == 0
