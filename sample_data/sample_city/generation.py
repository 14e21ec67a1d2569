"""Building the city: each study as DICOM files (PS3.10) in its hospital's folder, and city.json."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from . import reports
from .character_sets import put_escapes
from .city import City, Hospital, Person, Record, Series, Study
from .examinations import EXAMINATIONS, Examination, Reading, schedule
from .identifiers import RESIDENT_ID_SYSTEM, uid
from .images import Image, Subject
from .population import hospitals, populate

SEED = "sample city"
UNTIL = date(2026, 11, 20)
CHINA = timezone(timedelta(hours=8))
SIZES = {"small": (40, 8), "default": (40, 60), "large": (160, 240)}
"""People and studies of each size."""

_DEVICES = {
    "CT": ("Fictional Imaging", "Tomograph 64", "CT1"),
    "MR": ("Fictional Imaging", "Magnet 3T", "MR1"),
    "DX": ("Fictional X-Ray", "Panel 3543", "DR1"),
    "CR": ("Fictional X-Ray", "Plate Reader", "CR1"),
    "US": ("Fictional Sound", "Sonograph 9", "US1"),
    "SR": ("Fictional Reports", "Reporting Desk", "RIS1"),
}
_REFERRING = ("Song^ZhiYuan=宋^致远", "Tang^YaQin=唐^雅琴", "Feng^Lei=冯^磊")
_RADIOLOGISTS = {"BC": "Yu^Hong=于^虹", "NH": "Dong^JiaHui=董^家辉", "DS": "Cheng^Min=程^敏"}


@dataclass(frozen=True, slots=True)
class _Visit:
    """One planned study: who, where, what, when, and what will be found."""

    study: Study
    record: Record
    hospital: Hospital
    born: date
    examination: Examination
    reading: Reading
    reported: bool


def generate(
    out: Path,
    size: str = "default",
    progress: Callable[[int, int], None] | None = None,
    *,
    until: date = UNTIL,
    seed: str = SEED,
) -> City:
    """Write the city into the empty folder `out` and return it.

    `progress(done, total)` is called after every instance. The same size, `until` and seed give
    the same bytes. Raises FileExistsError when `out` holds anything, ValueError for an unknown
    size, FileNotFoundError when pydicom came without its bundled test files.
    """
    if size not in SIZES:
        raise ValueError(f"size is one of {', '.join(SIZES)}, not {size}")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    number, studies = SIZES[size]
    people, records = populate(number)
    visits = list(_visits(people, records, schedule(studies), until, seed))
    total = sum(_planned(visit, size) for visit in visits)
    done = 0
    finished = []
    for visit in visits:
        series: list[Series] = []
        for written in _write(out, visit, size, seed, series):
            done += written
            if progress:
                progress(done, total)
        finished.append(replace(visit.study, series=tuple(series)))
    city = City(seed, size, until, hospitals(seed), people, records, tuple(finished))
    city.write(out)
    return city


def _visits(
    people: tuple[Person, ...],
    records: tuple[Record, ...],
    kinds: list[str],
    until: date,
    seed: str,
) -> Iterator[_Visit]:
    """Most registrations are examined once; then the first patients come back."""
    once = round(len(records) * 0.85)
    born = {person.id: person.birth_date for person in people}
    houses = {hospital.code: hospital for hospital in hospitals(seed)}
    for number, kind in enumerate(kinds):
        record = records[number % once]
        examination = EXAMINATIONS[kind]
        draw = _draw(seed, "visit", number)
        started = datetime.combine(until - timedelta(days=draw % 42), time(8), CHINA) + timedelta(
            minutes=draw // 42 % 540
        )
        reading = examination.readings[draw // 30_000 % len(examination.readings)]
        reported = number % 8 != 7
        accession = f"{record.hospital}{started:%y%m%d}{number:04d}"
        study = Study(
            uid(seed, "study", number),
            record.hospital,
            record.patient_id,
            record.person,
            accession,
            started,
            examination.description,
            examination.body_part,
            (),
            reading.impression if reported else None,
            f"{record.hospital}/{accession}",
        )
        hospital = houses[record.hospital]
        yield _Visit(study, record, hospital, born[record.person], examination, reading, reported)


def _planned(visit: _Visit, size: str) -> int:
    return sum(a.instances(size) for a in visit.examination.acquisitions) + visit.reported


def _write(out: Path, visit: _Visit, size: str, seed: str, finished: list[Series]) -> Iterator[int]:
    """Write one study, adding to `finished` what was written; yields 1 for every file."""
    study = visit.study
    folder = out / study.folder
    folder.mkdir(parents=True)
    draw = _draw(seed, "subject", study.study_instance_uid)
    subject = Subject(np.random.default_rng(draw), 0.95 + draw % 100 / 1000, visit.reading.lesion)
    for number, acquisition in enumerate(visit.examination.acquisitions, start=1):
        series_uid = uid(seed, study.study_instance_uid, number)
        header = _header(visit, acquisition.modality, acquisition.description, number, series_uid)
        if acquisition.modality in {"CT", "MR"}:
            header.FrameOfReferenceUID = uid(seed, study.study_instance_uid, "frame of reference")
            header.PositionReferenceIndicator = ""
        _encode(header, visit.hospital)
        instances: list[str] = []
        pictures = acquisition.make(acquisition.pictures(size), subject)
        for instance, image in enumerate(pictures, start=1):
            instances.append(uid(seed, series_uid, instance))
            taken = study.started + timedelta(minutes=number, seconds=instance)
            image.attributes.ContentDate = image.attributes.AcquisitionDate = f"{taken:%Y%m%d}"
            image.attributes.ContentTime = image.attributes.AcquisitionTime = f"{taken:%H%M%S}"
            _save(folder, header, image, number, instance, instances[-1])
            yield 1
        finished.append(
            Series(
                series_uid,
                acquisition.modality,
                acquisition.description,
                image.sop_class_uid,
                image.transfer_syntax_uid,
                tuple(instances),
            )
        )
    if visit.reported:
        finished.append(_write_report(folder, visit, seed, tuple(finished)))
        yield 1


def _write_report(folder: Path, visit: _Visit, seed: str, series: tuple[Series, ...]) -> Series:
    study = visit.study
    number, series_uid = 900, uid(seed, study.study_instance_uid, "report")
    instance_uid = uid(seed, series_uid, 1)
    header = _header(visit, "SR", "诊断报告", number, series_uid)
    _encode(header, visit.hospital)
    last = series[-1]
    document = reports.report(
        study,
        visit.hospital,
        visit.reading,
        (last, last.sop_instance_uids[len(last.sop_instance_uids) // 2]),
        _RADIOLOGISTS[study.hospital],
        study.started + timedelta(minutes=95),
    )
    _encode(document, visit.hospital)
    image = Image(reports.sop_class_of(visit.reading), ExplicitVRLittleEndian, document)
    _save(folder, header, image, number, 1, instance_uid)
    return Series(
        series_uid,
        "SR",
        "诊断报告",
        image.sop_class_uid,
        image.transfer_syntax_uid,
        (instance_uid,),
    )


def _header(
    visit: _Visit, modality: str, description: str, number: int, series_uid: str
) -> Dataset:
    """Patient, General Study, Patient Study, General Series, Equipment (PS3.3 C.7.1 to C.7.5)."""
    study, record, hospital = visit.study, visit.record, visit.hospital
    header = Dataset()
    header.SpecificCharacterSet = list(hospital.character_set)
    header.TimezoneOffsetFromUTC = "+0800"

    header.PatientName, header.PatientID = record.patient_name, record.patient_id
    header.IssuerOfPatientID = hospital.ae_title
    header.IssuerOfPatientIDQualifiersSequence = [_authority(hospital.issuer_oid)]
    header.PatientBirthDate = f"{record.birth_date:%Y%m%d}" if record.birth_date else ""
    header.PatientSex = record.sex
    if record.resident_id:
        card = Dataset()
        card.PatientID, card.TypeOfPatientID = record.resident_id, "TEXT"
        card.IssuerOfPatientID = RESIDENT_ID_SYSTEM
        card.IssuerOfPatientIDQualifiersSequence = [_authority(RESIDENT_ID_SYSTEM)]
        header.OtherPatientIDsSequence = [card]

    header.StudyInstanceUID, header.AccessionNumber = (
        study.study_instance_uid,
        study.accession_number,
    )
    header.StudyID = study.accession_number[-10:]
    header.StudyDate, header.StudyTime = f"{study.started:%Y%m%d}", f"{study.started:%H%M%S}"
    header.ReferringPhysicianName = _REFERRING[int(study.accession_number[-4:]) % len(_REFERRING)]
    header.StudyDescription = study.description
    if record.birth_date:
        header.PatientAge = f"{(study.started.date() - record.birth_date).days // 365:03d}Y"

    header.Modality, header.SeriesInstanceUID = modality, series_uid
    header.SeriesNumber, header.SeriesDescription = number, description
    header.SeriesDate, header.SeriesTime = header.StudyDate, header.StudyTime
    if modality != "SR":
        header.BodyPartExamined = study.body_part

    header.Manufacturer, header.ManufacturerModelName, station = _DEVICES[modality]
    header.StationName = f"{hospital.code}-{station}"
    header.InstitutionName = hospital.name
    header.InstitutionalDepartmentName = "超声科" if modality == "US" else "放射科"
    header.DeviceSerialNumber, header.SoftwareVersions = f"{hospital.code}{station}-0001", "1.0"
    return header


def _authority(oid: str) -> Dataset:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = oid, "ISO"
    return item


def _encode(dataset: Dataset, hospital: Hospital) -> None:
    if "ISO 2022 IR 58" in hospital.character_set:
        put_escapes(dataset)


def _save(
    folder: Path, header: Dataset, image: Image, series: int, instance: int, instance_uid: str
) -> None:
    """One Part 10 file: the series' header, the image's attributes and SOP Common (C.12.1)."""
    dataset = Dataset()
    dataset.update(header)
    dataset.update(image.attributes)
    dataset.SOPClassUID, dataset.SOPInstanceUID = image.sop_class_uid, instance_uid
    dataset.InstanceNumber = instance
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.sop_class_uid
    meta.MediaStorageSOPInstanceUID = UID(instance_uid)
    meta.TransferSyntaxUID = image.transfer_syntax_uid
    meta.ImplementationClassUID = UID(uid("sample city", "implementation"))
    meta.ImplementationVersionName = "SAMPLE_CITY_1"
    dataset.file_meta = meta
    # As declared, in explicit VR little endian: what is raw in the header is written as it is.
    dataset.set_original_encoding(False, True, convert_encodings(header.SpecificCharacterSet))
    dataset.save_as(folder / f"{series:03d}-{instance:04d}.dcm", enforce_file_format=True)


def _draw(*names: str | int) -> int:
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:6], "big")
