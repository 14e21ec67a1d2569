"""Hospitals store by DICOMweb, over real sockets and with a foreign client (PS3.18 10.5)."""

from __future__ import annotations

import hashlib
import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pydicom
import pytest
from pydicom.dataset import Dataset
from region import CT_IMAGE_STORAGE, WORKER
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
    in_parts,
    parts_of,
    values,
)

from exchange import errors, ingest, retrieval
from exchange_dicom import instance, multipart, part10, status
from exchange_dicom.web import RECEPTIONS
from exchange_dicom.web_store import KEPT_FOR_REVIEW


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


def test_an_image_that_is_not_in_its_transfer_syntax_is_not_kept_as_what_it_is_not(
    door: Door,
) -> None:
    meta = part10.file_meta(CT_IMAGE_STORAGE, IMAGE, "1.2.840.10008.1.2")
    answer = door.send(meta + body_of(ct()))
    assert answer.status_code == 409
    (failed,) = Dataset.from_json(answer.json()).OtherFailuresSequence
    assert failed.FailureReason == status.WEB[errors.Invalid].failure_reason
    assert door.instances() == 0


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
