"""Deliveries to other nodes: by C-STORE, or by STOW-RS (PS3.18 section 10.5).

A DICOMweb service that asks who calls gets what a file in the form of netrc says for its host: a
login and password by HTTP Basic, or the password as a bearer token where the login is ``bearer``.
"""

from __future__ import annotations

import netrc
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from exchange import calling, deliveries, retrieval
from exchange.access import Exchange
from exchange.deliveries import Parcel
from exchange.errors import Unavailable
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import multipart, sending, verification
from exchange_dicom.media_types import DICOM, MULTIPART
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import UpperLayerError
from exchange_dicom.sending import Outgoing
from exchange_dicom.states import AssociationRejected

CHUNK = 50
"""Instances after which what was confirmed is noted: a crash sends no more than these again."""

STOW = 20
"""Instances of one STOW-RS request."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How the exchange shows itself to DICOMweb services, and whom it believes."""

    netrc: Path | None = None
    """File with a login for each host; read at each delivery, so that a new one counts at once."""
    ca: Path | None = None
    """PEM certificates of a CA that is trusted beside those of the system."""

    def headers(self, host: str) -> Mapping[str, str]:
        """The header that says to `host` who calls; none where the file has no login for it.

        Raises Unavailable when the file cannot be read.
        """
        if self.netrc is None:
            return {}
        try:
            found = netrc.netrc(self.netrc).authenticators(host)
        except (OSError, netrc.NetrcParseError) as error:
            raise Unavailable(
                f"the logins of DICOMweb services cannot be read: {type(error).__name__}"
            ) from error
        match found:
            case None:
                return {}
            case ("bearer", _, password):
                return {"Authorization": f"Bearer {password}"}
            case (login, _, password):
                return urllib3.make_headers(basic_auth=f"{login}:{password}")


NOBODY = Credentials()
"""Neither a login nor a CA of one's own."""


class Unanswered(Unavailable):
    """The destination did not answer at all, not even for one instance."""


class Rejected(Unanswered):
    """The destination rejects every association: nothing else is answered there either."""


def deliver(
    exchange: Exchange,
    requester: Requester,
    number: int,
    *,
    calling: str,
    timezone: ZoneInfo,
    tls: ssl.SSLContext | None = None,
    credentials: Credentials = NOBODY,
    conduct: Conduct | None = None,
) -> None:
    """Send what a delivery has not sent yet, on behalf of the worker `requester`.

    Raises jobs.Later outside its hours, and Unavailable when the destination did not take all: what
    it took is noted, and the job tries the rest again.
    """
    with exchange.on_behalf_of(requester) as access:
        parcel = deliveries.parcel(access, number, timezone=timezone)
    if parcel is None:
        return
    wanted = [
        one
        for one in sending.outgoing(parcel.selected, parcel.receiver)
        if one.held.digest not in parcel.sent
    ]
    failed, reason, complete, answered = 0, "", False, True
    taken: list[Held] = []
    sent = (
        _sent(parcel, wanted, calling, tls, conduct)
        if parcel.entity is not None
        else _stowed(parcel.url, wanted, credentials)
    )
    try:
        for one, stored, why in sent:
            if stored:
                taken.append(one.held)
            elif one.held.digest not in parcel.notes or why != sending.NOT_TAKEN:
                failed, reason = failed + 1, why
            if len(taken) >= CHUNK:
                with exchange.on_behalf_of(requester) as access:
                    deliveries.confirmed(access, number, taken, complete=False)
                taken = []
        complete = not failed and not parcel.withheld
    except Unanswered:
        answered = False
        with exchange.on_behalf_of(requester) as access:
            deliveries.unanswered(access, number)
        raise
    finally:  # what was taken is noted whatever comes after it
        if taken or failed or complete:
            with exchange.on_behalf_of(requester) as access:
                deliveries.confirmed(
                    access,
                    number,
                    taken,
                    complete=complete,
                    failed=failed,
                    why=reason,
                    answered=answered,
                )
    if failed:
        raise Unavailable(f"{failed} instances were not taken: {reason}")


def _sent(
    parcel: Parcel,
    wanted: Sequence[Outgoing],
    calling: str,
    tls: ssl.SSLContext | None,
    conduct: Conduct | None,
) -> Iterator[tuple[Outgoing, bool, str]]:
    if parcel.entity is None or not wanted:
        return
    address = sending.address_of(parcel.entity, calling=calling, tls=tls)
    heard = False
    lost = ""
    try:
        for result in sending.send(address, wanted, conduct=conduct):
            if result.unanswered:
                lost = result.reason
            else:
                heard = True
            told = f"{result.status:04X}" if result.status is not None else result.reason
            yield result.outgoing, result.stored, told
    except AssociationRejected as error:
        raise Rejected(str(error)) from error
    except UpperLayerError as error:
        raise Unanswered(str(error)) from error
    # Who ends each association at an image, and is well otherwise, minds these images.
    if lost and not heard and not verification.answers(address):
        raise Unanswered(lost)


def _stowed(
    url: str, wanted: Sequence[Outgoing], credentials: Credentials
) -> Iterator[tuple[Outgoing, bool, str]]:
    heard = False
    known = credentials.headers(urllib3.util.parse_url(url).hostname or "")
    ca = str(credentials.ca) if credentials.ca is not None else None
    with urllib3.PoolManager(retries=False, ca_certs=ca) as pool:
        pool.pool_classes_by_scheme = _POOLS
        yield from ((one, False, retrieval.DAMAGED) for one in wanted if one.held.damaged)
        wanted = [one for one in wanted if not one.held.damaged]
        for at in range(0, len(wanted), STOW):
            some = list(wanted[at : at + STOW])
            while some:
                boundary = multipart.new_boundary()
                try:
                    answer = pool.request(
                        "POST",
                        f"{url}/studies",
                        body=_body(some, boundary),
                        headers={
                            **known,
                            "Content-Type": f'{MULTIPART}; type="{DICOM}"; boundary={boundary}',
                            "Content-Length": str(_length(some, boundary)),
                            "Accept": "application/dicom+json",
                        },
                        timeout=urllib3.Timeout(CONNECT_SECONDS, READ_SECONDS),
                        redirect=False,
                    )
                except _Unreadable as error:
                    # Half a request cannot be taken back: another one, without the object.
                    some.remove(error.outgoing)
                    yield error.outgoing, False, str(error)
                    continue
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    # Who has answered before in this attempt keeps no other study waiting.
                    raise (Unavailable if heard else Unanswered)(
                        f"the DICOMweb service does not answer: {type(error).__name__}"
                    ) from error
                heard = True
                taken = _taken(answer) if answer.status in {200, 202, 409} else frozenset()
                for one in some:
                    yield one, one.held.sop_instance_uid in taken, f"HTTP {answer.status}"
                break


class _Called(HTTPConnection):
    """A connection to where a route may lead, whatever its host resolves to this time."""

    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


class _SecurelyCalled(HTTPSConnection):
    """The same over TLS."""

    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn())


def _checked(connected: socket.socket) -> socket.socket:
    """The connection, before a byte was sent. Raises Unavailable."""
    if not calling.may_be_called(connected.getpeername()[0]):
        connected.close()
        raise Unavailable("the DICOMweb service is at an address that no route leads to")
    return connected


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Called


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecurelyCalled


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Unreadable(Exception):
    """An object of a request cannot be read to its end."""

    def __init__(self, outgoing: Outgoing, why: str) -> None:
        super().__init__(why)
        self.outgoing = outgoing


def _head(boundary: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()


def _end(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def _length(wanted: Sequence[Outgoing], boundary: str) -> int:
    """Bytes of the body: not every server takes one whose length it is not told."""
    between = len(_head(boundary)) + len(b"\r\n")
    return sum(one.held.size + between for one in wanted) + len(_end(boundary))


def _body(wanted: Sequence[Outgoing], boundary: str) -> Iterator[bytes]:
    for one in wanted:
        yield _head(boundary)
        try:
            yield from one.held.stream()
        except Unavailable as error:
            raise _Unreadable(one, str(error)) from error
        yield b"\r\n"
    yield _end(boundary)


def _taken(answer: urllib3.BaseHTTPResponse) -> frozenset[str]:
    """The SOP Instance UIDs of Referenced SOP Sequence (PS3.18 Table 10.5.3-1).

    Only what is named there is stored: what failed need not be named (Other Failures Sequence), and
    an answer that cannot be read names nothing.
    """
    try:
        told = answer.json()
        items = told.get("00081199", {}).get("Value", ())
        return frozenset(item["00081155"]["Value"][0] for item in items)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        return frozenset()
