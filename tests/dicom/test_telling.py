"""Whoever asks for a hospital is told of patients, and sent them, under that hospital's number."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from images import RESIDENT_ID_ISSUER
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from web_door import IMAGE, SERIES, STUDY, Door, body_of, ct, data_set, empty, file, parts_of

from exchange_dicom import native_model, telling
from exchange_dicom.coercion import Coercion, coerced
from exchange_dicom.resources import Root
from exchange_dicom.telling import Telling

CARD = "21990119491231002X"
SERIES_PATH = f"studies/{STUDY}/series/{SERIES}"
ONE = f"{SERIES_PATH}/instances/{IMAGE}"
DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'
NANHU = Coercion(
    patient_id="N7",
    issuer="2.25.102",
    owner_patient_id="P1",
    owner_issuer="2.25.101",
    institution="北城医院",
    at=datetime(2026, 11, 1, tzinfo=UTC),
    system="Imaging Exchange",
)


def with_card() -> list[Dataset]:
    other, issuer = Dataset(), Dataset()
    other.PatientID = CARD
    other.TypeOfPatientID = "TEXT"
    issuer.UniversalEntityID = RESIDENT_ID_ISSUER
    issuer.UniversalEntityIDType = "ISO"
    other.IssuerOfPatientIDQualifiersSequence = [issuer]
    return [other]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One person is P1 at Beicheng, which has images of her, and N7 at Nanhu. Only read."""
    with empty(tmp_path_factory.mktemp("both")) as door:
        known: dict[str, Any] = {"OtherPatientIDsSequence": with_card()}
        old = {**known, "IssuerOfPatientID": "BC", "InstitutionName": "北城"}
        implicit = file(
            data_set(SOPInstanceUID=f"{SERIES}.3", InstanceNumber="3", **known),
            str(ImplicitVRLittleEndian),
        )
        assert door.send(ct(1, **known), ct(2, **old), implicit).status_code == 200
        own = {"PatientID": "N7", "StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1"}
        assert door.send(ct(4, **known, **own), who="nanhu").status_code == 200
        door.city.identify()
        yield door


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def untimed(told: dict[str, Any]) -> dict[str, Any]:
    """Without the moment of the coercion, and what the metadata have of no instance."""
    told["04000561"]["Value"][-1].pop("04000562")
    told.pop("7FE00010")
    return told


def test_a_hospital_retrieves_another_s_images_under_its_own_number(both: Door) -> None:
    answer = both.get(SERIES_PATH, "dr.nanhu", Accept=DICOM)

    images = [read(content) for _, content in parts_of(answer)]
    assert [one.PatientID for one in images] == ["N7", "N7", "N7"]
    for one in images:
        assert one.IssuerOfPatientID == "2.25.102"
        assert one.OtherPatientIDsSequence[-1].PatientID == "P1"
        assert one.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientID == "P1"
        assert one.PixelData == data_set().PixelData
    bare = both.get(ONE, "dr.nanhu", Accept="application/dicom")
    assert read(bare.content).PatientID == "N7"
    uri = f"wado?requestType=WADO&studyUID={STUDY}&seriesUID={SERIES}&objectUID={IMAGE}"
    by_uri = both.get(f"{uri}&contentType=application/dicom", "dr.nanhu")
    assert read(by_uri.content).PatientID == "N7"


def test_files_to_take_away_have_the_asker_s_number_too(both: Door) -> None:
    packed = both.get(f"studies/{STUDY}", "dr.nanhu", Accept="application/zip")

    with zipfile.ZipFile(io.BytesIO(packed.content)) as opened:
        numbers = [read(opened.read(name)).PatientID for name in opened.namelist()]
    assert numbers == ["N7", "N7", "N7"]


def test_its_own_hospital_gets_every_byte_as_it_was_sent(both: Door) -> None:
    (_, first), *_ = parts_of(both.get(SERIES_PATH, Accept=DICOM))

    assert body_of(first) == body_of(ct(1, OtherPatientIDsSequence=with_card()))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_metadata_tell_what_the_images_have(both: Door, number: int) -> None:
    path = f"{SERIES_PATH}/instances/{SERIES}.{number}"
    image = read(both.get(path, "dr.nanhu", Accept="application/dicom").content)

    (told,) = both.get(f"{path}/metadata", "dr.nanhu").json()
    of_series = both.get(f"{SERIES_PATH}/metadata", "dr.nanhu").json()[number - 1]

    expected = json.loads(image.to_json(bulk_data_threshold=1 << 30))
    expected.setdefault("00100024", None)
    expected.pop("00100024")
    assert told["00100020"] == {"vr": "LO", "Value": ["N7"]}
    assert untimed(told) == untimed(of_series) == untimed(expected)


def test_a_document_of_a_series_is_one_for_all_askers(both: Door) -> None:
    whole = f"{SERIES_PATH}/metadata"
    numbers = {
        who: [
            [one["00100020"]["Value"][0] for one in answer.json()]
            for encoding in ("gzip", "identity")
            for answer in (both.get(whole, who, Accept_Encoding=encoding),)
        ]
        for who in ("dr.nanhu", "dr.beicheng", "dr.nanhu")
    }

    assert numbers == {"dr.nanhu": [["N7"] * 3] * 2, "dr.beicheng": [["P1"] * 3] * 2}
    kept = [one.key for one in both.city.exchange.objects.list(f"derived/{STUDY}/")]
    assert len(kept) == 1
    tags = {who: both.get(whole, who).headers["ETag"] for who in ("dr.nanhu", "dr.beicheng")}
    assert tags["dr.nanhu"].startswith('W/"')
    for who, tag in tags.items():
        assert both.get(whole, who, If_None_Match=tag).status_code == 304
    assert both.get(whole, "dr.nanhu", If_None_Match=tags["dr.beicheng"]).status_code == 200


def test_metadata_can_be_had_in_xml(both: Door) -> None:
    answer = both.get(
        f"{SERIES_PATH}/metadata",
        "dr.nanhu",
        Accept='multipart/related; type="application/dicom+xml"',
    )

    parts = parts_of(answer)
    assert [fields["content-type"] for fields, _ in parts] == ["application/dicom+xml"] * 3
    models = [native_model.from_xml(content) for _, content in parts]
    assert [one["00100020"]["Value"] for one in models] == [["N7"]] * 3
    assert models[0]["00100010"]["Value"] == [
        {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}
    ]
    assert models[0]["7FE00010"]["BulkDataURI"] == f"{both.root}/{ONE}/bulkdata/7FE00010"
    assert both.get(f"{ONE}/metadata", Accept="application/dicom+xml").status_code == 406


def test_the_viewer_s_door_has_names_as_one_reads_them(both: Door) -> None:
    root = both.root.replace("/dicom-web", "/viewer/dicom-web")
    headers = {"Authorization": "Bearer dr.nanhu", "Accept": "application/dicom+json"}

    for path in (f"{SERIES_PATH}/metadata", f"{ONE}/metadata", "studies?PatientID=N7"):
        told = both.http.get(f"{root}/{path}", headers=headers)
        assert told.status_code == 200, told.text
        for one in told.json():
            assert one["00100010"]["Value"] == [{"Alphabetic": "王小东", "Ideographic": "王^小东"}]
            assert one["00100020"]["Value"] == ["N7"]
            link = one.get("7FE00010", {}).get("BulkDataURI") or one["00081190"]["Value"][0]
            assert link.startswith(f"{root}/studies/")
    (told, *_) = both.get(f"{SERIES_PATH}/metadata", "dr.nanhu").json()
    assert told["00100010"]["Value"][0]["Alphabetic"] == "Wang^XiaoDong"


@pytest.mark.parametrize(
    ("group", "shown"),
    [
        ("王^小东", "王小东"),
        ("欧阳^慧敏^^^", "欧阳慧敏"),
        ('引"号\\^名', '引"号\\名'),
        ("Smith^约翰", "Smith^约翰"),
        ("買買提·艾力", "買買提·艾力"),
    ],
)
def test_a_name_reads_as_it_is_written(group: str, shown: str) -> None:
    for groups in ({"Ideographic": group}, {"Alphabetic": 'A"^\\B', "Ideographic": group}):
        model = {"00100010": {"vr": "PN", "Value": [groups]}}

        told = json.loads(telling.in_hanzi(json.dumps(model, separators=(",", ":")).encode()))

        assert told["00100010"]["Value"] == [{"Alphabetic": shown, "Ideographic": group}]


@pytest.mark.parametrize("number", ["N7", "P1"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"InstitutionName": "北城"},
        {"InstitutionName": ""},
        {"OtherPatientIDsSequence": with_card(), "IssuerOfPatientID": "BC"},
        {"PatientID": None, "PatientName": None, "PixelData": None},
    ],
)
def test_what_is_told_is_what_the_coerced_data_set_has(more: dict[str, Any], number: str) -> None:
    """Also where the one place that changes is the last, the first or not there at all."""
    owner = NANHU.issuer if number == "P1" else NANHU.owner_issuer
    how = Coercion(
        patient_id=number,
        issuer=NANHU.issuer,
        owner_patient_id="P1",
        owner_issuer=owner,
        institution=NANHU.institution,
        at=NANHU.at,
        system=NANHU.system,
    )
    image = file(data_set(**more))
    body = b"".join(bytes(one) for one in coerced([body_of(image)], EXPLICIT, how))
    kept = telling.written(json.loads(read(image).to_json(bulk_data_threshold=1 << 30)))

    two = Telling(Root("a"), how).of(b"[" + kept + b"," + kept + b"]", Root("a"))

    expected = json.loads(
        pydicom.filereader.read_dataset(
            io.BytesIO(body), is_implicit_VR=False, is_little_endian=True
        ).to_json(bulk_data_threshold=1 << 30)
    )
    assert json.loads(two) == [expected, expected]
    assert list(json.loads(two)[0]) == sorted(expected)


EXPLICIT = "1.2.840.10008.1.2.1"


def test_all_bulk_data_of_a_series_come_in_parts(both: Door) -> None:
    for path in (f"studies/{STUDY}", SERIES_PATH, ONE):
        answer = both.get(f"{path}/bulkdata")

        parts = parts_of(answer)
        assert len(parts) == (1 if path == ONE else 3)
        for number, (fields, content) in enumerate(parts, 1):
            where = f"{both.root}/{SERIES_PATH}/instances/{SERIES}.{number}/bulkdata/7FE00010"
            assert fields["content-location"] == where
            assert fields["content-type"].startswith("application/octet-stream")
            assert content == data_set().PixelData
            alone = both.get(where.removeprefix(f"{both.root}/"), Accept="*/*")
            assert alone.content == content
    assert both.get(f"{SERIES_PATH}/pixeldata").content.count(data_set().PixelData) == 3
    assert both.get(f"{SERIES_PATH}/bulkdata", Accept="text/html").status_code == 406
    assert both.get("studies/1.2.3/bulkdata").status_code == 404


def test_a_big_endian_image_is_had_under_the_asker_s_number(tmp_path: Path) -> None:
    with empty(tmp_path) as door:
        known: dict[str, Any] = {"OtherPatientIDsSequence": with_card()}
        image = file(data_set(**known, PixelData=bytes(8)), str(ExplicitVRBigEndian))
        assert door.send(image).status_code == 200

        answer = door.get(ONE, "dr.nanhu", Accept="application/dicom; transfer-syntax=*")

        got = read(answer.content)
        assert (got.PatientID, got.IssuerOfPatientID) == ("P1", "2.25.101")  # it has no other
        assert got.file_meta.TransferSyntaxUID == EXPLICIT


def test_a_kept_document_is_whole_json(both: Door) -> None:
    both.get(f"{SERIES_PATH}/metadata")
    (key,) = [one.key for one in both.city.exchange.objects.list(f"derived/{STUDY}/")]

    told = json.loads(gzip.decompress(both.city.exchange.objects.get(key)))

    assert [one["00080018"]["Value"][0] for one in told] == [f"{SERIES}.{n}" for n in (1, 2, 3)]
    assert all(list(one) == sorted(one) for one in told)
