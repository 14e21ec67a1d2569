"""One association of the node: who is at the other end, and the services that answer them.

A service is a function for one message. `node` tabulates which one serves which operation.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exchange.access import Exchange
from exchange.policy import Requester
from exchange_dicom import dimse, status
from exchange_dicom.association import Association, Message
from exchange_dicom.dimse import CommandField
from exchange_dicom.negotiation import Context

log = logging.getLogger(__name__)

MATCHES = 5000
"""A C-FIND with more matches than this is refused as too broad."""


Observed = Callable[[CommandField, int], None]
"""Is told of a request that was answered, and with which status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one association may ask for."""

    instance_bytes: int = 8 << 30
    matches: int = MATCHES
    associations: int = 200
    move_associations: int = 1
    """Associations that one C-MOVE has with its destination."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """An established association, on behalf of one hospital."""

    exchange: Exchange
    association: Association
    ae_title: str
    """Our own."""
    limits: Limits
    requester: Requester
    extended: Mapping[str, bytes]
    """Extended negotiation granted, by SOP class (PS3.4 C.5.1.1)."""
    pace: Callable[[], float] = lambda: 0.0
    """Seconds to wait before an instance is answered, by the hospital's rate."""
    confirm: Callable[[], None] = lambda: None
    """Look whether the asker is still registered. Aborts the association, and raises
    AssociationEnded, where it is not."""
    client_tls: ssl.SSLContext | None = None
    """How we speak to nodes that are bound to a certificate."""
    observed: Observed = lambda _, __: None
    """Told of each operation that was answered, and with which status."""
    to_report: deque[tuple[Context, int]] = field(default_factory=deque)
    """Commitments that are still to be reported on this association, by row number."""
    reporting: int | None = None
    """The one whose report has not been answered yet."""

    def answer(self, message: Message, code: int, comment: str = "") -> None:
        """Send the response to `message`, without a data set."""
        self.answered(message, code, comment)
        response = dimse.response(message.command, code, error_comment=comment)
        self.association.send(message.context.context_id, response)

    def answered(self, message: Message, code: int, comment: str = "") -> None:
        """Have it counted that `message` gets its last response; one that refuses it is logged."""
        operation = message.command.command_field
        self.observed(operation, code)
        if code != status.SUCCESS and status.type_of(code) is status.Type.FAILURE:
            service, caller = operation.service, self.requester.name
            log.warning(
                "%s of %s was refused with %04X: %s",
                *(service, caller, code, comment or "no comment"),
                extra={"alike": (service, caller, code)},  # a comment may have a number in it
            )


Service = Callable[[Conversation, Message], None]
