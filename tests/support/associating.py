"""An acceptor with an archive behind it, and a peer that sends it right and wrong: PS3.8."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from exchange_dicom import dimse
from exchange_dicom.association import Association, Message
from exchange_dicom.dimse import Command, CommandField, request, response, stored
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import Accepted, Conduct, Peer, TransferSyntaxes, select_contexts
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    AbortReason,
    AbortSource,
    AssociateReject,
    AssociateRequest,
    PDUType,
    ProposedContext,
    UserInformation,
    p_data_header,
)
from exchange_dicom.states import AssociationEnded

VERIFICATION = "1.2.840.10008.1.1"
CT = str(CTImageStorage)
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"

SUPPORTED = {
    VERIFICATION: TransferSyntaxes((EXPLICIT, IMPLICIT)),
    CT: TransferSyntaxes((EXPLICIT, IMPLICIT, JPEG_LOSSLESS), proposer_chooses=True),
    STUDY_FIND: TransferSyntaxes((EXPLICIT, IMPLICIT)),
    STUDY_GET: TransferSyntaxes((EXPLICIT, IMPLICIT)),
}
PATIENCE = 180
"""Seconds after which a test has failed; no test passes or fails by how long something took."""

DATA = 0
"""The control header of a fragment of a data set that is not its last."""

IMPATIENT = Conduct(artim_timeout=0.4, network_timeout=0.4, pdu_timeout=0.4)

Handle = Callable[[Association], None]


@dataclass
class Archive:
    """A handler that answers echoes, keeps the digests of what is stored, and how it all ended."""

    digests: dict[str, str] = field(default_factory=dict)
    requests: list[AssociateRequest] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    endings: queue.Queue[AssociationEnded | None] = field(default_factory=queue.Queue)
    decision: AssociateReject | None = None
    under_way: threading.Event = field(default_factory=threading.Event)

    def decide(self, request: AssociateRequest, peer: Peer) -> Accepted | AssociateReject:
        self.requests.append(request)
        self.peers.append(peer)
        return self.decision or Accepted(
            contexts=select_contexts(request.contexts, SUPPORTED.get),
            roles=request.user.roles,
            extended={STUDY_FIND: b"\1\0\0"} if STUDY_FIND in request.user.extended else {},
            identity_response=b"welcome" if request.user.identity else None,
        )

    def __call__(self, association: Association) -> None:
        try:
            if association.negotiate(self.decide):
                for message in association.messages():
                    self.answer(association, message)
        except AssociationEnded as ended:
            self.endings.put(ended)
            raise
        self.endings.put(None)

    def answer(self, association: Association, message: Message) -> None:
        if message.data is not None:
            digest = hashlib.sha256()
            for piece in message.data.pieces():
                self.under_way.set()
                digest.update(piece)
            self.digests[message.command.sop_instance] = digest.hexdigest()
            association.send(message.context.context_id, stored(message.command))
        else:
            answer = response(message.command, dimse.SUCCESS)
            association.send(message.context.context_id, answer)

    def ending(self) -> AssociationEnded | None:
        return self.endings.get(timeout=PATIENCE)


@contextlib.contextmanager
def accepting(handle: Handle, *hosts: str, **options: Any) -> Iterator[Acceptor]:
    acceptor = Acceptor([(host, 0) for host in hosts or ("127.0.0.1",)], handle, **options)
    thread = threading.Thread(target=acceptor.serve_forever)
    thread.start()
    try:
        yield acceptor
    finally:
        acceptor.stop(PATIENCE)
        thread.join(PATIENCE)


class RawPeer:
    """A peer that sends what it is told to, right or wrong."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count and (more := self.socket.recv(count - len(received))):
            received += more
        return received

    def pdu(self) -> tuple[int, bytes] | None:
        """Type and variable field of the next PDU; None once the acceptor closed."""
        try:
            header = self.exactly(PDU_HEADER.size)
        except ConnectionResetError:
            return None
        if not header:
            return None
        kind, length = PDU_HEADER.unpack(header)
        return kind, self.exactly(length)

    def message(self) -> tuple[Command, bytes]:
        """The next message's command, and its data."""
        command, data, parsed = b"", b"", None
        while True:
            pdu = self.pdu()
            assert pdu is not None
            assert pdu[0] == PDUType.P_DATA_TF
            _, _, control = PDV_HEADER.unpack_from(pdu[1])
            if control & COMMAND:
                command += pdu[1][6:]
                if control & LAST:
                    parsed = Command.decode(command)
            else:
                data += pdu[1][6:]
            if control & LAST and parsed and (not parsed.data_set_present or not control & COMMAND):
                return parsed, data

    def associate(self, *contexts: ProposedContext, maximum_length: int = 0) -> None:
        self.send(request_pdu(*contexts, maximum_length=maximum_length))
        answer = self.pdu()
        assert answer is not None
        assert answer[0] == PDUType.A_ASSOCIATE_AC

    def aborted(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that must come now, before the connection closes."""
        pdu = self.pdu()
        assert pdu is not None
        assert pdu[0] == PDUType.A_ABORT
        assert self.pdu() is None
        return pdu[1][2], pdu[1][3]


def request_pdu(*contexts: ProposedContext, maximum_length: int = 0) -> bytes:
    proposed = contexts or (
        ProposedContext(1, VERIFICATION, (IMPLICIT,)),
        ProposedContext(3, CT, (EXPLICIT,)),
        ProposedContext(5, STUDY_FIND, (IMPLICIT,)),
    )
    return AssociateRequest(
        called_ae="EXCHANGE",
        calling_ae="RAW_PEER",
        contexts=proposed,
        user=UserInformation(maximum_length=maximum_length, implementation_class_uid="1.2.3"),
    ).encode()


def fragment(context_id: int, control: int, value: bytes) -> bytes:
    return p_data_header(context_id, control, len(value)) + value


def echo(message_id: int = 1) -> bytes:
    command = request(CommandField.C_ECHO_RQ, message_id, VERIFICATION)
    return fragment(1, COMMAND | LAST, command)


def store_command(instance: str = "1.2.3") -> bytes:
    command = request(CommandField.C_STORE_RQ, 2, CT, instance, data_set_present=True)
    return fragment(3, COMMAND | LAST, command)


def find_command(message_id: int) -> bytes:
    command = request(CommandField.C_FIND_RQ, message_id, STUDY_FIND, data_set_present=True)
    return fragment(5, COMMAND | LAST, command)


def image(instance: str, size: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = instance
    dataset.add_new(0x00091001, "OB", os.urandom(size))
    return dataset


def abort_of(reason: AbortReason) -> tuple[int, int]:
    return AbortSource.SERVICE_PROVIDER, reason
