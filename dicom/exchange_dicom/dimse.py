"""DIMSE command sets, as PS3.7 sections 6.3, 9.3 and 10.3 and annex E define them.

A command set is always Implicit VR Little Endian and a few hundred bytes long, so it is read and
written here by hand: pydicom's data sets would cost more than everything else in a C-STORE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct

COMMAND_SET_LENGTH = 64 * 1024
"""Bytes of the longest command set taken; real ones have a few hundred."""

SUCCESS = 0x0000
"""The one status that all services share (PS3.7 annex C.1)."""

NO_DATA_SET = 0x0101
"""Command Data Set Type of a message without a data set (PS3.7 E.1); all else means one follows."""

DATA_SET = 0x0001

Value = int | str | tuple[int, ...]

_ELEMENT = Struct("<HHL")
_US = Struct("<H")
_AT = Struct("<HH")
_GROUP_LENGTH = Struct("<HHLL")
_US_ELEMENTS = Struct("<HHLHHHLHHHLHHHLH")


class MalformedCommand(Exception):
    """Bytes that are not a command set of PS3.7; says what does not fit, never the value."""


class CommandField(IntEnum):
    """Which message a command set is (PS3.7 Table E.1-1); a response is its request | 8000H."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_GET_RSP = 0x8110
    N_SET_RQ = 0x0120
    N_SET_RSP = 0x8120
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    N_CREATE_RQ = 0x0140
    N_CREATE_RSP = 0x8140
    N_DELETE_RQ = 0x0150
    N_DELETE_RSP = 0x8150
    C_CANCEL_RQ = 0x0FFF

    @property
    def is_response(self) -> bool:
        """Whether this message answers another."""
        return self >= 0x8000

    @property
    def service(self) -> str:
        """The service whose message this is, as PS3.7 writes it: C-STORE."""
        return self.name.rpartition("_")[0].replace("_", "-")


class Priority(IntEnum):
    """PS3.7 Table E.1-1."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class Element(IntEnum):
    """Command elements, group 0000 (PS3.7 Table E.1-1); the retired ones of E.2 are skipped."""

    COMMAND_GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ATTRIBUTE_IDENTIFIER_LIST = 0x1005
    ACTION_TYPE_ID = 0x1008
    NUMBER_OF_REMAINING_SUBOPERATIONS = 0x1020
    NUMBER_OF_COMPLETED_SUBOPERATIONS = 0x1021
    NUMBER_OF_FAILED_SUBOPERATIONS = 0x1022
    NUMBER_OF_WARNING_SUBOPERATIONS = 0x1023
    MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


E = Element

VR: Mapping[int, str] = {
    E.COMMAND_GROUP_LENGTH: "UL",
    E.AFFECTED_SOP_CLASS_UID: "UI",
    E.REQUESTED_SOP_CLASS_UID: "UI",
    E.COMMAND_FIELD: "US",
    E.MESSAGE_ID: "US",
    E.MESSAGE_ID_BEING_RESPONDED_TO: "US",
    E.MOVE_DESTINATION: "AE",
    E.PRIORITY: "US",
    E.COMMAND_DATA_SET_TYPE: "US",
    E.STATUS: "US",
    E.OFFENDING_ELEMENT: "AT",
    E.ERROR_COMMENT: "LO",
    E.ERROR_ID: "US",
    E.AFFECTED_SOP_INSTANCE_UID: "UI",
    E.REQUESTED_SOP_INSTANCE_UID: "UI",
    E.EVENT_TYPE_ID: "US",
    E.ATTRIBUTE_IDENTIFIER_LIST: "AT",
    E.ACTION_TYPE_ID: "US",
    E.NUMBER_OF_REMAINING_SUBOPERATIONS: "US",
    E.NUMBER_OF_COMPLETED_SUBOPERATIONS: "US",
    E.NUMBER_OF_FAILED_SUBOPERATIONS: "US",
    E.NUMBER_OF_WARNING_SUBOPERATIONS: "US",
    E.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE: "AE",
    E.MOVE_ORIGINATOR_MESSAGE_ID: "US",
}
"""Value representations of the command elements (PS3.7 Table E.1-1)."""

_REQUEST = {E.COMMAND_FIELD, E.MESSAGE_ID, E.COMMAND_DATA_SET_TYPE}
_QUERY = _REQUEST | {E.AFFECTED_SOP_CLASS_UID, E.PRIORITY}
_NOTIFIED = _REQUEST | {E.AFFECTED_SOP_CLASS_UID, E.AFFECTED_SOP_INSTANCE_UID}
_REQUESTED = _REQUEST | {E.REQUESTED_SOP_CLASS_UID, E.REQUESTED_SOP_INSTANCE_UID}
_RESPONSE = {
    E.COMMAND_FIELD,
    E.MESSAGE_ID_BEING_RESPONDED_TO,
    E.COMMAND_DATA_SET_TYPE,
    E.STATUS,
    E.AFFECTED_SOP_CLASS_UID,
    E.ERROR_COMMENT,
}
_N_RESPONSE = _RESPONSE | {E.AFFECTED_SOP_INSTANCE_UID, E.ERROR_ID}
_COUNTED_RESPONSE = _RESPONSE | {
    E.OFFENDING_ELEMENT,
    E.NUMBER_OF_REMAINING_SUBOPERATIONS,
    E.NUMBER_OF_COMPLETED_SUBOPERATIONS,
    E.NUMBER_OF_FAILED_SUBOPERATIONS,
    E.NUMBER_OF_WARNING_SUBOPERATIONS,
}
_MOVED = {E.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, E.MOVE_ORIGINATOR_MESSAGE_ID}

ELEMENTS: Mapping[CommandField, frozenset[Element]] = {
    message: frozenset(elements)
    for message, elements in {
        CommandField.C_STORE_RQ: _QUERY | {E.AFFECTED_SOP_INSTANCE_UID} | _MOVED,
        CommandField.C_STORE_RSP: _RESPONSE | {E.AFFECTED_SOP_INSTANCE_UID, E.OFFENDING_ELEMENT},
        CommandField.C_GET_RQ: _QUERY,
        CommandField.C_GET_RSP: _COUNTED_RESPONSE,
        CommandField.C_FIND_RQ: _QUERY,
        CommandField.C_FIND_RSP: _RESPONSE | {E.OFFENDING_ELEMENT},
        CommandField.C_MOVE_RQ: _QUERY | {E.MOVE_DESTINATION},
        CommandField.C_MOVE_RSP: _COUNTED_RESPONSE,
        CommandField.C_ECHO_RQ: _REQUEST | {E.AFFECTED_SOP_CLASS_UID},
        CommandField.C_ECHO_RSP: _RESPONSE,
        CommandField.N_EVENT_REPORT_RQ: _NOTIFIED | {E.EVENT_TYPE_ID},
        CommandField.N_EVENT_REPORT_RSP: _N_RESPONSE | {E.EVENT_TYPE_ID},
        CommandField.N_GET_RQ: _REQUESTED | {E.ATTRIBUTE_IDENTIFIER_LIST},
        CommandField.N_GET_RSP: _N_RESPONSE | {E.ATTRIBUTE_IDENTIFIER_LIST},
        CommandField.N_SET_RQ: _REQUESTED,
        CommandField.N_SET_RSP: _N_RESPONSE | {E.ATTRIBUTE_IDENTIFIER_LIST},
        CommandField.N_ACTION_RQ: _REQUESTED | {E.ACTION_TYPE_ID},
        CommandField.N_ACTION_RSP: _N_RESPONSE | {E.ACTION_TYPE_ID},
        CommandField.N_CREATE_RQ: _NOTIFIED,
        CommandField.N_CREATE_RSP: _N_RESPONSE,
        CommandField.N_DELETE_RQ: _REQUESTED,
        CommandField.N_DELETE_RSP: _N_RESPONSE,
        CommandField.C_CANCEL_RQ: {
            E.COMMAND_FIELD,
            E.MESSAGE_ID_BEING_RESPONDED_TO,
            E.COMMAND_DATA_SET_TYPE,
        },
    }.items()
}
"""Which elements each message may have, beside its group length (PS3.7 9.3 and 10.3)."""


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Counts of a C-GET or C-MOVE (PS3.7 9.1.3.1). `remaining` is None once there are none to come:
    the final success may not carry it (PS3.4 C.4.2.1.6)."""

    remaining: int | None
    completed: int = 0
    failed: int = 0
    warning: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A command set as received.

    `message_id` is that of the operation: a request's own, or the one a response or C-CANCEL-RQ
    names. `elements` are the values of Table E.1-1 without padding: int for US, str for UI, AE and
    LO, tuples of tags for AT. UIDs are what the peer sent: whether they are valid is for the
    operation to answer. Absent elements read as "" or 0. Comments of peers may name patients, so
    `repr` shows no values.
    """

    command_field: CommandField
    message_id: int
    elements: Mapping[int, Value] = field(repr=False)

    @classmethod
    def decode(cls, body: bytes | bytearray) -> Command:
        """Read a whole command set of at most `COMMAND_SET_LENGTH` bytes.

        Raises MalformedCommand. Unknown and retired elements are skipped; the group length is not
        believed, since the fragments say where the set ends.
        """
        if (store := _store_request(body)) is not None:
            return store
        elements = _decode_elements(body)
        try:
            command_field = CommandField(_required(elements, E.COMMAND_FIELD))
        except ValueError:
            raise MalformedCommand("a command field that Table E.1-1 does not have") from None
        _required(elements, E.COMMAND_DATA_SET_TYPE)
        if command_field.is_response:
            _required(elements, E.STATUS)
        answers = command_field.is_response or command_field is CommandField.C_CANCEL_RQ
        identifier = E.MESSAGE_ID_BEING_RESPONDED_TO if answers else E.MESSAGE_ID
        return cls(command_field, _required(elements, identifier), elements)

    @property
    def data_set_present(self) -> bool:
        """Whether a data set follows."""
        return self.elements[E.COMMAND_DATA_SET_TYPE] != NO_DATA_SET

    @property
    def sop_class(self) -> str:
        """Affected SOP Class UID, or the requested one where the message has that instead."""
        return self._text(E.AFFECTED_SOP_CLASS_UID) or self._text(E.REQUESTED_SOP_CLASS_UID)

    @property
    def sop_instance(self) -> str:
        """Affected SOP Instance UID, or the requested one where the message has that instead."""
        return self._text(E.AFFECTED_SOP_INSTANCE_UID) or self._text(E.REQUESTED_SOP_INSTANCE_UID)

    @property
    def status(self) -> int:
        """Status of a response (PS3.7 annex C)."""
        return self._number(E.STATUS)

    @property
    def priority(self) -> int:
        """A `Priority`, or what the peer sent instead."""
        return self._number(E.PRIORITY)

    @property
    def move_destination(self) -> str:
        """AE title that a C-MOVE-RQ has the instances sent to."""
        return self._text(E.MOVE_DESTINATION)

    @property
    def move_originator(self) -> str:
        """AE title whose C-MOVE-RQ this C-STORE-RQ serves; "" if none."""
        return self._text(E.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE)

    @property
    def move_originator_message_id(self) -> int:
        """Message ID of the C-MOVE-RQ that this C-STORE-RQ serves."""
        return self._number(E.MOVE_ORIGINATOR_MESSAGE_ID)

    @property
    def event_type(self) -> int:
        """Event Type ID of an N-EVENT-REPORT."""
        return self._number(E.EVENT_TYPE_ID)

    @property
    def action_type(self) -> int:
        """Action Type ID of an N-ACTION."""
        return self._number(E.ACTION_TYPE_ID)

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """Tags that an N-GET-RQ asks for; empty means all."""
        tags = self.elements.get(E.ATTRIBUTE_IDENTIFIER_LIST, ())
        return tags if isinstance(tags, tuple) else ()

    @property
    def error_comment(self) -> str:
        """What a response says in words. It may name patients: not for logs."""
        return self._text(E.ERROR_COMMENT)

    @property
    def sub_operations(self) -> SubOperations:
        """Counts in a C-GET-RSP or C-MOVE-RSP."""
        remaining = self.elements.get(E.NUMBER_OF_REMAINING_SUBOPERATIONS)
        return SubOperations(
            remaining if isinstance(remaining, int) else None,
            self._number(E.NUMBER_OF_COMPLETED_SUBOPERATIONS),
            self._number(E.NUMBER_OF_FAILED_SUBOPERATIONS),
            self._number(E.NUMBER_OF_WARNING_SUBOPERATIONS),
        )

    def _text(self, element: Element) -> str:
        value = self.elements.get(element, "")
        return value if isinstance(value, str) else ""

    def _number(self, element: Element) -> int:
        value = self.elements.get(element, 0)
        return value if isinstance(value, int) else 0


def encode(elements: Mapping[Element, Value]) -> bytes:
    """The command set of `elements`, in ascending order behind their group length."""
    parts = []
    for element in sorted(elements):
        value = _encode_value(VR[element], elements[element])
        parts += [_ELEMENT.pack(0, element, len(value)), value]
    body = b"".join(parts)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def response(
    request: Command,
    status: int,
    *,
    data_set_present: bool = False,
    sop_instance: str = "",
    error_comment: str = "",
    error_id: int | None = None,
    offending_elements: Iterable[int] = (),
    sub_operations: SubOperations | None = None,
) -> bytes:
    """The response to `request`, with its SOP class and instance, and its action or event type.

    `sop_instance` stands in where the request named none (N-CREATE). `error_comment` is cut to the
    64 ASCII characters of an LO and must not tell of the patient: it lands in other people's logs.
    `offending_elements` are tags. Counts above 65,535 are sent as that. Raises ValueError if the
    response has no such element.
    """
    message = CommandField(request.command_field | 0x8000)
    echoed: dict[Element, Value] = {
        E.AFFECTED_SOP_CLASS_UID: request.sop_class,
        E.AFFECTED_SOP_INSTANCE_UID: request.sop_instance or sop_instance,
        E.EVENT_TYPE_ID: request.event_type,
        E.ACTION_TYPE_ID: request.action_type,
    }
    given: dict[Element, Value] = {}
    if error_comment:
        text = error_comment.encode("ascii", "replace").decode().replace("\\", "/")
        given[E.ERROR_COMMENT] = "".join(c if c.isprintable() else " " for c in text)[:64]
    if error_id is not None:
        given[E.ERROR_ID] = error_id
    if tags := tuple(offending_elements):
        given[E.OFFENDING_ELEMENT] = tags
    if sub_operations is not None:
        if sub_operations.remaining is not None:
            given[E.NUMBER_OF_REMAINING_SUBOPERATIONS] = min(sub_operations.remaining, 0xFFFF)
        given[E.NUMBER_OF_COMPLETED_SUBOPERATIONS] = min(sub_operations.completed, 0xFFFF)
        given[E.NUMBER_OF_FAILED_SUBOPERATIONS] = min(sub_operations.failed, 0xFFFF)
        given[E.NUMBER_OF_WARNING_SUBOPERATIONS] = min(sub_operations.warning, 0xFFFF)
    allowed = ELEMENTS[message]
    if not given.keys() <= allowed:
        raise ValueError(
            f"{message.name} has no {', '.join(e.name for e in given if e not in allowed)}"
        )
    return encode(
        {element: value for element, value in echoed.items() if value and element in allowed}
        | given
        | {
            E.COMMAND_FIELD: message,
            E.MESSAGE_ID_BEING_RESPONDED_TO: request.message_id,
            E.COMMAND_DATA_SET_TYPE: DATA_SET if data_set_present else NO_DATA_SET,
            E.STATUS: status,
        }
    )


def stored(request: Command) -> bytes:
    """The C-STORE-RSP that says success: `response(request, SUCCESS)`, packed in one go.

    It is sent for every instance that a hospital hands over, at hundreds a second.
    """
    sop_class = _padded(request.sop_class, b"\0")
    sop_instance = _padded(request.sop_instance, b"\0")
    numbers = _US_ELEMENTS.pack(
        *(0, E.COMMAND_FIELD, 2, CommandField.C_STORE_RSP),
        *(0, E.MESSAGE_ID_BEING_RESPONDED_TO, 2, request.message_id),
        *(0, E.COMMAND_DATA_SET_TYPE, 2, NO_DATA_SET),
        *(0, E.STATUS, 2, SUCCESS),
    )
    return b"".join(
        (
            _GROUP_LENGTH.pack(0, 0, 4, 16 + len(sop_class) + len(numbers) + len(sop_instance)),
            _ELEMENT.pack(0, E.AFFECTED_SOP_CLASS_UID, len(sop_class)),
            sop_class,
            numbers,
            _ELEMENT.pack(0, E.AFFECTED_SOP_INSTANCE_UID, len(sop_instance)),
            sop_instance,
        )
    )


def request(
    message: CommandField,
    message_id: int,
    sop_class: str,
    sop_instance: str = "",
    *,
    data_set_present: bool = False,
    priority: Priority = Priority.MEDIUM,
    move_destination: str = "",
    move_originator: tuple[str, int] | None = None,
    event_type: int | None = None,
    action_type: int | None = None,
    attribute_identifiers: Iterable[int] = (),
) -> bytes:
    """A request; SOP class and instance become the affected or requested ones as `message` has it.

    `move_originator` is the AE title and Message ID of the C-MOVE-RQ that a C-STORE-RQ serves.
    Raises ValueError if the message has no such element.
    """
    allowed = ELEMENTS[message]
    requested = E.REQUESTED_SOP_CLASS_UID in allowed
    elements: dict[Element, Value] = {
        E.REQUESTED_SOP_CLASS_UID if requested else E.AFFECTED_SOP_CLASS_UID: sop_class,
        E.COMMAND_FIELD: message,
        E.MESSAGE_ID: message_id,
        E.COMMAND_DATA_SET_TYPE: DATA_SET if data_set_present else NO_DATA_SET,
    }
    if E.PRIORITY in allowed:
        elements[E.PRIORITY] = priority
    if sop_instance:
        named = E.REQUESTED_SOP_INSTANCE_UID if requested else E.AFFECTED_SOP_INSTANCE_UID
        elements[named] = sop_instance
    if move_destination:
        elements[E.MOVE_DESTINATION] = move_destination
    if move_originator is not None:
        elements[E.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE] = move_originator[0]
        elements[E.MOVE_ORIGINATOR_MESSAGE_ID] = move_originator[1]
    if event_type is not None:
        elements[E.EVENT_TYPE_ID] = event_type
    if action_type is not None:
        elements[E.ACTION_TYPE_ID] = action_type
    if tags := tuple(attribute_identifiers):
        elements[E.ATTRIBUTE_IDENTIFIER_LIST] = tags
    if not elements.keys() <= allowed:
        unknown = ", ".join(e.name for e in elements if e not in allowed)
        raise ValueError(f"{message.name} has no {unknown}")
    return encode(elements)


def cancel_request(message_id: int) -> bytes:
    """The C-CANCEL-RQ for the operation begun with `message_id` (PS3.7 9.3.2.3)."""
    return encode(
        {
            E.COMMAND_FIELD: CommandField.C_CANCEL_RQ,
            E.MESSAGE_ID_BEING_RESPONDED_TO: message_id,
            E.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
        }
    )


_STORE_REQUEST = re.compile(
    rb"\0\0\0\0\x04\0\0\0(.{4})"
    rb"\0\0\x02\0(.)\0\0\0([0-9.]{1,64}\0?)"
    rb"\0\0\0\x01\x02\0\0\0\x01\0"
    rb"\0\0\x10\x01\x02\0\0\0(..)"
    rb"\0\0\0\x07\x02\0\0\0(..)"
    rb"\0\0\0\x08\x02\0\0\0(..)"
    rb"\0\0\0\x10(.)\0\0\0([0-9.]{1,64}\0?)",
    re.DOTALL,
)
"""A C-STORE-RQ of a modality (PS3.7 Table 9.3-1), each element in its place."""


def _store_request(body: bytes | bytearray) -> Command | None:
    """What `Command.decode` makes of an ordinary C-STORE-RQ, in a third of the time; else None.

    There is one before each instance.
    """
    found = _STORE_REQUEST.fullmatch(body)
    if found is None:
        return None
    length, class_length, sop_class, message, priority, data, uid_length, uid = found.groups()
    if class_length[0] != len(sop_class) or uid_length[0] != len(uid):
        return None
    message_id = int.from_bytes(message, "little")
    elements: dict[int, Value] = {
        0x0000: int.from_bytes(length, "little"),
        0x0002: sop_class.rstrip(b"\0").decode("ascii"),
        0x0100: 0x0001,
        0x0110: message_id,
        0x0700: int.from_bytes(priority, "little"),
        0x0800: int.from_bytes(data, "little"),
        0x1000: uid.rstrip(b"\0").decode("ascii"),
    }
    return Command(CommandField.C_STORE_RQ, message_id, elements)


def _decode_elements(body: bytes | bytearray) -> dict[int, Value]:
    elements: dict[int, Value] = {}
    start, end = 0, len(body)
    if end > COMMAND_SET_LENGTH:
        raise MalformedCommand("a command set longer than any operation needs")
    while start < end:
        if end - start < _ELEMENT.size:
            raise MalformedCommand("an element header cut short")
        group, element, length = _ELEMENT.unpack_from(body, start)
        start += _ELEMENT.size
        if group:
            raise MalformedCommand("an element outside group 0000")
        if length > end - start:
            raise MalformedCommand(f"element (0000,{element:04X}) longer than the command set")
        vr = VR.get(element)
        if vr is not None:
            if element in elements:
                raise MalformedCommand(f"element (0000,{element:04X}) twice")
            value = _decode_value(vr, bytes(body[start : start + length]))
            if value is None:
                raise MalformedCommand(f"element (0000,{element:04X}) is not a {vr}")
            elements[element] = value
        start += length
    return elements


def _decode_value(vr: str, value: bytes) -> Value | None:
    """The value, or None if it cannot be one of this VR."""
    match vr:
        case "US" | "UL":
            return (
                int.from_bytes(value, "little") if len(value) == (2 if vr == "US" else 4) else None
            )
        case "AT":
            tags = tuple(
                group << 16 | number for group, number in _AT.iter_unpack(value[: len(value) & ~3])
            )
            return tags if len(value) % 4 == 0 else None
        case "LO":
            # A comment ends up before people and in databases: escapes and NULs do not.
            told = value.decode("ascii", "replace")
            return "".join(c if c.isprintable() else " " for c in told).strip()
        case _:
            text = value.decode("latin-1").strip("\0 ")
            return text if text.isascii() and text.isprintable() else None


def _encode_value(vr: str, value: Value) -> bytes:
    match value:
        case int():
            return _US.pack(value)
        case str():
            return _padded(value, b"\0" if vr == "UI" else b" ")
        case _:
            return b"".join(_AT.pack(tag >> 16, tag & 0xFFFF) for tag in value)


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii")
    return value + pad if len(value) & 1 else value


def _required(elements: Mapping[int, Value], element: Element) -> int:
    value = elements.get(element)
    if not isinstance(value, int):
        raise MalformedCommand(f"no element (0000,{element:04X})")
    return value
