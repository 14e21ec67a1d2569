"""Images and metadata by DICOMweb, over real sockets and with a foreign client (PS3.18 10.4)."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.charset import convert_encodings
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from region import ADMINISTRATOR
from sample_city.character_sets import put_escapes
from web_door import (
    EXPLICIT,
    IMAGE,
    SERIES,
    STUDY,
    Door,
    body_of,
    ct,
    data_set,
    file,
    fill,
    parts_of,
    values,
)

from exchange import consent
from exchange.errors import ExchangeError
from exchange_dicom import multipart, status, web_errors
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import StoreUnavailable


def test_a_foreign_client_retrieves_what_another_hospital_sent(archive: Door) -> None:
    client = archive.client("dr.nanhu")

    assert len(client.retrieve_study(STUDY)) == 2
    assert len(client.retrieve_series(STUDY, SERIES)) == 2
    image = client.retrieve_instance(STUDY, SERIES, IMAGE)
    assert image.PixelData == b"\0\1\2\3\4\5\6\7"
    assert str(image.PatientName) == "Wang^XiaoDong=王^小东"


def test_one_image_can_be_had_alone_with_its_length(archive: Door) -> None:
    path = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"

    answer = archive.get(path, Accept="application/dicom")

    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert body_of(answer.content) == body_of(ct(1))
    assert archive.get(f"studies/{STUDY}", Accept="application/dicom").status_code == 406


@pytest.mark.parametrize(
    "path",
    [
        "studies/1.2.3",
        f"studies/{STUDY}/series/1.2.3",
        f"studies/{STUDY}/series/{SERIES}/instances/1.2.3",
        "studies/1.2.3/metadata",
        "studies/x",
        f"studies/{STUDY}/nonsense",
    ],
)
def test_what_is_not_there_is_not_found(archive: Door, path: str) -> None:
    answer = archive.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", [f"studies/{STUDY}", f"studies/{STUDY}/metadata"])
def test_a_patient_who_does_not_consent_is_seen_at_home_only(door: Door, path: str) -> None:
    fill(door)
    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    refused = door.get(path, "dr.nanhu")

    assert refused.status_code == 404
    nowhere = door.get(path.replace(STUDY, "1.2.840.99.77"), "dr.nanhu")
    assert refused.content == nowhere.content
    assert refused.headers.keys() == nowhere.headers.keys()
    assert door.get(path, "dr.beicheng").status_code == 200
    assert STUDY not in values(door.found("studies", "dr.nanhu"), "0020000D")


@pytest.mark.parametrize("path", ["studies", f"studies/{STUDY}", f"studies/{STUDY}/metadata"])
def test_nobody_in_particular_gets_nothing(archive: Door, path: str) -> None:
    answer = archive.get(path, "stranger")

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_images_with_implicit_vr_or_deflated_are_sent_with_explicit_vr(
    door: Door, syntax: str
) -> None:
    original = data_set()
    assert door.send(file(original, str(syntax))).status_code == 200
    assert door.found("instances?PatientName=王小东")
    assert len(door.get(f"studies/{STUDY}/metadata").json()[0]) == len(original)
    path = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"

    for accept in ("*/*", 'multipart/related; type="application/dicom"; transfer-syntax=*'):
        (sent,) = parts_of(door.get(path, Accept=accept))
        assert sent[0]["content-type"].endswith(EXPLICIT)
        image = pydicom.dcmread(io.BytesIO(sent[1]))
        assert image.file_meta.TransferSyntaxUID == EXPLICIT
        assert Dataset(image) == Dataset(original)
    implicit = (
        f'multipart/related; type="application/dicom"; transfer-syntax={ImplicitVRLittleEndian}'
    )
    assert door.get(path, Accept=implicit).status_code == 406


def test_compressed_images_go_as_they_are_to_those_who_can_read_them(door: Door) -> None:
    compressed = Path(str(get_testdata_file("JPEG2000.dcm"))).read_bytes()
    assert door.send(compressed).status_code == 200
    original = pydicom.dcmread(io.BytesIO(compressed))
    path = f"studies/{original.StudyInstanceUID}"

    in_parts_only = 'multipart/related; type="application/dicom"'
    for accept in (f"{in_parts_only}; transfer-syntax=*", "*/*", "multipart/related; q=0.1, */*"):
        (sent,) = parts_of(door.get(path, Accept=accept))
        assert body_of(sent[1]) == body_of(compressed)
    (plain,) = parts_of(door.get(path, Accept=in_parts_only))
    assert plain[0]["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT}"
    image = pydicom.dcmread(io.BytesIO(plain[1]))
    assert image.file_meta.TransferSyntaxUID == EXPLICIT
    assert image.PixelData == original.pixel_array.tobytes()
    assert image.SOPInstanceUID == original.SOPInstanceUID


def undecodable(number: int, syntax: str) -> bytes:
    """An image whose pixels nobody here can decompress."""
    image = data_set(SOPInstanceUID=f"{SERIES}.{number}", PixelData=encapsulate([bytes(64)]))
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    return file(image, syntax)


def test_of_a_mixed_study_the_acceptable_images_are_sent_and_the_rest_is_told(door: Door) -> None:
    door.send(ct(1), undecodable(2, "1.2.840.10008.1.2.4.102"))

    partial = door.get(f"studies/{STUDY}", Accept='multipart/related; type="application/dicom"')

    assert partial.status_code == 206
    assert len(parts_of(partial)) == 1
    assert "1 instances are left out" in partial.headers["Warning"]


def test_an_image_that_its_decoder_refuses_is_not_acceptable(door: Door) -> None:
    door.send(undecodable(1, str(JPEG2000Lossless)))
    path = f"studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"

    for accept in ("application/dicom", 'multipart/related; type="application/dicom"'):
        refused = door.get(path, Accept=accept)
        assert refused.status_code == 406
        assert str(JPEG2000Lossless) in refused.json()["detail"]
    assert door.get(path).status_code == 200


def test_big_endian_images_are_sent_little_endian(door: Door) -> None:
    pixels = np.arange(50_000, dtype=">u2")
    big = data_set(Rows=200, Columns=250, PixelData=pixels.tobytes())
    big["PixelData"].VR = "OW"
    door.send(file(big, str(ExplicitVRBigEndian)))

    (sent,) = parts_of(door.get(f"studies/{STUDY}"))

    image = pydicom.dcmread(io.BytesIO(sent[1]))
    assert image.file_meta.TransferSyntaxUID == EXPLICIT
    assert image.PixelData == pixels.astype("<u2").tobytes()


def test_the_query_parameter_accept_goes_before_the_header(archive: Door) -> None:
    path = f"studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"

    answer = archive.get(f"{path}?accept=application/dicom", Accept="text/html")

    assert answer.headers["content-type"].startswith("application/dicom;")
    assert archive.get("studies?accept=text/html").status_code == 406


def broken(number: int) -> bytes:
    """An image with Implicit VR, and with padding in fragments, which only pixels may be."""
    image = data_set(SOPInstanceUID=f"{SERIES}.{number}", InstanceNumber=str(number))
    fragments = (b"\xfe\xff\x00\xe0\4\0\0\0pads", b"\xfe\xff\xdd\xe0\0\0\0\0")
    padding = b"\xfc\xff\xfc\xff\xff\xff\xff\xff" + b"".join(fragments)
    return file(image, str(ImplicitVRLittleEndian)) + padding


def test_one_broken_image_does_not_keep_its_study_in_the_archive(door: Door) -> None:
    assert door.send(ct(1), broken(2), ct(3)).status_code == 200
    only = 'multipart/related; type="application/dicom"'

    partial = door.get(f"studies/{STUDY}", Accept=only)
    assert partial.status_code == 206
    assert "1 instances are left out" in partial.headers["Warning"]
    assert len(parts_of(partial)) == 2

    whole = door.get(f"studies/{STUDY}", Accept=f"{only}; transfer-syntax=*")
    assert whole.status_code == 200
    assert [kind["content-type"].rpartition("=")[2] for kind, _ in parts_of(whole)] == [
        EXPLICIT,
        str(ImplicitVRLittleEndian),
        EXPLICIT,
    ]
    assert body_of(parts_of(whole)[1][1]) == body_of(broken(2))

    one = f"studies/{STUDY}/series/{SERIES}/instances/{SERIES}.2"
    assert door.get(one, Accept=only).status_code == 406
    assert door.get(one, Accept="application/dicom; transfer-syntax=*").status_code == 200
    assert len(door.get(f"studies/{STUDY}/metadata").json()) == 3


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_large_image_is_written_anew_piece_by_piece(
    door: Door, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_dicom.data_set.PIECE", 1 << 12)
    pixels = random.Random(1).randbytes(300_000)
    original = data_set(PixelData=pixels, DataSetTrailingPadding=b"\0\0")
    assert door.send(file(original, str(syntax))).status_code == 200

    (sent,) = parts_of(door.get(f"studies/{STUDY}"))

    assert Dataset(pydicom.dcmread(io.BytesIO(sent[1]))) == Dataset(original)


def test_a_store_that_fails_at_the_first_piece_is_unavailable(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Iterator[bytes]:
        raise StoreUnavailable("the disk is gone")
        yield b""

    assert door.send(ct()).status_code == 200
    monkeypatch.setattr(FilesystemStore, "stream", fails)

    answer = door.get(f"studies/{STUDY}")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


# Metadata


def written_in(character_set: str, image: Dataset) -> bytes:
    """The image in another character set, with the escapes that pydicom leaves out."""
    image.SpecificCharacterSet = character_set.split("\\")
    if "58" in character_set:
        put_escapes(image)
        # Or pydicom would decode what it just was given.
        correct_ambiguous_vr(image, True)
        image.set_original_encoding(False, True, convert_encodings(image.SpecificCharacterSet))
    return file(image)


@pytest.mark.parametrize(
    "character_set", ["ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 58", "undeclared"]
)
def test_chinese_is_readable_in_the_metadata_whatever_the_hospital_wrote(
    door: Door, character_set: str
) -> None:
    image = data_set(
        PatientName="Wang^XiaoDong=王^小东",
        RequestedProcedureDescription="颅脑平扫\\增强",
        ReferencedStudySequence=[Dataset()],
    )
    image.ReferencedStudySequence[0].StudyDescription = "既往检查"
    if character_set == "undeclared":
        sent = written_in("GB18030", image).replace(b"GB18030 ", b"ISO_IR 6")
    else:
        sent = written_in(character_set, image)
    assert door.send(sent).status_code == 200

    (told,) = door.get(f"studies/{STUDY}/metadata").json()

    assert told["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert told["00100010"]["Value"] == [{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}]
    assert told["00081030"]["Value"] == ["胸部CT平扫"]
    assert told["00321060"]["Value"] == ["颅脑平扫", "增强"]
    assert told["00081110"]["Value"][0]["00081030"]["Value"] == ["既往检查"]
    (found,) = door.found("studies?PatientName=王小东&includefield=StudyDescription")
    assert found["00081030"]["Value"] == ["胸部CT平扫"]


def test_a_foreign_client_reads_the_metadata_at_every_level(archive: Door) -> None:
    client = archive.client("dr.beicheng")

    assert len(client.retrieve_study_metadata(STUDY)) == 2
    assert len(client.retrieve_series_metadata(STUDY, SERIES)) == 2

    def follow(_tag: str, _vr: str, uri: str) -> bytes:
        (value,) = client.retrieve_bulkdata(uri)
        return bytes(value)

    told = Dataset.from_json(client.retrieve_instance_metadata(STUDY, SERIES, IMAGE), follow)
    assert told == Dataset(pydicom.dcmread(io.BytesIO(ct(1))))


def test_who_has_the_metadata_already_is_told_that_they_have_not_changed(door: Door) -> None:
    door.send(ct(1), ct(2))
    path = f"studies/{STUDY}/metadata"
    tag = door.get(path).headers["ETag"]

    unchanged = door.get(path, If_None_Match=f'"other", W/{tag}')
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    door.send(ct(9))
    changed = door.get(path, If_None_Match=tag)
    assert (changed.status_code, len(changed.json())) == (200, 3)


# Errors


def test_the_web_door_has_an_answer_for_every_error() -> None:
    assert set(status.WEB) == set(ExchangeError.__subclasses__())
    assert web_errors.of(multipart.MalformedMultipart("")).http == 400


def test_an_unexpected_error_tells_the_asker_nothing_and_the_log_no_patient_data(
    door: Door, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Iterator[bytes]:
        raise RuntimeError(STUDY)

    door.send(ct())
    caplog.set_level("WARNING", "httpx2")  # the client's own log names what it asks for
    monkeypatch.setattr(FilesystemStore, "stream", fails)

    answer = door.get(f"studies/{STUDY}")

    assert (answer.status_code, answer.json()["title"]) == (500, "Internal Server Error")
    assert "unexpected RuntimeError" in caplog.text
    assert STUDY not in caplog.text
    assert STUDY not in answer.text


def test_an_image_that_the_store_has_lost_is_not_said_to_be_unknown(door: Door) -> None:
    door.send(ct())
    objects = door.city.exchange.objects
    objects.put_down()
    (kept,) = Path(objects.store._objects).rglob("*.dcm")  # type: ignore[attr-defined]
    kept.unlink()

    assert door.get(f"studies/{STUDY}").status_code == 503
