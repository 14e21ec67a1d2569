"""Hospitals open associations with the exchange, over real sockets: PS3.8 sections 7 and 9.2."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import hashlib
import ipaddress
import os
import queue
import resource
import socket
import ssl
import struct
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation

from exchange_dicom import dimse
from exchange_dicom.association import Association, Message, TooLarge
from exchange_dicom.connection import TOLERANCE
from exchange_dicom.dimse import Command, CommandField, request, response, stored
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import (
    Accepted,
    Conduct,
    Peer,
    TransferSyntaxes,
    select_contexts,
)
from exchange_dicom.part10 import file_meta
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    PDU_HEADER,
    PDV_HEADER,
    RELEASE_RP,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    AnsweredContext,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    PDUType,
    ProposedContext,
    RejectReason,
    RoleSelection,
    UserInformation,
    p_data_header,
)
from exchange_dicom.states import (
    TRANSITIONS,
    Action,
    AssociationAborted,
    AssociationEnded,
    AssociationLost,
    AssociationStopped,
    Event,
    ProtocolViolation,
    State,
    TimedOut,
)

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
PATIENCE = 20
"""Seconds after which a test has failed; no test passes or fails by how long something took."""

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


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def port(archive: Archive) -> Iterator[int]:
    with accepting(archive) as acceptor:
        yield acceptor.addresses[0][1]


@pytest.fixture
def impatient_port(archive: Archive) -> Iterator[int]:
    with accepting(archive, conduct=IMPATIENT) as acceptor:
        yield acceptor.addresses[0][1]


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


# Contexts


@pytest.mark.parametrize(
    ("proposed", "supported", "result", "chosen"),
    [
        ((IMPLICIT, EXPLICIT), TransferSyntaxes((EXPLICIT, IMPLICIT)), 0, EXPLICIT),
        ((IMPLICIT, EXPLICIT), TransferSyntaxes((EXPLICIT, IMPLICIT), True), 0, IMPLICIT),
        ((JPEG_LOSSLESS, EXPLICIT), TransferSyntaxes((EXPLICIT,), True), 0, EXPLICIT),
        ((JPEG_LOSSLESS,), TransferSyntaxes((EXPLICIT,)), 4, JPEG_LOSSLESS),
        ((), TransferSyntaxes((EXPLICIT,)), 4, IMPLICIT),
        ((EXPLICIT,), None, 3, EXPLICIT),
    ],
)
def test_a_context_is_answered_by_what_both_sides_know(
    proposed: tuple[str, ...], supported: TransferSyntaxes | None, result: int, chosen: str
) -> None:
    answers = select_contexts([ProposedContext(7, CT, proposed)], {CT: supported}.get)
    assert answers == (AnsweredContext(7, ContextResult(result), chosen),)


# Foreign peers


@pytest.mark.parametrize("tool_environment", [{"TCP_NODELAY": "1"}, {}], ids=["nodelay", "nagle"])
def test_dcmtk_echoes_and_stores(
    archive: Archive, port: int, tmp_path: Path, tool_environment: dict[str, str]
) -> None:
    environment = os.environ | tool_environment
    subprocess.run(
        ["/usr/bin/echoscu", "--repeat", "3", "127.0.0.1", str(port)], check=True, env=environment
    )
    instances = [f"1.2.3.{number}" for number in range(3)]
    for instance in instances:
        dataset = image(instance, 300_000)
        dataset.save_as(tmp_path / f"{instance}.dcm", enforce_file_format=True)
    subprocess.run(
        ["/usr/bin/storescu", "+sd", "127.0.0.1", str(port), str(tmp_path)],
        check=True,
        env=environment,
    )
    assert sorted(archive.digests) == instances
    assert [archive.ending(), archive.ending()] == [None, None]


@pytest.mark.parametrize("size", [10, 20_000_000])
@pytest.mark.parametrize("maximum_length", [0, 4096, 131072])
def test_what_pynetdicom_stores_arrives_whole(
    archive: Archive, port: int, size: int, maximum_length: int
) -> None:
    entity = AE("HOSPITAL_A")
    entity.maximum_pdu_size = maximum_length
    entity.add_requested_context(CT, EXPLICIT)
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port)
    dataset = image("1.2.3", size)
    assert association.send_c_echo().Status == dimse.SUCCESS
    assert association.send_c_store(dataset).Status == dimse.SUCCESS
    association.release()
    assert association.is_released
    assert archive.ending() is None
    encoded = dataset[0x00091001].value
    expected = hashlib.sha256()
    for tag, vr, value in (
        (0x00080016, b"UI", CT.encode() + b"\0"),
        (0x00080018, b"UI", b"1.2.3\0"),
    ):
        expected.update(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value)
    expected.update(struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, len(encoded)) + encoded)
    assert archive.digests["1.2.3"] == expected.hexdigest()


def test_roles_extended_negotiation_and_identity_are_seen_and_answered(
    archive: Archive, port: int
) -> None:
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = STUDY_FIND
    extended.service_class_application_information = b"\1\1\1"
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.positive_response_requested = True
    identity.primary_field = b"wang"
    identity.secondary_field = b"geheim"
    entity = AE("HOSPITAL_A")
    contexts = [build_context(STUDY_FIND), build_context(CT)]
    association = entity.associate(
        "127.0.0.1",
        port,
        contexts=contexts,
        ae_title="EXCHANGE",
        ext_neg=[build_role(CT, scp_role=True), extended, identity],
    )
    assert association.is_established
    assert association.acceptor.role_selection[CTImageStorage].scp_role
    assert association.acceptor.sop_class_extended == {STUDY_FIND: b"\1\0\0"}
    assert association.acceptor.user_identity is not None
    assert association.acceptor.user_identity.server_response == b"welcome"
    association.release()
    (seen,) = archive.requests
    assert (seen.called_ae, seen.calling_ae) == ("EXCHANGE", "HOSPITAL_A")
    assert seen.user.roles == (RoleSelection(CT, scu=False, scp=True),)
    assert seen.user.extended == {STUDY_FIND: b"\1\1\1"}
    assert seen.user.identity is not None
    assert (seen.user.identity.primary, seen.user.identity.secondary) == (b"wang", b"geheim")
    assert archive.peers[0].address == ipaddress.ip_address("127.0.0.1")


def test_the_exchange_calls_itself_the_same_to_a_peer_and_in_kept_files(port: int) -> None:
    entity = AE("HOSPITAL_A")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port)
    association.release()
    told = association.acceptor
    kept = dcmread(BytesIO(file_meta(CT, "1.2.3", EXPLICIT))).file_meta
    assert told.implementation_class_uid == kept.ImplementationClassUID
    assert told.implementation_version_name == "IMAGING_EXCHANGE"


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("reason", RejectReason)
def test_a_peer_sees_why_it_is_rejected(
    archive: Archive, port: int, reason: RejectReason, transient: bool
) -> None:
    archive.decision = AssociateReject(reason, transient)
    entity = AE("STRANGER")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port)
    assert association.is_rejected
    seen = association.acceptor.primitive
    assert seen is not None
    assert (seen.result_source, seen.diagnostic) == reason.value
    assert seen.result == (2 if transient else 1)
    assert archive.ending() is None


def test_an_exchange_that_sends_images_back_on_the_same_association(archive: Archive) -> None:
    """C-GET: sub-operations travel from the acceptor to the requestor."""
    sent = {f"1.2.3.{number}": os.urandom(200_000) for number in range(3)}

    def get(association: Association) -> None:
        assert association.negotiate(archive.decide)
        for message in association.messages():
            assert message.data is not None
            assert len(message.data.read(4096)) > 0
            (storage,) = (c for c in association.contexts.values() if c.abstract_syntax == CT)
            completed = 0
            for number, (instance, pixels) in enumerate(sent.items(), 100):
                command = request(
                    CommandField.C_STORE_RQ, number, CT, instance, data_set_present=True
                )
                header = struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, len(pixels))
                association.send(
                    storage.context_id, command, iter((header[:5], header[5:], pixels))
                )
                completed += association.next_response(number).command.status == dimse.SUCCESS
            counts = dimse.SubOperations(None, completed)
            final = response(message.command, dimse.SUCCESS, sub_operations=counts)
            association.send(message.context.context_id, final)

    received: dict[str, bytes] = {}

    def keep(event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        received[str(event.request.AffectedSOPInstanceUID)] = event.dataset[0x00091001].value
        return dimse.SUCCESS

    with accepting(get) as acceptor:
        entity = AE("HOSPITAL_B")
        entity.add_requested_context(STUDY_GET)
        entity.add_requested_context(CT, EXPLICIT)
        association = entity.associate(
            "127.0.0.1",
            acceptor.addresses[0][1],
            ext_neg=[build_role(CT, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, keep)],
        )
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = "1.2"
        (status, _), *more = list(association.send_c_get(query, STUDY_GET))
        association.release()
    assert not more
    assert (status.Status, status.NumberOfCompletedSuboperations) == (dimse.SUCCESS, 3)
    assert received == sent


# TLS and addresses


@dataclass(frozen=True)
class Party:
    """A certificate with its key, self-signed, as files and as DER."""

    certificate: Path
    key: Path
    der: bytes

    def context(self, purpose: ssl.Purpose, trusted: Party) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=str(trusted.certificate))
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def party(folder: Path, name: str) -> Party:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Party(
        folder / f"{name}.pem",
        folder / f"{name}.key",
        certificate.public_bytes(serialization.Encoding.DER),
    )
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


def test_over_tls_the_exchange_knows_the_certificate_of_the_hospital(
    archive: Archive, tmp_path: Path
) -> None:
    exchange, hospital = party(tmp_path, "exchange"), party(tmp_path, "hospital")
    with accepting(archive, tls=exchange.context(ssl.Purpose.CLIENT_AUTH, hospital)) as acceptor:
        port = acceptor.addresses[0][1]
        entity = AE("HOSPITAL_A")
        entity.add_requested_context(CT, EXPLICIT)
        client = hospital.context(ssl.Purpose.SERVER_AUTH, exchange)
        association = entity.associate("localhost", port, tls_args=(client, "localhost"))
        assert association.send_c_store(image("1.2.3", 3_000_000)).Status == dimse.SUCCESS
        association.release()
        assert association.is_released
        assert archive.ending() is None
        assert archive.peers[0].certificate == hospital.der
        with RawPeer(port) as plain:
            plain.send(request_pdu())
            answer = plain.pdu()  # a TLS alert at most
            assert answer is None or answer[0] not in set(PDUType)
    assert list(archive.digests) == ["1.2.3"]


def test_ipv4_and_ipv6_stand_side_by_side(archive: Archive) -> None:
    with accepting(archive, "127.0.0.1", "::1") as acceptor:
        for host, port in acceptor.addresses:
            with RawPeer(port, host) as peer:
                peer.associate()
                peer.send(echo(), RELEASE_RQ)
                assert peer.message()[0].status == dimse.SUCCESS
                assert peer.pdu() == (PDUType.A_RELEASE_RP, bytes(4))
            assert archive.ending() is None
    assert [str(peer).rsplit(":", 1)[0] for peer in archive.peers] == ["127.0.0.1", "[::1]"]


def test_processes_share_a_port_only_when_they_mean_to(archive: Archive) -> None:
    with accepting(archive) as acceptor, pytest.raises(OSError, match="in use"):
        Acceptor(acceptor.addresses, archive)
    with accepting(archive, share_port=True) as acceptor:
        second = Acceptor(acceptor.addresses, archive, share_port=True)
        thread = threading.Thread(target=second.serve_forever)
        thread.start()
        second.stop(PATIENCE)
        thread.join(PATIENCE)


# The state table


def test_every_event_has_an_action_in_the_states_that_listen() -> None:
    listening = (State.STA2, State.STA5, State.STA6, State.STA7)
    # ARTIM runs in Sta2 alone: elsewhere a deadline of ours stands in for it.
    impossible = set(product(listening[1:], [Event.ARTIM_EXPIRED]))
    assert set(TRANSITIONS) == set(product(listening, Event)) - impossible


RECEIVED = {event: kind for kind in PDUType for event in Event if kind.name == event.name}


@pytest.mark.parametrize(
    ("state", "event"),
    [
        key
        for key in TRANSITIONS
        if key[0] in {State.STA2, State.STA6}
        and (key[1] in RECEIVED or key[1] is Event.INVALID_PDU)
    ],
    ids=lambda value: value.name,
)
def test_the_acceptor_does_what_the_state_table_says(
    archive: Archive, port: int, state: State, event: Event
) -> None:
    with RawPeer(port) as peer:
        if state is State.STA6:
            peer.associate()
        match event:
            case Event.A_ASSOCIATE_RQ:
                peer.send(request_pdu())
            case Event.P_DATA_TF:
                peer.send(echo())
            case _:
                peer.send(PDU_HEADER.pack(RECEIVED.get(event, 9), 4) + bytes(4))
        match TRANSITIONS[state, event]:
            case Action.AE_6:
                answer = peer.pdu()
                assert answer is not None
                assert answer[0] == PDUType.A_ASSOCIATE_AC
            case Action.DT_2:
                assert peer.message()[0].command_field is CommandField.C_ECHO_RSP
            case Action.AR_2:
                assert peer.exactly(len(RELEASE_RP)) == RELEASE_RP
                assert peer.pdu() is None
                assert archive.ending() is None
            case Action.AA_1:
                assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
                assert isinstance(archive.ending(), ProtocolViolation)
            case Action.AA_8:
                unknown = event is Event.INVALID_PDU
                reason = AbortReason.UNRECOGNIZED_PDU if unknown else AbortReason.UNEXPECTED_PDU
                assert peer.aborted() == abort_of(reason)
                assert isinstance(archive.ending(), ProtocolViolation)
            case Action.AA_2 | Action.AA_3:
                assert peer.pdu() is None
                assert isinstance(archive.ending(), AssociationAborted)


# Peers that do wrong


BEFORE_ASSOCIATION = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: exchange\r\n\r\n",
    "a TLS hello on the plain port": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "a request of 4 GB": PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 0xFFFFFFFF),
    "a request of noise": PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 200) + bytes(range(200)),
    "a request of 300 contexts": request_pdu(
        *(ProposedContext(2 * n % 256 | 1, CT, (EXPLICIT,)) for n in range(300))
    ),
}


@pytest.mark.parametrize("what", BEFORE_ASSOCIATION)
def test_a_stranger_who_does_not_speak_dicom_is_aborted(
    archive: Archive, port: int, what: str
) -> None:
    with RawPeer(port) as peer:
        peer.send(BEFORE_ASSOCIATION[what])
        assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    assert isinstance(archive.ending(), ProtocolViolation)


@pytest.mark.parametrize(
    ("damage", "rejection"),
    [
        ((b"\0\1\0\0", b"\0\2\0\0"), RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED),
        ((b"3.1.1.1", b"3.1.1.9"), RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED),
    ],
)
def test_another_version_or_application_is_rejected_without_asking(
    archive: Archive, port: int, damage: tuple[bytes, bytes], rejection: RejectReason
) -> None:
    with RawPeer(port) as peer:
        peer.send(request_pdu().replace(*damage, 1))
        assert peer.pdu() == (PDUType.A_ASSOCIATE_RJ, bytes((0, 1, *rejection.value)))
        assert peer.pdu() is None
    assert archive.ending() is None
    assert not archive.requests


def test_all_128_contexts_can_be_used(archive: Archive, port: int) -> None:
    contexts = [ProposedContext(2 * n + 1, CT, (EXPLICIT, IMPLICIT)) for n in range(128)]
    with RawPeer(port) as peer:
        peer.associate(*contexts)
        peer.send(RELEASE_RQ)
        assert peer.pdu() == (PDUType.A_RELEASE_RP, bytes(4))
    assert archive.ending() is None


DATA = 0
PARAMETER = AbortReason.INVALID_PDU_PARAMETER_VALUE
UNEXPECTED = AbortReason.UNEXPECTED_PDU_PARAMETER

WITHIN_ASSOCIATION = {
    "data before the command": (fragment(3, DATA | LAST, b"ab"), UNEXPECTED),
    "a context that nobody proposed": (fragment(9, COMMAND | LAST, b"ab"), PARAMETER),
    "a command that is none": (fragment(1, COMMAND | LAST, b"abcdefghijkl"), PARAMETER),
    "a command of 1 MB": (
        b"".join(fragment(1, COMMAND, bytes(32768)) for _ in range(32)),
        PARAMETER,
    ),
    "a command of empty fragments": (fragment(1, COMMAND, b""), PARAMETER),
    "a command on two contexts": (
        fragment(1, COMMAND, b"ab") + fragment(3, COMMAND | LAST, b"cd"),
        UNEXPECTED,
    ),
    "a command within a data set": (
        store_command() + fragment(3, DATA, b"ab") + echo(),
        UNEXPECTED,
    ),
    "a data set on another context": (store_command() + fragment(5, LAST, b"ab"), UNEXPECTED),
    "a data set that is released": (
        store_command() + fragment(3, DATA, b"ab") + RELEASE_RQ,
        AbortReason.UNEXPECTED_PDU,
    ),
    "a data set followed by noise": (
        store_command() + fragment(3, DATA, b"ab") + b"\x77" + bytes(9),
        AbortReason.UNRECOGNIZED_PDU,
    ),
    "a PDU longer than agreed": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 131072 + TOLERANCE + 1),
        PARAMETER,
    ),
    "a PDU of 4 GB": (PDU_HEADER.pack(PDUType.P_DATA_TF, 0xFFFFFFFF), PARAMETER),
    "a PDU of nothing": (PDU_HEADER.pack(PDUType.P_DATA_TF, 0), PARAMETER),
    "a PDV longer than its PDU": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 8) + PDV_HEADER.pack(99, 1, 3) + b"ab",
        PARAMETER,
    ),
    "a PDV shorter than its header": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 8) + PDV_HEADER.pack(1, 1, 3) + b"ab",
        PARAMETER,
    ),
    "a PDU that ends in a PDV header": (
        PDU_HEADER.pack(PDUType.P_DATA_TF, 9) + PDV_HEADER.pack(3, 1, 1) + b"a" + b"\0\0",
        PARAMETER,
    ),
    "a release of the wrong length": (
        PDU_HEADER.pack(PDUType.A_RELEASE_RQ, 0),
        AbortReason.UNEXPECTED_PDU,
    ),
}


@pytest.mark.parametrize("what", WITHIN_ASSOCIATION)
def test_a_peer_that_breaks_the_protocol_is_told_why(
    archive: Archive, port: int, what: str
) -> None:
    sent, reason = WITHIN_ASSOCIATION[what]
    with RawPeer(port) as peer:
        peer.associate()
        with contextlib.suppress(ConnectionError):
            peer.send(sent)
        assert peer.aborted() == abort_of(reason)
    assert isinstance(archive.ending(), ProtocolViolation)
    assert not archive.digests


@pytest.mark.parametrize(
    ("sent", "ending"),
    [
        (b"", AssociationLost),
        (store_command()[:40], AssociationLost),
        (store_command(), AssociationLost),
        (store_command() + fragment(3, DATA, b"ab"), AssociationLost),
        (store_command() + fragment(3, DATA | LAST, b"abcd")[:-1], AssociationLost),
        (
            store_command() + fragment(3, DATA, b"ab") + b"\7\0\0\0\0\4" + bytes(4),
            AssociationAborted,
        ),
    ],
)
def test_a_data_set_that_does_not_arrive_to_its_end_is_not_kept(
    archive: Archive, port: int, sent: bytes, ending: type[AssociationEnded]
) -> None:
    with RawPeer(port) as peer:
        peer.associate()
        peer.send(sent)
    assert isinstance(archive.ending(), ending)
    assert not archive.digests


def test_a_data_set_in_many_values_of_one_pdu_arrives_whole(archive: Archive, port: int) -> None:
    values = b"".join(
        PDV_HEADER.pack(2 + len(value), 3, control) + value
        for control, value in ((DATA, b"abc"), (DATA, b""), (DATA, b"d"), (DATA | LAST, b"efg"))
    )
    with RawPeer(port) as peer:
        peer.associate()
        both = store_command()[6:] + values
        peer.send(PDU_HEADER.pack(PDUType.P_DATA_TF, len(both)) + both)
        assert peer.message()[0].status == dimse.SUCCESS
    assert archive.digests["1.2.3"] == hashlib.sha256(b"abcdefg").hexdigest()


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_messages_damaged_on_the_way_never_break_the_exchange(
    archive: Archive, port: int, data: st.DataObject
) -> None:
    whole = echo() + store_command() + fragment(3, DATA, b"ab") + fragment(3, LAST, b"cd") + echo()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with RawPeer(port) as peer:
        peer.associate()
        with contextlib.suppress(ConnectionError):
            peer.send(bytes(damaged))
            peer.socket.shutdown(socket.SHUT_WR)
        while peer.pdu() is not None:
            pass
    assert isinstance(archive.ending(), AssociationEnded | None)


# Peers that take their time


@pytest.mark.parametrize("sent", [b"", b"\1", request_pdu()[:100]])
def test_a_stranger_who_dawdles_is_let_go(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    with RawPeer(impatient_port) as peer:
        peer.send(sent)
        assert peer.aborted()[0] == AbortSource.SERVICE_PROVIDER
    assert isinstance(archive.ending(), TimedOut)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\4",
        echo()[:20],
        store_command(),
        store_command() + fragment(3, DATA, bytes(999))[:99],
    ],
    ids=["silence", "a byte", "half a command", "no data set", "half a data set"],
)
def test_a_peer_that_falls_silent_is_aborted(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(sent)
        assert peer.aborted()[0] == AbortSource.SERVICE_PROVIDER
    assert isinstance(archive.ending(), TimedOut)
    assert not archive.digests


def trickle(peer: RawPeer, sent: Iterable[bytes], ended: Callable[[], bool]) -> bool:
    """Send each, all well within the timeout, and tell whether we were stopped."""
    pause = threading.Event()
    with contextlib.suppress(ConnectionError):
        for one in sent:
            if ended():
                return True
            peer.send(one)
            pause.wait(0.02)
    return ended()


def singly(sent: bytes) -> list[bytes]:
    return [bytes((byte,)) for byte in sent]


@pytest.mark.parametrize("at_once", [0, 3, 100], ids=["all", "half a header", "its end"])
def test_a_stranger_that_trickles_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, at_once: int
) -> None:
    long_request = PDU_HEADER.pack(PDUType.A_ASSOCIATE_RQ, 9999) + bytes(9999)
    with RawPeer(impatient_port) as peer:
        peer.send(long_request[:at_once])
        rest = long_request[at_once : at_once + 300]
        assert trickle(peer, singly(rest), lambda: not archive.endings.empty())
    assert isinstance(archive.ending(), TimedOut)


def test_a_stranger_that_trickles_its_tls_hello_cannot_hold_a_thread(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    exchange = party(tmp_path, "exchange")
    hello = bytes.fromhex("1603014000010003fffc0303") + bytes(300)
    tls = exchange.context(ssl.Purpose.CLIENT_AUTH, exchange)
    with (
        accepting(archive, conduct=IMPATIENT, tls=tls) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.send(hello[:1])
        assert trickle(peer, singly(hello[1:]), lambda: bool(caplog.records))
    (told,) = caplog.messages
    assert "no answer in time" in told
    assert archive.endings.empty()


@pytest.mark.parametrize(
    "sent",
    [
        fragment(1, COMMAND | LAST, bytes(9999))[:20],
        store_command() + fragment(3, DATA, bytes(9999))[:100],
    ],
    ids=["a command set", "a data set"],
)
def test_a_peer_that_trickles_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, sent: bytes
) -> None:
    """Each byte comes within the timeout, the PDU does not."""
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(sent)
        assert trickle(peer, singly(bytes(300)), lambda: not archive.endings.empty())
    assert isinstance(archive.ending(), TimedOut)


def test_a_peer_whose_fragments_come_in_time_and_never_end_cannot_hold_a_thread(
    archive: Archive, impatient_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange_dicom.rate.RATE_SECONDS", 0.2)
    with RawPeer(impatient_port) as peer:
        peer.associate()
        peer.send(store_command())
        assert trickle(peer, [fragment(3, DATA, b"x")] * 1000, lambda: not archive.endings.empty())
    ending = archive.ending()
    assert isinstance(ending, TimedOut)
    assert "less of a message in a minute" in str(ending)


def test_a_slow_line_is_waited_for_as_long_as_it_brings_enough(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait for it brings more than is due, however long; silence before a message is none."""
    monkeypatch.setattr("exchange_dicom.rate.RATE_SECONDS", 0.02)
    conduct = Conduct(minimum_rate=4)
    with (
        accepting(archive, conduct=conduct) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        for _ in range(2):
            peer.send(store_command())
            slowly = [fragment(3, DATA, b"x" * 40)] * 20
            assert not trickle(peer, slowly, lambda: not archive.endings.empty())
            peer.send(fragment(3, DATA | LAST, b""))
            assert peer.message()[0].status == dimse.SUCCESS
            threading.Event().wait(0.1)
    assert archive.digests["1.2.3"] == hashlib.sha256(b"x" * 800).hexdigest()


def test_silence_between_messages_may_be_longer_than_within_one(archive: Archive) -> None:
    """The kernel's timeout stays that of a PDU: a wait that it ends is gone on with."""
    conduct = Conduct(network_timeout=60, pdu_timeout=0.05)
    with (
        accepting(archive, conduct=conduct) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        for _ in range(2):
            peer.send(echo())
            assert peer.message()[0].status == dimse.SUCCESS
            threading.Event().wait(0.2)
        assert archive.endings.empty()


def test_an_exchange_that_is_slow_itself_does_not_blame_the_peer(archive: Archive) -> None:
    """Command and data set in one PDU: what the handler takes for itself is not the peer's time."""
    begun, busy = threading.Event(), threading.Event()

    def dawdle(association: Association) -> None:
        assert association.negotiate(archive.decide)
        for message in association.messages():
            begun.set()
            busy.wait(2 * IMPATIENT.pdu_timeout)
            archive.answer(association, message)

    values = b"".join(
        PDV_HEADER.pack(2 + len(value), 3, control) + value
        for control, value in ((DATA, bytes(60_000)), (DATA | LAST, bytes(60_000)))
    )
    with (
        accepting(dawdle, conduct=IMPATIENT) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as peer,
    ):
        peer.associate()
        command = store_command()[6:]
        peer.send(PDU_HEADER.pack(PDUType.P_DATA_TF, len(command) + len(values)) + command)
        assert begun.wait(PATIENCE)
        peer.send(values)
        assert peer.message()[0].status == dimse.SUCCESS
    assert archive.digests["1.2.3"] == hashlib.sha256(bytes(120_000)).hexdigest()


def test_a_peer_that_does_not_read_cannot_hold_a_thread() -> None:
    endings: queue.Queue[Exception] = queue.Queue()

    def flood(association: Association) -> None:
        association.negotiate(Archive().decide)
        message = association.next_message()
        assert message is not None
        try:
            while True:
                association.send(1, response(message.command, dimse.SUCCESS), bytes(1 << 20))
        except AssociationEnded as ended:
            endings.put(ended)

    with accepting(flood, conduct=IMPATIENT) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(echo())
        assert isinstance(endings.get(timeout=PATIENCE), TimedOut)


# Handlers


def test_an_object_of_300_mb_leaves_memory_flat(archive: Archive, port: int) -> None:
    size, chunk = 300 << 20, bytes(131072 - 6)
    whole, rest = divmod(size, len(chunk))
    with RawPeer(port) as peer:
        peer.associate()
        piece = fragment(3, DATA, chunk)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        try:
            peer.send(store_command())
            for _ in range(whole):
                peer.socket.sendall(piece)
            peer.send(fragment(3, DATA | LAST, bytes(rest)))
            assert peer.message()[0].status == dimse.SUCCESS
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert list(archive.digests) == ["1.2.3"]
    assert peak < 20 << 20
    assert grown * 1024 < 20 << 20


def test_a_handler_need_not_read_what_it_refuses() -> None:
    complaints: list[str] = []

    def refuse(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            if message.data is not None:
                try:
                    message.data.read(1000)
                except TooLarge as error:
                    complaints.append(str(error))
            association.send(message.context.context_id, response(message.command, 0xA700))

    with accepting(refuse) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        large = b"".join(fragment(3, DATA, bytes(50_000)) for _ in range(40))
        for _ in range(2):
            peer.send(store_command(), large, fragment(3, DATA | LAST, b""))
            assert peer.message()[0].status == 0xA700
        peer.send(echo())
        assert peer.message()[0].command_field is CommandField.C_ECHO_RSP
    assert len(complaints) == 2


def test_reading_a_data_set_that_was_passed_over_is_a_mistake() -> None:
    mistakes: queue.Queue[BaseException] = queue.Queue()

    def keep_the_first(association: Association) -> None:
        association.negotiate(Archive().decide)
        first = association.next_message()
        association.next_message()
        assert first is not None
        assert first.data is not None
        try:
            next(first.data.pieces())
        except RuntimeError as error:
            mistakes.put(error)

    with accepting(keep_the_first) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, LAST, bytes(50_000)), echo())
        assert "has gone on" in str(mistakes.get(timeout=PATIENCE))


def test_a_query_ends_when_it_is_cancelled_and_its_neighbours_do_not() -> None:
    pending, cancelled = 0xFF00, 0xFE00

    def find(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            command, context_id = message.command, message.context.context_id
            if message.data is None:
                association.send(context_id, response(command, dimse.SUCCESS))
                continue
            while not association.cancelled(command.message_id):
                answer = response(command, pending, data_set_present=True)
                association.send(context_id, answer, b"\x08\0\x05\0\0\0\0\0")
            association.send(context_id, response(command, cancelled))

    with accepting(find) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        for message_id in (7, 7, 8):
            peer.send(find_command(message_id), fragment(5, LAST, bytes(8)))
            assert peer.message()[0].status == pending
            # One for another operation, an echo out of turn, and the one that counts.
            for other in (message_id + 1, message_id):
                peer.send(fragment(5, COMMAND | LAST, dimse.cancel_request(other)))
            peer.send(echo(99))
            while (answer := peer.message()[0]).status == pending:
                pass
            assert (answer.status, answer.message_id) == (cancelled, message_id)
            assert peer.message()[0].message_id == 99


def test_a_peer_that_floods_a_query_with_requests_fills_no_memory() -> None:
    """No asynchronous operations are negotiated (PS3.7 D.3.3.3): what comes early waits outside."""
    early = range(1000, 1300)
    flooded = threading.Event()
    held: queue.Queue[int] = queue.Queue()

    def find(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            if message.data is not None:
                assert message.data.read(8) == bytes(8)
                assert flooded.wait(PATIENCE)
                for _ in range(3):
                    assert not association.cancelled(message.command.message_id)
                read = [one for one in gc.get_objects() if isinstance(one, Message)]
                held.put(sum(one.command.message_id in early for one in read))
            answer = response(message.command, dimse.SUCCESS)
            association.send(message.context.context_id, answer)

    with accepting(find) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(find_command(7), fragment(5, LAST, bytes(8)))
        peer.send(*map(echo, early))
        flooded.set()
        answered = [peer.message()[0].message_id for _ in range(1 + len(early))]
        assert answered == [7, *early]
    assert held.get(timeout=PATIENCE) <= 1


@pytest.mark.parametrize("maximum_length", [16, 128, 16384, 1 << 20, 0])
@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
def test_answers_are_cut_to_what_the_peer_takes(maximum_length: int, size: int) -> None:
    answer = os.urandom(min(size, 20_000 if maximum_length == 16 else size))

    def reply(association: Association) -> None:
        association.negotiate(Archive().decide)
        for message in association.messages():
            command = response(message.command, dimse.SUCCESS, data_set_present=True)
            association.send(1, command, answer)
            thirds = len(answer) // 3
            parts = (answer[:thirds], memoryview(answer)[thirds:])
            association.send(1, command, iter(parts))

    with accepting(reply) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate(maximum_length=maximum_length)
        peer.send(echo())
        received = []
        for _ in range(2):
            data, last = b"", False
            while not last:
                pdu = peer.pdu()
                assert pdu is not None
                assert not maximum_length or len(pdu[1]) <= maximum_length
                _, _, control = PDV_HEADER.unpack_from(pdu[1])
                last = bool(control & LAST)
                assert last or len(pdu[1]) % 2 == 0
                if control & COMMAND:
                    last = False
                else:
                    data += pdu[1][6:]
            received.append(data)
    assert received == [answer, answer]


def test_half_a_message_is_taken_back_by_an_abort() -> None:
    def broken_disk() -> Iterator[bytes]:
        yield bytes(2_000_000)
        raise OSError("I/O error")

    def reply(association: Association) -> None:
        association.negotiate(Archive().decide)
        message = association.next_message()
        assert message is not None
        with pytest.raises(OSError, match="I/O error"):
            association.send(1, response(message.command, 0, data_set_present=True), broken_disk())

    with accepting(reply) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(echo())
        while (pdu := peer.pdu()) is not None and pdu[0] == PDUType.P_DATA_TF:
            pass
        assert pdu == (PDUType.A_ABORT, bytes(4))


def test_a_handler_that_fails_aborts_its_association_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(association: Association) -> None:
        association.negotiate(Archive().decide)
        for _ in association.messages():
            raise LookupError("a mistake of ours")

    with accepting(fail) as acceptor:
        for _ in range(2):
            with RawPeer(acceptor.addresses[0][1]) as peer:
                peer.associate()
                peer.send(echo())
                assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    assert sum("its handler failed" in record.message for record in caplog.records) == 2


# The acceptor as a whole


def test_beyond_its_limit_the_exchange_asks_to_try_again_later(archive: Archive) -> None:
    with (
        accepting(archive, maximum_associations=1) as acceptor,
        RawPeer(acceptor.addresses[0][1]) as first,
    ):
        first.associate()
        with RawPeer(acceptor.addresses[0][1]) as second:
            second.send(request_pdu())
            assert second.pdu() == (PDUType.A_ASSOCIATE_RJ, bytes((0, 2, 3, 2)))
            assert second.pdu() is None
        first.send(echo())
        assert first.message()[0].status == dimse.SUCCESS


def test_a_port_probe_leaves_no_trace_in_the_log(
    archive: Archive, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for _ in range(5):
            RawPeer(port).socket.close()
        for _ in range(5):
            assert isinstance(archive.ending(), AssociationLost)
    assert not caplog.records


def stopping(acceptor: Acceptor, grace_seconds: float) -> threading.Thread:
    thread = threading.Thread(target=acceptor.stop, args=(grace_seconds,))
    thread.start()
    return thread


def test_a_stop_ends_associations_that_only_wait(archive: Archive) -> None:
    with accepting(archive) as acceptor:
        port = acceptor.addresses[0][1]
        with RawPeer(port) as idle, RawPeer(port) as unassociated:
            idle.associate()
            idle.send(echo())
            idle.message()
            stopper = stopping(acceptor, PATIENCE)
            assert idle.aborted() == (AbortSource.SERVICE_USER, 0)
            while unassociated.pdu() is not None:
                pass
            stopper.join(PATIENCE)
        assert not acceptor.associations
        with pytest.raises(ConnectionRefusedError):
            RawPeer(port)
    assert isinstance(archive.ending(), AssociationStopped)


def test_a_stop_lets_an_image_under_way_arrive(archive: Archive) -> None:
    with accepting(archive) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, DATA, b"ab"))
        assert archive.under_way.wait(PATIENCE)
        stopper = stopping(acceptor, PATIENCE)
        peer.send(fragment(3, DATA | LAST, b"cd"))
        assert peer.message()[0].status == dimse.SUCCESS
        assert peer.aborted() == (AbortSource.SERVICE_USER, 0)
    stopper.join(PATIENCE)
    assert archive.digests["1.2.3"] == hashlib.sha256(b"abcd").hexdigest()
    assert isinstance(archive.ending(), AssociationStopped)


def test_a_stop_does_not_wait_for_ever(archive: Archive) -> None:
    with accepting(archive) as acceptor, RawPeer(acceptor.addresses[0][1]) as peer:
        peer.associate()
        peer.send(store_command(), fragment(3, DATA, bytes(1000)))
        assert archive.under_way.wait(PATIENCE)
        acceptor.stop(0.05)
        assert peer.pdu() is None
    assert isinstance(archive.ending(), AssociationLost)
    assert not archive.digests
