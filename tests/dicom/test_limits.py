"""No hospital takes the node from the others; what speaks TLS is who it says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from caller import SUCCESS, Caller, Hung, calling, image
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from region import ADMINISTRATOR
from serving import Served, serving

from exchange import organizations
from exchange.errors import Invalid, Unavailable
from exchange.organizations import Entity, Limits
from exchange_dicom import scu
from exchange_dicom.pace import BURST, Pace
from exchange_dicom.pdu import AssociateReject, RejectReason


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


def limited(served: Served, **limits: int) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.limit(access, "beicheng", Limits(**limits))


def test_a_hospital_has_as_many_associations_as_it_may_and_the_others_theirs(
    served: Served,
) -> None:
    limited(served, associations=1)
    with calling(served.port) as pacs:
        assert pacs.echo() == SUCCESS
        with pytest.raises(Hung) as hung:
            Caller(served.port)
        assert hung.value.args == (
            AssociateReject(RejectReason.LOCAL_LIMIT_EXCEEDED, transient=True),
        )
        with Caller(served.port, calling="NANHU") as other:
            assert other.echo() == SUCCESS
            other.release()
    for _ in range(3):  # what has ended is counted no longer
        with calling(served.port) as pacs:
            assert pacs.echo() == SUCCESS


def test_too_many_instances_are_answered_later_and_all_are_kept(served: Served) -> None:
    limited(served, rate=1000)
    with calling(served.port) as pacs:
        for number in range(5):
            uid = f"1.4.{number}"
            assert pacs.store(image(instance=uid), uid).status == SUCCESS
    assert served.held()[0] == 5


def test_a_rate_is_kept_after_a_burst() -> None:
    now = 100.0
    pace = Pace(lambda: now)
    burst = [pace.pause(1, 10) for _ in range(int(10 * BURST))]
    assert max(burst) == 0.0
    assert [round(pace.pause(1, 10), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert pace.pause(2, 10) == 0.0
    assert pace.pause(1, None) == 0.0
    now += 60.0
    assert pace.pause(1, 10) == 0.0


@pytest.mark.parametrize("limits", [{"rate": 0}, {"associations": -1}])
def test_a_limit_that_would_stop_a_hospital_is_refused(
    served: Served, limits: dict[str, int]
) -> None:
    with pytest.raises(Invalid):
        limited(served, **limits)


# TLS


@dataclass(frozen=True, slots=True)
class Certificate:
    certificate: Path
    key: Path
    fingerprint: str


def certificate(folder: Path, name: str) -> Certificate:
    """A certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(*paths, made.fingerprint(hashes.SHA256()).hex())


def test_over_tls_a_hospital_is_who_its_certificate_says(tmp_path: Path) -> None:
    own, pacs, stranger = (certificate(tmp_path, name) for name in ("node", "pacs", "stranger"))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    server.load_cert_chain(own.certificate, own.key)
    server.verify_mode = ssl.CERT_REQUIRED
    for one in (pacs, stranger):
        server.load_verify_locations(one.certificate)
    with serving(tmp_path, tls=server) as served:
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            entity = Entity(
                title="SECURE", address="192.0.2.1", certificate_fingerprint=pacs.fingerprint
            )
            organizations.add_entity(access, "beicheng", entity)

        def echo(shown: Certificate | None) -> None:
            client = ssl.create_default_context(cafile=str(own.certificate))
            if shown is not None:
                client.load_cert_chain(shown.certificate, shown.key)
            scu.echo(
                scu.Node(
                    host="localhost",
                    port=served.port,
                    called="EXCHANGE",
                    calling="SECURE",
                    tls=client,
                )
            )

        echo(pacs)  # known by its certificate, wherever it calls from
        with pytest.raises(Unavailable, match="not recognized"):
            echo(stranger)
        with pytest.raises(Unavailable):
            echo(None)
        with pytest.raises(Unavailable):
            scu.echo(
                scu.Node(host="localhost", port=served.port, called="EXCHANGE", calling="SECURE")
            )
