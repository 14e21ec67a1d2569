"""What clinicians read: patients, hospitals, endpoints and studies as FHIR resources."""

from __future__ import annotations

from typing import Any

import pytest
from fhir_door import BASE, SHANGHAI, Door, name
from region import CT_IMAGE_STORAGE, ID_CARD

from exchange_fhir.datatypes import day, display_name, human_names, moment, number


def test_a_patient_is_told_as_the_hospital_sent_them(door: Door) -> None:
    door.city.send(
        "beicheng",
        patient="B-7",
        card=ID_CARD,
        PatientAddress="沈阳市和平区 1 号",
        PatientTelephoneNumbers="024-1\\138-2",
        PatientMotherBirthName="Li^Mei=李^梅",
    )
    (entry,) = door.clinician("beicheng").bundle("Patient")["entry"]
    told = entry["resource"]

    assert entry["fullUrl"] == f"{BASE}/{name(entry)}"
    card, own = sorted(told["identifier"], key=lambda one: -len(one["system"]))
    assert (own["system"], own["value"]) == ("urn:oid:2.25.101", "B-7")
    assert own["type"]["coding"][0]["code"] == "MR"
    assert (card["system"], card["value"]) == ("urn:oid:2.16.156.10011.1.3", ID_CARD)
    assert card["type"]["coding"][0]["code"] == "NI"
    assert [one["text"] for one in told["name"]] == ["Wang XiaoDong", "王小东"]
    assert [one["extension"][0]["valueCode"] for one in told["name"]] == ["ABC", "IDE"]
    assert (told["name"][1]["family"], told["name"][1]["given"]) == ("王", ["小东"])
    assert (told["gender"], told["birthDate"]) == ("female", "1949-12-31")
    assert [one["value"] for one in told["telecom"]] == ["024-1", "138-2"]
    assert told["address"] == [{"text": "沈阳市和平区 1 号"}]
    assert told["extension"][0]["valueString"] == "Li^Mei=李^梅"
    assert told["managingOrganization"]["reference"] == "Organization/beicheng"
    assert "link" not in told


def test_a_patient_of_whom_nothing_is_known_is_a_patient_nevertheless(door: Door) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("PatientName", "PatientBirthDate", "PatientSex"), "")
    door.city.send("beicheng", patient="", **nothing)

    (entry,) = door.clinician("beicheng").bundle("Patient")["entry"]

    assert entry["resource"]["gender"] == "unknown"
    assert {"name", "birthDate", "identifier"}.isdisjoint(entry["resource"])


def test_the_same_persons_records_lead_to_each_other(door: Door) -> None:
    door.city.send("beicheng", patient="B1", card=ID_CARD)
    asker = door.clinician("nanhu")
    (alone,) = asker.bundle("Patient")["entry"]
    assert "link" not in alone["resource"]

    door.city.send("nanhu", patient="N1", study="1.2.2", instance="1.4.2", card=ID_CARD)
    door.city.identify()

    first, second = (one["resource"] for one in asker.bundle("Patient")["entry"])
    assert [one["other"]["reference"] for one in first["link"]] == [f"Patient/{second['id']}"]
    assert [one["type"] for one in second["link"]] == ["seealso"]
    assert asker.read(f"Patient/{first['id']}") == first


def test_a_study_is_told_down_to_its_instances(door: Door) -> None:
    send = door.city.send
    about: dict[str, Any] = {
        "study": "1.2.1",
        "AccessionNumber": "A 100",
        "StudyDescription": "胸部 CT 平扫",
        "ReferringPhysicianName": "Zhao^Min=赵^敏",
    }
    head: dict[str, Any] = {"SeriesNumber": "2", "BodyPartExamined": "HEAD", "Laterality": "L"}
    send("beicheng", **about, instance="1.4.10", InstanceNumber="10", SeriesNumber="10")
    send("beicheng", **about, instance="1.4.2", InstanceNumber="2", SeriesNumber="10")
    send("beicheng", **about, **head, series="1.3.2", instance="1.4.3", Modality="MR")

    told = door.clinician("nanhu").read("ImagingStudy/1.2.1")

    uid, accession = told["identifier"]
    assert (uid["system"], uid["value"]) == ("urn:dicom:uid", "urn:oid:1.2.1")
    assert (accession["system"], accession["value"]) == ("urn:oid:2.25.101", "A 100")
    assert accession["type"]["coding"][0]["code"] == "ACSN"
    assert accession["assigner"]["reference"] == "Organization/beicheng"
    assert [one["code"] for one in told["modality"]] == ["CT", "MR"]
    assert told["started"] == "2026-11-01T10:15:00+08:00"
    assert told["referrer"] == {"display": "赵敏"}
    assert told["endpoint"][0]["reference"] == "Endpoint/dicomweb-beicheng"
    assert (told["numberOfSeries"], told["numberOfInstances"]) == (2, 3)
    assert [one["number"] for one in told["series"]] == [2, 10]
    assert told["series"][0]["bodySite"] == {
        "system": "http://snomed.info/sct",
        "code": "69536005",
        "display": "HEAD",
    }
    assert told["series"][0]["laterality"]["display"] == "Left"
    assert [one["uid"] for one in told["series"][1]["instance"]] == ["1.4.2", "1.4.10"]
    sop_class = told["series"][0]["instance"][0]["sopClass"]
    assert sop_class == {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{CT_IMAGE_STORAGE}"}


def test_a_study_of_strange_values_is_fhir_nevertheless(door: Door) -> None:
    door.city.send(
        "beicheng",
        study="1.02.1.",
        SeriesNumber="-3",
        InstanceNumber="4.5",
        Modality="",
        StudyDescription=" \x07 ",
        StudyTime="9",
        StudyDate="2026",
        BodyPartExamined="\x00",
        Laterality="?",
        PatientName="^^^Dr.",
        PatientBirthDate="19490231",
        PatientSex="X",
    )
    asker = door.clinician("beicheng")

    told = asker.read("ImagingStudy/1.02.1.")

    assert told["started"] == "2026"
    assert told["series"][0]["modality"]["code"] == "OT"
    assert {"description", "referrer"}.isdisjoint(told)
    asker.bundle("Patient")


def test_every_asker_reads_the_directory_of_hospitals(door: Door) -> None:
    for asker in (door.clinician("nanhu"), door.administrator()):
        hospital = asker.read("Organization/beicheng")
        endpoint = asker.read("Endpoint/dicomweb-beicheng")
        assert hospital["name"] == "北城医院"
        assert hospital["endpoint"][0]["reference"] == "Endpoint/dicomweb-beicheng"
        assert endpoint["address"] == "https://exchange.example/dicom-web"
        assert endpoint["connectionType"]["code"] == "dicom-wado-rs"
        assert endpoint["managingOrganization"]["reference"] == "Organization/beicheng"
        assert asker.ids("Organization?name=南湖") == ["Organization/nanhu"]
        assert asker.ids("Organization?name:contains=医院") == [
            "Organization/beicheng",
            "Organization/nanhu",
            "Organization/dongshan",
        ]
        assert asker.ids("Endpoint?organization=Organization/dongshan") == [
            "Endpoint/dicomweb-dongshan"
        ]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("19491231", "1949-12-31"),
        ("194912", "1949-12"),
        ("1949", "1949"),
        ("1949.12.31", "1949-12-31"),
        ("19490231", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_a_date_is_told_as_far_as_it_is_known(written: str, told: str) -> None:
    assert day(written) == told


@pytest.mark.parametrize(
    ("date", "time", "told"),
    [
        ("20261101", "101530.25", "2026-11-01T10:15:30+08:00"),
        ("20261101", "10", "2026-11-01T10:00:00+08:00"),
        ("20261101", "235960", "2026-11-01T23:59:59+08:00"),
        ("20261101", "", "2026-11-01"),
        ("20261101", "2515", "2026-11-01"),
        ("202611", "1015", "2026-11"),
        ("", "1015", ""),
    ],
)
def test_a_time_stands_in_the_hospitals_zone(date: str, time: str, told: str) -> None:
    assert moment(date, time, SHANGHAI) == told


@pytest.mark.parametrize(
    ("pn", "told"),
    [
        ("Wang^XiaoDong=王^小东=wáng^xiǎo dōng", ["ABC", "IDE", "SYL"]),
        ("王^小东", ["IDE"]),
        ("=王^小东", ["IDE"]),
        ("", []),
        ("^^^^", []),
    ],
)
def test_each_group_of_a_name_says_how_it_is_written(pn: str, told: list[str]) -> None:
    assert [one["extension"][0]["valueCode"] for one in human_names(pn)] == told


def test_a_chinese_name_without_delimiter_is_parted_at_its_surname() -> None:
    (found,) = human_names("欧阳小东")
    assert (found["family"], found["given"], found["text"]) == ("欧阳", ["小东"], "欧阳小东")
    assert display_name("Zhao^Min=赵^敏") == "赵敏"


def test_a_number_that_is_none_is_left_out() -> None:
    assert [number(text) for text in ("7", " 7 ", "-1", "1.5", "", "9999999999")] == [
        7,
        7,
        None,
        None,
        None,
        None,
    ]
