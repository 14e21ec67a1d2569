"""Instance Availability Notification as SCU (PS3.4 annex R): an N-CREATE to who wants to know."""

from __future__ import annotations

import ssl

from exchange import availability
from exchange.access import Exchange
from exchange.availability import Notification
from exchange.errors import Unavailable
from exchange.policy import Requester
from exchange_dicom import attributes, dimse, requestor, sending, status
from exchange_dicom.contexts import (
    INSTANCE_AVAILABILITY_NOTIFICATION,
    PERFORMED_PROCEDURE_STEP,
    UNCOMPRESSED,
)
from exchange_dicom.dimse import CommandField
from exchange_dicom.pdu import UpperLayerError
from exchange_dicom.requestor import Proposal, Requested
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

ONLINE = "ONLINE"
"""Instance Availability (0008,0056): a C-MOVE from us succeeds in short time."""

TAKEN = frozenset(
    {
        status.SUCCESS,
        status.OPTIONAL_ATTRIBUTES_NOT_SUPPORTED,
        status.ATTRIBUTE_LIST_ERROR,
        status.ATTRIBUTE_VALUE_OUT_OF_RANGE,
        status.DUPLICATE_INSTANCE,
    }
)
"""Answers after which it is not told again: success, warnings, and that it is known already."""


def notify(
    exchange: Exchange,
    requester: Requester,
    subject: str,
    *,
    calling: str,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Tell a node, on behalf of the worker `requester`, what can be fetched from `calling`, us.

    Raises Unavailable when the node does not take it: the job is tried again.
    """
    with exchange.on_behalf_of(requester) as access:
        told = availability.notification(access, subject)
    if told is None:
        return
    address = sending.address_of(told.entity, calling=calling, tls=tls)
    answered, why = False, ""
    try:
        with requestor.connect(
            address, [Proposal(INSTANCE_AVAILABILITY_NOTIFICATION, UNCOMPRESSED)]
        ) as association:
            why = _refusal(association, told, calling)
            answered = True
    except UpperLayerError as error:
        if not answered:  # how it ends after an answer changes nothing about that
            why = str(error)
    with exchange.on_behalf_of(requester) as access:
        availability.ended(access, subject, told, answered=answered, why=why)
    if why:
        raise Unavailable(why)


def _refusal(association: Requested, told: Notification, calling: str) -> str:
    """Why the node does not take it; "" where it does. Raises UpperLayerError."""
    context = association.context_for(INSTANCE_AVAILABILITY_NOTIFICATION)
    if context is None:
        return "the node does not take Instance Availability Notifications"
    number = association.next_message_id()
    command = dimse.request(
        CommandField.N_CREATE_RQ,
        number,
        INSTANCE_AVAILABILITY_NOTIFICATION,
        told.uid,
        data_set_present=True,
    )
    explicit = context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    association.send(
        context.context_id, command, attributes.encode(content(told, calling), explicit=explicit)
    )
    answer = association.next_response(number).command.status
    return "" if answer in TAKEN else f"the node answered the notification with {answer:04X}"


def content(told: Notification, retrieve_ae_title: str) -> dict[str, attributes.Value]:
    """The attributes of a notification: those of Table R.3.2-1, since others are forbidden."""
    steps: list[dict[str, attributes.Value]] = []
    if told.step:
        steps.append(
            {
                "ReferencedSOPClassUID": PERFORMED_PROCEDURE_STEP,
                "ReferencedSOPInstanceUID": told.step,
                "PerformedWorkitemCodeSequence": [],
            }
        )
    return {
        "ReferencedPerformedProcedureStepSequence": steps,
        "StudyInstanceUID": told.study_instance_uid,
        "ReferencedSeriesSequence": [
            {
                "SeriesInstanceUID": series,
                "ReferencedSOPSequence": [
                    {
                        "ReferencedSOPClassUID": sop_class,
                        "ReferencedSOPInstanceUID": instance,
                        "InstanceAvailability": ONLINE,
                        "RetrieveAETitle": retrieve_ae_title,
                    }
                    for sop_class, instance in references
                ],
            }
            for series, references in told.series.items()
        ],
    }
