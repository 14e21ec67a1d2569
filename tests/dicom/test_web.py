"""DICOMweb between two hospitals and the exchange, over real sockets and with a foreign client."""

from __future__ import annotations

import hashlib
import io
import json
import random
import socket
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
from region import ADMINISTRATOR, CT_IMAGE_STORAGE, WORKER
from sample_city.character_sets import put_escapes
from sqlalchemy import select
from web_door import (
    EXPLICIT,
    IMAGE,
    LIMITS,
    SERIES,
    STUDY,
    Door,
    body_of,
    ct,
    data_set,
    file,
    fill,
    in_parts,
    parts_of,
)

from exchange import consent, errors, ingest, retrieval
from exchange.errors import ExchangeError
from exchange_dicom import instance, multipart, native_model, part10, status, web_errors, web_search
from exchange_dicom.web import RECEPTIONS
from exchange_dicom.web_store import KEPT_FOR_REVIEW
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.objects import StoreUnavailable
from exchange_storage.records import AuditRecord
from exchange_storage.search import Level

DICOM_JSON = "application/dicom+json"


def values(found: list[dict[str, Any]], tag: str) -> list[Any]:
    return [one[tag]["Value"][0] for one in found]


# Storing


def test_a_hospital_stores_a_study_and_reads_it_back_as_it_was(door: Door) -> None:
    images = [ct(1), ct(2)]

    answer = door.client().store_instances(
        [pydicom.dcmread(io.BytesIO(image)) for image in images], study_instance_uid=STUDY
    )

    assert str(answer.RetrieveURL) == f"{door.root}/studies/{STUDY}"
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        f"{SERIES}.1",
        f"{SERIES}.2",
    ]
    assert "FailedSOPSequence" not in answer
    url = str(answer.ReferencedSOPSequence[0].RetrieveURL)
    assert url == f"{door.root}/studies/{STUDY}/series/{SERIES}/instances/{IMAGE}"
    back = parts_of(door.get(f"studies/{STUDY}"))
    assert [body_of(content) for _, content in back] == [body_of(image) for image in images]
    assert [kind for kind, _ in back] == [
        {"content-type": f"application/dicom; transfer-syntax={EXPLICIT}"}
    ] * 2


def test_one_image_may_come_alone_without_parts(door: Door) -> None:
    assert door.post(ct(), "application/dicom").status_code == 200
    assert door.instances() == 1


def test_the_same_image_by_two_doors_is_one_object(door: Door) -> None:
    image = ct()
    received = body_of(image)
    meta = part10.file_meta(CT_IMAGE_STORAGE, IMAGE, EXPLICIT)
    with (
        door.city.exchange.on_behalf_of(door.city.system("beicheng")) as access,
        ingest.begin(access) as incoming,
    ):
        incoming.write(meta)
        incoming.write(received)
        ingest.receive(access, incoming, instance.read(incoming, len(meta), EXPLICIT))

    assert door.send(image).status_code == 200

    with door.city.exchange.on_behalf_of(WORKER) as access:
        (held,) = retrieval.instances(access, STUDY).instances
    assert held.digest == hashlib.sha256(meta + received).hexdigest()
    assert door.instances() == 1


@pytest.mark.parametrize(
    "meta",
    [{"MediaStorageSOPInstanceUID": "1.2.3.4"}, {"MediaStorageSOPClassUID": "1.2.3.4"}],
)
def test_the_data_set_says_which_image_it_is_and_not_the_header_before_it(
    door: Door, meta: dict[str, str]
) -> None:
    assert door.send(file(data_set(), **meta)).status_code == 200

    (image,) = (content for _, content in parts_of(door.get(f"studies/{STUDY}")))
    read = part10.read_file_meta(io.BytesIO(image))
    assert (read.sop_class_uid, read.sop_instance_uid) == (CT_IMAGE_STORAGE, IMAGE)


def test_an_image_without_a_header_is_taken_as_well(door: Door) -> None:
    assert door.send(body_of(ct())).status_code == 200
    assert values(door.found("instances"), "00080018") == [IMAGE]


def test_images_of_another_study_than_the_url_names_are_not_kept(door: Door) -> None:
    stray = file(data_set(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1"))

    answer = door.send(ct(2), stray, path=f"studies/{STUDY}")

    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [f"{SERIES}.2"]
    (failed,) = told.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == IMAGE
    assert failed.FailureReason == status.WEB[errors.Invalid].failure_reason
    assert "not of the study that the URL names" in answer.headers["Warning"]
    assert door.instances() == 1


def test_when_no_image_is_kept_the_answer_is_409(door: Door) -> None:
    answer = door.send(b"not an image", file(data_set(StudyInstanceUID=None)), b"")

    assert answer.status_code == 409
    told = Dataset.from_json(answer.json())
    assert [item.ReferencedSOPInstanceUID for item in told.FailedSOPSequence] == [IMAGE]
    assert len(told.OtherFailuresSequence) == 2
    assert "ReferencedSOPSequence" not in told
    assert door.instances() == 0


def test_other_bytes_under_a_known_uid_are_kept_for_review_and_said_to_be(door: Door) -> None:
    door.send(ct(StudyDescription="first"))

    answer = door.send(ct(StudyDescription="second"))

    assert answer.status_code == 202
    (item,) = Dataset.from_json(answer.json()).ReferencedSOPSequence
    assert (item.WarningReason, item.RetrieveURL) == (KEPT_FOR_REVIEW, "")
    assert "kept for review" in answer.headers["Warning"]
    assert values(door.found("studies?includefield=StudyDescription"), "00081030") == ["first"]


def test_an_image_sent_twice_is_stored_once_and_both_times_with_success(door: Door) -> None:
    assert [door.send(ct()).status_code for _ in range(2)] == [200, 200]
    assert door.instances() == 1


@pytest.mark.parametrize(
    ("content", "kind", "http"),
    [
        (b"", 'multipart/related; type="application/dicom"', 400),
        (b"", 'multipart/related; type="application/dicom"; boundary=""', 400),
        (b"", f'multipart/related; type="application/dicom"; boundary={"x" * 201}', 400),
        (b"nothing", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"--b--", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"--b\r\n\r\n", 'multipart/related; type="application/dicom"; boundary=b', 400),
        (b"", "application/dicom", 409),
        (b"[]", "multipart/related; type=application/dicom+json; boundary=b", 400),
        (b"[]", "multipart/related; type=image/jpeg; boundary=b", 415),
        (b"{}", "application/json", 415),
        (b"", "", 415),
        (b"", "no media type;;", 400),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_words(
    door: Door, content: bytes, kind: str, http: int
) -> None:
    answer = door.post(content, kind)

    assert answer.status_code == http
    assert http == 409 or answer.json()["detail"]
    assert door.instances() == 0


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/related; type=application/dicom; boundary=b",
        'Multipart/Related;boundary="b";TYPE="application/dicom"',
        "multipart/related; boundary=b",
    ],
)
def test_the_content_type_may_be_written_as_rfc_2045_allows(door: Door, kind: str) -> None:
    assert door.post(b"This is a MIME message.\r\n" + in_parts(ct()), kind).status_code == 200


def test_when_the_line_breaks_within_an_image_those_before_it_are_kept(door: Door) -> None:
    whole = in_parts(ct(1), ct(2))

    answer = door.post(whole[:-200])

    assert answer.status_code == 202
    told = Dataset.from_json(answer.json())
    assert len(told.ReferencedSOPSequence) == len(told.OtherFailuresSequence) == 1
    assert "closing delimiter" in answer.headers["Warning"]
    assert values(door.found("instances"), "00080018") == [f"{SERIES}.1"]


def test_a_part_that_is_no_dicom_fails_and_the_others_are_kept(door: Door) -> None:
    report = multipart.head({"Content-Type": "application/pdf"}, "b") + b"%PDF"

    answer = door.post(report + in_parts(ct()))

    assert answer.status_code == 202
    assert "a part is not application/dicom" in answer.headers["Warning"]


def test_too_large_an_image_is_refused_with_413_and_the_others_are_kept(door: Door) -> None:
    large = ct(2, PixelData=bytes(LIMITS.instance_bytes))

    assert door.send(large).status_code == 413
    assert door.send(large, ct(1)).status_code == 202
    assert door.instances() == 1


def test_too_much_in_one_request_is_refused_with_413(door: Door) -> None:
    def endless() -> Iterator[bytes]:
        yield b"--b\r\n\r\n" + ct()
        for _ in range(2 * LIMITS.body_bytes >> 20):
            yield bytes(1 << 20)

    assert door.post(endless()).status_code == 413
    assert door.send(*[b"x"] * (LIMITS.parts + 1)).status_code == 413
    assert door.instances() == 0


def silent(door: Door, sent: bytes = b"") -> socket.socket:
    """A sender that stops within a body."""
    host, _, port = door.root.split("/")[2].partition(":")
    here = socket.create_connection((host, int(port)), timeout=180)
    here.sendall(
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: exchange\r\nContent-Length: 1000000\r\n"
        b"Authorization: Bearer beicheng\r\n"
        b'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n\r\n' + sent
    )
    return here


def test_a_sender_that_stops_is_given_up_and_what_came_whole_is_kept(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_dicom.web.PATIENCE", 0.05)
    with silent(door, in_parts(ct(1), ct(2))[:-200]) as here:
        assert here.recv(1 << 16).startswith(b"HTTP/1.1 408")


def test_senders_that_stop_keep_nobody_from_searching(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_dicom.web.PATIENCE", 3600.0)
    with ExitStack() as senders:
        here = [senders.enter_context(silent(door)) for _ in range(RECEPTIONS)]
        while (answer := door.send(ct())).status_code != 503:
            pass  # until all of them have been let in
        assert answer.headers["retry-after"]
        assert door.found("studies") is not None
        for one in here:
            one.shutdown(socket.SHUT_RDWR)
    while door.send(ct()).status_code == 503:
        pass
    assert door.instances() == 1


def test_a_clinician_stores_nothing(door: Door) -> None:
    answer = door.send(ct(), who="dr.beicheng")

    assert answer.status_code == 403
    assert answer.json()["detail"] == "the role clinician may not store"
    assert door.instances() == 0


# Searching


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


# Retrieving


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

    assert refused.status_code == 403
    assert refused.json()["detail"] == "the patient has not consented to sharing"
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
    """An image with Implicit VR and garbage in a sequence that a reader of the index steps over."""
    image = data_set(SOPInstanceUID=f"{SERIES}.{number}", InstanceNumber=str(number))
    image.RequestAttributesSequence = [Dataset()]
    image.RequestAttributesSequence[0].ScheduledProcedureStepID = "STEP"
    written = file(image, str(ImplicitVRLittleEndian))
    return written.replace(b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff", 1)


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
