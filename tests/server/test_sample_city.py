"""The fictional city keeps its promises: what city.json says is what lies in the files (PS3.10)."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from sample_city import City, Record, Study, generate
from sample_city.character_sets import decode_ir58, encode_ir58
from sample_city.identifiers import (
    RESIDENT_ID_SYSTEM,
    first_generation,
    resident_id_check,
    resident_id_is_valid,
    social_credit_check,
)
from sample_city.population import TRAPS

CODEC = {"ISO_IR 192": "utf-8", "GB18030": "gb18030"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    generate(folder, "small")
    return folder


@pytest.fixture(scope="module")
def city(out: Path) -> City:
    return City.read(out)


def files_of(out: Path, study: Study) -> list[Dataset]:
    return [dcmread(path) for path in sorted((out / study.folder).iterdir())]


def text(city: City, study: Study, instance: Dataset, keyword: str) -> str:
    """The value as its bytes say it, decoded here rather than by pydicom."""
    element = instance.get_item(keyword)
    assert element is not None
    assert isinstance(element.value, bytes)
    character_set = city.hospital(study.hospital).character_set
    if character_set == ("", "ISO 2022 IR 58"):
        return decode_ir58(element.value)
    return element.value.decode(CODEC[character_set[0]]).rstrip(" ")


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


def test_the_same_city_has_the_same_bytes(out: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    again = generate(tmp_path / "again", "small", lambda done, total: seen.append((done, total)))
    assert digests(tmp_path / "again") == digests(out)
    assert again == City.read(out)
    total = again.number_of_instances
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_a_city_is_never_built_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        generate(tmp_path, "small")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(ValueError, match="size is one of"):
        generate(tmp_path / "new", "huge")


def test_every_file_is_in_city_json_and_every_study_on_disk(out: Path, city: City) -> None:
    assert len(list(out.rglob("*.dcm"))) == city.number_of_instances
    for study in city.studies:
        told = {
            (series.series_instance_uid, uid, series.sop_class_uid, series.transfer_syntax_uid)
            for series in study.series
            for uid in series.sop_instance_uids
        }
        found = {
            (f.SeriesInstanceUID, f.SOPInstanceUID, f.SOPClassUID, f.file_meta.TransferSyntaxUID)
            for f in files_of(out, study)
        }
        assert found == told
        assert len(told) == study.number_of_instances


def test_every_image_carries_its_hospitals_number_and_name(out: Path, city: City) -> None:
    for study in city.studies:
        record = city.record(study.hospital, study.patient_id)
        hospital = city.hospital(study.hospital)
        for instance in files_of(out, study):
            assert text(city, study, instance, "PatientName") == record.patient_name
            assert text(city, study, instance, "InstitutionName") == hospital.name
            assert text(city, study, instance, "StudyDescription") == study.description
            assert instance.PatientID == record.patient_id
            assert instance.StudyInstanceUID == study.study_instance_uid
            [issuer] = instance.IssuerOfPatientIDQualifiersSequence
            assert issuer.UniversalEntityID == hospital.issuer_oid
            cards = [item.PatientID for item in instance.get("OtherPatientIDsSequence", [])]
            assert cards == ([record.resident_id] if record.resident_id else [])
            if cards:
                [card] = instance.OtherPatientIDsSequence
                assert card.IssuerOfPatientID == RESIDENT_ID_SYSTEM


def test_dongshan_writes_the_escapes_of_the_standards_example() -> None:
    # PS3.5 K.2
    name = encode_ir58("Wang^XiaoDong=王^小东=", "PN")
    assert name == b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab="
    lines = encode_ir58("右肺\r\nCT 5mm\r\n左肺", "UT")
    assert lines == b"\x1b$)A\xd3\xd2\xb7\xce\r\nCT 5mm\r\n\x1b$)A\xd7\xf3\xb7\xce"
    with pytest.raises(UnicodeEncodeError):
        encode_ir58("Zhao^Zhe=赵^喆", "PN")


def test_dongshans_files_escape_every_hanzi_in_reports_too(out: Path, city: City) -> None:
    impressions = {s.folder: s.impression for s in city.studies if s.hospital == "DS"}
    assert any(impressions.values())
    for folder, impression in impressions.items():
        if impression is None:
            continue
        content = (out / folder / "900-0001.dcm").read_bytes()
        assert b"\x1b$)A" + impression.encode("gb2312") in content
        assert b"Cheng^Min=\x1b$)A\xb3\xcc^\x1b$)A\xc3\xf4" in content


def test_id_cards_are_valid_but_where_somebody_mistyped(city: City) -> None:
    assert resident_id_is_valid("11010519491231002X")
    for person in city.people:
        card = person.resident_id
        assert resident_id_is_valid(card), person
        assert card[6:14] == f"{person.birth_date:%Y%m%d}"
        assert int(card[16]) % 2 == (person.sex == "M")
    assert len({person.resident_id for person in city.people}) == len(city.people)
    for record in city.records:
        true_card = city.person(record.person).resident_id
        if "mistyped card" in record.traps:
            assert record.resident_id is not None
            assert not resident_id_is_valid(record.resident_id)
        elif "old card" in record.traps:
            assert record.resident_id == first_generation(true_card)
            restored = record.resident_id[:6] + "19" + record.resident_id[6:]
            assert restored + resident_id_check(restored) == true_card
        else:
            assert record.resident_id in {true_card, None}


def test_every_hospital_has_a_valid_code_and_numbers_of_its_own(city: City) -> None:
    assert social_credit_check("12350200426600791") == "6"
    for hospital in city.hospitals:
        code = hospital.unified_social_credit_code
        assert len(code) == 18
        assert social_credit_check(code[:-1]) == code[-1]
        for record in city.records:
            if record.hospital == hospital.code:
                assert re.fullmatch(hospital.patient_number_pattern, record.patient_id)
    assert len({(r.hospital, r.patient_id) for r in city.records}) == len(city.records)


def test_half_the_people_are_known_at_several_hospitals_by_different_numbers(city: City) -> None:
    known = Counter[int]()
    for person in city.people:
        records = city.records_of(person.id)
        known[len({record.hospital for record in records})] += 1
        assert len({record.patient_id for record in records}) == len(records)
    assert known[3] >= 2
    assert known[2] + known[3] >= len(city.people) // 2
    assert {study.hospital for study in city.studies_of("P001")} == {"BC", "NH", "DS"}


def test_every_trap_is_set(city: City) -> None:
    assert {trap for record in city.records for trap in record.traps} == set(TRAPS)

    def people(trap: str) -> dict[str, Record]:
        return {record.person: record for record in city.trapped(trap)}

    one, other = people("same number").values()
    assert one.patient_id == other.patient_id
    assert one.hospital != other.hospital
    one, other = people("namesake").values()
    assert (one.patient_name, one.birth_date) == (other.patient_name, other.birth_date)
    one, other = people("twin").values()
    assert one.birth_date == other.birth_date
    assert one.patient_name != other.patient_name
    [cut] = people("name cuts bytes").values()
    assert b"\\" in cut.patient_name.encode("gb18030")
    [once, again] = city.trapped("registered twice")
    assert (once.hospital, once.person) == (again.hospital, again.person)


def test_ct_slices_make_an_even_volume_in_hounsfield_units(out: Path, city: City) -> None:
    series = [
        [f for f in files_of(out, study) if f.Modality == "CT"]
        for study in city.studies
        if "CT" in study.modalities
    ]
    assert len(series) == 2
    for slices in series:
        assert len({tuple(f.ImageOrientationPatient) for f in slices}) == 1
        z = [float(f.ImagePositionPatient[2]) for f in slices]
        assert np.allclose(np.diff(z), -float(slices[0].SliceThickness))
        assert len({f.FrameOfReferenceUID for f in slices}) == 1
        hu = slices[0].pixel_array.astype(int) + int(slices[0].RescaleIntercept)
        assert hu[0, 0] == -1024
        assert -20 < np.median(hu[(hu > -30) & (hu < 120)]) < 80
        assert (hu > 300).sum() > 1000


def test_the_small_city_has_every_kind_of_picture(out: Path, city: City) -> None:
    files = [f for study in city.studies for f in files_of(out, study)]
    assert {f.Modality for f in files} == {"CT", "MR", "DX", "CR", "US", "SR"}
    syntaxes = {f.file_meta.TransferSyntaxUID for f in files}
    assert {JPEGBaseline8Bit, JPEG2000Lossless, RLELossless} < syntaxes
    inverted = [f.Modality for f in files if f.get("PhotometricInterpretation") == "MONOCHROME1"]
    assert inverted == ["CR"]
    loops = [f for f in files if f.get("PhotometricInterpretation") == "RGB"]
    assert [f.pixel_array.shape for f in loops] == [(3, 480, 640, 3)]
    for f in files:
        if f.file_meta.TransferSyntaxUID == RLELossless:
            assert f.pixel_array.max() > 500


def test_borrowed_pictures_say_nothing_of_their_first_patients(out: Path, city: City) -> None:
    for study in city.studies:
        for f in files_of(out, study):
            assert not any(element.tag.is_private for element in f)
            assert f.StudyDate == f"{study.started:%Y%m%d}"
            assert f.Manufacturer.startswith("Fictional")


def test_reports_are_verified_and_say_what_city_json_says(out: Path, city: City) -> None:
    reported = [study for study in city.studies if study.impression]
    assert len(reported) == 7
    for study in city.studies:
        reports = [f for f in files_of(out, study) if f.Modality == "SR"]
        assert len(reports) == (study.impression is not None)
        for report in reports:
            assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "VERIFIED")
            sections = {
                section.ConceptNameCodeSequence[0].CodeValue: section.ContentSequence[0]
                for section in report.ContentSequence
                if section.ValueType == "CONTAINER"
            }
            assert text(city, study, sections["121072"], "TextValue") == study.impression
            [evidence] = report.CurrentRequestedProcedureEvidenceSequence
            [series] = evidence.ReferencedSeriesSequence
            [image] = series.ReferencedSOPSequence
            assert image.ReferencedSOPInstanceUID in {
                uid for one in study.series for uid in one.sop_instance_uids
            }
