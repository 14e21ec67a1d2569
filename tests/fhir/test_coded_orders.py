"""By the codes of a request a modality chooses its protocol: FHIR codes on the worklist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_door import Door, opened
from pydicom import Dataset
from pynetdicom import AE
from serving import Served, serving

from exchange import orders
from exchange.orders import Placed
from exchange_dicom.contexts import MODALITY_WORKLIST_FIND as WORKLIST
from exchange_dicom.worklist import coded
from exchange_fhir.coding_schemes import SYSTEMS, UIDS, codes

MODALITY = SYSTEMS["DCM"]
OWN = "urn:oid:2.25.101.7"
PROCEDURE, PROTOCOL = "RequestedProcedureCodeSequence", "ScheduledProtocolCodeSequence"
STEP, SCHEMES = "ScheduledProcedureStepSequence", "CodingSchemeIdentificationSequence"
SUPPORTED, NOT_SUPPORTED = 0xFF00, 0xFF01
CHEST = {"system": SYSTEMS["LN"], "code": "24627-2", "display": "CT Chest"}
PLAIN = {"system": OWN, "code": "CT-CHEST-PLAIN", "display": "胸部平扫"}


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    with serving(tmp_path, database_url=database_url) as made:
        made.city.send("beicheng", patient="P1", AccessionNumber="A0")
        yield made


@pytest.fixture
def door(served: Served) -> Door:
    return opened(served.city)


def request(*codings: dict[str, Any], number: str = "A1", **told: Any) -> dict[str, Any]:
    """A CT of beicheng's patient P1, with these codes of the procedure."""
    accession = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"type": {"coding": [accession]}, "value": number}],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": MODALITY, "code": "CT"}]}],
        "code": {"coding": list(codings), "text": "胸部CT平扫"},
        "subject": {"reference": "Patient/1"},
        "occurrenceDateTime": "2026-11-27T09:30:00+08:00",
    } | told


def item(**told: str) -> Dataset:
    made = Dataset()
    for keyword, value in told.items():
        setattr(made, keyword, value)
    return made


def asked(
    procedure: Dataset | None = None,
    protocol: Dataset | None = None,
    declared: str = "ISO_IR 192",
    **step: str,
) -> Dataset:
    """What a modality asks for; of the sequences all where it gives no item."""
    identifier = item(SpecificCharacterSet=declared, AccessionNumber="", AdmissionID="")
    identifier.RequestedProcedureCodeSequence = [] if procedure is None else [procedure]
    identifier.CodingSchemeIdentificationSequence = []
    within = item(ScheduledProcedureStepLocation="", ScheduledProcedureStepID="", **step)
    within.ScheduledProtocolCodeSequence = [] if protocol is None else [protocol]
    identifier.ScheduledProcedureStepSequence = [within]
    return identifier


def worklist(
    served: Served, identifier: Dataset, supported: int = SUPPORTED, syntax: str | None = None
) -> list[Dataset]:
    entity = AE("BEICHENG")
    entity.add_requested_context(WORKLIST, syntax)
    association = entity.associate("127.0.0.1", served.port, ae_title="EXCHANGE")
    assert association.is_established
    answers = list(association.send_c_find(identifier, WORKLIST))
    association.release()
    assert answers.pop()[0].Status == 0
    assert {status.Status for status, _ in answers} <= {supported}
    return [match for _, match in answers if match is not None]


def told(sequence: Any) -> list[dict[str, Any]]:
    return [{one.keyword: one.value for one in found} for found in sequence]


def code(value: str, scheme: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def test_a_modality_is_told_the_codes_of_the_procedure_and_of_its_protocols(
    served: Served, door: Door
) -> None:
    detail = [
        {"coding": [{"system": MODALITY, "code": "CT"}]},
        {"coding": [{"system": OWN, "code": "P-17", "display": "低剂量"}]},
        {"coding": [{"system": SYSTEMS["SCT"], "code": "399331006", "version": "2026-03"}]},
    ]
    door.system("beicheng").made(request(CHEST, PLAIN, orderDetail=detail))

    (entry,) = worklist(served, asked())

    # one concept is one item; the other code of it means the same
    (procedure,) = entry.RequestedProcedureCodeSequence
    (same,) = told(procedure.EquivalentCodeSequence)
    assert same == code("CT-CHEST-PLAIN", "L", "胸部平扫")
    del procedure.EquivalentCodeSequence
    assert told([procedure]) == [code("24627-2", "LN", "CT Chest")]
    (step,) = entry.ScheduledProcedureStepSequence
    assert told(step.ScheduledProtocolCodeSequence) == [
        code("P-17", "L", "低剂量"),
        code("399331006", "SCT", "399331006") | {"CodingSchemeVersion": "2026-03"},
    ]
    assert told(entry.CodingSchemeIdentificationSequence) == [
        {"CodingSchemeDesignator": "L", "CodingSchemeUID": "2.25.101.7"}
    ]


def test_the_protocol_is_that_of_the_procedure_where_none_is_named(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    modality = {"system": MODALITY, "code": "CT", "display": "Computed Tomography"}
    made = hospital.made(request(modality, CHEST))
    (entry,) = worklist(served, asked())
    (step,) = entry.ScheduledProcedureStepSequence
    assert told(step.ScheduledProtocolCodeSequence) == [code("24627-2", "LN", "CT Chest")]
    assert entry.RequestedProcedureCodeSequence[0].CodeValue == "24627-2"

    # a change brings its codes, and an order of nothing but a modality names no protocol
    changed = made | {"code": {"coding": [modality]}}
    assert hospital.send("PUT", f"ServiceRequest/{made['id']}", changed).status_code == 200
    (entry,) = worklist(served, asked())
    assert told(entry.RequestedProcedureCodeSequence) == [code("CT", "DCM", "Computed Tomography")]
    (step,) = entry.ScheduledProcedureStepSequence
    assert told(step.ScheduledProtocolCodeSequence) == []


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        *(
            ({"system": system, "code": "X1", "display": "d"}, code("X1", designator, "d"))
            for designator in SYSTEMS
            for system in (SYSTEMS[designator], f"urn:oid:{UIDS[designator]}")
        ),
        ({"code": "X1"}, code("X1", "L", "胸部CT平扫")),
        ({"system": "99BEICHENG", "code": "X1"}, code("X1", "99BEICHENG", "胸部CT平扫")),
        (
            {"system": OWN, "code": "C" * 17, "display": "d"},
            {"LongCodeValue": "C" * 17, "CodingSchemeDesignator": "L", "CodeMeaning": "d"},
        ),
        ({"system": OWN, "code": "C" * 16, "display": "d"}, code("C" * 16, "L", "d")),
        (
            {"system": "urn:ietf:rfc:3986", "code": "urn:oid:2.25.1", "display": "d"},
            {"URNCodeValue": "urn:oid:2.25.1", "CodeMeaning": "d"},
        ),
        (
            {"system": OWN, "code": "X1", "display": "两\n行\\" + "长" * 99, "version": "v" * 17},
            code("X1", "L", "两 行/" + "长" * 60),
        ),
        ({"system": OWN, "code": "a\\b"}, None),
        ({"system": OWN, "code": "x" * 256}, None),
        ({"display": "no code"}, None),
    ],
)
def test_a_code_of_fhir_is_written_as_dicom_has_it(
    coding: dict[str, str], expected: dict[str, str] | None
) -> None:
    found = codes({"coding": [coding], "text": "胸部CT平扫"})
    assert [coded(one) for one in found] == ([] if expected is None else [expected])


def test_a_coding_scheme_of_the_hospitals_own_is_told_by_its_uri_if_it_is_one(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    url = "https://beicheng.example.cn/procedures"
    made = hospital.made(request(PLAIN | {"system": url}))
    (entry,) = worklist(served, asked())
    (scheme,) = entry.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "L"
    assert told(scheme.CodingSchemeResourcesSequence) == [
        {"CodingSchemeURLType": "FHIR", "CodingSchemeURL": url}
    ]
    both = made | {"code": {"coding": [PLAIN, PLAIN | {"system": url}]}}
    hospital.send("PUT", f"ServiceRequest/{made['id']}", both)
    (entry,) = worklist(served, asked())
    assert told(entry.CodingSchemeIdentificationSequence) == []


def test_the_code_that_somebody_chose_comes_first(served: Served, door: Door) -> None:
    door.system("beicheng").made(request(CHEST, PLAIN | {"userSelected": True}))
    (entry,) = worklist(served, asked())
    assert entry.RequestedProcedureCodeSequence[0].CodeValue == "CT-CHEST-PLAIN"


def test_a_worklist_is_narrowed_by_the_code_of_a_procedure_or_protocol(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    detail = [{"coding": [{"system": OWN, "code": one}]} for one in ("P-17", "P-18")]
    hospital.made(request(CHEST, orderDetail=detail))
    hospital.made(request(CHEST | {"system": OWN}, number="A2"))
    hospital.made(request(number="A3", code={"text": "头颅CT"}))

    def found(procedure: Dataset | None = None, protocol: Dataset | None = None) -> list[str]:
        return [str(one.AccessionNumber) for one in worklist(served, asked(procedure, protocol))]

    assert found(item(CodeValue="24627-2")) == ["A1", "A2"]
    assert found(item(CodeValue="24627-2", CodingSchemeDesignator="LN")) == ["A1"]
    assert found(item(CodeValue="24*", CodingSchemeDesignator="L", CodeMeaning="")) == ["A2"]
    assert found(protocol=item(CodeValue="P-18", CodingSchemeDesignator="L")) == ["A1"]
    assert found(protocol=item(CodeValue="P-18", CodingSchemeDesignator="LN")) == []
    assert found(item(CodeValue="24627-2"), item(CodeValue="P-17")) == ["A1"]
    assert found(item(CodeValue="", CodingSchemeDesignator="")) == ["A1", "A2", "A3"]
    assert found(Dataset(), Dataset()) == ["A1", "A2", "A3"]


def test_of_an_item_is_returned_what_is_asked_for_in_whichever_form_its_value_has(
    served: Served, door: Door
) -> None:
    long = {"system": OWN, "code": "CT-CHEST-LOW-DOSE", "display": "低剂量"}
    door.system("beicheng").made(request(CHEST, orderDetail=[{"coding": [long]}]))
    wanted = item(CodeValue="", CodingSchemeDesignator="")
    (entry,) = worklist(served, asked(wanted, wanted))
    assert told(entry.RequestedProcedureCodeSequence) == [
        {"CodeValue": "24627-2", "CodingSchemeDesignator": "LN"}
    ]
    (step,) = entry.ScheduledProcedureStepSequence
    assert told(step.ScheduledProtocolCodeSequence) == [
        {"LongCodeValue": "CT-CHEST-LOW-DOSE", "CodingSchemeDesignator": "L"}
    ]
    long_ones = asked(protocol=item(LongCodeValue="CT-CHEST*"))
    assert len(worklist(served, long_ones)) == 1
    unknown = asked(protocol=item(ContextIdentifier=""))
    assert len(worklist(served, unknown, NOT_SUPPORTED)) == 1


@pytest.mark.parametrize(
    ("declared", "answered"),
    [("GB18030", "GB18030"), ("GBK", "GBK"), ("ISO_IR 100", "ISO_IR 192")],
)
def test_the_meaning_of_a_code_is_in_the_character_set_that_the_modality_asked_in(
    served: Served, door: Door, declared: str, answered: str
) -> None:
    door.system("beicheng").made(request(PLAIN))
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"):
        (entry,) = worklist(served, asked(declared=declared), syntax=syntax)
        assert entry.SpecificCharacterSet == answered
        (step,) = entry.ScheduledProcedureStepSequence
        for sequence in (entry.RequestedProcedureCodeSequence, step.ScheduledProtocolCodeSequence):
            assert told(sequence) == [code("CT-CHEST-PLAIN", "L", "胸部平扫")]


@pytest.mark.parametrize("of_appointment", [False, True], ids=["request", "appointment"])
@pytest.mark.parametrize("kept", [False, True], ids=["contained", "registered"])
def test_a_room_is_called_as_its_location_is(
    served: Served, door: Door, kept: bool, of_appointment: bool
) -> None:
    """What a reference shows comes before that; and the modality itself is no room."""
    hospital = door.system("beicheng")
    place = {"resourceType": "Location", "name": "影像中心3号室"}
    modality = {"identifier": {"system": "urn:dicom:ae-title", "value": "CT1"}, "display": "CT 1"}

    def told(**beside: str) -> dict[str, Any]:
        if kept:
            return {"reference": f"Location/{hospital.made(place)['id']}"} | beside
        return {"reference": "#room"} | beside

    def room() -> str:
        (entry,) = worklist(served, asked())
        return str(entry.ScheduledProcedureStepSequence[0].ScheduledProcedureStepLocation)

    beside: dict[str, Any] = {} if kept else {"contained": [place | {"id": "room"}]}
    if of_appointment:
        made = hospital.made(request(CHEST))
        hospital.made(
            {
                "resourceType": "Appointment",
                "status": "booked",
                "basedOn": [{"reference": f"ServiceRequest/{made['id']}"}],
                "start": "2026-11-30T14:00:00+08:00",
                "end": "2026-11-30T14:20:00+08:00",
                "participant": [
                    {"actor": {"reference": "Patient/1"}, "status": "accepted"},
                    {"actor": told(), "status": "accepted"},
                ],
                **beside,
            }
        )
        assert room() == "影像中心3号室"
        return
    made = hospital.made(request(CHEST, locationReference=[modality, told()], **beside))
    assert room() == "影像中心3号室"
    again = request(CHEST, locationReference=[told(display="急诊CT室")], **beside)
    again |= {"id": made["id"], "resourceType": "ServiceRequest"}
    assert hospital.send("PUT", f"ServiceRequest/{made['id']}", again).status_code == 200
    assert room() == "急诊CT室"


def test_a_modality_is_told_the_room_and_the_visit_that_the_request_names(
    served: Served, door: Door
) -> None:
    hospital = door.system("beicheng")
    made = hospital.made(
        request(
            CHEST,
            locationReference=[{"display": "门诊楼二层CT室"}],
            encounter={"identifier": {"value": "ZY0017"}},
        )
    )
    (entry,) = worklist(served, asked())
    assert entry.AdmissionID == "ZY0017"
    (step,) = entry.ScheduledProcedureStepSequence
    assert step.ScheduledProcedureStepLocation == "门诊楼二层CT室"

    room = asked()
    room.ScheduledProcedureStepSequence[0].ScheduledProcedureStepLocation = "门诊*"
    room.AdmissionID = "ZY0017"
    assert len(worklist(served, room)) == 1
    room.AdmissionID = "ZY0018"
    assert worklist(served, room) == []

    hospital.made(
        {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [{"reference": f"ServiceRequest/{made['id']}"}],
            "start": "2026-11-30T14:00:00+08:00",
            "end": "2026-11-30T14:20:00+08:00",
            "participant": [
                {"actor": {"reference": "Patient/1"}, "status": "accepted"},
                {"actor": {"type": "Location", "display": "急诊CT室"}, "status": "accepted"},
            ],
        }
    )
    (entry,) = worklist(served, asked())
    (step,) = entry.ScheduledProcedureStepSequence
    assert step.ScheduledProcedureStepLocation == "急诊CT室"


def test_no_request_fills_the_index_with_codes(served: Served, door: Door) -> None:
    many = [{"system": OWN, "code": f"C{number}"} for number in range(40)]
    detail = [{"coding": many} for _ in range(40)]
    door.system("beicheng").made(request(*many, orderDetail=detail))
    (entry,) = worklist(served, asked())
    (step,) = entry.ScheduledProcedureStepSequence
    assert len(step.ScheduledProtocolCodeSequence) == 16
    for one in (entry.RequestedProcedureCodeSequence[0], step.ScheduledProtocolCodeSequence[15]):
        assert len(one.EquivalentCodeSequence) == 7


def test_what_is_changed_by_hand_to_another_procedure_has_not_the_codes_of_the_first(
    served: Served, door: Door
) -> None:
    door.system("beicheng").made(request(CHEST))
    for said, count in (("胸部CT平扫", 1), ("头颅CT", 0)):
        placed = Placed(
            patient_id="P1",
            accession_number="A1",
            modality="CT",
            scheduled_date="20261128",
            procedure_description=said,
        )
        with served.city.exchange.on_behalf_of(served.city.system("beicheng")) as access:
            orders.place(access, placed)
        (entry,) = worklist(served, asked())
        assert len(entry.RequestedProcedureCodeSequence) == count
