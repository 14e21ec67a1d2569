"""The Storage Commitment Push Model as SCU, for a command that a person gives (PS3.4 annex J)."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from exchange.commitment import Reference
from exchange.errors import Invalid, Unavailable
from exchange_dicom import attributes, contexts, dimse, status
from exchange_dicom.association import Association, Message
from exchange_dicom.commitment import read_event
from exchange_dicom.contexts import UNCOMPRESSED
from exchange_dicom.dimse import CommandField
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import (
    Accepted,
    Conduct,
    Peer,
    TransferSyntaxes,
    select_contexts,
)
from exchange_dicom.pdu import AssociateRequest
from exchange_dicom.requestor import Proposal
from exchange_dicom.scu import Node, associated, context_of, words
from exchange_dicom.states import AssociationEnded
from exchange_dicom.transport_security import Contexts
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

REPORT_LENGTH = 8 << 20
"""Bytes of the longest report that is read."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node answers for, and what it does not, with its failure reasons."""

    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def ask_commitment(
    node: Node,
    references: Sequence[Reference],
    *,
    listen: int | None,
    seconds: float,
    listening_tls: Contexts | None = None,
) -> Report:
    """Ask the node to answer for instances (SOP Class and Instance UIDs), and wait for its report.

    The report is taken on the association of the request, or on an own one at the port `listen`,
    over `listening_tls` if given. Raises Invalid when the node refuses, Unavailable when no report
    comes within `seconds`, or before the node ends the association on which it was to come.
    """
    transaction = f"2.25.{uuid.uuid4().int}"
    reports: queue.Queue[Report] = queue.Queue()

    def take(association: Association, message: Message) -> bool:
        """Answer a report; whether it was one, and of our transaction."""
        command = message.command
        if command.command_field is not CommandField.N_EVENT_REPORT_RQ or message.data is None:
            return False
        told, committed, failed = read_event(
            message.data.read(REPORT_LENGTH), message.context.transfer_syntax
        )
        association.send(message.context.context_id, dimse.response(command, status.SUCCESS))
        if told == transaction:
            reports.put(Report(tuple(committed), tuple(failed)))
        return told == transaction

    def handle(association: Association) -> None:
        if association.negotiate(_takes_reports):
            for message in association.messages():
                take(association, message)

    acceptor = _reports_at(listen, handle, listening_tls) if listen is not None else None
    thread = threading.Thread(target=acceptor.serve_forever) if acceptor is not None else None
    if thread is not None:
        thread.start()
    try:
        body: dict[str, attributes.Value] = {
            "TransactionUID": transaction,
            "ReferencedSOPSequence": [
                {"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": instance}
                for sop_class, instance in references
            ],
        }
        with associated(
            node,
            [Proposal(contexts.STORAGE_COMMITMENT_PUSH, UNCOMPRESSED)],
            conduct=Conduct(network_timeout=seconds),
        ) as association:
            context = context_of(association, contexts.STORAGE_COMMITMENT_PUSH)
            number = association.next_message_id()
            command = dimse.request(
                CommandField.N_ACTION_RQ,
                number,
                contexts.STORAGE_COMMITMENT_PUSH,
                contexts.STORAGE_COMMITMENT_INSTANCE,
                data_set_present=True,
                action_type=1,
            )
            explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
            association.send(
                context.context_id, command, attributes.encode(body, explicit=explicit)
            )
            answer = association.next_response(number).command
            if answer.status != status.SUCCESS:
                raise Invalid(words(answer, {}))
            if acceptor is None:
                with suppress(AssociationEnded):  # what that means is that no report has come
                    while (message := association.next_message()) is not None:
                        if take(association, message):
                            break
        return reports.get(timeout=seconds if acceptor is not None else 0.1)
    except queue.Empty:
        if listen is None:
            raise Unavailable(
                "the node has taken the request, and brought no report over the same association; "
                "it may bring it to a port that it has registered for us: --listen PORT waits there"
            ) from None
        raise Unavailable(
            f"the node has taken the request, and brought no report to port {listen}; it has to "
            "have our AE title registered with this machine's address and that port, and may "
            "bring it later: --wait SECONDS waits longer"
        ) from None
    finally:
        if acceptor is not None and thread is not None:
            acceptor.stop(1.0)
            thread.join()


def _reports_at(port: int, handle: Callable[[Association], None], tls: Contexts | None) -> Acceptor:
    """At `port` of every address of this machine. Raises Unavailable."""
    try:
        return Acceptor([("0.0.0.0", port), ("::", port)], handle, tls=tls)  # noqa: S104
    except OSError:
        pass  # a machine without IPv6
    try:
        return Acceptor([("0.0.0.0", port)], handle, tls=tls)  # noqa: S104
    except OSError as error:
        raise Unavailable(f"cannot listen on port {port}: {error.strerror}") from error


def _takes_reports(request: AssociateRequest, _: Peer) -> Accepted:
    """Reports come from an SCP that calls (PS3.4 J.3.3): the roles are as it proposes them."""

    def served(abstract_syntax: str) -> TransferSyntaxes | None:
        known = abstract_syntax == contexts.STORAGE_COMMITMENT_PUSH
        return TransferSyntaxes(UNCOMPRESSED) if known else None

    return Accepted(
        contexts=select_contexts(request.contexts, served),
        roles=tuple(
            role
            for role in request.user.roles
            if role.sop_class == contexts.STORAGE_COMMITMENT_PUSH
        ),
    )
