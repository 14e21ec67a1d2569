"""TLS for both ends of an association: the BCP 195 profile (PS3.15 B.12; RFC 8996, RFC 9325).

TLS 1.2 at the least and 1.3 where both ends have it; only cipher suites with forward secrecy and
authenticated encryption, which the modified profile of B.13 has too; neither renegotiation nor
compression. Certificates on both sides, where the CA of the callers' is known.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""Of TLS 1.2, in our order of preference, by OpenSSL's names. Those of TLS 1.3 are all alike."""

_SECURITY_LEVEL = "@SECLEVEL=2"
"""Keys of 112 bits of security and more: RSA from 2048 bits, elliptic curves from 224."""

WORDS: Mapping[str, str] = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP",
    "UNSUPPORTED_PROTOCOL": "it has no TLS 1.2 or later",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it has no TLS version of ours",
    "NO_SHARED_CIPHER": "it has no cipher suite of ours",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher suite of ours, or wants a certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who issued our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired",
    "TLSV1_ALERT_DECRYPT_ERROR": "it cannot verify our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not let our certificate in",
}
"""What OpenSSL's reasons mean, said of the other end."""


def acceptor(
    certificate: Path, key: Path | None, client_ca: Path | None, revoked: Path | None = None
) -> ssl.SSLContext:
    """For who is called. With `client_ca` only who shows a certificate of that CA is heard; without
    it none is asked for, and the caller is as unknown as without TLS.

    `revoked` has the certificate revocation lists (RFC 5280 section 5) of the CAs of `client_ca`,
    as PEM: nobody is heard whose certificate is on one, or whose issuer has none that is in force.
    It is read again when it has changed. Raises OSError, which ssl.SSLError is, for files that
    cannot be read or do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _profile(context)
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    if revoked is not None:
        _Revocation(context, revoked)
    return context


class _Revocation:
    """The lists of what was revoked, as they stand in a file that its CA replaces from time to
    time: of each issuer the newest counts."""

    def __init__(self, context: ssl.SSLContext, lists: Path) -> None:
        self._lists = lists
        self._lock = threading.Lock()
        self._read = self._stamp()
        context.load_verify_locations(lists)
        if not context.cert_store_stats()["crl"]:
            raise OSError(f"{lists} has no certificate revocation list")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.sni_callback = self._looked

    def _stamp(self) -> tuple[int, int]:
        found = self._lists.stat()
        return found.st_mtime_ns, found.st_ino

    def _looked(
        self, _connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, context: ssl.SSLContext
    ) -> None:
        """Before each handshake. What cannot be read changes nothing: the lists run out by
        themselves."""
        try:
            with self._lock:
                if (found := self._stamp()) != self._read:
                    context.load_verify_locations(self._lists)
                    self._read = found
        except OSError as error:
            log.error("the certificate revocation lists cannot be read: %s", type(error).__name__)


def requestor(
    certificate: Path | None = None, key: Path | None = None, ca: Path | None = None
) -> ssl.SSLContext:
    """For who calls. The acceptor's certificate must be of `ca`, and name the host that is called.

    Without `ca` none is verified: then whoever calls has to compare the certificate's fingerprint,
    as `requestor.connect` does. Raises OSError as `acceptor`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _profile(context)
    if ca is not None:
        context.load_verify_locations(ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def words(error: OSError) -> str:
    """Why TLS failed, in words about the other end."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "closed"
        return WORDS.get(reason, reason.lower().replace("_", " "))
    return error.strerror or "no answer in time"


def _profile(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((_SECURITY_LEVEL, *SUITES)))
    context.options |= (
        ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
