"""The Storage Commitment Push Model as SCP (PS3.4 annex J).

The request is durable before it is answered. The report goes to the asker over an association of
our own with reversed roles (J.3.3), tried again until it is confirmed; an asker that is registered
without a port is told on the association on which it asked, as long as that lasts.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress

from exchange import commitment
from exchange.access import Exchange
from exchange.commitment import Reference, Report
from exchange.errors import ExchangeError, Invalid, Unavailable
from exchange.jobs import Later
from exchange.policy import Requester
from exchange_dicom import attributes, data_set, dimse, requestor, sending, status
from exchange_dicom.association import Association, Message, TooLarge
from exchange_dicom.contexts import (
    STORAGE_COMMITMENT_INSTANCE,
    STORAGE_COMMITMENT_PUSH,
    UNCOMPRESSED,
    stored,
)
from exchange_dicom.conversation import Conversation
from exchange_dicom.data_set import Element
from exchange_dicom.dimse import CommandField
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.negotiation import Context
from exchange_dicom.pdu import RoleSelection, UpperLayerError
from exchange_dicom.requestor import Proposal
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

REQUEST_LENGTH = 8 << 20
"""Bytes of the longest list of instances that is read."""

ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 Table J.3-2)."""

SAME_ASSOCIATION_SECONDS = 10.0
"""How long an asker without a port of its own is kept waiting for its report."""

AGAIN_SECONDS = 1.0
"""How long such an asker is silent before its report is tried again, and that may take at most."""

_TRANSACTION_UID = 0x00081195
_REFERENCED_SEQUENCE = 0x00081199
_FAILED_SEQUENCE = 0x00081198
_CLASS, _INSTANCE, _REASON = 0x00081150, 0x00081155, 0x00081197


def request(conversation: Conversation, message: Message) -> None:
    """N-ACTION: Request Storage Commitment."""
    command = message.command
    if command.sop_instance != STORAGE_COMMITMENT_INSTANCE:
        conversation.answer(message, status.NO_SUCH_OBJECT_INSTANCE)
        return
    if command.action_type != 1:
        conversation.answer(message, status.NO_SUCH_ACTION)
        return
    if message.data is None:
        conversation.answer(message, status.INVALID_ARGUMENT, "there is no data set")
        return
    try:
        raw = message.data.read(REQUEST_LENGTH)
        transaction, references = _asked(raw, message.context.transfer_syntax)
    except TooLarge:
        conversation.answer(message, status.RESOURCE_LIMITATION, "too many instances at once")
        return
    except MalformedDataSet:
        conversation.answer(message, status.INVALID_ARGUMENT, "this is not a data set")
        return
    try:
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            number = commitment.ask(
                access,
                transaction,
                references,
                address=conversation.requester.address,
                unsupported={one for one, _ in references if stored(one) is None},
            )
    except Invalid as error:
        conversation.answer(message, status.INVALID_ARGUMENT, str(error))
        return
    except ExchangeError as error:
        conversation.answer(message, status.N_SERVICE[type(error)], str(error))
        return
    conversation.answer(message, status.SUCCESS)
    conversation.to_report.append((message.context, number))
    _tell_at_once(conversation)


def confirmed(conversation: Conversation, message: Message) -> None:
    """The response to an N-EVENT-REPORT on the asker's own association."""
    number, conversation.reporting = conversation.reporting, None
    if number is not None and message.command.status == status.SUCCESS:
        with (
            suppress(ExchangeError),
            conversation.exchange.on_behalf_of(conversation.requester) as access,
        ):
            commitment.reported(access, number)
    _tell_at_once(conversation)


def while_silent(conversation: Conversation, seconds: float) -> None:
    """Report what was not ready before, until the asker says something, for `seconds` at most."""
    silent = 0.0
    while (
        conversation.to_report
        and conversation.reporting is None
        and silent < seconds
        and conversation.association.silent(AGAIN_SECONDS)
    ):
        silent += AGAIN_SECONDS
        conversation.confirm()
        _tell_at_once(conversation, AGAIN_SECONDS)


def report(
    exchange: Exchange,
    requester: Requester,
    number: int,
    *,
    calling: str,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Check a transaction on behalf of the worker `requester`, and tell its asker.

    Raises jobs.Later while an object is on its way, Unavailable when the asker does not confirm:
    the job is tried again.
    """
    done = False
    while not done:
        with exchange.on_behalf_of(requester) as access:
            done = commitment.check(access, number)
    with exchange.on_behalf_of(requester) as access:
        told = commitment.report(access, number)
        entities = [
            sending.address_of(one, calling=calling, tls=tls)
            for one in commitment.receivers(access, told)
        ]
    if not entities or not told.address:
        return  # it is fetched, or was told where it was asked
    failure, heard = "", False
    for address in entities:
        answer = None
        try:
            with requestor.connect(
                address,
                [Proposal(STORAGE_COMMITMENT_PUSH, UNCOMPRESSED)],
                # The one who calls is the SCP this time (PS3.7 D.3.3.4).
                roles=[RoleSelection(STORAGE_COMMITMENT_PUSH, scu=False, scp=True)],
            ) as association:
                context = association.context_for(STORAGE_COMMITMENT_PUSH)
                if context is None:
                    failure, heard = "the asker does not take storage commitment reports", True
                    continue
                answer = _tell(association, context, association.next_message_id(), told)
                heard = True
        except UpperLayerError as error:
            if answer is None:  # how it ends after an answer changes nothing about that
                failure = str(error)
                continue
        if answer == status.SUCCESS:
            with exchange.on_behalf_of(requester) as access:
                commitment.reported(access, number, told)
            return
        failure = f"the asker answered the report with {answer:04X}"
    with exchange.on_behalf_of(requester) as access:
        if heard:
            commitment.answered(access, told)
        else:
            commitment.unanswered(access, number, told)
    raise Unavailable(failure)


def event(told: Report, *, explicit: bool) -> tuple[int, bytes]:
    """Event type and event information of the report on a transaction (PS3.4 Table J.3-2)."""
    kind = FAILURES_EXIST if told.failed else ALL_COMMITTED
    return kind, attributes.encode(information(told), explicit=explicit)


def information(told: Report) -> dict[str, attributes.Value]:
    """The attributes of the report on a transaction: every reference is in one of its sequences."""
    body: dict[str, attributes.Value] = {"TransactionUID": told.transaction_uid}
    if told.committed:
        body["ReferencedSOPSequence"] = [_item(one) for one in told.committed]
    if told.failed:
        body["FailedSOPSequence"] = [
            _item(one) | {"FailureReason": reason} for one, reason in told.failed
        ]
    return body


def read_event(
    raw: bytes, transfer_syntax_uid: str
) -> tuple[str, list[Reference], list[tuple[Reference, int]]]:
    """Transaction UID, committed and failed references of a report. Raises MalformedDataSet."""
    found = {element.tag: element for element in data_set.elements(raw, transfer_syntax_uid)}
    failed = found.get(_FAILED_SEQUENCE)
    reasons = []
    for item in (failed and failed.items) or ():
        (reference,) = _references([item])
        reason = next((one.value for one in item if one.tag == _REASON), None)
        reasons.append((reference, int.from_bytes(bytes(reason or b"")[:2], "little")))
    referenced = found.get(_REFERENCED_SEQUENCE)
    committed = _references((referenced and referenced.items) or ())
    return _text(found.get(_TRANSACTION_UID)), committed, reasons


def _tell_at_once(conversation: Conversation, seconds: float = SAME_ASSOCIATION_SECONDS) -> None:
    """Report on this association, to an asker that has no port to be called at.

    One report at a time (PS3.7 D.3.3.3); its response is taken when it comes, since the asker may
    well have sent its next request by then. What is not ready yet stays to be reported: an object
    may still be in the spool.
    """
    for _ in range(len(conversation.to_report)):
        if conversation.reporting is not None:
            return
        context, number = conversation.to_report.popleft()
        try:
            told = _ready(conversation, number, seconds)
        except Later:
            conversation.to_report.append((context, number))
            continue
        if told is not None:
            conversation.reporting = number
            _report(conversation.association, context, _REPORT_ID, told)


def _ready(conversation: Conversation, number: int, seconds: float) -> Report | None:
    """The report on a transaction; None where it is not told here.

    Raises Later when it is not checked after `seconds`.
    """
    exchange = conversation.exchange
    try:
        with exchange.on_behalf_of(conversation.requester) as access:
            asked = access.requester
            listening = commitment.receivers(
                access,
                Report(
                    transaction_uid="",
                    organization=access.organization,
                    requester=asked.name,
                    address=asked.address,
                    committed=(),
                    failed=(),
                ),
            )
            if listening:
                return None
        with exchange.on_behalf_of(conversation.requester) as access:
            done = commitment.check(access, number, seconds=seconds)
        if not done:
            raise Later(AGAIN_SECONDS)
        with exchange.on_behalf_of(conversation.requester) as access:
            return commitment.report(access, number)
    except Unavailable as error:
        raise Later(AGAIN_SECONDS) from error
    except ExchangeError:
        return None


def _tell(association: Association, context: Context, message_id: int, told: Report) -> int:
    _report(association, context, message_id, told)
    return association.next_response(message_id).command.status


def _report(association: Association, context: Context, message_id: int, told: Report) -> None:
    explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    kind, body = event(told, explicit=explicit)
    command = dimse.request(
        CommandField.N_EVENT_REPORT_RQ,
        message_id,
        STORAGE_COMMITMENT_PUSH,
        STORAGE_COMMITMENT_INSTANCE,
        data_set_present=True,
        event_type=kind,
    )
    association.send(context.context_id, command, body)


_REPORT_ID = 1


def _item(reference: Reference) -> dict[str, attributes.Value]:
    return {"ReferencedSOPClassUID": reference[0], "ReferencedSOPInstanceUID": reference[1]}


def _asked(raw: bytes, transfer_syntax_uid: str) -> tuple[str, list[Reference]]:
    found = {element.tag: element for element in data_set.elements(raw, transfer_syntax_uid)}
    sequence = found.get(_REFERENCED_SEQUENCE)
    return _text(found.get(_TRANSACTION_UID)), _references((sequence and sequence.items) or ())


def _references(items: Iterable[Sequence[Element]]) -> list[Reference]:
    references = []
    for item in items:
        values = {element.tag: _text(element) for element in item}
        references.append((values.get(_CLASS, ""), values.get(_INSTANCE, "")))
    return references


def _text(element: Element | None) -> str:
    value = bytes(element.value or b"") if element is not None else b""
    return value.decode("ascii", "replace").strip(" \0")
