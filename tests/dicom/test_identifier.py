"""What a query's identifier asks for, and what of an answer it gets (PS3.4 C.2.2.2, C.4.1.1.3)."""

from __future__ import annotations

import io
import struct

import pytest
from caller import EXPLICIT, IMPLICIT, element
from caller import identifier as written
from pydicom.filereader import read_dataset

from exchange.errors import Invalid
from exchange_dicom.identifier import ELEMENTS, Identifier
from exchange_storage.search import Level

LEVELS = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
OTHER_IDS = 0x00101002


def sequence(tag: int, *items: bytes) -> bytes:
    return element(
        tag, "SQ", b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(i)) + i for i in items)
    )


def asked(*elements: bytes) -> Identifier:
    return Identifier.read(b"".join(elements), EXPLICIT)


def test_the_item_of_a_sequence_is_matched_and_narrows_what_is_returned() -> None:
    question = asked(sequence(OTHER_IDS, element(0x00100020, "LO", "C7")))

    assert question.keys == (("OtherPatientIDsSequence.PatientID", "C7"),)
    told = {"OtherPatientIDsSequence": [{"PatientID": "C7", "IssuerOfPatientID": "2.25.102"}]}
    assert question.narrowed(told) == {"OtherPatientIDsSequence": [{"PatientID": "C7"}]}


def test_an_item_within_an_item_is_matched_and_narrows_what_is_returned() -> None:
    code = element(0x00080100, "SH", "P-17")
    step = sequence(0x00400100, element(0x00080060, "CS", "CT") + sequence(0x00400008, code))
    question = asked(step)

    within = "ScheduledProcedureStepSequence.ScheduledProtocolCodeSequence"
    assert (f"{within}.CodeValue", "P-17") in question.keys
    told = {"CodeValue": "P-17", "CodeMeaning": "低剂量"}
    (narrowed,) = question.narrowed(
        {
            "ScheduledProcedureStepSequence": [
                {"Modality": "CT", "ScheduledProtocolCodeSequence": [told], "PreMedication": ""}
            ]
        }
    ).values()
    assert narrowed == [
        {"Modality": "CT", "ScheduledProtocolCodeSequence": [{"CodeValue": "P-17"}]}
    ]
    assert question.lacks({"ScheduledProcedureStepSequence"}, {within: {"CodeMeaning"}})
    with pytest.raises(Invalid, match=f"{within} must have one item"):
        asked(sequence(0x00400100, sequence(0x00400008, code, code)))


@pytest.mark.parametrize("items", [(), (b"",)], ids=["no item", "an empty item"])
def test_a_sequence_without_keys_matches_all_and_is_returned_whole(
    items: tuple[bytes, ...],
) -> None:
    question = asked(sequence(OTHER_IDS, *items))

    assert question.keys == ()
    told = {"OtherPatientIDsSequence": [{"PatientID": "C7", "IssuerOfPatientID": "2.25.102"}]}
    assert question.narrowed(told) == told


def test_a_sequence_of_two_items_matches_nothing_that_could_be_meant() -> None:
    with pytest.raises(Invalid, match="OtherPatientIDsSequence must have one item"):
        asked(sequence(OTHER_IDS, b"", b""))


def test_the_character_set_and_the_time_zone_say_how_to_read_and_are_not_matched() -> None:
    question = asked(
        element(0x00080005, "CS", "GB18030"),
        element(0x00080054, "AE", "OTHER"),
        element(0x00080201, "SH", "+0800"),
        element(0x00100010, "PN", "王小东".encode("gb18030")),
    )
    assert question.keys == (("PatientName", "王小东"),)
    assert question.wanted == {"PatientName"}


def test_padding_does_not_count_nor_does_what_pads_each_value() -> None:
    question = asked(
        element(0x00080050, "SH", " A1 "),
        element(0x0020000D, "UI", b"1.2.1\0"),
        element(0x0020000E, "UI", b"1.2.1.1\\1.2.1.2\0"),
        element(0x00280010, "US", struct.pack("<H", 512)),
    )
    assert dict(question.keys) == {
        "AccessionNumber": "A1",
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.1.1\\1.2.1.2",
        "Rows": "512",
    }


def test_implicit_vr_reads_the_same() -> None:
    keys = ((0x00100010, b"Wang^*"), (0x0020000D, b"1.2.1\0"))
    implicit = b"".join(struct.pack("<HHL", t >> 16, t & 0xFFFF, len(v)) + v for t, v in keys)
    assert Identifier.read(implicit, IMPLICIT) == asked(
        element(0x00100010, "PN", "Wang^*"), element(0x0020000D, "UI", "1.2.1")
    )


def test_an_attribute_that_nobody_knows_is_lacking_and_a_private_creator_is_not() -> None:
    assert not asked(element(0x00110010, "LO", "ACME")).lacks((), {})
    assert asked(element(0x00111001, "LO", "")).lacks((), {})
    assert not asked(element(0x00100000, "UL", bytes(4)), element(0x00100010, "PN", "")).lacks(
        {"PatientName"}, {}
    )
    inside = asked(sequence(OTHER_IDS, element(0x00400032, "UT", "")))
    assert inside.lacks({"OtherPatientIDsSequence"}, {"OtherPatientIDsSequence": {"PatientID"}})


def test_what_a_caller_repeats_of_a_command_or_a_file_is_no_key() -> None:
    # Orthanc asks with the file meta element that it was answered with; no data set has it.
    question = asked(
        element(0x00000002, "UI", "1.2.3"),
        element(0x00020003, "UI", "1.4.1"),
        element(0x00041511, "UI", "1.4.1"),
        element(0x00080018, "UI", "1.4.1"),
    )
    assert question.keys == (("SOPInstanceUID", "1.4.1"),)
    assert question.lacks({"SOPInstanceUID"}, {})


def test_more_elements_than_anybody_asks_for_are_refused() -> None:
    with pytest.raises(Invalid, match=f"more than {ELEMENTS} elements"):
        asked(*(element(0x00090000 | number, "LO", "") for number in range(0x1000, 0x1000 + 513)))


def test_the_unique_keys_above_are_single_values_unless_relational() -> None:
    given = {Level.PATIENT: (0x00100020, "LO", "P1"), Level.STUDY: (0x0020000D, "UI", "1.2.1")}
    for level, keys in (
        (Level.STUDY, given.values()),
        (Level.SERIES, given.values()),
        (Level.STUDY, [given[Level.PATIENT]]),
    ):
        question = Identifier.read(written(*keys, level=level.name), EXPLICIT)
        assert question.level(LEVELS, relational=False) is level
    for level, keys in (
        (Level.STUDY, [given[Level.STUDY]]),
        (Level.SERIES, [given[Level.PATIENT]]),
        (Level.SERIES, [given[Level.PATIENT], (0x0020000D, "UI", "1.2.1\\1.2.2")]),
        (Level.SERIES, [(0x00100020, "LO", "P*"), given[Level.STUDY]]),
        (Level.IMAGE, given.values()),
    ):
        question = Identifier.read(written(*keys, level=level.name), EXPLICIT)
        with pytest.raises(Invalid, match="must be given as a single value"):
            question.level(LEVELS, relational=False)
        assert question.level(LEVELS, relational=True) is level


def test_an_answer_holds_what_is_wanted_and_no_more() -> None:
    question = asked(element(0x00100010, "PN", ""), element(0x00104000, "LT", ""))
    body = question.answer(
        {"PatientName": "Wang^XiaoDong", "PatientSex": "F"},
        (Level.STUDY,),
        Level.STUDY,
        "EXCHANGE",
        explicit=True,
    )
    told = read_dataset(io.BytesIO(body), False, True)
    assert {one.keyword: one.value for one in told} == {
        "QueryRetrieveLevel": "STUDY",
        "RetrieveAETitle": "EXCHANGE",
        "PatientName": "Wang^XiaoDong",
    }
