"""Who connects and does not speak, or does not end, costs the hospitals nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from caller import (
    CT,
    PATIENCE,
    SUCCESS,
    Caller,
    Hung,
    calling,
    image,
    store_request,
    value,
)
from certificates import Authority
from roles import Role, eventually, small_exchange
from serving import Served, serving
from sqlalchemy import func, select

from exchange_dicom.conversation import Limits
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import (
    COMMAND,
    LAST,
    AssociateReject,
    AssociateRequest,
    ProposedContext,
    UserInformation,
)
from exchange_dicom.transport_security import Contexts, acceptor
from exchange_storage.records import AuditRecord

PROBES = 3000

TCP_REPAIR = 19
"""Linux: a socket in repair mode is closed without a word to the peer, as by a power cut."""

REQUEST = AssociateRequest(
    called_ae="EXCHANGE",
    calling_ae="BEICHENG",
    contexts=(ProposedContext(1, CT, ("1.2.840.10008.1.2.1",)),),
    user=UserInformation(),
).encode()

IMPATIENT = Conduct(artim_timeout=0.5, network_timeout=0.5, pdu_timeout=0.5)


def over_tls(folder: Path) -> tuple[Contexts, ssl.SSLContext]:
    """What a node needs to speak TLS, and what its caller needs."""
    authority = Authority(folder)
    own = authority.issue("node")
    contexts = acceptor(own.certificate, own.key, None)
    return contexts, ssl.create_default_context(cafile=str(authority.certificate))


def associations() -> list[threading.Thread]:
    """The threads that serve one now."""
    return [one for one in threading.enumerate() if one.name.startswith("association")]


def all_gone() -> None:
    """Wait until no thread serves an association."""
    while running := associations():
        with contextlib.suppress(RuntimeError):  # about to start
            running[0].join(PATIENCE)
            assert not running[0].is_alive()


def open_files(process: int | str = "self") -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def audited(served: Served) -> int:
    with served.city.exchange.database.reading() as session:
        return session.scalar(select(func.count()).select_from(AuditRecord)) or 0


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


BALANCER = """
import socket, struct, sys
for number in range(int(sys.argv[2])):
    probe = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    if number % 2:  # in a hurry: the acceptor may find it gone before it came
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    probe.close()
"""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.filterwarnings(
    # wrap_socket closes what is reset under its hands only by forgetting it.
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
def test_thousands_of_probes_leave_no_record_no_line_and_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    with serving(tmp_path, tls=over_tls(tmp_path)[0] if tls else None) as served:
        caplog.set_level(logging.INFO)
        before = audited(served)
        files = open_files()
        balancer = [sys.executable, "-c", BALANCER, str(served.port), str(PROBES)]
        subprocess.run(balancer, check=True)
        with connected(served.port) as last:  # its turn comes after all of theirs
            last.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                last.recv(100)
        all_gone()
        assert [record.getMessage() for record in caplog.records] == []
        assert audited(served) == before
        assert open_files() < files + 10  # connections with the index come and go
        if not tls:
            served.goes_on()


# Slow ones


def nothing(peer: socket.socket) -> None:
    """A connection, and that was it."""


def half_a_request(peer: socket.socket) -> None:
    peer.sendall(REQUEST[: len(REQUEST) // 2])


def a_tls_hello_cut_off(peer: socket.socket) -> None:
    peer.sendall(bytes.fromhex("1603014000010003fffc0303"))


@contextlib.contextmanager
def many(
    count: int, port: int, begin: Callable[[socket.socket], None]
) -> Iterator[list[socket.socket]]:
    """Connections that have begun so, and go no further."""
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = stack.enter_context(connected(port))
            begin(peer)
            peers.append(peer)
        yield peers


@pytest.mark.parametrize("begin", [nothing, half_a_request])
def test_strangers_that_never_finish_asking_keep_no_hospital_out(
    tmp_path: Path, begin: Callable[[socket.socket], None]
) -> None:
    """Not because they are timed out: they have half a minute, as everyone has."""
    with (
        serving(tmp_path, Limits(associations=4)) as served,
        calling(served.port) as pacs,
        many(30, served.port, begin),
    ):
        served.goes_on()
        with many(30, served.port, begin):
            served.goes_on()
        assert pacs.echo() == SUCCESS  # nor is one sent away who is there


def test_strangers_that_never_finish_their_handshake_keep_no_hospital_out(tmp_path: Path) -> None:
    contexts, client = over_tls(tmp_path)
    with (
        serving(tmp_path, Limits(associations=4), tls=contexts) as served,
        many(30, served.port, a_tls_hello_cut_off),
        connected(served.port) as raw,
        client.wrap_socket(raw, server_hostname="localhost") as pacs,
    ):
        pacs.sendall(REQUEST)
        assert pacs.recv(1) == b"\2"  # A-ASSOCIATE-AC


def test_who_has_an_association_keeps_it_when_there_are_too_many(served_two: Served) -> None:
    with calling(served_two.port) as first, calling(served_two.port) as second:
        with many(20, served_two.port, half_a_request):
            assert first.echo() == second.echo() == SUCCESS
        assert first.echo() == second.echo() == SUCCESS
    eventually(lambda: admitted(served_two.port), True)  # it learns a little later who has gone
    served_two.goes_on()


def admitted(port: int) -> bool:
    """Whether a hospital is let in now, or told to try again later."""
    try:
        with calling(port) as pacs:
            return pacs.echo() == SUCCESS
    except Hung as hung:
        if isinstance(hung.args[0], AssociateReject) and hung.args[0].transient:
            return False
        raise


@pytest.fixture
def served_two(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, Limits(associations=2)) as served:
        yield served


# Half-open ones


def vanish(connection: socket.socket) -> None:
    """Be gone without telling, as after a power cut or behind a firewall that forgot."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()


def idle(pacs: Caller) -> None:
    assert pacs.echo() == SUCCESS


def within_a_command(pacs: Caller) -> None:
    command = store_request(1, CT, "1.4.9")
    pacs.send(value(3, COMMAND, command[:40]))


def within_an_image(pacs: Caller) -> None:
    pacs.send(value(3, COMMAND | LAST, store_request(1, CT, "1.4.9")))
    pacs.send(value(3, 0, image(instance="1.4.9")[:2000]))


def within_a_pdu(pacs: Caller) -> None:
    pacs.send(value(3, COMMAND | LAST, store_request(1, CT, "1.4.9")))
    pacs.send(value(3, LAST, image(instance="1.4.9"))[:2000])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a peer vanish")
@pytest.mark.parametrize("last", [idle, within_a_command, within_an_image, within_a_pdu])
def test_a_peer_that_vanishes_is_let_go_with_all_that_it_held(
    tmp_path: Path, last: Callable[[Caller], None]
) -> None:
    with serving(tmp_path, conduct=IMPATIENT) as served:
        for _ in range(5):
            pacs = Caller(served.port)
            last(pacs)
            vanish(pacs.socket)
        all_gone()
        assert served.held()[2] == 0
        served.goes_on()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a peer vanish")
def test_a_stranger_that_vanishes_while_it_asks_is_let_go(tmp_path: Path) -> None:
    with serving(tmp_path, conduct=IMPATIENT) as served:
        for begin in (nothing, half_a_request):
            for _ in range(5):
                peer = connected(served.port)
                begin(peer)
                vanish(peer)
        all_gone()
        served.goes_on()


# More than the system has


def test_a_node_without_a_file_left_serves_again_when_there_are_some(tmp_path: Path) -> None:
    exchange = small_exchange(tmp_path, {"EXCHANGE_DIMSE_ARTIM_TIMEOUT": "2"})
    node = Role(exchange, "node").start()
    try:
        with calling(exchange.dimse_port) as pacs:
            assert pacs.store(image(), "1.4.1").status == SUCCESS
        assert node.process is not None
        held = open_files(node.process.pid)
        _, most = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (held + 10, most))
        with many(40, exchange.dimse_port, nothing):
            pass
        with calling(exchange.dimse_port) as pacs:
            assert pacs.echo() == SUCCESS
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (most, most))
        with calling(exchange.dimse_port) as pacs:
            assert pacs.store(image(instance="1.4.2"), "1.4.2").status == SUCCESS
        assert "Traceback" not in node.log()
    finally:
        node.stop()
