"""What hospitals ask of each other, and the answers: PS3.7 sections 9.3 and 10.3, annex E."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pynetdicom.dimse_messages import _COMMAND_SET_KEYWORDS

from exchange_dicom import dimse
from exchange_dicom.dimse import (
    COMMAND_SET_LENGTH,
    ELEMENTS,
    NO_DATA_SET,
    SUCCESS,
    VR,
    Command,
    CommandField,
    Element,
    MalformedCommand,
    Priority,
    SubOperations,
    Value,
    cancel_request,
    encode,
    request,
    response,
    stored,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
COMMITMENT = "1.2.840.10008.1.20.1"
OUT_OF_RESOURCES = 0xA700

uids = st.lists(st.integers(1, 10**8), min_size=2, max_size=6).map(
    lambda numbers: ".".join(map(str, numbers))
)
shorts = st.integers(0, 0xFFFF)
values: dict[str, st.SearchStrategy[Value]] = {
    "US": shorts,
    "UI": uids,
    "AE": st.text("ABCDEFGH_", min_size=1, max_size=16),
    "LO": st.text("abc def", max_size=64).map(str.strip),
    "AT": st.lists(st.integers(0, 0xFFFFFFFF), max_size=5).map(tuple),
}


@st.composite
def command_sets(draw: st.DrawFn) -> dict[Element, Value]:
    """All the elements of any message."""
    message = draw(st.sampled_from(CommandField))
    drawn = {element: draw(values[VR[element]]) for element in sorted(ELEMENTS[message])}
    return drawn | {Element.COMMAND_FIELD: message}


def store(instance: str = "1.2.3", message_id: int = 7) -> Command:
    return Command.decode(
        request(CommandField.C_STORE_RQ, message_id, CT, instance, data_set_present=True)
    )


def test_every_command_field_says_which_elements_its_message_has() -> None:
    assert set(ELEMENTS) == set(CommandField)
    assert set(VR) == set(Element)


@pytest.mark.parametrize("message", CommandField)
def test_our_tables_agree_with_another_reading_of_the_standard(message: CommandField) -> None:
    theirs = _COMMAND_SET_KEYWORDS[message.name.replace("_", "-")]
    ours = {keyword_for_tag(element) for element in ELEMENTS[message]} | {"CommandGroupLength"}
    assert ours == set(theirs)


@pytest.mark.parametrize("element", Element)
def test_every_element_has_the_value_representation_of_the_dictionary(element: Element) -> None:
    assert dictionary_VR(int(element)) == VR[element]
    assert tag_for_keyword(keyword_for_tag(int(element))) == element


@given(command_sets())
def test_a_command_is_read_as_it_was_written(elements: dict[Element, Value]) -> None:
    command = Command.decode(encode(elements))
    assert command.elements.items() >= elements.items()
    assert command.command_field == elements[Element.COMMAND_FIELD]


@given(command_sets())
def test_pydicom_reads_the_commands_we_write(elements: dict[Element, Value]) -> None:
    written = encode(elements)
    read = dcmread(BytesIO(written), force=True)
    assert read.original_encoding == (True, True)  # implicit VR, little endian
    assert read[0x00000000].value == len(written) - 12
    for element, value in elements.items():
        if isinstance(value, int | str) and value != "":
            assert read[int(element)].value == value


@given(command_sets(), st.data())
def test_a_command_damaged_on_the_way_is_malformed_or_still_a_command(
    elements: dict[Element, Value], data: st.DataObject
) -> None:
    damaged = bytearray(encode(elements))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for broken in (damaged, damaged[: data.draw(st.integers(0, len(damaged)))]):
        with contextlib.suppress(MalformedCommand):
            command = Command.decode(broken)
            assert isinstance(command.sop_class, str)
            assert isinstance(command.sub_operations, SubOperations)
            assert isinstance(command.attribute_identifiers, tuple)


@given(st.binary(max_size=100))
def test_noise_is_malformed_or_a_command(noise: bytes) -> None:
    with contextlib.suppress(MalformedCommand):
        Command.decode(noise)


ECHO = request(CommandField.C_ECHO_RQ, 1, "1.2.840.10008.1.1")

MALFORMED = {
    "nothing": b"",
    "no command field": encode({Element.MESSAGE_ID: 1, Element.COMMAND_DATA_SET_TYPE: 0x101}),
    "a command field that there is not": ECHO.replace(b"\x30\x00", b"\x31\x00"),
    "no message id": encode({Element.COMMAND_FIELD: 0x30, Element.COMMAND_DATA_SET_TYPE: 0x101}),
    "no data set type": encode({Element.COMMAND_FIELD: 0x30, Element.MESSAGE_ID: 1}),
    "a response without status": encode(
        {
            Element.COMMAND_FIELD: 0x8030,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: 1,
            Element.COMMAND_DATA_SET_TYPE: 0x101,
        }
    ),
    "an element twice": ECHO + b"\0\0\x10\x01\2\0\0\0\1\0",
    "an element of the data set": ECHO + b"\x10\0\x10\0\2\0\0\0AB",
    "an element longer than the set": ECHO + b"\0\0\x01\x10\x09\0\0\0",
    "a header cut short": ECHO + b"\0\0\x01",
    "a number of four bytes": ECHO + b"\0\0\0\x09\4\0\0\0\0\0\0\0",
    "a tag of three bytes": ECHO + b"\0\0\x05\x10\3\0\0\0abc",
    "a UID with a line break": ECHO + b"\0\0\0\x10\4\0\0\0001\n.2",
    "a set without end": ECHO + b"\0\0\0\x40\0\0\1\0" + bytes(COMMAND_SET_LENGTH),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_a_command_is_called_malformed(what: str) -> None:
    with pytest.raises(MalformedCommand):
        Command.decode(MALFORMED[what])


def test_retired_elements_and_a_wrong_group_length_are_read_past() -> None:
    command = Command.decode(b"\0\0\0\0\4\0\0\0\1\0\0\0" + ECHO[12:] + b"\0\0\0\x40\2\0\0\0AB")
    assert command.command_field is CommandField.C_ECHO_RQ


@given(uids, uids, shorts)
def test_the_quick_answer_to_a_store_is_the_ordinary_one(
    sop_class: str, instance: str, message_id: int
) -> None:
    asked = Command.decode(request(CommandField.C_STORE_RQ, message_id, sop_class, instance))
    assert stored(asked) == response(asked, SUCCESS)


@given(uids, uids, shorts, shorts, shorts, st.data())
def test_a_store_that_is_read_at_once_is_the_one_read_element_by_element(
    sop_class: str, instance: str, message_id: int, priority: int, kind: int, data: st.DataObject
) -> None:
    sent = encode(
        {
            Element.AFFECTED_SOP_CLASS_UID: sop_class,
            Element.COMMAND_FIELD: CommandField.C_STORE_RQ,
            Element.MESSAGE_ID: message_id,
            Element.PRIORITY: priority,
            Element.COMMAND_DATA_SET_TYPE: kind,
            Element.AFFECTED_SOP_INSTANCE_UID: instance,
        }
    )
    read = dimse._store_request(sent)
    assert read is not None
    assert read.elements == dimse._decode_elements(sent)
    assert read == Command.decode(bytearray(sent))
    damaged = bytearray(sent)
    damaged[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    if (read := dimse._store_request(damaged)) is not None:
        assert read.elements == dimse._decode_elements(damaged)


def test_a_store_on_behalf_of_a_move_says_who_asked() -> None:
    sent = request(
        CommandField.C_STORE_RQ,
        9,
        CT,
        "1.2.3",
        data_set_present=True,
        priority=Priority.HIGH,
        move_originator=("PACS_B", 4),
    )
    command = Command.decode(sent)
    assert (command.sop_class, command.sop_instance, command.message_id) == (CT, "1.2.3", 9)
    assert (command.move_originator, command.move_originator_message_id) == ("PACS_B", 4)
    assert command.priority == Priority.HIGH
    assert command.data_set_present


def test_an_action_is_asked_of_the_requested_and_answered_for_the_affected() -> None:
    asked = Command.decode(
        request(CommandField.N_ACTION_RQ, 3, COMMITMENT, "1.2.840.10008.1.20.1.1", action_type=1)
    )
    assert Element.REQUESTED_SOP_CLASS_UID in asked.elements
    answer = Command.decode(response(asked, SUCCESS))
    assert answer.command_field is CommandField.N_ACTION_RSP
    assert answer.elements[Element.AFFECTED_SOP_CLASS_UID] == COMMITMENT
    assert (answer.message_id, answer.action_type, answer.status) == (3, 1, SUCCESS)
    assert not answer.data_set_present


def test_an_event_report_names_its_type() -> None:
    report = Command.decode(
        request(CommandField.N_EVENT_REPORT_RQ, 5, COMMITMENT, "1.2.3", event_type=2)
    )
    assert (report.event_type, report.sop_instance) == (2, "1.2.3")
    assert Command.decode(response(report, SUCCESS)).event_type == 2


def test_a_move_counts_what_remains_only_while_something_does() -> None:
    asked = Command.decode(
        request(CommandField.C_MOVE_RQ, 1, STUDY_MOVE, move_destination="VIEWER")
    )
    assert asked.move_destination == "VIEWER"
    pending = SubOperations(remaining=70000, completed=2)
    final = SubOperations(remaining=None, completed=3, failed=1)
    counts = [
        Command.decode(response(asked, status, sub_operations=given)).sub_operations
        for status, given in ((0xFF00, pending), (0xB000, final))
    ]
    assert counts == [SubOperations(0xFFFF, 2), final]


def test_a_comment_is_cut_to_what_an_lo_holds() -> None:
    long = "无法保存: out of room\n\\" + "x" * 100
    answer = Command.decode(
        response(store(), OUT_OF_RESOURCES, error_comment=long, offending_elements=[0x00080018])
    )
    assert answer.error_comment.startswith("????: out of room /xxx")
    assert len(answer.error_comment) == 64
    assert answer.elements[Element.OFFENDING_ELEMENT] == (0x00080018,)


def test_a_comment_that_would_move_the_readers_cursor_is_only_text() -> None:
    said = response(store(), OUT_OF_RESOURCES, error_comment="no room at this node.")
    said = said.replace(b"no room at", b"no\x1b[2Jm\0at")
    assert Command.decode(said).error_comment == "no [2Jm at this node."


def test_an_answer_cannot_say_what_its_message_has_no_element_for() -> None:
    with pytest.raises(ValueError, match="NUMBER_OF_COMPLETED"):
        response(store(), SUCCESS, sub_operations=SubOperations(None))
    with pytest.raises(ValueError, match="MOVE_DESTINATION"):
        request(CommandField.C_FIND_RQ, 1, STUDY_MOVE, move_destination="VIEWER")


def test_a_cancel_names_the_operation_it_ends() -> None:
    cancel = Command.decode(cancel_request(12))
    assert (cancel.command_field, cancel.message_id) == (CommandField.C_CANCEL_RQ, 12)
    assert cancel.elements[Element.COMMAND_DATA_SET_TYPE] == NO_DATA_SET


def test_a_command_shows_no_values_in_a_log() -> None:
    answer = Command.decode(response(store(), OUT_OF_RESOURCES, error_comment="ZHANG SAN"))
    assert "ZHANG" not in repr(answer)
