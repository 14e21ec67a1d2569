"""Deliveries to other nodes: by C-STORE, or by STOW-RS (PS3.18 section 10.5)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

import urllib3

from exchange import routing
from exchange.access import Exchange
from exchange.errors import Unavailable
from exchange.policy import Requester
from exchange.routing import Parcel
from exchange_dicom import multipart, sending
from exchange_dicom.media_types import DICOM, MULTIPART
from exchange_dicom.pdu import UpperLayerError
from exchange_dicom.sending import Outgoing

CHUNK = 50
"""Instances after which what was confirmed is noted: a crash sends no more than these again."""

STOW = 20
"""Instances of one STOW-RS request."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 300.0


def deliver(
    exchange: Exchange,
    requester: Requester,
    number: int,
    *,
    calling: str,
    timezone: ZoneInfo,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Send what a delivery has not sent yet, on behalf of the worker `requester`.

    Raises jobs.Later outside its hours, and Unavailable when the destination did not take all: what
    it took is noted, and the job tries the rest again.
    """
    with exchange.on_behalf_of(requester) as access:
        parcel = routing.parcel(access, number, timezone=timezone)
    if parcel is None:
        return
    wanted = [
        one
        for one in sending.outgoing(parcel.selected, parcel.receiver)
        if one.held.digest not in parcel.sent
    ]
    if not parcel.receiver:  # a DICOMweb service gets the hospital's own images as they are
        wanted = [Outgoing(one.held) for one in wanted]
    failed = 0
    reason = ""
    taken: list[str] = []
    for one, stored, why in _sent(parcel, wanted, calling, tls):
        if stored:
            taken.append(one.held.key)
        else:
            failed, reason = failed + 1, why
        if len(taken) >= CHUNK:
            _note(exchange, requester, number, taken, complete=False)
            taken = []
    _note(exchange, requester, number, taken, complete=not failed)
    if failed:
        raise Unavailable(f"{failed} instances were not taken: {reason}")


def _note(
    exchange: Exchange, requester: Requester, number: int, keys: Sequence[str], *, complete: bool
) -> None:
    with exchange.on_behalf_of(requester) as access:
        routing.confirmed(access, number, keys, complete=complete)


def _sent(
    parcel: Parcel, wanted: Sequence[Outgoing], calling: str, tls: ssl.SSLContext | None
) -> Iterator[tuple[Outgoing, bool, str]]:
    if not wanted:
        return
    if parcel.entity is None:
        yield from _stowed(parcel.url, wanted)
        return
    address = sending.address_of(parcel.entity, calling=calling, tls=tls)
    try:
        for result in sending.send(address, wanted):
            told = f"{result.status:04X}" if result.status is not None else result.reason
            yield result.outgoing, result.stored, told
    except UpperLayerError as error:
        raise Unavailable(str(error)) from error


def _stowed(url: str, wanted: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, bool, str]]:
    with urllib3.PoolManager(retries=False) as pool:
        for at in range(0, len(wanted), STOW):
            some = wanted[at : at + STOW]
            boundary = multipart.new_boundary()
            try:
                answer = pool.request(
                    "POST",
                    f"{url}/studies",
                    body=_body(some, boundary),
                    headers={
                        "Content-Type": f'{MULTIPART}; type="{DICOM}"; boundary={boundary}',
                        "Accept": "application/dicom+json",
                    },
                    timeout=urllib3.Timeout(CONNECT_SECONDS, READ_SECONDS),
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                raise Unavailable(
                    f"the DICOMweb service does not answer: {type(error).__name__}"
                ) from error
            refused = _refused(answer) if answer.status in {200, 202, 409} else None
            for one in some:
                stored = refused is not None and one.held.sop_instance_uid not in refused
                yield one, stored, f"HTTP {answer.status}"


def _body(wanted: Sequence[Outgoing], boundary: str) -> Iterator[bytes]:
    for one in wanted:
        yield f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
        yield from one.held.stream()
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _refused(answer: urllib3.BaseHTTPResponse) -> set[str] | None:
    """The SOP Instance UIDs of Failed SOP Sequence; None where the answer cannot be read."""
    try:
        told = answer.json()
        return {item["00081155"]["Value"][0] for item in told.get("00081198", {}).get("Value", ())}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        return None
