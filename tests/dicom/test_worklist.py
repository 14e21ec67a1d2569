"""Modalities ask what is scheduled, and tell what they did: PS3.4 annexes K and F, the ledger."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from caller import CT, EXPLICIT, IMPLICIT, SUCCESS, calling, element, image
from caller import value as presented
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from region import ADMINISTRATOR
from serving import Served, serving
from sqlalchemy import select

from exchange import ledger, orders, registration, trail
from exchange.errors import Invalid, NotFound, Refused
from exchange.orders import Placed
from exchange_dicom.contexts import (
    MODALITY_WORKLIST_FIND as WORKLIST,
)
from exchange_dicom.contexts import (
    PERFORMED_PROCEDURE_STEP as MPPS,
)
from exchange_dicom.contexts import (
    PERFORMED_PROCEDURE_STEP_RETRIEVE as MPPS_RETRIEVE,
)
from exchange_dicom.data_set import elements
from exchange_dicom.dimse import CommandField, request
from exchange_dicom.pdu import COMMAND, LAST
from exchange_storage.records import Order

ZONE = ZoneInfo("Asia/Shanghai")
TODAY = f"{datetime.now(ZONE):%Y%m%d}"
DUPLICATE, MISSING, MISSING_VALUE, INVALID_VALUE = 0x0111, 0x0120, 0x0121, 0x0106
PROCESSING_FAILURE, NOT_ALL_CHANGED = 0x0110, 0x0107


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def place(served: Served, code: str = "beicheng", **told: str) -> str:
    """Place an order; returns its Study Instance UID."""
    wanted = {
        "patient_id": "P1",
        "patient_name": "Wang^XiaoDong=王^小东",
        "patient_birth_date": "19491231",
        "patient_sex": "F",
        "accession_number": "A1",
        "modality": "CT",
        "station_ae_title": "CT1",
        "scheduled_date": TODAY,
        "scheduled_time": "101500",
        "procedure_description": "胸部平扫",
    } | told
    with served.city.exchange.on_behalf_of(served.city.system(code)) as access:
        return orders.place(access, Placed(**wanted)).study_instance_uid  # type: ignore[arg-type]


def asked(step: dict[str, str] | None = None, **keys: str) -> Dataset:
    item = Dataset()
    for keyword, value in (
        {
            "ScheduledStationAETitle": "",
            "ScheduledProcedureStepStartDate": "",
            "ScheduledProcedureStepStartTime": "",
            "Modality": "",
            "ScheduledProcedureStepID": "",
            "ScheduledProcedureStepDescription": "",
        }
        | (step or {})
    ).items():
        setattr(item, keyword, value)
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.ScheduledProcedureStepSequence = [item]
    for keyword, value in (
        {"PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyInstanceUID": ""} | keys
    ).items():
        setattr(identifier, keyword, value)
    return identifier


def sequence(tag: int, *items: bytes) -> bytes:
    parts = [struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items]
    return element(tag, "SQ", b"".join(parts))


@contextmanager
def associated(served: Served, title: str, *models: str, extended: bytes = b"") -> Iterator[Any]:
    entity = AE(title)
    negotiated: list[Any] = []
    for model in models:
        entity.add_requested_context(model)
        if extended:
            wanted = SOPClassExtendedNegotiation()
            wanted.sop_class_uid, wanted.service_class_application_information = model, extended
            negotiated.append(wanted)
    association = entity.associate(
        "127.0.0.1", served.port, ae_title="EXCHANGE", ext_neg=negotiated
    )
    assert association.is_established
    if extended:
        assert association.acceptor.sop_class_extended == dict.fromkeys(models, b"\1\1\1\0")
    try:
        yield association
    finally:
        association.release()


def worklist(
    served: Served, identifier: Dataset, title: str = "BEICHENG", extended: bytes = b""
) -> list[Dataset]:
    with associated(served, title, WORKLIST, extended=extended) as association:
        answers = list(association.send_c_find(identifier, WORKLIST))
    assert answers[-1][0].Status == SUCCESS
    return [match for status, match in answers if status.Status in {0xFF00, 0xFF01}]


# The worklist


def test_a_modality_gets_what_its_hospital_has_scheduled_and_the_studys_uid(
    served: Served,
) -> None:
    study = place(served)

    (entry,) = worklist(served, asked({"Modality": "CT", "ScheduledStationAETitle": "CT1"}))

    step = entry.ScheduledProcedureStepSequence[0]
    assert entry.PatientName == "Wang^XiaoDong=王^小东"
    assert (entry.PatientID, entry.AccessionNumber) == ("P1", "A1")
    assert entry.StudyInstanceUID == study
    assert (step.Modality, step.ScheduledProcedureStepStartDate) == ("CT", TODAY)
    assert step.ScheduledProcedureStepDescription == "胸部平扫"
    assert worklist(served, asked(), title="NANHU") == []


@pytest.mark.parametrize(
    ("step", "keys", "matches"),
    [
        ({}, {"PatientName": "王小东"}, True),
        ({}, {"PatientName": "wang*"}, True),
        ({}, {"PatientName": "李*"}, False),
        ({}, {"PatientName": "^^^^"}, True),
        ({"ScheduledPerformingPhysicianName": "*^*"}, {"PatientName": "="}, True),
        ({}, {"PatientID": "P1"}, True),
        ({}, {"PatientID": "P2"}, False),
        ({}, {"AccessionNumber": "A?"}, True),
        ({"ScheduledProcedureStepStartDate": f"{TODAY}-"}, {}, True),
        ({"ScheduledProcedureStepStartDate": "20010101-20010102"}, {}, False),
        ({"ScheduledProcedureStepStartTime": "1000-1100"}, {}, True),
        ({"ScheduledProcedureStepStartTime": "1100-1200"}, {}, False),
        ({"Modality": "MR"}, {}, False),
        ({"ScheduledStationAETitle": "CT2"}, {}, False),
    ],
)
def test_a_worklist_is_narrowed_by_the_keys_of_annex_k(
    served: Served, step: dict[str, str], keys: dict[str, str], matches: bool
) -> None:
    place(served)
    assert bool(worklist(served, asked(step, **keys))) is matches


def test_date_and_time_of_a_worklist_are_one_moment_without_being_negotiated(
    served: Served,
) -> None:
    begins = ["20300705 0900", "20300706 0900", "20300707 1700", "20300707 1900"]
    for number, begin in enumerate(begins, 1):
        day, _, at = begin.partition(" ")
        place(served, accession_number=f"A{number}", scheduled_date=day, scheduled_time=at)

    def found(days: str, times: str) -> list[str]:
        step = {"ScheduledProcedureStepStartDate": days, "ScheduledProcedureStepStartTime": times}
        return [str(one.AccessionNumber) for one in worklist(served, asked(step))]

    # July 5, 10am until July 7, 6pm: the example of Table K.6-1
    assert found("20300705-20300707", "1000-1800") == ["A2", "A3"]
    assert found("20300706-", "1000-") == ["A3", "A4"]
    assert found("20300707", "1000-1800") == ["A3"]
    assert found("20300705-20300707", "09") == ["A1", "A2"]


def test_a_number_of_another_hospital_is_nobody_of_this_one(served: Served) -> None:
    place(served, patient_id="N7")

    def found(**keys: str) -> int:
        return len(worklist(served, asked(None, **keys)))

    assert found(PatientID="N7", IssuerOfPatientID="2.25.101") == 1
    assert found(PatientID="N7", IssuerOfPatientID="*") == 1
    assert found(PatientID="N7", IssuerOfPatientID="BEICHENG") == 1
    assert found(PatientID="N7", IssuerOfPatientID="NANHU") == 0
    assert found(PatientID="N7", IssuerOfPatientID="2.25.102") == 0
    with associated(served, "BEICHENG", WORKLIST) as association:
        nobody_asked_for = asked(IssuerOfPatientID="2.25.102")
        told = [one.Status for one, _ in association.send_c_find(nobody_asked_for, WORKLIST)]
    assert told == [0xFF01, SUCCESS]  # an issuer alone takes no part


@pytest.mark.parametrize(
    ("key", "told"), [("", "P2"), ("P2", "P2"), ("P*", "P2"), ("P1", "P1"), ("P9", None)]
)
def test_a_merged_patient_is_scheduled_under_the_number_that_survives(
    served: Served, key: str, told: str | None
) -> None:
    """But who asks by the number that was merged is answered by it, as by C-FIND elsewhere."""
    place(served)
    for number, into in (("P2", ""), ("P1", "P2")):
        one = registration.Registration(
            number=number,
            name="Wang^Dong" if into else "Wang^XiaoDong",
            birth_date="19800101" if into else "19800102",
            replaced_by_number=into,
            render=lambda row, version, _: f"Patient/{row} {version}".encode(),
        )
        with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
            registration.register(access, one)
    place(served, accession_number="A2")  # the information system still says P1
    place(served, patient_id="P2", scheduled_procedure_step_id="S2")  # one step more of A1

    found = worklist(served, asked(PatientID=key, PatientBirthDate="19800102"))
    assert [one.PatientID for one in found] == ([told] * 3 if told else [])
    assert {str(one.PatientName) for one in found} <= {"Wang^XiaoDong"}
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        listed = orders.listed(access, organization="beicheng")
        assert [one.number.value for one in listed] == ["P2"] * 3


def test_a_modality_is_told_which_of_its_keys_makes_no_sense(served: Served) -> None:
    question = sequence(0x00400100, element(0x00400002, "DA", "20301399"))
    with calling(served.port, (WORKLIST, (EXPLICIT,))) as modality:
        ((final, _),) = modality.find(question, WORKLIST)
    assert final.status == 0xA900
    assert "ScheduledProcedureStepStartDate" in final.error_comment


def test_a_worklist_finds_names_that_sound_alike_when_that_is_negotiated(served: Served) -> None:
    place(served)
    homophone = asked(PatientName="王晓东")
    assert worklist(served, homophone) == []
    assert len(worklist(served, homophone, extended=b"\1\1\1\1")) == 1
    assert worklist(served, asked(PatientName="李*"), extended=b"\1\1\1\1") == []


def test_the_names_of_staff_match_in_any_case_and_group(served: Served) -> None:
    place(served, performing_physician_name="Zhao^Min=赵^敏", referring_physician_name="Li^Na")
    for name in ("zhao^min", "赵^敏", "ZHAO*", "赵*", "Zhao4^Min3"):
        assert worklist(served, asked({"ScheduledPerformingPhysicianName": name}))
    alike = asked({"ScheduledPerformingPhysicianName": "Zao^Ming"})
    assert worklist(served, alike) == []
    assert worklist(served, alike, extended=b"\1\1\1\1")
    assert worklist(served, asked({"ScheduledPerformingPhysicianName": "Zhang*"})) == []
    assert worklist(served, asked(ReferringPhysicianName="LI^NA"))


@pytest.mark.parametrize(
    ("declared", "answered"),
    [("GB18030", "GB18030"), ("GBK", "GBK"), ("ISO_IR 100", "ISO_IR 192")],
)
def test_a_worklist_is_in_the_character_set_that_the_modality_asked_in(
    served: Served, declared: str, answered: str
) -> None:
    place(served)
    question = asked()
    question.SpecificCharacterSet = declared
    (entry,) = worklist(served, question)
    assert entry.SpecificCharacterSet == answered
    assert entry.PatientName == "Wang^XiaoDong=王^小东"
    step = entry.ScheduledProcedureStepSequence[0]
    assert step.ScheduledProcedureStepDescription == "胸部平扫"


def test_a_step_is_returned_whole_or_as_far_as_its_item_asks(served: Served) -> None:
    place(served)
    narrow = Dataset()
    narrow.ScheduledProcedureStepSequence = [Dataset()]
    narrow.ScheduledProcedureStepSequence[0].Modality = "CT"
    (entry,) = worklist(served, narrow)
    assert [one.keyword for one in entry.ScheduledProcedureStepSequence[0]] == ["Modality"]
    for items in ([], [Dataset()]):
        whole = Dataset()
        whole.ScheduledProcedureStepSequence = items
        (entry,) = worklist(served, whole)
        (step,) = entry.ScheduledProcedureStepSequence
        assert {"Modality", "ScheduledStationAETitle", "ScheduledProcedureStepID"} <= {
            one.keyword for one in step
        }


def test_what_is_for_no_station_is_for_every_station(served: Served) -> None:
    place(served, station_ae_title="")
    for wanted, told in (("CT9", "CT9"), ("CT*", "BEICHENG"), ("", "BEICHENG")):
        (entry,) = worklist(served, asked({"ScheduledStationAETitle": wanted}))
        assert entry.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == told


@pytest.mark.parametrize(
    ("days", "times", "matches"),
    [
        ("", "", True),
        (TODAY, "", True),
        (TODAY, "0800-1200", True),
        (f"{TODAY}-", "0800-", True),
        (f"-{TODAY}", "-1200", True),
        ("20300101-", "0800-", False),
        ("20010101-20010102", "0800-1200", False),
    ],
)
def test_who_is_expected_at_no_certain_time_is_expected_all_day(
    served: Served, days: str, times: str, matches: bool
) -> None:
    place(served, scheduled_time="")
    step = {"ScheduledProcedureStepStartDate": days, "ScheduledProcedureStepStartTime": times}
    found = worklist(served, asked(step))
    begins = [one.ScheduledProcedureStepSequence[0] for one in found]
    assert [one.ScheduledProcedureStepStartTime for one in begins] == ["000000"] * matches


def test_dcmtk_reads_the_worklist_and_a_key_that_nobody_knows_is_announced(
    served: Served,
) -> None:
    place(served)
    done = subprocess.run(
        ["findscu", "-W", "-v", "-aet", "BEICHENG", "-aec", "EXCHANGE", "-k", "PatientName",
         "-k", "ScheduledProcedureStepSequence[0].Modality=CT", "-k", "PatientComments=nothing",
         "127.0.0.1", str(served.port)],
        check=True, capture_output=True, timeout=180, env=os.environ | {"TCP_NODELAY": "1"},
    )  # fmt: skip
    told = (done.stdout + done.stderr).decode()
    assert re.search(r"\(0008,0060\) CS \[CT\]", told)
    assert "Pending" in told


def test_a_cancelled_order_is_on_no_worklist_and_one_of_another_hospital_is_not_touched(
    served: Served,
) -> None:
    place(served)
    with (
        served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access,
        pytest.raises(NotFound),
    ):
        orders.cancel(access, "A1")
    assert worklist(served, asked())
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        orders.cancel(access, "A1")
    assert worklist(served, asked()) == []


def test_a_clinician_places_no_order_and_a_malformed_one_is_placed_by_nobody(
    served: Served,
) -> None:
    with (
        served.city.exchange.on_behalf_of(served.city.clinician("beicheng")) as access,
        pytest.raises(Refused),
    ):
        orders.place(
            access,
            Placed(patient_id="P1", accession_number="A", modality="CT", scheduled_date=TODAY),
        )
    for wrong in (
        {"patient_id": ""},
        {"scheduled_date": "tomorrow"},
        {"accession_number": "A" * 17},
        {"priority": "SOON"},
        {"study_instance_uid": "x"},
    ):
        with pytest.raises(Invalid):
            place(served, **wrong)
    place(served)
    with pytest.raises(Invalid):  # the number is taken
        place(served, patient_id="P2", scheduled_procedure_step_id="S2")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("scheduled_date", ["20261301", "2026-11-30", "20260230"], "the scheduled date is a day"),
        ("scheduled_time", ["9999", "25", "093", "0960"], "the scheduled time is a time"),
        ("patient_birth_date", ["19991332", "1999"], "the birth date is a day of the calendar"),
        ("patient_sex", ["Q", "male"], "the sex is M, F or O"),
        ("station_ae_title", ["TOOLONGSTATIONNAME"], "the station's AE title is at most 16"),
        ("station_ae_title", ["一号CT", " "], "the station's AE title is letters, digits"),
        ("modality", ["CTT^X", "ct"], "the modality is capital letters"),
        ("accession_number", ["B\\78", "B\n78"], "the accession number is one line"),
        ("accession_number", ["A" * 17], "the accession number is at most 16 characters"),
        ("patient_id", ["P\\9"], "the patient number is one line without a backslash"),
        ("patient_name", ["Wang\\Li"], "the patient's name is one line without a backslash"),
        ("procedure_description", ["胸部平扫" * 17], "the description is at most 64 characters"),
    ],
)
def test_what_no_modality_could_read_is_on_no_worklist(
    served: Served, name: str, values: list[str], said: str
) -> None:
    for value in values:
        with pytest.raises(Invalid, match=said):
            place(served, **{name: value})
    assert worklist(served, asked()) == []


# Performed procedure steps


def begun(study: str, **told: str) -> Dataset:
    scheduled = Dataset()
    scheduled.StudyInstanceUID = study
    scheduled.AccessionNumber = "A1"
    scheduled.ScheduledProcedureStepID = "A1"
    step = Dataset()
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PerformedProcedureStepID = "PPS1"
    step.PerformedStationAETitle = "CT1"
    step.PerformedProcedureStepStartDate = TODAY
    step.PerformedProcedureStepStartTime = "101600"
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.Modality = "CT"
    step.PerformedSeriesSequence = []
    for keyword, value in told.items():
        setattr(step, keyword, value)
    return step


def ended(status: str, *instances: str) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = "1.2.1.1"
    series.ReferencedImageSequence = []
    for uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
        series.ReferencedImageSequence.append(item)
    step = Dataset()
    step.PerformedProcedureStepStatus = status
    step.PerformedProcedureStepEndDate, step.PerformedProcedureStepEndTime = TODAY, "102000"
    if instances:
        step.PerformedSeriesSequence = [series]
    return step


def test_a_step_moves_its_order_and_its_announced_images_are_expected(served: Served) -> None:
    study = place(served)
    uid = generate_uid()
    with associated(served, "BEICHENG", MPPS, MPPS_RETRIEVE) as association:
        status, _ = association.send_n_create(begun(study), MPPS, uid)
        assert status.Status == SUCCESS
        assert worklist(served, asked()) == []  # it is in progress
        status, _ = association.send_n_set(ended("COMPLETED", "1.4.1", "1.4.2"), MPPS, uid)
        assert status.Status == SUCCESS
        status, told = association.send_n_get([], MPPS_RETRIEVE, uid)
        assert status.Status == SUCCESS
        assert told.PerformedProcedureStepStatus == "COMPLETED"
        assert told.PerformedStationAETitle == "CT1"
    with calling(served.port) as pacs:
        sent = image(instance="1.4.1", study=study, series="1.2.1.1")
        assert pacs.store(sent, "1.4.1").status == SUCCESS

    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        day = datetime.now(ZONE).date()
        line, *_ = ledger.lines(access, day, day, timezone=ZONE, organization="beicheng")
        missing = ledger.gaps(access, day, timezone=ZONE)
    assert (line.scheduled, line.not_begun) == (1, 0)
    assert (line.expected, line.received, line.committed, line.arrived) == (2, 1, 0, 1)
    assert not line.complete
    assert [(code, gap.missing, gap.sop_instance_uid) for code, gap in missing] == [
        ("beicheng", ledger.Missing.INSTANCE, "1.4.2"),
        ("beicheng", ledger.Missing.VERIFICATION, "1.4.1"),
    ]


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, INVALID_VALUE),
        ({"PerformedProcedureStepStatus": "PAUSED"}, INVALID_VALUE),
        ({"PerformedProcedureStepID": ""}, MISSING_VALUE),
        ({"Modality": ""}, MISSING_VALUE),
        ({"Modality": None}, MISSING),
        ({"study": ""}, MISSING_VALUE),
        ({"ScheduledStepAttributesSequence": "empty item"}, MISSING),
        ({"study": None}, MISSING),
    ],
)
def test_a_step_that_does_not_begin_properly_is_not_made(
    served: Served, told: dict[str, str | None], status: int
) -> None:
    step = begun("1.2.1")
    for keyword, value in told.items():
        of = step if keyword != "study" else step.ScheduledStepAttributesSequence[0]
        named = keyword if keyword != "study" else "StudyInstanceUID"
        if value is None:
            delattr(of, named)
        elif value == "empty item":
            setattr(of, named, [Dataset()])
        else:
            setattr(of, named, value)
    with associated(served, "BEICHENG", MPPS) as association:
        answer, _ = association.send_n_create(step, MPPS, "1.9.1")
        assert answer.Status == status
        answer, _ = association.send_n_set(ended("DISCONTINUED"), MPPS, "1.9.1")
        assert answer.Status == 0x0112


def test_a_step_is_of_the_class_that_was_negotiated_and_has_a_uid(served: Served) -> None:
    step = encode(begun("1.2.1"), False, True)
    with calling(served.port, (MPPS, (EXPLICIT,))) as modality:

        def made(sop_class: str, instance: str) -> int:
            asks = request(CommandField.N_CREATE_RQ, 1, sop_class, instance, data_set_present=True)
            return modality.ask(MPPS, asks, step).status

        assert made(CT, "1.9.1") == 0x0118
        assert made(MPPS, "abc") == 0x0117
        assert made(MPPS, "1.9.1") == SUCCESS
        end = encode(ended("DISCONTINUED"), False, True)
        changed = request(CommandField.N_SET_RQ, 2, CT, "1.9.1", data_set_present=True)
        assert modality.ask(MPPS, changed, end).status == 0x0119


def test_what_has_ended_is_not_changed_and_a_uid_is_used_once(served: Served) -> None:
    with associated(served, "BEICHENG", MPPS) as association:
        assert association.send_n_create(begun("1.2.1"), MPPS, "1.9.1")[0].Status == SUCCESS
        assert association.send_n_create(begun("1.2.1"), MPPS, "1.9.1")[0].Status == DUPLICATE
        answer, _ = association.send_n_set(ended("COMPLETED"), MPPS, "1.9.1")
        assert answer.Status == MISSING
        answer, _ = association.send_n_set(ended("DISCONTINUED", "1.4.1"), MPPS, "1.9.1")
        assert answer.Status == SUCCESS
        answer, _ = association.send_n_set(ended("COMPLETED", "1.4.1"), MPPS, "1.9.1")
        assert (answer.Status, answer.ErrorID) == (PROCESSING_FAILURE, 0xA710)


@pytest.mark.parametrize(
    ("status", "lacking"),
    [
        ("COMPLETED", ["PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime"]),
        ("COMPLETED", ["PerformedProcedureStepEndTime"]),
        ("DISCONTINUED", ["PerformedProcedureStepEndDate"]),
        ("DISCONTINUED", ["PerformedSeriesSequence"]),
    ],
)
def test_a_step_that_ends_without_all_that_belongs_to_it_has_ended_and_its_modality_is_told(
    served: Served, status: str, lacking: list[str]
) -> None:
    study = place(served)
    end = ended(status, "1.4.1")
    for number, keyword in enumerate(lacking):
        if number:  # there, without a value
            setattr(end, keyword, None)
        else:
            delattr(end, keyword)
    with associated(served, "BEICHENG", MPPS, MPPS_RETRIEVE) as association:
        assert association.send_n_create(begun(study), MPPS, "1.9.1")[0].Status == SUCCESS
        answer, _ = association.send_n_set(end, MPPS, "1.9.1")
        assert (answer.Status, f"{lacking[0]} is missing" in answer.ErrorComment) == (0x0107, True)
        _, told = association.send_n_get([], MPPS_RETRIEVE, "1.9.1")
        assert told.PerformedProcedureStepStatus == status
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        record = next(
            one
            for one in trail.records(access, study=study)
            if one["door"] == "dimse" and one["reason"] == status.lower()
        )
        order = access.session.scalars(select(Order)).one()
    assert record["detail"]["lacking"] == lacking
    assert order.status == status


def test_a_step_is_told_bit_by_bit_and_what_it_began_with_stays(served: Served) -> None:
    with associated(served, "BEICHENG", MPPS, MPPS_RETRIEVE) as association:
        assert association.send_n_create(begun("1.2.1"), MPPS, "1.9.1")[0].Status == SUCCESS
        more = ended("IN PROGRESS", "1.4.1")
        more.PatientID, more.Modality = "P9", "MR"
        answer, _ = association.send_n_set(more, MPPS, "1.9.1")
        assert answer.Status == NOT_ALL_CHANGED
        assert "PatientID" in answer.ErrorComment
        end = Dataset()  # its series are known by now
        end.PerformedProcedureStepStatus = "COMPLETED"
        assert association.send_n_set(end, MPPS, "1.9.1")[0].Status == SUCCESS
        _, told = association.send_n_get([], MPPS_RETRIEVE, "1.9.1")
    assert (told.Modality, told.get("PatientID")) == ("CT", None)
    assert told.PerformedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID == (
        "1.4.1"
    )


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_a_step_is_told_whatever_its_modality_wrote_into_it(served: Served, syntax: str) -> None:
    odd = b"".join(
        [
            element(0x00080005, "CS", "ISO_IR 192"),
            element(0x00080060, "CS", "CT"),
            element(0x00100010, "PN", "王^小东"),
            element(0x00180015, "ZZ", "ab"),  # no VR of the standard's
            element(0x00180050, "DS", "thin"),
            element(0x00189087, "FD", struct.pack("<d", float("nan"))),
            element(0x00201209, "IS", "1.5"),
            element(0x00400241, "AE", "CT1"),
            element(0x00400244, "DA", "20261101"),
            element(0x00400245, "TM", "101500"),
            element(0x00400252, "CS", "IN PROGRESS"),
            element(0x00400253, "SH", "PPS1"),
            sequence(0x00400270, element(0x0020000D, "UI", "1.2.1")),
        ]
    )
    with calling(served.port, (MPPS, (EXPLICIT,)), (MPPS_RETRIEVE, (syntax,))) as modality:
        made = request(CommandField.N_CREATE_RQ, 1, MPPS, "1.9.1", data_set_present=True)
        assert modality.ask(MPPS, made, odd).status == SUCCESS
        context, _ = modality.contexts[MPPS_RETRIEVE]
        asks = request(CommandField.N_GET_RQ, 2, MPPS, "1.9.1")
        modality.send(presented(context, COMMAND | LAST, asks))
        answer, body = modality.message()
    told = {one.tag: bytes(one.value or b"").strip() for one in elements(body, syntax)}
    kept = [told[tag] for tag in (0x00100010, 0x00180050, 0x00201209)]
    assert kept == ["王^小东".encode(), b"thin", b"1.5"]
    assert answer.status == NOT_ALL_CHANGED  # some of it is in no data set as it was sent
    assert answer.error_comment.endswith("(0018,0015)")


def test_a_hospitals_own_count_shows_what_did_not_come(served: Served) -> None:
    day = datetime.now(ZONE).date()
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        ledger.tell(access, day, "PACS", studies=1, instances=5)
        ledger.tell(access, day, "PACS", studies=1, instances=3)
    with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
        (line,) = ledger.lines(access, day, day, timezone=ZONE)
        assert (line.organization, line.counted, line.complete) == ("beicheng", 3, False)
        with pytest.raises(Invalid):
            ledger.lines(access, date(2020, 1, 1), day, timezone=ZONE)
        with pytest.raises(NotFound):
            ledger.lines(access, day, day, timezone=ZONE, organization="nanhu")
    with (
        served.city.exchange.on_behalf_of(served.city.clinician("beicheng")) as access,
        pytest.raises(Refused),
    ):
        ledger.lines(access, day, day, timezone=ZONE)
