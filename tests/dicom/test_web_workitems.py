"""UPS-RS: what is to be done stands on a worklist, is claimed by one, and ends once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from region import ADMINISTRATOR, WORKER
from sqlalchemy import select
from web_door import Door, empty, parts_of
from worklist_door import (
    change,
    code,
    created,
    elements,
    new_uid,
    performed,
    performer,
    read,
    sent,
    step,
    subscribe,
    to_state,
    warning,
)

from exchange import consent, organizations, workitems
from exchange.errors import Refused
from exchange.workitem_attributes import SOP_CLASS, State
from exchange.workitems import Reason
from exchange_dicom import native_model, web_workitems
from exchange_dicom.media_types import DICOM_XML
from exchange_storage.records import AuditRecord, Workitem

INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
NO_LONGER = "The submitted request is inconsistent with the current state of the Workitem."


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for all of these tests: each has workitems of its own."""
    with empty(tmp_path_factory.mktemp("worklist")) as made:
        yield made


def test_a_workitem_is_created_read_claimed_and_completed(desk: Door) -> None:
    uid = created(desk)
    found = read(desk, uid)
    assert (found.SOPInstanceUID, found.SOPClassUID) == (uid, SOP_CLASS)
    assert (found.ProcedureStepState, found.ProcedureStepLabel) == ("SCHEDULED", "CT胸部诊断")
    assert (found.PatientID, found.IssuerOfPatientID) == ("P1", "2.25.101")
    assert found.ScheduledProcedureStepModificationDateTime

    assert to_state(desk, uid, "IN PROGRESS", "2.25.7").status_code == 200
    assert read(desk, uid).ProcedureStepState == "IN PROGRESS"

    answer = sent(desk, f"workitems/{uid}?2.25.7", performed())
    assert (answer.status_code, answer.content) == (200, b"")
    assert to_state(desk, uid, "COMPLETED", "2.25.7").status_code == 200
    assert read(desk, uid).ProcedureStepState == "COMPLETED"


def test_the_transaction_uid_is_never_told(desk: Door) -> None:
    uid = created(desk)
    secret = "2.25.424242424242"
    to_state(desk, uid, "IN PROGRESS", secret)
    sent(desk, f"workitems/{uid}", performed() | elements(TransactionUID=secret))

    told = desk.get(f"workitems/{uid}", "beicheng").text
    told += desk.get(f"workitems?SOPInstanceUID={uid}&includefield=all", "beicheng").text
    assert read(desk, uid).UnifiedProcedureStepPerformedProcedureSequence
    assert secret not in told


def test_a_workitem_may_come_and_go_in_xml(desk: Door) -> None:
    uid = new_uid()
    answer = desk.post(native_model.to_xml(step()), DICOM_XML, path=f"workitems?workitem={uid}")
    assert answer.status_code == 201, answer.text

    kind = f'multipart/related; type="{DICOM_XML}"'
    for path in (f"workitems/{uid}", f"workitems?SOPInstanceUID={uid}"):
        answer = desk.get(path, "beicheng", Accept=kind)
        ((_, body),) = parts_of(answer)
        found = Dataset.from_json(native_model.from_xml(body))
        assert (found.SOPInstanceUID, found.PatientName) == (uid, "Wang^XiaoDong=王^小东")


@pytest.mark.parametrize("tag", ["00001000", "00080018"])
def test_the_uid_may_stand_in_the_data_set(desk: Door, tag: str) -> None:
    uid = new_uid()
    body = step() | {tag: {"vr": "UI", "Value": [uid]}}

    assert sent(desk, "workitems", body).status_code == 201
    assert read(desk, uid).SOPInstanceUID == uid


def test_a_uid_is_used_once(desk: Door) -> None:
    uid = created(desk)

    for who in ("beicheng", "nanhu"):
        answer = sent(desk, f"workitems?{uid}", step(), who)
        assert (answer.status_code, answer.headers.get("Warning")) == (409, None)


def test_a_missing_worklist_label_is_the_hospitals_name(desk: Door) -> None:
    uid = new_uid()
    answer = sent(desk, f"workitems?{uid}", step(WorklistLabel=None))

    assert answer.status_code == 201
    assert warning(answer) == web_workitems.CREATED_WITH_MODIFICATIONS
    assert read(desk, uid).WorklistLabel == "北城医院"


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, "ProcedureStepState"),
        ({"ProcedureStepState": None}, "ProcedureStepState"),
        ({"ScheduledProcedureStepPriority": None}, "ScheduledProcedureStepPriority"),
        ({"ScheduledProcedureStepPriority": "SOON"}, "HIGH, LOW, MEDIUM"),
        ({"ProcedureStepLabel": ""}, "ProcedureStepLabel"),
        ({"ScheduledProcedureStepStartDateTime": None}, "ScheduledProcedureStepStartDateTime"),
        ({"InputReadinessState": None}, "InputReadinessState"),
        ({"TransactionUID": "2.25.1"}, "TransactionUID"),
        ({"ProcedureStepProgressInformationSequence": [code("1")]}, "ProgressInformation"),
    ],
)
def test_a_workitem_has_what_the_table_asks_for(
    desk: Door, told: dict[str, object], names: str
) -> None:
    answer = sent(desk, f"workitems?{new_uid()}", step(**told))

    assert answer.status_code == 400
    assert names in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "query", "http"),
    [
        (b"{", "?2.25.1", 400),
        (b"[]", "?2.25.1", 400),
        (b"[{}, {}]", "?2.25.1", 400),
        (b'{"x": {}}', "?2.25.1", 400),
        (b'{"00741000": {"vr": "LO", "Value": ["SCHEDULED"]}}', "?2.25.1", 400),
        (b'{"00741000": {"vr": "CS", "Value": "SCHEDULED"}}', "?2.25.1", 400),
        (b'{"00741000": {"vr": "CS", "Value": [1]}}', "?2.25.1", 400),
        (b'{"00741000": {"vr": "CS", "Value": ["a\\u0000"]}}', "?2.25.1", 400),
        (b'{"00741000": {"vr": "CS", "BulkDataURI": "x"}}', "?2.25.1", 400),
        (b'{"00200010": {"vr": "SQ"}}', "?2.25.1", 400),
        (b'{"00404018": {"vr": "SQ", "Value": [5]}}', "?2.25.1", 400),
        (b"{}", "", 400),
        (b"{}", "?workitem=x", 400),
        (b'{"00080018": {"vr": "UI", "Value": ["2.25.2"]}}', "?2.25.1", 400),
        (b" " * (web_workitems.REQUEST_LENGTH + 1), "?2.25.1", 413),
        (
            b'{"00404018": {"vr": "SQ", "Value": [' * 100 + b"]}}" * 100,
            "?2.25.1",
            400,
        ),
    ],
)
def test_what_is_no_workitem_is_refused_in_words(
    desk: Door, body: bytes, query: str, http: int
) -> None:
    answer = sent(desk, f"workitems{query}", body)

    assert answer.status_code == http
    assert answer.json()["detail"]


def test_who_comes_second_does_not_get_it(desk: Door) -> None:
    uid = created(desk)
    assert to_state(desk, uid, "IN PROGRESS", "2.25.1").status_code == 200

    for transaction in ("2.25.2", "2.25.1"):
        answer = to_state(desk, uid, "IN PROGRESS", transaction)
        assert (answer.status_code, warning(answer)) == (409, INCONSISTENT)
    answer = to_state(desk, uid, "COMPLETED", "2.25.2")
    assert (answer.status_code, warning(answer)) == (400, "The Transaction UID is incorrect.")


def test_every_state_has_its_answer_to_every_change(desk: Door) -> None:
    """PS3.4 Table CC.1.1-2, row by row."""
    mine = "2.25.1"

    def at(state: State) -> str:
        uid = created(desk)
        if state is not State.SCHEDULED:
            to_state(desk, uid, "IN PROGRESS", mine)
            sent(desk, f"workitems/{uid}?{mine}", performed())
        if state in (State.COMPLETED, State.CANCELED):
            assert to_state(desk, uid, state, mine).status_code == 200
        return uid

    def answered(state: State, to: State, transaction: str) -> tuple[int, str]:
        answer = to_state(desk, at(state), to, transaction)
        return answer.status_code, warning(answer) if "Warning" in answer.headers else ""

    done, off = State.COMPLETED, State.CANCELED
    scheduled, going = State.SCHEDULED, State.IN_PROGRESS
    already = web_workitems.ALREADY
    other = (400, "The Transaction UID is incorrect.")
    assert {(at_, to): answered(at_, to, mine) for at_ in State for to in State} == {
        (scheduled, scheduled): (409, INCONSISTENT),
        (scheduled, going): (200, ""),
        (scheduled, done): (409, INCONSISTENT),
        (scheduled, off): (409, INCONSISTENT),
        (going, scheduled): (409, INCONSISTENT),
        (going, going): (409, INCONSISTENT),
        (going, done): (200, ""),
        (going, off): (200, ""),
        (done, scheduled): (409, INCONSISTENT),
        (done, going): (409, INCONSISTENT),
        (done, done): (200, already.format("COMPLETED")),
        (done, off): (409, INCONSISTENT),
        (off, scheduled): (409, INCONSISTENT),
        (off, going): (409, INCONSISTENT),
        (off, done): (409, INCONSISTENT),
        (off, off): (200, already.format("CANCELED")),
    }
    assert [answered(state, done, "2.25.9") for state in (going, done, off)] == [other] * 3
    assert answered(going, off, "") == (400, "The Transaction UID is missing.")


def test_every_failure_has_its_words() -> None:
    tables = (
        web_workitems.CREATE,
        web_workitems.UPDATE,
        web_workitems.CHANGE_STATE,
        web_workitems.CANCEL,
    )
    assert set().union(*tables) == set(Reason)
    assert set(workitems.TRANSITIONS) == set(State)


@pytest.mark.parametrize(
    "keyword",
    [
        "PerformedStationNameCodeSequence",
        "PerformedProcedureStepStartDateTime",
        "PerformedWorkitemCodeSequence",
        "PerformedProcedureStepEndDateTime",
    ],
)
def test_nothing_is_completed_before_it_is_told_what_was_performed(
    desk: Door, keyword: str
) -> None:
    uid = created(desk)
    to_state(desk, uid, "IN PROGRESS")
    answer = to_state(desk, uid, "COMPLETED")
    assert (answer.status_code, warning(answer)) == (409, INCONSISTENT)
    assert "UnifiedProcedureStepPerformedProcedureSequence" in answer.json()["detail"]

    sent(desk, f"workitems/{uid}?2.25.1", performed(**{keyword: None}))
    answer = to_state(desk, uid, "COMPLETED")
    assert answer.status_code == 409
    assert keyword in answer.json()["detail"]
    assert read(desk, uid).ProcedureStepState == "IN PROGRESS"


def test_what_is_canceled_says_when_and_why(desk: Door) -> None:
    uid = created(desk)
    to_state(desk, uid, "IN PROGRESS")
    assert to_state(desk, uid, "CANCELED").status_code == 200

    (progress,) = read(desk, uid).ProcedureStepProgressInformationSequence
    assert progress.ProcedureStepCancellationDateTime
    (reason,) = progress.ProcedureStepDiscontinuationReasonCodeSequence
    assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110513", "DCM")


def test_what_nobody_has_claimed_is_canceled_on_request(desk: Door) -> None:
    uid = created(desk)
    told = elements(
        ReasonForCancellation="检查已取消",
        ContactURI="tel:+861012345678",
        ContactDisplayName="李护士",
    )

    answer = sent(desk, f"workitems/{uid}/cancelrequest", told)

    assert answer.status_code == 202
    found = read(desk, uid)
    assert found.ProcedureStepState == "CANCELED"
    (progress,) = found.ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "检查已取消"
    (contact,) = progress.ProcedureStepCommunicationsURISequence
    assert contact.ContactURI == "tel:+861012345678"
    again = sent(desk, f"workitems/{uid}/cancelrequest")
    assert (again.status_code, warning(again)) == (202, web_workitems.ALREADY.format("CANCELED"))


def test_what_somebody_does_is_not_canceled_by_a_request(desk: Door) -> None:
    uid = created(desk)
    to_state(desk, uid, "IN PROGRESS")
    answer = sent(desk, f"workitems/{uid}/cancelrequest")
    assert (answer.status_code, warning(answer)) == (409, "The performer cannot be contacted.")

    subscribe(desk, "READER", uid)
    assert sent(desk, f"workitems/{uid}/cancelrequest").status_code == 202
    assert read(desk, uid).ProcedureStepState == "IN PROGRESS"

    sent(desk, f"workitems/{uid}?2.25.1", performed())
    to_state(desk, uid, "COMPLETED")
    answer = sent(desk, f"workitems/{uid}/cancelrequest")
    assert (answer.status_code, warning(answer)) == (409, "The UPS is already COMPLETED.")


def test_an_update_changes_what_it_names_and_nothing_else(desk: Door) -> None:
    uid = created(desk)
    before = read(desk, uid)

    assert change(desk, uid, ScheduledProcedureStepPriority="HIGH").status_code == 200

    after = read(desk, uid)
    assert after.ScheduledProcedureStepPriority == "HIGH"
    for one in (before, after):
        del one.ScheduledProcedureStepPriority, one.ScheduledProcedureStepModificationDateTime
    assert before == after
    assert desk.found(f"workitems?SOPInstanceUID={uid}&ScheduledProcedureStepPriority=HIGH")


def test_an_update_needs_the_transaction_uid_once_it_is_claimed(desk: Door) -> None:
    uid = created(desk)
    answer = change(desk, uid, "2.25.1", WorklistLabel="B")
    unclaimed = "The target URI did not reference a claimed Workitem."
    assert (answer.status_code, warning(answer)) == (409, unclaimed)

    to_state(desk, uid, "IN PROGRESS", "2.25.1")
    for transaction in ("", "2.25.2"):
        answer = change(desk, uid, transaction, WorklistLabel="B")
        assert (answer.status_code, warning(answer)) == (400, NO_LONGER)
    assert read(desk, uid).WorklistLabel == "READING"
    assert change(desk, uid, "2.25.1", WorklistLabel="B").status_code == 200

    to_state(desk, uid, "CANCELED", "2.25.1")
    answer = change(desk, uid, "2.25.1", WorklistLabel="C")
    assert (answer.status_code, warning(answer)) == (400, NO_LONGER)


@pytest.mark.parametrize(
    "told",
    [
        {"PatientID": "P2"},
        {"ProcedureStepState": "COMPLETED"},
        {"SOPInstanceUID": "1.2.3"},
        {"ReferencedRequestSequence": [Dataset()]},
        {"ProcedureStepLabel": ""},
        {"WorklistLabel": ""},
        {"InputReadinessState": "PERHAPS"},
    ],
)
def test_an_update_leaves_alone_what_it_may_not_change(desk: Door, told: dict[str, Any]) -> None:
    uid = created(desk)
    before = read(desk, uid)

    assert change(desk, uid, **told).status_code == 400
    assert read(desk, uid) == before


def test_an_unknown_workitem_is_not_found(desk: Door) -> None:
    assert desk.get("workitems/1.2.3", "beicheng").status_code == 404
    assert change(desk, "1.2.3", WorklistLabel="A").status_code == 404
    assert to_state(desk, "1.2.3", "IN PROGRESS").status_code == 404
    assert sent(desk, "workitems/1.2.3/cancelrequest").status_code == 404
    assert subscribe(desk, "A", "1.2.3").status_code == 404
    assert desk.get("workitems/x", "beicheng").status_code == 400


def found(desk: Door, query: str, who: str = "beicheng") -> list[str]:
    told = desk.found(f"workitems?{query}", who)
    return [str(one["00080018"]["Value"][0]) for one in told]


def test_workitems_are_found_by_their_attributes(desk: Door) -> None:
    request = Dataset()
    request.AccessionNumber, request.RequestedProcedureID = "A-77", "R7"
    first = created(
        desk,
        WorklistLabel="FIND",
        ScheduledStationNameCodeSequence=[code("ST1", "99A"), code("ST2", "99B")],
        ReferencedRequestSequence=[request],
        ScheduledHumanPerformersSequence=[performer(name="Zhao^Min=赵^敏")],
        StudyInstanceUID="1.2.77",
    )
    second = created(
        desk,
        WorklistLabel="FIND",
        ScheduledProcedureStepStartDateTime="20261127080000.000+0800",
        InputReadinessState="INCOMPLETE",
        PatientID="P77",
        PatientName="Li^Na=李^娜",
    )

    def both(query: str) -> list[str]:
        return found(desk, f"WorklistLabel=FIND&{query}")

    assert both("limit=10") == [first, second]
    assert both(f"SOPInstanceUID={first},{second}") == [first, second]
    assert both("ProcedureStepState=SCHEDULED&InputReadinessState=READY") == [first]
    assert both("00404041=INCOMPLETE") == [second]
    assert both("ProcedureStepLabel=CT*") == [first, second]
    assert both("StudyInstanceUID=1.2.77,1.2.78") == [first]
    station = "ScheduledStationNameCodeSequence"
    assert both(f"{station}.CodeValue=ST2") == [first]
    assert both(f"{station}.CodeValue=ST2&{station}.CodingSchemeDesignator=99B") == [first]
    assert both(f"{station}.CodeValue=ST2&{station}.CodingSchemeDesignator=99A") == []
    assert both("0040A370.00080050=A-77") == [first]
    name = "ScheduledHumanPerformersSequence.HumanPerformerName"
    assert both(f"{name}=赵^敏") == both(f"{name}=zhao*") == [first]
    assert both("PatientID=P77") == both("PatientName=李*") == [second]
    assert both("PatientName=li%20na&fuzzymatching=true") == [second]
    assert both("limit=1") == [first]
    assert both("limit=1&offset=1") == [second]


def test_workitems_are_found_by_when_they_begin(desk: Door) -> None:
    local = created(
        desk, WorklistLabel="WHEN", ScheduledProcedureStepStartDateTime="20261126103000"
    )
    # The same moment a day later, told with the offset of somewhere else; the test is in UTC.
    there = created(
        desk, WorklistLabel="WHEN", ScheduledProcedureStepStartDateTime="20261127183000+0800"
    )

    def at(value: str) -> list[str]:
        return found(desk, f"WorklistLabel=WHEN&ScheduledProcedureStepStartDateTime={value}")

    assert at("20261126-20261127") == [local, there]
    assert at("20261126") == at("-20261126") == [local]
    assert at("20261127-") == at("2026112710") == [there]
    assert at("20261126103000") == [local]
    assert at("20261126183000%2B0800") == [local]
    assert at("202611261031-202611271029") == []
    answer = desk.get("workitems?ScheduledProcedureStepStartDateTime=soon", "beicheng")
    assert answer.status_code == 400


def test_a_search_says_what_it_did_not_use_and_that_more_remain(desk: Door) -> None:
    created(desk, WorklistLabel="SAYS")
    created(desk, WorklistLabel="SAYS")

    answer = desk.get("workitems?WorklistLabel=SAYS&Modality=CT&limit=1", "beicheng")

    ignored, more = answer.headers.get_list("Warning")
    assert "Modality" in ignored
    assert "additional results" in more
    assert desk.get("workitems?WorklistLabel=NONE", "beicheng").status_code == 204
    assert desk.get("workitems", "beicheng", Accept="text/html").status_code == 406


def test_a_match_tells_what_the_table_returns_and_what_is_asked_for(desk: Door) -> None:
    uid = created(desk, CommentsOnTheScheduledProcedureStep="急诊", PatientWeight="60")

    (told,) = desk.found(f"workitems?SOPInstanceUID={uid}&includefield=PatientWeight", "beicheng")
    match = Dataset.from_json(told)
    assert [k for k in web_workitems.RETURNED if k not in match] == []
    assert (match.CommentsOnTheScheduledProcedureStep, match.PatientWeight) == ("急诊", 60)
    (told,) = desk.found(f"workitems?SOPInstanceUID={uid}", "beicheng")
    assert "PatientWeight" not in Dataset.from_json(told)


def test_a_hospital_has_its_own_workitems(desk: Door) -> None:
    uid = created(desk)

    assert desk.get(f"workitems/{uid}", "nanhu").status_code == 404
    assert found(desk, f"SOPInstanceUID={uid}", "nanhu") == []
    assert to_state(desk, uid, "IN PROGRESS", who="nanhu").status_code == 404
    assert sent(desk, f"workitems/{uid}/cancelrequest", who="nanhu").status_code == 404
    assert change(desk, uid, who="nanhu", WorklistLabel="X").status_code == 404
    assert subscribe(desk, "A", uid, who="nanhu").status_code == 404


@pytest.mark.parametrize("named", ["nanhu", "南湖医院"])
def test_another_hospital_does_what_is_assigned_to_it(desk: Door, named: str) -> None:
    uid = created(desk, ScheduledHumanPerformersSequence=[performer(named)])

    told = read(desk, uid, "nanhu")
    assert (told.PatientID, told.IssuerOfPatientID) == ("P1", "2.25.101")
    assert found(desk, f"SOPInstanceUID={uid}", "dr.nanhu") == [uid]
    answer = change(desk, uid, who="nanhu", WorklistLabel="X")
    assert answer.status_code == 403  # not before it is claimed

    assert to_state(desk, uid, "IN PROGRESS", who="dr.nanhu").status_code == 200
    to_third = [performer("dongshan")]
    answer = change(desk, uid, "2.25.1", "nanhu", ScheduledHumanPerformersSequence=to_third)
    assert answer.status_code == 403  # whose it is says who does it
    assert sent(desk, f"workitems/{uid}?2.25.1", performed(), "nanhu").status_code == 200
    assert to_state(desk, uid, "COMPLETED", who="nanhu").status_code == 200
    assert read(desk, uid).ProcedureStepState == "COMPLETED"


def test_who_has_not_consented_is_not_reported_on_elsewhere(desk: Door) -> None:
    there = [performer("nanhu")]
    uid = created(desk, PatientID="P-DENIES", ScheduledHumanPerformersSequence=there)
    assert desk.get(f"workitems/{uid}", "nanhu").status_code == 200

    with desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P-DENIES")

    answer = desk.get(f"workitems/{uid}", "nanhu")
    assert answer.status_code == 403
    assert "consent" in answer.json()["detail"]
    assert found(desk, f"SOPInstanceUID={uid}", "nanhu") == []
    assert to_state(desk, uid, "IN PROGRESS", who="nanhu").status_code == 403
    assert desk.get(f"workitems/{uid}", "beicheng").status_code == 200


def test_a_workitem_needs_no_patient(desk: Door) -> None:
    nobody: dict[str, Any] = dict.fromkeys(
        ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
    )
    uid = created(desk, ProcedureStepLabel="QC phantom", **nobody)

    assert "IssuerOfPatientID" not in read(desk, uid)
    assert found(desk, f"SOPInstanceUID={uid}") == [uid]


@pytest.mark.parametrize(("who", "http"), [("dr.beicheng", 403), ("stranger", 401)])
def test_only_a_hospitals_system_schedules(desk: Door, who: str, http: int) -> None:
    assert sent(desk, f"workitems?{new_uid()}", step(), who).status_code == http


def test_what_ended_long_ago_is_deleted_unless_somebody_holds_it(
    desk: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, held, going = created(desk), created(desk), created(desk)
    subscribe(desk, "KEEPER", held, deletionlock="true")
    for uid in (gone, held):
        sent(desk, f"workitems/{uid}/cancelrequest")

    def tidy() -> None:
        with desk.city.exchange.on_behalf_of(WORKER) as access:
            workitems.tidy(access)

    tidy()
    assert desk.get(f"workitems/{gone}", "beicheng").status_code == 200
    monkeypatch.setattr(workitems, "KEPT", workitems.KEPT * 0)
    tidy()

    for answer in (desk.get(f"workitems/{gone}", "beicheng"), to_state(desk, gone, "CANCELED")):
        assert answer.status_code == 410
    assert found(desk, f"SOPInstanceUID={gone}") == []
    assert sent(desk, f"workitems?{gone}", step()).status_code == 409
    with desk.city.exchange.database.reading() as session:
        kept = session.scalars(select(Workitem).where(Workitem.sop_instance_uid == gone)).one()
        assert kept.content == {}
    assert [desk.get(f"workitems/{one}", "beicheng").status_code for one in (held, going)] == [
        200,
        200,
    ]
    subscribe(desk, "KEEPER", held, deletionlock="false")
    tidy()
    assert desk.get(f"workitems/{held}", "beicheng").status_code == 410
    with (
        pytest.raises(Refused),
        desk.city.exchange.on_behalf_of(desk.city.system("beicheng")) as access,
    ):
        workitems.tidy(access)


def test_what_is_done_with_a_workitem_is_on_the_record(desk: Door) -> None:
    uid = created(desk)
    read(desk, uid)
    to_state(desk, uid, "IN PROGRESS")
    change(desk, uid, "2.25.1", WorklistLabel="B")
    desk.get(f"workitems/{uid}", "nanhu")

    with desk.city.exchange.database.reading() as session:
        records = [
            (one.requester, one.outcome, json.loads(one.content)["reason"])
            for one in session.scalars(select(AuditRecord).order_by(AuditRecord.sequence))
            if uid in one.content
        ]
    assert [one for one in records if one[0] == "BEICHENG"] == [
        ("BEICHENG", "success", "created"),
        ("BEICHENG", "success", "read"),
        ("BEICHENG", "success", "in progress"),
        ("BEICHENG", "success", "updated"),
    ]


def test_a_hospital_that_left_the_agreement_is_assigned_nothing(desk: Door) -> None:
    uid = created(desk, ScheduledHumanPerformersSequence=[performer("nanhu")])
    with desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "nanhu")
    try:
        assert desk.get(f"workitems/{uid}", "nanhu").status_code == 403
    finally:
        with desk.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.join_agreement(access, "nanhu")
