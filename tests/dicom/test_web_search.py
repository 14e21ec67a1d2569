"""Clinicians search by DICOMweb, over real sockets and with a foreign client (PS3.18 10.6)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from sqlalchemy import select
from web_door import DICOM_JSON, EXPLICIT, SERIES, STUDY, Door, data_set, file, parts_of, values

from exchange_dicom import native_model, web_search
from exchange_storage.records import AuditRecord
from exchange_storage.search import Level


@pytest.mark.parametrize(
    ("question", "studies"),
    [
        ("", [STUDY, "1.2.5", "1.2.6"]),
        ("PatientName=王*", [STUDY, "1.2.6"]),
        ("PatientName=li^na", ["1.2.5"]),
        ("00100010=LI*", ["1.2.5"]),
        ("PatientSex=M", ["1.2.5"]),
        ("StudyDate=20261001-", [STUDY, "1.2.5"]),
        ("StudyDate=20261015", ["1.2.5"]),
        ("StudyDate=-20201231", ["1.2.6"]),
        ("StudyTime=0800-0900", ["1.2.5"]),
        ("AccessionNumber=B?", ["1.2.5"]),
        ("ModalitiesInStudy=MR", ["1.2.5"]),
        ("ModalitiesInStudy=XX,M?", ["1.2.5"]),
        (f"StudyInstanceUID={STUDY},1.2.6", [STUDY, "1.2.6"]),
        (f"0020000D={STUDY}%5C1.2.6", [STUDY, "1.2.6"]),
        ("PatientID=P2&StudyDate=", ["1.2.5"]),
        ("PatientID=P1&IssuerOfPatientID=2.25.102", ["1.2.6"]),
        ("PatientID=P1", [STUDY]),
        ("OtherPatientIDsSequence.PatientID=X", []),
        ("00101002.00100020=X", []),
        ("PatientID=*", [STUDY, "1.2.5", "1.2.6"]),
    ],
)
def test_a_clinician_finds_studies_by(archive: Door, question: str, studies: list[str]) -> None:
    assert values(archive.found(f"studies?{question}"), "0020000D") == studies


def test_a_study_is_told_with_all_that_the_standard_requires(archive: Door) -> None:
    (told,) = archive.found("studies?AccessionNumber=A1&StudyDate=20261101")

    required = "StudyDate StudyTime AccessionNumber InstanceAvailability ModalitiesInStudy"
    required += " ReferringPhysicianName RetrieveURL PatientName PatientID PatientBirthDate"
    required += " PatientSex StudyInstanceUID StudyID NumberOfStudyRelatedSeries"
    required += " NumberOfStudyRelatedInstances SpecificCharacterSet"
    assert set(map(tag, required.split())) == set(told) - {"00100021"}
    assert list(told) == sorted(told)
    assert told["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert told["00080056"]["Value"] == ["ONLINE"]
    assert told["00080090"] == {"vr": "PN"}
    assert told["00081190"] == {"vr": "UR", "Value": [f"{archive.root}/studies/{STUDY}"]}
    assert told["00100010"]["Value"] == [{"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}]
    assert told["00100021"]["Value"] == ["2.25.101"]
    assert told["00201208"] == {"vr": "IS", "Value": [2]}


@pytest.mark.parametrize(
    ("path", "count", "level"),
    [
        ("studies", 3, Level.STUDY),
        ("series", 3, Level.SERIES),
        (f"studies/{STUDY}/series", 1, Level.SERIES),
        ("instances", 4, Level.IMAGE),
        (f"studies/{STUDY}/instances", 2, Level.IMAGE),
        (f"studies/{STUDY}/series/{SERIES}/instances", 2, Level.IMAGE),
        ("studies/1.2.3/series", 0, Level.SERIES),
    ],
)
def test_every_level_can_be_searched(archive: Door, path: str, count: int, level: Level) -> None:
    found = archive.found(path)

    assert len(found) == count
    # Not everything in the tables is known of every object: only what is may be told.
    missing = {k for k in web_search.RETURNED[level] for one in found if tag(k) not in one}
    assert not missing
    if path in ("series", "instances"):
        assert all("00100010" in one for one in found)
    if path == f"studies/{STUDY}/instances":
        assert values(found, "00080060") == ["CT", "CT"]


def tag(keyword: str) -> str:
    return f"{pydicom.datadict.tag_for_keyword(keyword):08X}"


def test_fields_are_added_on_request(archive: Door) -> None:
    path = f"studies?StudyInstanceUID={STUDY}"

    assert "00081030" not in archive.found(path)[0]
    for field in ("StudyDescription", "00081030", "PatientAddress,StudyDescription", "all"):
        assert archive.found(f"{path}&includefield={field}")[0]["00081030"]["Value"] == [
            "胸部CT平扫"
        ]


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (
            "emptyvaluematching=true",
            "The emptyvaluematching parameter is not supported. "
            "Empty Value Matching has not been performed.",
        ),
        (
            "multiplevaluematching=true",
            "The multiplevaluematching parameter is not supported. "
            "Multiple Value Matching has not been performed.",
        ),
        ("fuzzymatching=true&PatientName=Wang*", "literal matching has been performed of Patient"),
        ("fuzzymatching=true&ReferringPhysicianName=Li*", "of ReferringPhysicianName"),
        ("RequestAttributesSequence.RequestedProcedureID=R1", "ignored: RequestAttributesSeq"),
        ("includefield=OtherPatientIDsSequence.PatientName", "left out: OtherPatientIDsSeq"),
        ("StudyDate=20261101&limit=5000&KVP=1", "ignored: KVP"),
        ("KVP=120", "ignored: KVP"),
        ("NoSuchThing=1", "ignored: NoSuchThing"),
        ("Modality=CT", "ignored: Modality"),
        ("00091001=secret", "ignored: 00091001"),
        ("includefield=NoSuchThing", "ignored: NoSuchThing"),
        ("includefield=PixelSpacing", "left out: PixelSpacing"),
        ("limit=2", "There are additional results that can be requested"),
    ],
)
def test_what_takes_no_part_is_announced_never_silently_ignored(
    archive: Door, question: str, told: str
) -> None:
    warning = archive.get(f"studies?{question}").headers["Warning"]

    assert warning.startswith(f"299 {archive.root}: ")
    assert told in warning
    assert "secret" not in warning


def test_a_plain_question_is_answered_without_warnings(archive: Door) -> None:
    assert "Warning" not in archive.get("studies?PatientID=P1&limit=3&fuzzymatching=false").headers
    assert "Warning" not in archive.get("studies?PatientName=Wang&fuzzymatching=true").headers


@pytest.mark.parametrize(
    "question",
    [
        "limit=-1",
        "limit=many",
        "offset=99999999999999999999",
        "fuzzymatching=perhaps",
        "emptyvaluematching=1",
        "StudyDate=yesterday",
        "StudyDate=20261001&00080020=20261002",
        "Patient%0D%0AName=x",
    ],
)
def test_a_malformed_question_is_refused(archive: Door, question: str) -> None:
    answer = archive.get(f"studies?{question}")

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_list_of_uids_is_no_uid_in_a_path(archive: Door) -> None:
    assert archive.get(f"studies/{STUDY},1.2.6/series").status_code == 400


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5))
def test_pages_of_any_size_are_the_whole_answer_in_its_order(archive: Door, size: int) -> None:
    whole = values(archive.found("instances"), "00080018")

    pages = [
        values(archive.found(f"instances?limit={size}&offset={start}"), "00080018")
        for start in range(0, len(whole), size)
    ]

    assert [uid for page in pages for uid in page] == whole


def test_a_foreign_client_finds_the_same(archive: Door) -> None:
    client = archive.client("dr.beicheng")

    found = client.search_for_studies(search_filters={"PatientName": "Li*"}, fields=["StudyID"])
    assert values(list(found), "0020000D") == ["1.2.5"]
    assert len(client.search_for_series(STUDY)) == 1
    assert len(client.search_for_instances(STUDY, SERIES, limit=1)) == 1


@pytest.mark.parametrize(
    ("accept", "http", "kind"),
    [
        ("*/*", 200, DICOM_JSON),
        ("application/json", 200, "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200, DICOM_JSON),  # Java's own
        ("application/dicom+json;q=0.2, application/json", 200, "application/json"),
        ("application/dicom+xml", 406, "application/problem+json"),  # of many only in parts
        ('multipart/related; type="application/dicom"', 406, "application/problem+json"),
        ("text/html", 406, "application/problem+json"),
        ("no media type", 400, "application/problem+json"),
    ],
)
def test_search_answers_in_json_or_says_that_it_cannot(
    archive: Door, accept: str, http: int, kind: str
) -> None:
    answer = archive.get("studies", Accept=accept)

    assert (answer.status_code, answer.headers["content-type"]) == (http, kind)


def requested(*pairs: tuple[str, str]) -> Sequence[Dataset]:
    items = [Dataset() for _ in pairs]
    for item, (procedure, step) in zip(items, pairs, strict=True):
        item.RequestedProcedureID, item.ScheduledProcedureStepID = procedure, step
    return items


@pytest.mark.parametrize("syntax", [EXPLICIT, str(ImplicitVRLittleEndian)])
def test_series_are_found_by_what_was_requested(door: Door, syntax: str) -> None:
    told = requested(("R1", "S1"), ("R2", "S2"))
    one = file(data_set(RequestAttributesSequence=told), syntax)
    other = {"SeriesInstanceUID": f"{STUDY}.2", "SOPInstanceUID": f"{STUDY}.2.1"}
    assert door.send(one, file(data_set(**other), syntax)).status_code == 200
    sequence = "RequestAttributesSequence"

    def found(query: str, path: str = "series") -> list[str]:
        return values(door.found(f"{path}?{query}"), "0020000E")

    for path in ("series", f"studies/{STUDY}/series", "instances"):
        assert found(f"{sequence}.RequestedProcedureID=R2", path) == [SERIES]
    assert found("00400275.00400009=S?") == [SERIES]
    # Both of one item (sequence matching), not one of each.
    both = f"{sequence}.RequestedProcedureID=R1&{sequence}.ScheduledProcedureStepID"
    assert found(f"{both}=S1") == [SERIES]
    assert found(f"{both}=S2") == []
    assert found(f"{sequence}.RequestedProcedureID=*") == [SERIES, f"{STUDY}.2"]
    first, second = door.found("series")
    assert [
        (item["00401001"]["Value"], item["00400009"]["Value"])
        for item in first["00400275"]["Value"]
    ] == [(["R1"], ["S1"]), (["R2"], ["S2"])]
    assert second["00400275"] == {"vr": "SQ"}
    for field in (sequence, f"{sequence}.RequestedProcedureID", "all"):
        (image,) = door.found(f"studies/{STUDY}/series/{SERIES}/instances?includefield={field}")
        assert "00400275" in image
    plain = door.get(f"series?{sequence}.RequestedProcedureID=R1")
    assert "Warning" not in plain.headers
    assert f"ignored: {sequence}" in door.get(f"studies?{both}=S1").headers["Warning"]


def test_search_answers_in_xml_what_it_answers_in_json(archive: Door) -> None:
    told = archive.found("studies?includefield=all")

    answer = archive.get(
        "studies?includefield=all", Accept='multipart/related; type="application/dicom+xml"'
    )

    kind = answer.headers["content-type"]
    assert kind.startswith('multipart/related; type="application/dicom+xml"; boundary=')
    parts = parts_of(answer)
    assert {fields["content-type"] for fields, _ in parts} == {"application/dicom+xml"}
    assert "王" in parts[0][1].decode()
    assert [in_json(native_model.from_xml(document)) for _, document in parts] == told


def in_json(model: dict[str, Any]) -> dict[str, Any]:
    """IS and DS, which may be text in JSON, as the numbers that we write."""
    for element in model.values():
        if element["vr"] == "IS":
            element["Value"] = [int(one) for one in element.get("Value", [])]
        if not element.get("Value", True):
            del element["Value"]
    return model


def test_what_is_accepted_may_be_said_in_the_url_in_xml_too(archive: Door) -> None:
    asked = "accept=multipart/related%3B%20type%3D%22application/dicom%2Bxml%22"

    answer = archive.get(f"studies?{asked}", Accept="application/json")

    assert answer.headers["content-type"].startswith("multipart/related")


def test_names_that_sound_alike_are_found_when_that_is_asked_for(archive: Door) -> None:
    assert archive.found("studies?PatientName=Wan^XiaoDong") == []
    found = archive.found("studies?PatientName=Wan^XiaoDong&fuzzymatching=true")
    assert STUDY in values(found, "0020000D")


def test_when_nothing_matches_the_answer_is_204(archive: Door) -> None:
    answer = archive.get("studies?PatientID=nobody&KVP=1")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "ignored: KVP" in answer.headers["Warning"]
    assert archive.client().search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_the_question_is_in_the_audit_trail_and_whose_it_was(archive: Door) -> None:
    archive.found("studies?PatientName=Li*")

    with archive.city.exchange.database.reading() as session:
        last = session.scalars(select(AuditRecord).order_by(AuditRecord.sequence.desc())).first()
    assert last is not None
    assert (last.action, last.requester) == ("search", "dr.beicheng")
    asked = b64encode(b"/dicom-web/studies?PatientName=Li*")
    assert json.loads(last.content)["detail"]["asked"] == asked.decode()
