"""Hospitals open associations with the exchange, over real sockets: PS3.8 sections 7 and 9.2."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import struct
import subprocess
import threading
from io import BytesIO
from pathlib import Path

import pytest
from associating import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    PATIENCE,
    STUDY_FIND,
    STUDY_GET,
    VERIFICATION,
    Archive,
    RawPeer,
    accepting,
    echo,
    image,
    request_pdu,
)
from certificates import party
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RLELossless
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation
from rejections import Rejections

from exchange_dicom import dimse
from exchange_dicom.association import Association
from exchange_dicom.dimse import CommandField, request, response
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import TransferSyntaxes, select_contexts
from exchange_dicom.part10 import file_meta
from exchange_dicom.pdu import (
    RELEASE_RQ,
    AnsweredContext,
    AssociateReject,
    ContextResult,
    PDUType,
    ProposedContext,
    RejectReason,
    RoleSelection,
)

RLE = str(RLELossless)


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


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([(JPEG_LOSSLESS, IMPLICIT, EXPLICIT)], [IMPLICIT]),
        ([(JPEG_LOSSLESS,)], [JPEG_LOSSLESS]),
        ([(JPEG_LOSSLESS, EXPLICIT), (IMPLICIT,)], [JPEG_LOSSLESS, IMPLICIT]),
        ([(JPEG_LOSSLESS, EXPLICIT), (RLE, EXPLICIT)], [JPEG_LOSSLESS, EXPLICIT]),
        ([(JPEG_LOSSLESS, EXPLICIT), (RLE,)], [EXPLICIT, RLE]),
        ([(RLE, EXPLICIT), ("1.2.3",)], [EXPLICIT, "1.2.3"]),
    ],
)
def test_one_context_at_least_takes_what_everything_can_be_written_in(
    proposed: list[tuple[str, ...]], chosen: list[str]
) -> None:
    supported = TransferSyntaxes(
        (EXPLICIT, IMPLICIT, JPEG_LOSSLESS, RLE), proposer_chooses=True, needed=(EXPLICIT, IMPLICIT)
    )
    contexts = [ProposedContext(2 * at + 1, CT, one) for at, one in enumerate(proposed)]
    other = ProposedContext(99, "1.2.4", (RLE, EXPLICIT))
    *answers, alone = select_contexts([*contexts, other], lambda _: supported)
    assert [one.transfer_syntax for one in answers] == chosen
    assert alone.transfer_syntax == EXPLICIT


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
    seen = Rejections()
    entity.associate("127.0.0.1", port, evt_handlers=seen.handlers)
    assert seen.last() == (2 if transient else 1, *reason.value)
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


def test_over_tls_the_exchange_knows_the_certificate_of_the_hospital(
    archive: Archive, tmp_path: Path
) -> None:
    exchange, hospital = party(tmp_path, "exchange"), party(tmp_path, "hospital")
    context = exchange.context(ssl.Purpose.CLIENT_AUTH, hospital)
    with accepting(archive, tls=lambda: context) as acceptor:
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
