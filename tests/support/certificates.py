"""Certificates for tests as PEM files: a certification authority's, and self-signed ones."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key."""

    certificate: Path
    key: Path
    fingerprint: str
    """SHA-256 of its DER form."""


class Authority:
    """Issues certificates for 127.0.0.1 and localhost, valid from yesterday until tomorrow."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._lists = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        own = _begun(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        made = own.sign(self._key, hashes.SHA256())
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, expired: bool = False) -> Certificate:
        """A new key, and the certificate of it."""
        key = ec.generate_private_key(ec.SECP256R1())
        begun = _begun(_named(name), self._name, key, days=-1 if expired else 1)
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            begun.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        _write(made, key, *paths)
        return Certificate(*paths, made.fingerprint(hashes.SHA256()).hex())

    def revoke(self, *revoked: Certificate, name: str = "revoked", expired: bool = False) -> Path:
        """The list of certificates that are revoked; a later one takes an earlier one's place."""
        now = datetime.now(UTC)
        self._lists += 1
        lists = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(days=2) + timedelta(seconds=self._lists))
            .next_update(now + timedelta(days=-1 if expired else 1))
            .add_extension(x509.CRLNumber(self._lists), critical=False)
        )
        for one in revoked:
            serial = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            lists = lists.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(now - timedelta(hours=1))
                .build()
            )
        made = lists.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        path = self._folder / f"{name}.crl"
        path.write_bytes(made)
        return path


@dataclass(frozen=True, slots=True)
class Party:
    """A certificate with its key, self-signed, as files and as DER."""

    certificate: Path
    key: Path
    der: bytes

    def context(self, purpose: ssl.Purpose, trusted: Party) -> ssl.SSLContext:
        """TLS with this certificate; the other end must show the trusted one."""
        context = ssl.create_default_context(purpose, cafile=str(trusted.certificate))
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def party(folder: Path, name: str) -> Party:
    """A new key and its certificate, which nobody else has signed, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _begun(_named(name), _named(name), key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    _write(made, key, *paths)
    return Party(*paths, made.public_bytes(serialization.Encoding.DER))


def _write(
    made: x509.Certificate, key: ec.EllipticCurvePrivateKey, certificate: Path, secret: Path
) -> None:
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
    )
