"""Frames by DICOMweb: each as it is stored, uncompressed or compressed without loss, read alone."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from frames import AS_STORED, UNCOMPRESSED, cine, frames_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import ONE
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from region import ADMINISTRATOR
from sqlalchemy import select
from web_door import EXPLICIT, IMAGE, SERIES, STUDY, Door, data_set, empty, file, kept, parts_of

from exchange import consent, rejection, restoration
from exchange.errors import NotFound, TooLarge
from exchange_dicom import part10, pixel_data
from exchange_dicom.frame_coding import ENCODED
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.web_frames import TRANSFER_SYNTAXES
from exchange_storage.records import AuditRecord

CORPUS = [
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
    "JPGExtended.dcm",
    "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "examples_palette.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "rtdose.dcm",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """An archive of images by many makers, in as many transfer syntaxes."""
    with empty(tmp_path_factory.mktemp("corpus")) as door:
        for name in CORPUS:
            answer = door.send(sample(name))
            assert answer.status_code == 200, (name, answer.text)
        yield door


def sample(name: str) -> bytes:
    """A file of the corpus, under UIDs of its own, since some of its files share theirs."""
    image = pydicom.dcmread(str(get_testdata_file(name)))
    number = CORPUS.index(name) + 1
    image.StudyInstanceUID = f"1.2.3.{number}"
    image.SeriesInstanceUID = f"1.2.3.{number}.1"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}.1.1")
    written = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        image.save_as(written, enforce_file_format=True)
    return written.getvalue()


def path_of(name: str) -> str:
    number = CORPUS.index(name) + 1
    return f"studies/1.2.3.{number}/series/1.2.3.{number}.1/instances/1.2.3.{number}.1.1"


def read(name: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(sample(name)))


def stored_frames(image: Dataset) -> list[bytes]:
    """The frames of an image as another reader takes them apart."""
    count = int(image.get("NumberOfFrames", 1))
    if image.file_meta.TransferSyntaxUID.is_encapsulated:
        return list(generate_frames(image.PixelData, number_of_frames=count))
    native = image.pixel_array if image.BitsAllocated > 8 else None
    if native is not None:  # whose numbers are little endian in every answer
        native = native.astype(native.dtype.newbyteorder("<"))
        return [one.tobytes() for one in (native if count > 1 else [native])]
    return []


@pytest.mark.parametrize("name", CORPUS)
def test_each_frame_is_had_as_it_is_stored(corpus: Door, name: str) -> None:
    image = read(name)
    syntax = image.file_meta.TransferSyntaxUID
    count = int(image.get("NumberOfFrames", 1))
    listed = ",".join(str(number) for number in range(1, count + 1))

    answer = corpus.get(f"{path_of(name)}/frames/{listed}", Accept=AS_STORED)

    assert answer.status_code == 200, answer.text
    parts = parts_of(answer)
    kinds = {fields["content-type"] for fields, _ in parts}
    if syntax.is_encapsulated:
        (media_type,) = [one for one, uids in TRANSFER_SYNTAXES.items() if syntax in uids]
        assert kinds == {f"{media_type}; transfer-syntax={syntax}"}
    else:
        assert kinds == {f"application/octet-stream; transfer-syntax={EXPLICIT}"}
    assert len(parts) == count
    if expected := stored_frames(image):
        assert [content for _, content in parts] == expected
    where = f"{corpus.root}/{path_of(name)}/frames/"
    assert [fields["content-location"] for fields, _ in parts] == [
        f"{where}{number}" for number in range(1, count + 1)
    ]


@pytest.mark.parametrize("name", CORPUS)
def test_each_frame_is_had_uncompressed(corpus: Door, name: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        image = read(name)
        expected = pixel_array(image, index=0, raw=True)
    bare = corpus.get(f"{path_of(name)}/frames/1", Accept="application/octet-stream")

    assert bare.status_code == 200, bare.text
    assert bare.headers["content-type"] == f"application/octet-stream; transfer-syntax={EXPLICIT}"
    if name == "SC_ybr_full_422_uncompressed.dcm":
        assert bare.content == image.PixelData  # subsampled as it says
    elif image.BitsAllocated == 1:
        assert bare.content == np.packbits(expected, bitorder="little").tobytes()
    else:
        if image.get("PlanarConfiguration"):
            expected = expected.transpose(2, 0, 1)
        assert bare.content == expected.astype(expected.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("syntax", ENCODED)
@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_a_frame_is_compressed_without_loss_where_a_syntax_is_named(
    corpus: Door, name: str, syntax: str
) -> None:
    (media_type,) = [one for one, uids in TRANSFER_SYNTAXES.items() if syntax in uids]
    accept = f'multipart/related; type="{media_type}"; transfer-syntax={syntax}'

    answer = corpus.get(f"{path_of(name)}/frames/1", Accept=accept)

    ((fields, content),) = parts_of(answer)
    assert fields["content-type"] == f"{media_type}; transfer-syntax={syntax}"
    with warnings.catch_warnings(action="ignore"):
        image = read(name)
        expected = pixel_array(image, index=0)
        image.PixelData = encapsulate([content])
        image["PixelData"].is_undefined_length = True
        image.NumberOfFrames = 1
        image.PlanarConfiguration = 0
        image.file_meta.TransferSyntaxUID = UID(syntax)
        written = io.BytesIO()
        image.save_as(written, enforce_file_format=True)
        back = pydicom.dcmread(io.BytesIO(written.getvalue())).pixel_array
    assert np.array_equal(back, expected)


@pytest.mark.parametrize(
    ("name", "accept", "content_type"),
    [
        ("JPEG2000.dcm", "*/*", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        ("JPEG2000.dcm", "image/jp2", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        ("JPEG2000.dcm", "image/*;q=0.3, application/octet-stream;q=0.8", "application/octet"),
        ("JPEG2000.dcm", "image/*;q=0.9, application/octet-stream;q=0.8", "image/jp2"),
        ("JPEG2000.dcm", "image/jpeg, image/jls;q=0.1", "image/jls"),
        ("CT_small.dcm", "*/*", f"application/octet-stream; transfer-syntax={EXPLICIT}"),
        ("CT_small.dcm", "image/jls", "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"),
        ("CT_small.dcm", "image/jpeg", None),
        ("CT_small.dcm", "text/html", None),
        (
            "CT_small.dcm",
            f"application/octet-stream; transfer-syntax={ImplicitVRLittleEndian}",
            None,
        ),
        ("JPEG2000.dcm", f"image/jp2; transfer-syntax={JPEG2000Lossless}", "image/jp2"),
        # As viewers ask.
        (
            "JPEG2000.dcm",
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            "image/jp2",
        ),
        (
            "JPEG2000.dcm",
            'multipart/related; type="image/jls"; q=0.1, '
            'multipart/related; type="application/octet-stream"',
            "application/octet-stream",
        ),
        (
            "JPEG2000.dcm",
            "multipart/related; type=image/jphc; transfer-syntax=*, */*;q=0.1",
            "image/jp2",
        ),
    ],
)
def test_the_form_that_is_wanted_most_is_sent_or_none(
    corpus: Door, name: str, accept: str, content_type: str | None
) -> None:
    path = f"{path_of(name)}/frames/1"

    answer = corpus.get(path, Accept=accept)

    # A wildcard covers multipart too, and comes first where frames are many.
    if content_type is None:
        assert (answer.status_code, answer.headers["content-type"]) == (
            406,
            "application/problem+json",
        )
        assert str(read(name).file_meta.TransferSyntaxUID) in answer.json()["detail"]
    else:
        assert answer.status_code == 200, answer.text
        kind = answer.headers["content-type"]
        if kind.startswith("multipart"):
            kind = parts_of(answer)[0][0]["content-type"]
        assert kind.startswith(content_type)
    asked = corpus.http.get(
        f"{corpus.root}/{path}",
        params={"accept": accept},
        headers={"Authorization": "Bearer dr.beicheng", "Accept": "text/html"},
    )
    assert asked.status_code == answer.status_code


def test_a_foreign_client_reads_frames(corpus: Door) -> None:
    client = corpus.client("dr.nanhu")
    name = "SC_rgb_rle_16bit_2frame.dcm"
    _, study, _, series, _, instance = path_of(name).split("/")

    stored = client.retrieve_instance_frames(study, series, instance, [2, 1])
    plain = client.retrieve_instance_frames(
        study, series, instance, [2], media_types=(("application/octet-stream", EXPLICIT),)
    )

    first, second = stored_frames(read(name))
    assert stored == [second, first]
    expected = pixel_array(read(name), index=1, raw=True)
    planar = read(name).PlanarConfiguration
    assert plain == [(expected.transpose(2, 0, 1) if planar else expected).tobytes()]


# Answers


def test_frames_that_are_not_there_are_told(door: Door) -> None:
    frames = frames_of(3, 100)
    assert door.send(cine(frames, "basic")).status_code == 200

    partial = door.get(f"{ONE}/frames/2,4", Accept=AS_STORED)
    assert partial.status_code == 206
    assert "1 frames are not there" in partial.headers["Warning"]
    assert [content for _, content in parts_of(partial)] == [frames[1]]
    missing = door.get(f"{ONE}/frames/4")
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "the instance has 3 frames, counted from 1",
    )
    for nonsense in ("0", "-1", "1,,2", "x", "1.5", "99999999999"):
        assert door.get(f"{ONE}/frames/{nonsense}").status_code == 400


def test_what_has_no_pixels_has_no_frames(door: Door) -> None:
    assert door.send(file(data_set(PixelData=None))).status_code == 200

    answer = door.get(f"{ONE}/frames/1")

    assert answer.status_code == 404
    assert "no pixel data" in answer.json()["detail"]


def test_an_image_that_was_rejected_is_gone(door: Door) -> None:
    other = data_set(SOPInstanceUID=f"{SERIES}.2")
    assert door.send(file(data_set()), file(other)).status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        rejection.reject(access, "beicheng", "113001", [IMAGE])

    for resource in ("", "/metadata", "/frames/1"):
        assert door.get(f"{ONE}{resource}").status_code == 410
    assert door.get(f"studies/{STUDY}/series/{SERIES}/instances/1.2.3").status_code == 404
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        restoration.restore(access, "beicheng", [IMAGE])
    assert door.get(f"{ONE}/frames/1").status_code == 200


def test_who_has_the_frame_already_gets_no_bytes_again(corpus: Door) -> None:
    path = f"{path_of('CT_small.dcm')}/frames/1"
    tag = corpus.get(path).headers["ETag"]

    unchanged = corpus.get(path, If_None_Match=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["Cache-Control"] == "private, no-cache"
    other = corpus.get(path, If_None_Match=tag, Accept="image/jls")
    assert other.status_code == 200


def test_frames_pass_the_gate_and_are_in_the_audit_trail(door: Door) -> None:
    assert door.send(file(data_set())).status_code == 200
    assert door.get(f"{ONE}/frames/1", "dr.nanhu").status_code == 200
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    refused = door.get(f"{ONE}/frames/1", "dr.nanhu")

    assert refused.status_code == 404
    assert door.get(f"{ONE}/frames/1", "stranger").status_code == 401
    with door.city.exchange.database.reading() as session:
        trail = session.scalars(
            select(AuditRecord)
            .where(AuditRecord.action == "retrieve", AuditRecord.requester == "dr.nanhu")
            .order_by(AuditRecord.sequence)
        ).all()
    assert [one.outcome for one in trail] == ["success", "refused"]
    detail = json.loads(trail[0].content)["detail"]
    assert (detail["what"], detail["instances"]) == ("frames", 1)
    assert detail["frames"] == "1"


# Damaged objects


WHOLE = {
    str(syntax): (lambda made: made[part10.read_file_meta(io.BytesIO(made)).data_set_offset :])(
        made
    )
    for syntax, made in (
        (JPEG2000Lossless, cine(frames_of(4, 60), "basic")),
        (RLELossless, cine(frames_of(4, 60), "extended").replace(b"4.90\0", b"5\0\0\0\0")),
        (JPEGLSLossless, cine(frames_of(4, 60), "none", 2)),
        (EXPLICIT, file(data_set(NumberOfFrames=2, PixelData=bytes(16)))),
        (ExplicitVRBigEndian, file(data_set(NumberOfFrames=2), str(ExplicitVRBigEndian))),
        (
            DeflatedExplicitVRLittleEndian,
            file(data_set(NumberOfFrames=2), str(DeflatedExplicitVRLittleEndian)),
        ),
    )
}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_object_gives_frames_or_says_what_it_is(syntax: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[syntax])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(content) // 2, len(content)))
    held = kept(bytes(content[:cut]), syntax)

    try:
        known = pixel_data.pixels(held)
        frame = pixel_data.stored_frame(held, known, 2)
    except (NotFound, MalformedDataSet, TooLarge):
        return

    assert len(frame) <= len(content) or known.swapped


def test_an_object_that_ends_within_its_offset_table_is_damaged() -> None:
    content = WHOLE[str(JPEG2000Lossless)]
    at = content.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0") + 20

    with pytest.raises(MalformedDataSet, match="offset table"):
        pixel_data.pixels(kept(content[: at + 7], str(JPEG2000Lossless)))


def test_a_damaged_object_is_not_acceptable(door: Door) -> None:
    assert door.send(file(data_set(NumberOfFrames=9))).status_code == 200

    answer = door.get(f"{ONE}/frames/9")

    assert answer.status_code == 406
    assert "damaged" in answer.json()["detail"]


def test_a_frame_that_no_decoder_reads_is_had_as_it_is_only(door: Door) -> None:
    assert door.send(cine(frames_of(2, 100), "basic")).status_code == 200

    assert door.get(f"{ONE}/frames/1", Accept=UNCOMPRESSED).status_code == 406
    assert door.get(f"{ONE}/frames/1", Accept=AS_STORED).status_code == 200


def test_video_has_no_frames_to_be_had_alone(door: Door) -> None:
    image = pydicom.dcmread(io.BytesIO(cine(frames_of(1, 100), "none")))
    image.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    written = io.BytesIO()
    image.save_as(written, enforce_file_format=True)
    assert door.send(written.getvalue()).status_code == 200

    answer = door.get(f"{ONE}/frames/1")

    assert answer.status_code == 406
    assert "bulk data" in answer.json()["detail"]
