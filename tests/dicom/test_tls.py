"""TLS by the BCP 195 profile of PS3.15 B.12: who is who, and who is refused, with foreign peers."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from caller import SUCCESS
from certificates import Authority, Certificate
from images import ct
from pynetdicom import AE
from real_parts import ends_with_us, free_port
from region import ADMINISTRATOR
from retrieving import asked, get, move, send, workstation
from serving import Served, serving

from exchange import audit, organizations, registry
from exchange.errors import Invalid, Unavailable
from exchange.organizations import Entity
from exchange_dicom import scu, transport_security
from exchange_dicom.contexts import VERIFICATION
from exchange_storage.search import Level

STUDY = "1.2.826.1"
NONE_DONE = 0xA702
TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Secured:
    """A region whose node speaks TLS to who has a certificate of `authority`."""

    served: Served
    authority: Authority
    node: Certificate
    pacs: Certificate
    """That of beicheng's PACS."""

    def trail(self) -> list[str]:
        """The last records of the audit trail."""
        with self.served.city.exchange.database.reading() as session:
            return [record.content for record in audit.latest(session, 50)]

    def recorded(self, *words: str) -> bool:
        """Whether a record says all of `words`, sooner or later: who is refused within the
        handshake hears of it from the TLS library, before the node does."""
        deadline = time.monotonic() + TIMEOUT
        while not (said := any(all(word in one for word in words) for one in self.trail())):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return said

    def dcmtk(
        self, tool: str, *arguments: str, shown: Certificate | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool of DCMTK as BEICHENG-TLS, with mutual authentication."""
        own = shown or self.pacs
        port = str(self.served.port)
        flags = ["+tls", str(own.key), str(own.certificate), "+cf", str(self.authority.certificate)]
        called = ["-aet", "BEICHENG-TLS", "-aec", "EXCHANGE"]
        files = [one for one in arguments if one.endswith(".dcm")]
        options = [one for one in arguments if one not in files]
        return subprocess.run(
            [tool, *flags, *called, *options, "127.0.0.1", port, *files],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=os.environ | {"TCP_NODELAY": "1"},
            check=False,
        )


def bound(served: Served, code: str, title: str, certificate: Certificate, **more: int) -> None:
    """An application entity that is known by its certificate, wherever it calls from."""
    address = "127.0.0.1" if more else "192.0.2.1"
    entity = Entity(
        title=title,
        address=address,
        certificate_fingerprint=certificate.fingerprint,
        **more,  # type: ignore[arg-type]
    )
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(access, code, entity)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with securing(tmp_path) as made:
        yield made


@contextmanager
def securing(tmp_path: Path) -> Iterator[Secured]:
    authority = Authority(tmp_path)
    node, pacs = authority.issue("node"), authority.issue("pacs")
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate)
    client = transport_security.requestor(node.certificate, node.key)
    with serving(tmp_path, tls=tls, client_tls=client) as served:
        bound(served, "beicheng", "BEICHENG-TLS", pacs)
        yield Secured(served, authority, node, pacs)


def echo(secured: Secured, shown: Certificate | None, calling: str = "BEICHENG-TLS") -> None:
    tls = transport_security.requestor(
        shown.certificate if shown else None,
        shown.key if shown else None,
        secured.authority.certificate,
    )
    port = secured.served.port
    scu.echo(scu.Node(host="localhost", port=port, called="EXCHANGE", calling=calling, tls=tls))


# Foreign peers


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_is_understood_in_each_of_its_bcp_195_profiles(
    secured: Secured, profile: str
) -> None:
    done = secured.dcmtk("echoscu", profile)
    assert done.returncode == 0, done.stderr


def test_dcmtk_stores_and_finds_over_tls(secured: Secured, tmp_path: Path) -> None:
    ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
    assert secured.dcmtk("storescu", str(tmp_path / "one.dcm")).returncode == 0
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")
    found = secured.dcmtk("findscu", "-S", *keys, "-k", "PatientID")
    assert "[P1]" in found.stdout + found.stderr


def test_pynetdicom_gets_over_tls(secured: Secured, tmp_path: Path) -> None:
    image = ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
    assert secured.dcmtk("storescu", str(tmp_path / "one.dcm")).returncode == 0
    tls = ssl.create_default_context(cafile=str(secured.authority.certificate))
    tls.load_cert_chain(secured.pacs.certificate, secured.pacs.key)
    answers, received = get(
        secured.served,
        "BEICHENG-TLS",
        asked("PATIENT", PatientID="P1"),
        tls_args=(tls, "localhost"),
    )
    assert answers[-1][0].Status == SUCCESS
    assert [one.SOPInstanceUID for one in received] == [image.SOPInstanceUID]


@contextmanager
def storescp(folder: Path, port: int, own: Certificate, ca: Path) -> Iterator[None]:
    """DCMTK's storage SCP over TLS, which wants a certificate of whoever calls."""
    folder.mkdir()
    program = shutil.which("storescp")
    assert program is not None
    process = subprocess.Popen(
        ends_with_us(program, "+tls", str(own.key), str(own.certificate), "+cf", str(ca),
                     "-od", str(folder), "-aet", "WS", str(port)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
        yield
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT)


def test_a_move_over_tls_goes_to_the_registered_certificate_and_to_no_other(
    secured: Secured, tmp_path: Path
) -> None:
    ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
    assert secured.dcmtk("storescu", str(tmp_path / "one.dcm")).returncode == 0
    own, port = secured.authority.issue("ws"), free_port()
    bound(secured.served, "beicheng", "WS", own, port=port)
    bound(secured.served, "beicheng", "OTHER", secured.authority.issue("other"), port=port)
    tls = transport_security.requestor(
        secured.pacs.certificate, secured.pacs.key, secured.authority.certificate
    )
    node = scu.Node(
        host="localhost",
        port=secured.served.port,
        called="EXCHANGE",
        calling="BEICHENG-TLS",
        tls=tls,
    )
    keys = [("StudyInstanceUID", STUDY)]
    with storescp(tmp_path / "ws", port, own, secured.authority.certificate):
        (*_, end) = scu.move(node, Level.STUDY, keys, "WS")
        assert end.counts.completed == 1
        with pytest.raises(Invalid, match="another certificate"):
            list(scu.move(node, Level.STUDY, keys, "OTHER"))
    assert len(list((tmp_path / "ws").iterdir())) == 1


def test_a_node_with_a_certificate_is_never_called_in_plain(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    for number, client_tls in enumerate((None, transport_security.requestor())):
        with (
            serving(tmp_path / str(number), client_tls=client_tls) as served,
            workstation("WS") as ws,
        ):
            ct(tmp_path / "one.dcm", patient="P1", study=STUDY)
            send(served, "BEICHENG", tmp_path / "one.dcm")
            bound(served, "beicheng", "WS", authority.issue(f"ws{number}"), port=ws.port)
            ((final, _),) = move(served, "BEICHENG", "WS", asked("PATIENT", PatientID="P1"))
            assert final.Status == NONE_DONE
            assert "TLS" in final.ErrorComment
            assert ws.received == []


# Who is refused, and that it is known


def test_a_hospital_is_who_its_certificate_says_wherever_it_calls_from(secured: Secured) -> None:
    echo(secured, secured.pacs)
    with pytest.raises(Unavailable, match="not recognized"):
        echo(secured, secured.authority.issue("somebody"))
    assert secured.recorded("not the entity's address or certificate")


def test_the_idle_association_of_a_system_that_was_removed_ends_over_tls_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SECONDS", 0.05)
    monkeypatch.setattr("exchange_dicom.node.ROUND_SECONDS", 0.05)
    with securing(tmp_path) as secured:
        tls = ssl.create_default_context(cafile=str(secured.authority.certificate))
        tls.load_cert_chain(secured.pacs.certificate, secured.pacs.key)
        entity = AE("BEICHENG-TLS")
        entity.add_requested_context(VERIFICATION)
        association = entity.associate(
            "127.0.0.1", secured.served.port, ae_title="EXCHANGE", tls_args=(tls, "localhost")
        )
        assert association.send_c_echo().Status == SUCCESS
        with secured.served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            gone = Entity(title="BEICHENG-TLS", address="192.0.2.1")
            organizations.remove_entity(access, "beicheng", gone)
        association.join(TIMEOUT)
        assert association.is_aborted


def test_a_certificate_stands_for_one_hospital(secured: Secured) -> None:
    with pytest.raises(Unavailable, match="not recognized"):
        echo(secured, secured.pacs, calling="NANHU")  # whose address that is
    assert secured.recorded("the certificate is another hospital's")
    with pytest.raises(Invalid, match="another hospital"):
        bound(secured.served, "nanhu", "NANHU-TLS", secured.pacs)
    bound(secured.served, "beicheng", "BEICHENG-2", secured.pacs)  # another of the same one's
    echo(secured, secured.pacs, calling="BEICHENG-2")


def hears(secured: Secured, tls: ssl.SSLContext | None) -> str:
    """What a caller with its own idea of TLS gets told, until the node has done with it."""
    with (
        socket.create_connection(("127.0.0.1", secured.served.port), TIMEOUT) as plain,
        plain.dup() as until_closed,
    ):
        told = "nothing"
        try:
            if tls is None:
                plain.sendall(b"\1\0\0\0\0\xcd" + bytes(0xCD))
            else:
                with tls.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.settimeout(TIMEOUT)
                    connection.recv(1)  # with TLS 1.3 the verdict comes after the handshake
        except OSError as error:
            told = transport_security.words(error)
        with suppress(ConnectionResetError):
            while until_closed.recv(1000):
                pass
    return told


@pytest.mark.parametrize(
    ("who", "told", "recorded"),
    [
        ("without a certificate", "wants a certificate of ours", "shows no certificate"),
        ("with one of another CA", "who issued our certificate", "certificate is not accepted"),
        ("with one that has expired", "expired", "certificate has expired"),
        ("with TLS 1.1", "no TLS version", "no TLS 1.2 or later"),
        ("with a suite that is not of the profile", "no cipher suite", "no cipher suite of ours"),
        ("without TLS", "nothing", "does not speak TLS"),
    ],
)
def test_who_does_not_fit_the_profile_is_refused_told_and_recorded(
    secured: Secured, tmp_path: Path, who: str, told: str, recorded: str
) -> None:
    tls = ssl.create_default_context(cafile=str(secured.authority.certificate))
    match who:
        case "with one of another CA":
            stranger = Authority(tmp_path, "other-ca").issue("stranger")
            tls.load_cert_chain(stranger.certificate, stranger.key)
        case "with one that has expired":
            old = secured.authority.issue("old", expired=True)
            tls.load_cert_chain(old.certificate, old.key)
        case "with TLS 1.1":
            tls.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
        case "with a suite that is not of the profile":
            tls.maximum_version = ssl.TLSVersion.TLSv1_2
            tls.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    assert told in hears(secured, None if who == "without TLS" else tls)
    assert secured.recorded("TLS: ", recorded)


def test_a_probe_of_the_tls_port_leaves_no_record(secured: Secured) -> None:
    before = secured.trail()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", secured.served.port), TIMEOUT) as probe:
            probe.shutdown(socket.SHUT_WR)
            while probe.recv(1000):
                pass
    assert secured.trail() == before


@pytest.mark.parametrize("version", ["TLSv1.3", "TLSv1.2"])
def test_the_newest_tls_that_both_have_is_spoken_with_an_authenticated_cipher(
    secured: Secured, version: str
) -> None:
    tls = ssl.create_default_context(cafile=str(secured.authority.certificate))
    tls.load_cert_chain(secured.pacs.certificate, secured.pacs.key)
    if version == "TLSv1.2":
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", secured.served.port), TIMEOUT) as plain,
        tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.version() == version
        cipher = connection.cipher()
    assert cipher is not None
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


def test_nobody_renegotiates(secured: Secured) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secured.served.port}", "-tls1_2",
         "-CAfile", str(secured.authority.certificate), "-cert", str(secured.pacs.certificate),
         "-key", str(secured.pacs.key)],
        input="R\n", capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert "RENEGOTIATING" in done.stdout + done.stderr
    assert "no renegotiation" in done.stderr


# Revocation


def test_who_lost_their_certificate_is_refused_as_soon_as_the_list_says_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node, pacs = authority.issue("node"), authority.issue("pacs")
    lists = authority.revoke(authority.issue("stolen"))
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    with serving(tmp_path, tls=tls) as served:
        bound(served, "beicheng", "BEICHENG-TLS", pacs)
        secured = Secured(served, authority, node, pacs)
        echo(secured, pacs)
        stolen = lists.with_name("stolen.pem"), lists.with_name("stolen.key")
        with pytest.raises(Unavailable, match="revoked"):
            echo(secured, Certificate(*stolen, ""))
        authority.revoke(pacs)
        with pytest.raises(Unavailable, match="revoked"):
            echo(secured, pacs)
        assert secured.recorded("certificate revoked")


def test_who_is_refused_can_read_why_though_they_had_sent_much_by_then(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node, stolen = authority.issue("node"), authority.issue("stolen")
    lists = authority.revoke(stolen)
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    client = transport_security.requestor(stolen.certificate, stolen.key, authority.certificate)
    with (
        serving(tmp_path, tls=tls) as served,
        socket.create_connection(("localhost", served.port), TIMEOUT) as connection,
        client.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        for _ in range(3):  # with TLS 1.3 the node judges us after our handshake
            secured.sendall(bytes(1 << 16))
            time.sleep(0.1)
        with pytest.raises(ssl.SSLError, match="revoked"):
            secured.recv(1)


@pytest.mark.parametrize("lack", ["no list of its issuer", "a list that has expired"])
def test_nobody_is_heard_of_whom_it_cannot_be_told_whether_they_lost_their_certificate(
    tmp_path: Path, lack: str
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other-ca")
    node, pacs = authority.issue("node"), authority.issue("pacs")
    expired = lack == "a list that has expired"
    lists = authority.revoke(expired=True) if expired else other.revoke()
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    with serving(tmp_path, tls=tls) as served:
        bound(served, "beicheng", "BEICHENG-TLS", pacs)
        with pytest.raises(Unavailable):
            echo(Secured(served, authority, node, pacs), pacs)


def answered(secured: Secured, own: Certificate) -> bool:
    """Whether the node listens to who has this certificate; who it is, is another matter."""
    with pytest.raises(Unavailable) as refused:
        echo(secured, own)
    return "not recognized" in str(refused.value)


def test_what_is_in_force_is_the_list_that_is_there_now(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node, pacs, other = (authority.issue(one) for one in ("node", "pacs", "other"))
    lists = authority.revoke(pacs)
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    with serving(tmp_path, tls=tls) as served:
        secured = Secured(served, authority, node, pacs)
        assert (answered(secured, pacs), answered(secured, other)) == (False, True)
        authority.revoke(other)  # a newer one, on which the first is no longer
        assert (answered(secured, pacs), answered(secured, other)) == (True, False)
        authority.revoke(expired=True)
        assert (answered(secured, pacs), answered(secured, other)) == (False, False)
        assert secured.recorded("CRL has expired")
        authority.revoke(other)
        assert (answered(secured, pacs), answered(secured, other)) == (True, False)
        lists.unlink()
        assert (answered(secured, pacs), answered(secured, other)) == (False, False)
        lists.write_text("no list")
        assert (answered(secured, pacs), answered(secured, other)) == (False, False)
        authority.revoke()
        assert (answered(secured, pacs), answered(secured, other)) == (True, True)


def test_a_list_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_security, "_UNSETTLED", 0)
    authority = Authority(tmp_path)
    node = authority.issue("node")
    lists = authority.revoke()
    made = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    read: list[Path] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(self: ssl.SSLContext, file: Path) -> None:
        read.append(file)
        load(self, file)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    made()
    made()
    assert read == []
    os.utime(lists, (1, 1))  # as an older one put in its place
    made()
    made()
    assert read == [authority.certificate, lists]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_nobody_resumes_a_session_past_what_has_been_revoked_since(
    tmp_path: Path, version: str
) -> None:
    authority = Authority(tmp_path)
    node, pacs = authority.issue("node"), authority.issue("pacs")
    lists = authority.revoke()
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate, lists)
    client = ssl.create_default_context(cafile=str(authority.certificate))
    client.load_cert_chain(pacs.certificate, pacs.key)
    client.minimum_version = client.maximum_version = ssl.TLSVersion[version]

    def call(earlier: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", served.port), TIMEOUT) as plain,
            client.wrap_socket(plain, server_hostname="localhost", session=earlier) as connection,
        ):
            connection.sendall(b"\x05\0\0\0\0\4\0\0\0\0")  # to be answered, and so read
            connection.recv(1)
            assert not connection.session_reused
            return connection.session

    with serving(tmp_path, tls=tls) as served:
        session = call(None)
        call(session)  # all is negotiated anew, and well
        authority.revoke(pacs)
        with pytest.raises(ssl.SSLError, match="revoked"):
            call(session)


def test_a_certificate_that_is_renewed_is_shown_once_its_key_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_security, "_UNSETTLED", 0)
    authority = Authority(tmp_path)
    node, pacs = authority.issue("node"), authority.issue("pacs")
    tls = transport_security.acceptor(node.certificate, node.key, authority.certificate)
    with serving(tmp_path, tls=tls) as served:

        def shown() -> str:
            client = ssl.create_default_context(cafile=str(authority.certificate))
            client.load_cert_chain(pacs.certificate, pacs.key)
            with (
                socket.create_connection(("127.0.0.1", served.port), TIMEOUT) as plain,
                client.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                return sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()

        assert shown() == node.fingerprint
        renewed = authority.issue("renewed")
        node.certificate.write_bytes(renewed.certificate.read_bytes())
        assert shown() == node.fingerprint
        node.key.write_bytes(renewed.key.read_bytes())
        assert shown() == renewed.fingerprint


def test_a_file_that_is_no_revocation_list_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node = authority.issue("node")
    ca = authority.certificate
    with pytest.raises(OSError, match="no certificate revocation list"):
        transport_security.acceptor(node.certificate, node.key, ca, ca)
