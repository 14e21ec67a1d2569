"""The DICOM node and the desk beside it: settings in, acceptors out; see `composition`."""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from exchange.access import Exchange
from exchange.errors import Invalid, Unavailable
from exchange_server.settings import Settings
from exchange_server.tokens import Tokens

if TYPE_CHECKING:
    from exchange_dicom.conversation import Limits
    from exchange_dicom.desk import Desk
    from exchange_dicom.dimse import CommandField
    from exchange_dicom.listener import Acceptor
    from exchange_dicom.negotiation import Conduct
    from exchange_dicom.transport_security import Contexts


def dicom_nodes(exchange: Exchange, settings: Settings, tokens: Tokens) -> list[Acceptor]:
    """The DICOM node's acceptors: one, or a plain one and one over TLS on a port of its own.

    Bound and not yet serving. Raises Invalid, Unavailable for a port.
    """
    tls = dimse_tls(settings)
    if settings.dimse_tls_port is None or tls is None:
        return [_acceptor(exchange, settings, tokens, settings.dimse_port, tls)]
    plain = _acceptor(exchange, settings, tokens, settings.dimse_port, None)
    try:
        return [plain, _acceptor(exchange, settings, tokens, settings.dimse_tls_port, tls)]
    except BaseException:
        plain.stop(0)
        raise


def _acceptor(
    exchange: Exchange, settings: Settings, tokens: Tokens, port: int, tls: Contexts | None
) -> Acceptor:
    from exchange_dicom.desk import WayToDesk
    from exchange_dicom.node import node
    from exchange_server.identities import Identities

    addresses = [(host, port) for host in settings.dimse_addresses]
    try:
        return node(
            exchange,
            ae_title=settings.ae_title,
            addresses=addresses,
            conduct=_conduct(settings),
            tls=tls,
            client_tls=client_tls(settings),
            limits=_limits(settings),
            share_port=settings.node_processes > 1,
            verify=Identities(exchange, tokens),
            observed=_counted,
            way_to_desk=WayToDesk(settings.run) if settings.desk_processes else None,
        )
    except OSError as error:
        raise Unavailable(
            f"cannot listen on port {port} of "
            f"{', '.join(settings.dimse_addresses)}: {error.strerror}"
        ) from error


def desk(exchange: Exchange, settings: Settings) -> Desk:
    """The desk, that answers beside the node. Raises Invalid, Unavailable where there is one."""
    from exchange_dicom.node import desk

    try:
        return desk(
            exchange,
            settings.run,
            ae_title=settings.ae_title,
            conduct=_conduct(settings),
            client_tls=client_tls(settings),
            limits=_limits(settings),
            observed=_counted,
        )
    except OSError as error:
        reason = "another one does" if error.errno == errno.EADDRINUSE else error.strerror
        raise Unavailable(f"the desk cannot listen in {settings.run}: {reason}") from error


def _conduct(settings: Settings) -> Conduct:
    from exchange_dicom.negotiation import Conduct

    return Conduct(
        maximum_length=settings.dimse_maximum_length,
        artim_timeout=settings.dimse_artim_timeout,
        network_timeout=settings.dimse_network_timeout,
        pdu_timeout=settings.dimse_pdu_timeout,
        minimum_rate=settings.dimse_minimum_rate,
    )


def _limits(settings: Settings) -> Limits:
    from exchange_dicom.conversation import Limits

    return Limits(
        instance_bytes=settings.instance_limit,
        matches=settings.dimse_matches,
        associations=settings.dimse_associations,
        move_associations=settings.dimse_move_associations,
    )


def _counted(operation: CommandField, code: int) -> None:
    """The node has answered an operation: hundreds a second, so that what counts them is kept."""
    _count(operation, code)()


@cache
def _count(operation: CommandField, code: int) -> Callable[[], None]:
    from exchange_dicom.status import type_of
    from exchange_server.observability import DIMSE_RESPONSE, counter

    return counter(DIMSE_RESPONSE, operation.service, type_of(code), f"{code:04X}")


def dimse_tls(settings: Settings) -> Contexts | None:
    """The node's end of TLS. Raises Invalid."""
    from exchange_dicom import transport_security

    if settings.dimse_tls_certificate is None:
        return None
    if settings.dimse_tls_client_ca is None:
        logging.getLogger(__name__).warning(
            "dimse_tls_client_ca is not set: nobody is asked for a certificate, and no application "
            "entity that is registered with the fingerprint of one can call"
        )
    try:
        return transport_security.acceptor(
            settings.dimse_tls_certificate,
            settings.dimse_tls_key,
            settings.dimse_tls_client_ca,
            settings.dimse_tls_crl,
        )
    except OSError as error:
        raise Invalid(
            "the certificates of the node, or their revocation lists, cannot be read: "
            f"{type(error).__name__}"
        ) from error


def client_tls(settings: Settings) -> ssl.SSLContext:
    """How we call nodes that speak TLS: their certificate is the registered one, and ours shown.

    Whose certificate it is, its registered fingerprint says; a CA could vouch for others too.
    Raises Invalid.
    """
    from exchange_dicom import transport_security

    try:
        return transport_security.requestor(settings.dimse_tls_certificate, settings.dimse_tls_key)
    except OSError as error:
        raise Invalid(
            f"the certificates of the node cannot be read: {type(error).__name__}"
        ) from error
