"""TLS for both ends of an association: the BCP 195 profile (PS3.15 B.12; RFC 8996, RFC 9325).

TLS 1.2 at the least and 1.3 where both ends have it; only cipher suites with forward secrecy and
authenticated encryption, which the modified profile of B.13 has too; neither renegotiation nor
compression. Certificates on both sides, where the CA of the callers' is known.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
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
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate, or the list of those revoked, has expired",
    "TLSV1_ALERT_DECRYPT_ERROR": "it cannot verify our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not let our certificate in",
}
"""What OpenSSL's reasons mean, said of the other end."""


Contexts = Callable[[], ssl.SSLContext]
"""With what a connection is accepted: a context for it alone."""


def acceptor(
    certificate: Path, key: Path | None, client_ca: Path | None, revoked: Path | None = None
) -> Contexts:
    """For who is called. With `client_ca` only who shows a certificate of that CA is heard; without
    it none is asked for, and the caller is as unknown as without TLS.

    `revoked` has the certificate revocation lists (RFC 5280 section 5) of the CAs of `client_ca`,
    as PEM: nobody is heard whose certificate is on one, or whose issuer has none that is in force.
    For each connection holds what the files say when it is made. Raises OSError, which ssl.SSLError
    is, for files that cannot be read or do not fit.
    """
    return _Acceptor(certificate, key, client_ca, revoked)


class _Acceptor:
    """What is accepted, as the files have it now. Those that have changed are read into a new
    context: OpenSSL adds what it reads to what it knows, and would forget no list."""

    def __init__(
        self, certificate: Path, key: Path | None, client_ca: Path | None, revoked: Path | None
    ) -> None:
        self._own = certificate, key
        self._client_ca = client_ca
        self._revoked = revoked
        self._trusted = tuple(one for one in (client_ca, revoked) if one is not None)
        self._lock = threading.Lock()
        self._read = self._stamps()
        self._current = self._certified()
        for one in self._trusted:
            self._current.load_verify_locations(one)
        if revoked is not None and not self._current.cert_store_stats()["crl"]:
            raise OSError(f"{revoked} has no certificate revocation list")

    def __call__(self) -> ssl.SSLContext:
        """A context that has the sessions of one connection only: nobody resumes an earlier one,
        which would pass over all that was revoked, or has run out, since."""
        with self._lock:
            if (found := self._stamps()) != self._read:
                self._read_anew(found)
            current = self._current

        def certify(one: ssl.SSLSocket | ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            one.context = current

        context = self._bare()
        context.sni_callback = certify  # which OpenSSL calls whether a name is given or not
        return context

    def _read_anew(self, found: tuple[_Stamps, _Stamps]) -> None:
        """Of what cannot be read we know nothing, so that nobody is heard whom it would have to
        vouch for. Our own certificate, half replaced, remains what it was while that is so."""
        try:
            self._current = self._certified()
        except OSError as error:
            log.error("the certificate of the node cannot be read: %s", type(error).__name__)
            if found[1] == self._read[1]:
                return
            self._current = self._bare()
        for one in self._trusted:
            try:
                self._current.load_verify_locations(one)
            except OSError as error:
                log.error("%s cannot be read: %s", one.name, type(error).__name__)
        if self._revoked is not None and not self._current.cert_store_stats()["crl"]:
            log.error("no certificate revocation list is there: nobody is heard over TLS")
        self._read = found

    def _bare(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _profile(context)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        if self._revoked is not None:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context

    def _certified(self) -> ssl.SSLContext:
        context = self._bare()
        context.load_cert_chain(*self._own)
        return context

    def _stamps(self) -> tuple[_Stamps, _Stamps]:
        own = tuple(_stamp(one) for one in self._own if one is not None)
        return own, tuple(_stamp(one) for one in self._trusted)


_Stamps = tuple[tuple[int, ...] | None, ...]
_UNSETTLED = 1_000_000_000
"""Nanoseconds in which a file may change without a change of its times, which go by ticks."""


def _stamp(file: Path) -> tuple[int, ...] | None:
    """What changes with a file; None if it cannot be found. The stamp of one that was written just
    now is like no other: it may be half of what is being written."""
    try:
        found = file.stat()
    except OSError:
        return None
    if abs(time.time_ns() - found.st_ctime_ns) < _UNSETTLED:
        return (time.monotonic_ns(),)
    return found.st_ctime_ns, found.st_ino, found.st_size


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
