"""What reads bytes from a network, one function each, and what it may answer to any bytes at all.

A `Target` is fed inputs made from its sound ones. Whatever it raises beyond `declared` is found.
"""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import zlib
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from typing import Self

import corpus
from caller import (
    CT,
    EXPLICIT,
    IMPLICIT,
    STUDY_FIND,
    VERIFICATION,
    element,
    identifier,
    image,
    store_request,
    value,
)
from target import Target

from exchange.errors import Invalid, TooLarge
from exchange_dicom import data_set, dimse, header, instance, multipart, part10
from exchange_dicom.association import Association
from exchange_dicom.character_sets import determine
from exchange_dicom.contexts import FIND_LEVELS
from exchange_dicom.dimse import CommandField, MalformedCommand
from exchange_dicom.header import DataSetError
from exchange_dicom.identifier import Identifier
from exchange_dicom.negotiation import Accepted, Conduct, Peer, TransferSyntaxes, select_contexts
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    PDU_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    Abort,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    MalformedPDU,
    ProposedContext,
    RejectReason,
    RoleSelection,
    UserIdentity,
    UserIdentityType,
    UserInformation,
)
from exchange_dicom.requestor import Requested
from exchange_dicom.states import AssociationEnded, TimedOut
from exchange_storage.search import Level

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"

SMALL = 40_000
"""Bytes of the longest file of the corpus that is damaged; in longer ones little would be."""

CONDUCT = Conduct(artim_timeout=10, network_timeout=10, pdu_timeout=10)
"""Far longer than anything takes here: all that is sent lies in the socket before it is read."""


class Dawdled(Exception):
    """An association waited for a peer that had said all, and closed."""


USER = UserInformation(
    maximum_length=65536,
    implementation_class_uid="1.2.3",
    implementation_version="PACS_9",
    asynchronous=(1, 1),
    roles=(RoleSelection(CT, scu=False, scp=True), RoleSelection("1.2.9", scu=True, scp=True)),
    extended={STUDY_FIND: b"\1\0\1"},
    identity=UserIdentity(UserIdentityType.USERNAME_AND_PASSCODE, True, b"wang", b"secret"),
)
REQUESTS = (
    AssociateRequest(
        called_ae="EXCHANGE",
        calling_ae="BEICHENG",
        contexts=(
            ProposedContext(1, CT, (EXPLICIT, IMPLICIT)),
            ProposedContext(3, STUDY_FIND, (EXPLICIT,)),
            ProposedContext(5, VERIFICATION, (IMPLICIT,)),
        ),
        user=USER,
    ),
    AssociateRequest(
        called_ae="EXCHANGE",
        calling_ae="BEICHENG",
        contexts=tuple(ProposedContext(2 * n + 1, CT, (EXPLICIT,)) for n in range(128)),
        user=UserInformation(),
    ),
)
ACCEPTS = tuple(
    AssociateAccept(
        echoed=bytes(64),
        contexts=tuple(
            AnsweredContext(one.context_id, ContextResult.ACCEPTANCE, one.transfer_syntaxes[0])
            for one in asked.contexts
        ),
        user=UserInformation(
            implementation_class_uid="1.2.3", roles=USER.roles, identity_response=b"welcome"
        ),
    )
    for asked in REQUESTS
)

COMMANDS = (
    store_request(1, CT, "1.4.1"),
    dimse.request(CommandField.C_FIND_RQ, 2, STUDY_FIND, data_set_present=True),
    dimse.request(
        CommandField.C_MOVE_RQ,
        3,
        "1.2.840.10008.5.1.4.1.2.2.2",
        data_set_present=True,
        move_destination="BEICHENG",
    ),
    dimse.cancel_request(3),
    dimse.request(CommandField.N_ACTION_RQ, 4, "1.2.840.10008.1.20.1", "1.2.3", action_type=1),
    dimse.request(
        CommandField.N_GET_RQ, 5, "1.2.3", "1.2.4", attribute_identifiers=(0x00100010, 0x00100020)
    ),
    dimse.response(
        dimse.Command.decode(
            dimse.request(CommandField.C_MOVE_RQ, 3, "1.2", move_destination="BEICHENG")
        ),
        0xB000,
        sub_operations=dimse.SubOperations(0, 4, 1, 2),
        error_comment="one of them is too large",
    ),
    dimse.stored(dimse.Command.decode(store_request(1, CT, "1.4.1"))),
)

KEYS = tuple(
    identifier(
        (0x00080005, "CS", declared),
        (0x00100010, "PN", "Wang*=王*"),
        (0x00100020, "LO", "P1"),
        (0x0020000D, "UI", ""),
    )
    for declared in ("ISO_IR 192", "GB18030", "\\ISO 2022 IR 58", "")
)


def pdu_body(pdu: bytes) -> bytes:
    """The variable field of a PDU."""
    return pdu[PDU_HEADER.size :]


def read_command(body: bytes) -> None:
    """Read a command set as an acceptor does, and answer it."""
    command = dimse.Command.decode(body)
    read = (command.sop_class, command.sop_instance, command.status, command.priority)
    assert all(isinstance(one, str | int) for one in read)
    assert repr(command)
    named = (command.move_destination, command.move_originator, command.error_comment)
    assert all("\0" not in one for one in named)
    assert command.sub_operations.completed >= 0
    assert command.attribute_identifiers is not None
    if not command.command_field.is_response and command.command_field in dimse.ELEMENTS:
        if command.command_field is not CommandField.C_CANCEL_RQ:
            dimse.response(command, 0xC000, error_comment="no")
        if command.command_field is CommandField.C_STORE_RQ:
            part10.file_meta(command.sop_class, command.sop_instance, EXPLICIT)
            dimse.stored(command)


def read_file(file: bytes) -> None:
    """Read a file as STOW-RS does."""
    reader = io.BytesIO(file)
    meta = part10.read_file_meta(reader)
    read_header(file[meta.data_set_offset :], meta.transfer_syntax_uid)


def read_header(body: bytes, transfer_syntax_uid: str) -> None:
    """Read the indexed attributes of a data set, and check what the index relies on."""
    found = header.read(io.BytesIO(body), transfer_syntax_uid, instance.WANTED)
    told = instance.received(found, transfer_syntax_uid)
    for text in (*told.attributes.values(), *(one for pair in told.identifiers for one in pair)):
        assert "\0" not in text
        text.encode()  # a database takes no lone surrogates


def read_deflated(body: bytes) -> None:
    """Read a data set that was damaged before it was deflated: the stream itself is sound."""
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    stream = deflate.compress(body) + deflate.flush()
    read_header(stream, DEFLATED)
    read_elements(stream, DEFLATED)


def read_elements(body: bytes, transfer_syntax_uid: str) -> None:
    """Read a data set as it is sent out: walked, written anew in both forms, told as JSON."""
    if transfer_syntax_uid == DEFLATED:
        data_set.check(data_set.Inflated([body], 1 << 20), EXPLICIT)
    else:
        data_set.check(lambda start, count: body[start : start + count], transfer_syntax_uid)
    found = list(data_set.elements(body, transfer_syntax_uid))
    b"".join(data_set.explicit(found))
    b"".join(data_set.implicit(found))
    data_set.to_json(found, determine("GB18030", ()))


def read_identifier(raw: bytes, transfer_syntax_uid: str) -> None:
    """Read the identifier of a C-FIND or C-MOVE, and answer it in what its asker reads."""
    asked = Identifier.read(raw, transfer_syntax_uid)
    explicit = transfer_syntax_uid == EXPLICIT
    levels = FIND_LEVELS[STUDY_FIND]
    answer = asked.answer(ANSWER, levels, Level.STUDY, "EXCHANGE", explicit=explicit)
    list(data_set.elements(answer, transfer_syntax_uid))
    asked.level(levels, relational=False)


def read_parts(body: bytes, boundary: str) -> None:
    """Read a multipart body that comes in pieces of a size that depends on it."""
    size = len(body) % 97 + 1
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    for part in multipart.parts(pieces, boundary):
        assert all(isinstance(name, str) for name in part.fields)
        for piece in part.pieces:
            assert piece


class Wire:
    """Connections over loopback: what one end says is all there before the other reads it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def connect(self, said: bytes) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection; the first has said `said`, and that it has said all."""
        near = socket.create_connection(self._listener.getsockname())
        far, _ = self._listener.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near.settimeout(CONDUCT.artim_timeout)
        with contextlib.suppress(OSError):
            near.sendall(said)
            near.shutdown(socket.SHUT_WR)
        return near, far

    def accept(self, said: bytes) -> None:
        """An acceptor hears `said`, answers what it understands, and closes."""
        near, far = self.connect(said)
        with near, far:
            association = Association(far, PEER, CONDUCT)
            try:
                if association.negotiate(accepted):
                    for message in association.messages():
                        if message.data is not None:
                            for _ in message.data.pieces():
                                pass
                        if not message.command.command_field.is_response:
                            answer = dimse.response(message.command, dimse.SUCCESS)
                            association.send(message.context.context_id, answer)
            except TimedOut:
                raise Dawdled from None
            finally:
                association.close()

    def request(self, answered: bytes) -> None:
        """A requestor asks, is `answered`, sends an image and releases."""
        near, far = self.connect(answered)
        with near, far:
            association = Requested(far, PEER, CONDUCT)
            try:
                association.ask(REQUESTS[0])
                if (context := association.context_for(CT)) is not None:
                    number = association.next_message_id()
                    association.send(context.context_id, store_request(number, CT, "1.4.1"), IMAGE)
                    message = association.next_response(number)
                    assert message.command.command_field.is_response
                association.release()
            except TimedOut:
                raise Dawdled from None
            finally:
                association.close()


ANSWER = {
    "PatientName": "Wang^XiaoDong=王^小东",
    "PatientID": "P1",
    "StudyInstanceUID": "1.2.1",
    "ModalitiesInStudy": "CT",
}
PEER = Peer(IPv4Address("127.0.0.1"), 11112)
IMAGE = image()


def accepted(request: AssociateRequest, _peer: Peer) -> Accepted | AssociateReject:
    """Take everything."""
    known = TransferSyntaxes((EXPLICIT, IMPLICIT))
    return Accepted(
        contexts=select_contexts(request.contexts, lambda _: known),
        roles=request.user.roles,
        extended=request.user.extended,
        identity_response=b"" if request.user.identity is not None else None,
    )


def conversation() -> bytes:
    """All that a sender says once it was accepted: image, question, cancel, echo, release."""
    return b"".join(
        (
            value(1, COMMAND | LAST, COMMANDS[0]),
            value(1, 0, IMAGE[:500]),
            value(1, LAST, IMAGE[500:]),
            value(3, COMMAND, COMMANDS[1][:40]),
            value(3, COMMAND | LAST, COMMANDS[1][40:]),
            value(3, LAST, KEYS[0]),
            value(3, COMMAND | LAST, dimse.cancel_request(2)),
            value(5, COMMAND | LAST, dimse.request(CommandField.C_ECHO_RQ, 3, VERIFICATION)),
            RELEASE_RQ,
        )
    )


def replies() -> tuple[bytes, ...]:
    """All that an acceptor says to `Wire.request`."""
    success = value(1, COMMAND | LAST, COMMANDS[-1])
    return (
        ACCEPTS[0].encode() + success + RELEASE_RP,
        ACCEPTS[0].encode() + success + RELEASE_RQ + RELEASE_RP,
        AssociateReject(RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED).encode(),
        ACCEPTS[0].encode() + Abort(2, 1).encode(),
    )


def files() -> list[tuple[bytes, int, str]]:
    """Files of the corpus, where their data set begins, and in which transfer syntax."""
    found: list[tuple[bytes, int, str]] = []
    for one in corpus.files():
        content = one.content()
        if len(content) > SMALL:
            continue
        with contextlib.suppress(DataSetError):
            meta = part10.read_file_meta(io.BytesIO(content))
            found.append((content, meta.data_set_offset, meta.transfer_syntax_uid))
    return found


def data_sets(uid: str) -> list[bytes]:
    """Data sets of the corpus that are written as those of the transfer syntax are."""
    alike: Callable[[str], bool]
    if uid == EXPLICIT:
        alike = lambda told: told not in (IMPLICIT, DEFLATED, BIG_ENDIAN)  # noqa: E731
    else:
        alike = lambda told: told == uid  # noqa: E731
    found = [content[start:] for content, start, told in files() if alike(told)]
    if uid == EXPLICIT:
        nested = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 20
        numbers = element(0x00100020, "LO", "A-17") + element(0x00100022, "CS", "TEXT")
        item = b"\xfe\xff\0\xe0" + struct.pack("<L", len(numbers)) + numbers
        found += [IMAGE, nested, element(0x00101002, "SQ", item) + IMAGE]
    return found


def targets(wire: Wire) -> list[Target]:
    """Everything that reads bytes from a network."""
    asked, agreed, spoken = REQUESTS[0].encode(), ACCEPTS[0].encode(), conversation()
    bodies = [b"".join((multipart.head({"Content-Type": "application/dicom"}, "b"), IMAGE)) * 3]
    bodies += [b"preamble\r\n" + bodies[0] + multipart.tail("b"), bodies[0] + multipart.tail("b")]
    files_read = [content for content, _, _ in files()]
    images = [IMAGE, *(content[start:] for content, start, uid in files() if uid == EXPLICIT)]
    made = [
        Target(
            "A-ASSOCIATE-RQ",
            [pdu_body(one.encode()) for one in REQUESTS],
            AssociateRequest.decode,
            (MalformedPDU,),
        ),
        Target(
            "A-ASSOCIATE-AC",
            [pdu_body(one.encode()) for one in ACCEPTS],
            AssociateAccept.decode,
            (MalformedPDU,),
        ),
        Target(
            "A-ASSOCIATE-RJ",
            [pdu_body(AssociateReject(reason).encode()) for reason in RejectReason],
            AssociateReject.decode,
            (MalformedPDU,),
        ),
        Target("A-ABORT", [pdu_body(Abort(2, 1).encode())], Abort.decode, (MalformedPDU,)),
        Target("command sets", COMMANDS, read_command, (MalformedCommand,)),
        Target("files", files_read, read_file, (DataSetError,)),
        Target("deflated after", images, read_deflated, (DataSetError,)),
        Target("multipart", bodies, partial(read_parts, boundary="b"), (Invalid, TooLarge)),
        Target("associations accepted", [asked + spoken], wire.accept, (AssociationEnded,)),
        Target(
            "P-DATA accepted",
            [spoken],
            lambda said: wire.accept(asked + said),
            (AssociationEnded,),
        ),
        Target("associations requested", replies(), wire.request, (AssociationEnded,)),
        Target(
            "P-DATA requested",
            [one.removeprefix(agreed) for one in replies() if one.startswith(agreed)],
            lambda said: wire.request(agreed + said),
            (AssociationEnded,),
        ),
    ]
    for name, uid in (
        ("explicit", EXPLICIT),
        ("implicit", IMPLICIT),
        ("deflated", DEFLATED),
        ("big endian", BIG_ENDIAN),
    ):
        sound = data_sets(uid)
        made += [
            Target(f"{name} headers", sound, partial(read_header, transfer_syntax_uid=uid), _BAD),
            Target(
                f"{name} elements", sound, partial(read_elements, transfer_syntax_uid=uid), _BAD
            ),
        ]
    made += [
        Target(
            f"{name} identifiers",
            KEYS if uid == EXPLICIT else [as_implicit(one) for one in KEYS],
            partial(read_identifier, transfer_syntax_uid=uid),
            (Invalid,),
        )
        for name, uid in (("explicit", EXPLICIT), ("implicit", IMPLICIT))
    ]
    return made


def as_implicit(body: bytes) -> bytes:
    """A data set in Explicit VR, in Implicit VR."""
    return b"".join(data_set.implicit(data_set.elements(body, EXPLICIT)))


_BAD = (DataSetError,)
