"""Storage commitment by DICOMweb: what was answered for was read back, whoever asks and however."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydicom.dataset import Dataset
from region import CT_IMAGE_STORAGE, WORKER
from sqlalchemy import select
from web_door import IMAGE, SERIES, Door, ct

from exchange import commitment, jobs
from exchange_dicom import commitment as dimse
from exchange_dicom import native_model, web_commitment
from exchange_dicom.media_types import DICOM_JSON, DICOM_XML
from exchange_storage.filesystem import FilesystemStore
from exchange_storage.records import AuditRecord

TRANSACTION = "2.25.77"
Pair = tuple[str, str]
HELD = (CT_IMAGE_STORAGE, IMAGE)


def asked(*pairs: Pair) -> dict[str, Any]:
    request = Dataset()
    request.ReferencedSOPSequence = [Dataset() for _ in pairs]
    for item, (sop_class, instance) in zip(request.ReferencedSOPSequence, pairs, strict=True):
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = instance
    return dict(json.loads(request.to_json()))


def ask(
    door: Door, *pairs: Pair, transaction: str = TRANSACTION, who: str = "beicheng", **headers: str
) -> httpx2.Response:
    return door.post(
        json.dumps(asked(*pairs)).encode(),
        DICOM_JSON,
        path=f"commitment-requests/{transaction}",
        who=who,
        **headers,
    )


def told(answer: httpx2.Response) -> tuple[list[str], list[tuple[str, int]]]:
    """The instances that are committed, and those that are not and why."""
    report = Dataset.from_json(answer.json())
    assert report.TransactionUID == TRANSACTION
    return (
        [one.ReferencedSOPInstanceUID for one in report.get("ReferencedSOPSequence", [])],
        [
            (one.ReferencedSOPInstanceUID, one.FailureReason)
            for one in report.get("FailedSOPSequence", [])
        ],
    )


def check(door: Door, who: str = "beicheng", **headers: str) -> httpx2.Response:
    return door.get(f"commitment-requests/{TRANSACTION}", who, **headers)


def test_what_is_kept_is_committed_and_the_rest_is_told_with_its_reason(door: Door) -> None:
    door.send(ct(1), ct(2))
    other = (CT_IMAGE_STORAGE, f"{SERIES}.2")

    answer = ask(
        door,
        HELD,
        other,
        (CT_IMAGE_STORAGE, "1.2.3"),
        ("1.2.840.10008.5.1.4.1.1.4", IMAGE),
        ("1.2.840.10008.1.1", IMAGE),
    )

    assert (answer.status_code, answer.headers["content-type"]) == (200, DICOM_JSON)
    committed, failed = told(answer)
    assert committed == [IMAGE, f"{SERIES}.2"]
    assert failed == [
        ("1.2.3", commitment.NO_SUCH_OBJECT_INSTANCE),
        (IMAGE, commitment.CLASS_INSTANCE_CONFLICT),
        (IMAGE, commitment.SOP_CLASS_NOT_SUPPORTED),
    ]
    assert check(door).json() == answer.json()


def test_the_request_and_its_result_may_be_in_xml(door: Door) -> None:
    door.send(ct(1))

    answer = door.post(
        native_model.to_xml(asked(HELD)),
        DICOM_XML,
        path=f"commitment-requests/{TRANSACTION}",
        Accept=DICOM_XML,
    )

    assert (answer.status_code, answer.headers["content-type"]) == (200, DICOM_XML)
    report = Dataset.from_json(native_model.from_xml(answer.content))
    assert report.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == IMAGE
    assert check(door, Accept=DICOM_XML).content == answer.content


def test_what_takes_longer_is_the_workers_and_the_result_is_fetched(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.send(ct(1))
    with monkeypatch.context() as hurried:
        hurried.setattr(web_commitment, "SECONDS", -1.0)
        answer = ask(door, HELD)
        assert (answer.status_code, answer.content) == (202, b"")
        assert int(answer.headers["Retry-After"]) > 0
        assert check(door).status_code == 202

        (job,) = jobs.claim(door.city.exchange.database, [jobs.COMMIT])
        dimse.report(door.city.exchange, WORKER, int(job.subject), calling="EXCHANGE")

        assert told(check(door)) == ([IMAGE], [])


def test_an_object_on_its_way_to_where_it_will_stay_is_not_committed_yet(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.send(ct(1))
    with monkeypatch.context() as spooled:
        spooled.setattr(FilesystemStore, "settled", lambda *_: False)
        assert ask(door, HELD).status_code == 202
        assert check(door).status_code == 202

    assert told(check(door)) == ([IMAGE], [])


def test_an_object_that_was_damaged_is_not_committed(door: Door, tmp_path: Path) -> None:
    door.send(ct(1))
    door.city.exchange.objects.put_down()
    (kept,) = (tmp_path / "objects").rglob("*.dcm")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")

    assert told(ask(door, HELD)) == ([], [(IMAGE, commitment.PROCESSING_FAILURE)])


def test_a_transaction_uid_is_used_once(door: Door) -> None:
    door.send(ct(1))
    assert ask(door, HELD).status_code == 200

    again = ask(door, HELD, (CT_IMAGE_STORAGE, "1.2.3"))

    assert again.status_code == 409
    assert "in use" in again.json()["detail"]
    assert told(check(door)) == ([IMAGE], [])  # the first is as it was


def test_a_request_whose_answer_was_lost_may_be_repeated(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.send(ct(1))
    with monkeypatch.context() as hurried:
        hurried.setattr(web_commitment, "SECONDS", -1.0)
        assert ask(door, HELD).status_code == 202

    assert told(ask(door, HELD)) == ([IMAGE], [])


def test_each_hospital_has_transactions_of_its_own(door: Door) -> None:
    door.send(ct(1))
    assert ask(door, HELD).status_code == 200

    assert check(door, "nanhu").status_code == 404
    answer = ask(door, HELD, who="nanhu")
    assert told(answer) == ([], [(IMAGE, commitment.NO_SUCH_OBJECT_INSTANCE)])
    assert told(check(door)) == ([IMAGE], [])


@pytest.mark.parametrize(("who", "http"), [("dr.beicheng", 403), ("stranger", 401)])
def test_only_a_hospitals_system_asks(door: Door, who: str, http: int) -> None:
    assert ask(door, HELD, who=who).status_code == http
    assert check(door, who).status_code == http


@pytest.mark.parametrize(
    ("body", "kind", "path", "http"),
    [
        (b"{", DICOM_JSON, TRANSACTION, 400),
        (b"{}", DICOM_JSON, TRANSACTION, 400),
        (b"[]", DICOM_JSON, TRANSACTION, 400),
        (b'{"00081199": {"vr": "SQ", "Value": []}}', DICOM_JSON, TRANSACTION, 400),
        (b'{"00081199": {"vr": "SQ", "Value": [{}]}}', DICOM_JSON, TRANSACTION, 400),
        (json.dumps(asked(HELD)).replace(IMAGE, "../x").encode(), DICOM_JSON, TRANSACTION, 400),
        (b"<x/>", DICOM_XML, TRANSACTION, 400),
        (json.dumps(asked(HELD)).encode(), DICOM_JSON, "one", 400),
        (json.dumps(asked(HELD)).encode(), "text/plain", TRANSACTION, 415),
        (json.dumps(asked(HELD)).encode(), "", TRANSACTION, 415),
        (b" " * (web_commitment.REQUEST_LENGTH + 1), DICOM_JSON, TRANSACTION, 413),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_in_words(
    door: Door, body: bytes, kind: str, path: str, http: int
) -> None:
    answer = door.post(body, kind, path=f"commitment-requests/{path}")

    assert answer.status_code == http
    assert answer.json()["detail"]
    assert door.get(f"commitment-requests/{TRANSACTION}", "beicheng").status_code == 404


def test_too_many_instances_in_one_request_are_refused(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "REFERENCES", 1)
    assert ask(door, HELD, HELD).status_code == 413


def test_a_commitment_is_on_the_record(door: Door) -> None:
    door.send(ct(1))
    ask(door, HELD)

    with door.city.exchange.database.reading() as session:
        records = session.scalars(select(AuditRecord).where(AuditRecord.action == "commit")).all()
    assert [json.loads(one.content)["reason"] for one in records] == [
        "asked",
        "checked",
        "reported",
    ]
    assert {one.requester for one in records} == {"BEICHENG"}
