"""A DICOM caller on a bare socket, which sends exactly what it is told to, right or wrong."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from exchange_dicom.dimse import Command, CommandField, Element, encode, request
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    RELEASE_RQ,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    PDUType,
    ProposedContext,
    RoleSelection,
    UserIdentity,
    UserInformation,
    p_data_header,
)

PATIENCE = 180
"""Seconds after which the other end is taken for dead."""

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
PATIENT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

SUCCESS = 0x0000

STUDY, SERIES, INSTANCE = "1.2.1", "1.2.1.1", "1.4.1"
"""The UIDs of `image`."""

FRAGMENT = 65536
"""Bytes of a data set in one P-DATA-TF."""


class Hung(Exception):
    """The other end ended the association; `args` tell how."""


class Caller:
    """One association. Contexts are (abstract syntax, transfer syntaxes), numbered 1, 3, 5 …"""

    def __init__(
        self,
        port: int,
        *contexts: tuple[str, Sequence[str]],
        calling: str = "BEICHENG",
        called: str = "EXCHANGE",
        extended: Mapping[str, bytes] | None = None,
        roles: Sequence[RoleSelection] = (),
        identity: UserIdentity | None = None,
    ) -> None:
        """Connect and ask for the association. Raises Hung when it is not accepted, OSError."""
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._messages = 0
        proposed = contexts or ((VERIFICATION, (IMPLICIT,)), (CT, (EXPLICIT,)))
        asked = AssociateRequest(
            called_ae=called,
            calling_ae=calling,
            contexts=tuple(
                ProposedContext(2 * number + 1, abstract, tuple(syntaxes))
                for number, (abstract, syntaxes) in enumerate(proposed)
            ),
            user=UserInformation(
                maximum_length=0,
                implementation_class_uid="1.2.3",
                extended=extended or {},
                roles=tuple(roles),
                identity=identity,
            ),
        )
        try:
            self.send(asked.encode())
            _, body = self.pdu(PDUType.A_ASSOCIATE_AC)
        except BaseException:
            self.socket.close()
            raise
        self.answer = AssociateAccept.decode(body)
        self.contexts = {
            abstract: (one.context_id, one.transfer_syntax)
            for (abstract, _), one in zip(proposed, self.answer.contexts, strict=True)
            if one.result is ContextResult.ACCEPTANCE
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send the bytes as they are."""
        self.socket.sendall(b"".join(parts))

    def pdu(self, due: PDUType) -> tuple[PDUType, bytes]:
        """The next PDU, type and variable field. Raises Hung where it is not of the type due."""
        kind, length = PDU_HEADER.unpack(self._exactly(PDU_HEADER.size))
        body = self._exactly(length)
        match kind:
            case PDUType.A_ABORT:
                raise Hung(Abort.decode(body))
            case PDUType.A_ASSOCIATE_RJ:
                raise Hung(AssociateReject.decode(body))
        assert kind == due, f"PDU {kind:02X} where {due.name} was due"
        return PDUType(kind), body

    def message(self) -> tuple[Command, bytes]:
        """The next message: its command set and its data set. Raises Hung."""
        gathered = {COMMAND: b"", 0: b""}
        command: Command | None = None
        while command is None or command.data_set_present:
            _, body = self.pdu(PDUType.P_DATA_TF)
            at = 0
            while at < len(body):
                length, _, control = PDV_HEADER.unpack_from(body, at)
                gathered[control & COMMAND] += body[at + PDV_HEADER.size : at + 4 + length]
                at += 4 + length
                if control & LAST and control & COMMAND:
                    command = Command.decode(gathered[COMMAND])
                elif control & LAST:
                    assert command is not None
                    return command, gathered[0]
        return command, b""

    def ask(
        self,
        abstract: str,
        command: bytes,
        data: bytes | Iterable[bytes] | None = None,
    ) -> Command:
        """Send one message in the context of `abstract`, and wait for one response."""
        context, _ = self.contexts[abstract]
        self.send(value(context, COMMAND | LAST, command))
        if data is not None:
            for part, last in _marked(data):
                self.send(value(context, LAST if last else 0, part))
        return self.message()[0]

    def echo(self) -> int:
        """The status of a C-ECHO."""
        command = request(CommandField.C_ECHO_RQ, self._next(), VERIFICATION)
        return self.ask(VERIFICATION, command).status

    def store(
        self, data_set: bytes | Iterable[bytes], instance: str, sop_class: str = CT
    ) -> Command:
        """The response to a C-STORE of a data set in the context of its SOP class."""
        command = store_request(self._next(), sop_class, instance)
        return self.ask(sop_class, command, data_set)

    def find(self, identifier: bytes, model: str = STUDY_FIND) -> list[tuple[Command, bytes]]:
        """All responses to a C-FIND, the final one included."""
        command = request(CommandField.C_FIND_RQ, self._next(), model, data_set_present=True)
        context, _ = self.contexts[model]
        self.send(value(context, COMMAND | LAST, command), value(context, LAST, identifier))
        answers = [self.message()]
        while answers[-1][0].status & 0xFF00 == 0xFF00:
            answers.append(self.message())
        return answers

    def release(self) -> None:
        """Release the association as PS3.8 has it, and close the connection."""
        self.send(RELEASE_RQ)
        self.pdu(PDUType.A_RELEASE_RP)
        self.socket.close()

    def hung(self) -> Abort | None:
        """The A-ABORT that must come now; None where the connection was simply closed."""
        try:
            self.message()
        except Hung as hung:
            return hung.args[0] if hung.args else None
        raise AssertionError("the association goes on")

    def _next(self) -> int:
        self._messages = self._messages % 65535 + 1
        return self._messages

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            try:
                more = self.socket.recv(count - len(received))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Hung
            received += more
        return bytes(received)


@contextmanager
def calling(
    port: int, *contexts: tuple[str, Sequence[str]], relational: bool = False
) -> Iterator[Caller]:
    """An association of BEICHENG that is released at the end, unless it has ended already."""
    extended = {STUDY_FIND: b"\1"} if relational else None
    with Caller(port, *contexts, extended=extended) as caller:
        yield caller
        with suppress(Hung, OSError):
            caller.release()


def store_request(message_id: int, sop_class: str, instance: str) -> bytes:
    """A C-STORE-RQ, also one without the UIDs that it must have."""
    named = {Element.AFFECTED_SOP_CLASS_UID: sop_class, Element.AFFECTED_SOP_INSTANCE_UID: instance}
    return encode(
        {element: uid for element, uid in named.items() if uid}
        | {
            Element.COMMAND_FIELD: CommandField.C_STORE_RQ,
            Element.MESSAGE_ID: message_id,
            Element.PRIORITY: 0,
            Element.COMMAND_DATA_SET_TYPE: 1,
        }
    )


def value(context_id: int, control: int, part: bytes) -> bytes:
    """A P-DATA-TF of one presentation data value."""
    return p_data_header(context_id, control, len(part)) + part


def element(tag: int, vr: str, content: bytes | str) -> bytes:
    """A data element in Explicit VR Little Endian."""
    body = content.encode() if isinstance(content, str) else content
    body += (b"\0" if vr in {"UI", "OB"} else b" ") * (len(body) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    long = vr in {"OB", "OW", "SQ", "UN", "UT"}
    return head + struct.pack("<HL" if long else "<H", *((0,) if long else ()), len(body)) + body


def image(*elements: bytes, pixels: bytes = b"", **named: str) -> bytes:
    """The data set of a CT slice; `named` replaces its UIDs and patient, "" leaves one out.

    `elements` come before the element `pixels`, as they are.
    """
    uids = {"sop_class": CT, "instance": INSTANCE, "study": STUDY, "series": SERIES}
    uids |= {"patient": "P1"} | named
    told: list[tuple[int, str, str | bytes]] = [
        (0x00080005, "CS", "GB18030"),
        (0x00080016, "UI", uids["sop_class"]),
        (0x00080018, "UI", uids["instance"]),
        (0x00080020, "DA", "20261101"),
        (0x00080060, "CS", "CT"),
        (0x00100010, "PN", "Wang^XiaoDong=王^小东".encode("gb18030")),
        (0x00100020, "LO", uids["patient"]),
        (0x0020000D, "UI", uids["study"]),
        (0x0020000E, "UI", uids["series"]),
        (0x00200013, "IS", "1"),
    ]
    body = b"".join(element(tag, vr, content) for tag, vr, content in told if content)
    return body + b"".join(elements) + (pixels or element(0x7FE00010, "OW", bytes(4096)))


def identifier(*keys: tuple[int, str, str], level: str = "STUDY", text: str = "utf-8") -> bytes:
    """A C-FIND identifier in Explicit VR Little Endian."""
    told = [*keys, (0x00080052, "CS", level)] if level else list(keys)
    return b"".join(element(tag, vr, content.encode(text)) for tag, vr, content in sorted(told))


def _marked(data: bytes | Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The parts of a data set as they go into P-DATA-TFs, and whether each is the last."""
    if isinstance(data, bytes):
        data = [data[at : at + FRAGMENT] for at in range(0, len(data), FRAGMENT)] or [b""]
    parts = iter(data)
    part = next(parts)
    for following in parts:
        yield part, False
        part = following
    yield part, True
