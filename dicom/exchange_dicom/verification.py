"""The Verification service class (PS3.4 Annex A): as SCP, and as SCU to see if a node is well."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from exchange_dicom import dimse, requestor, status
from exchange_dicom.association import Message
from exchange_dicom.contexts import UNCOMPRESSED, VERIFICATION
from exchange_dicom.dimse import CommandField
from exchange_dicom.negotiation import Conduct
from exchange_dicom.pdu import UpperLayerError
from exchange_dicom.requestor import Address, Proposal

if TYPE_CHECKING:
    from exchange_dicom.conversation import Conversation

SOON = Conduct(artim_timeout=10.0, network_timeout=10.0, pdu_timeout=10.0)
"""Who is well answers that in no time."""


def echo(conversation: Conversation, message: Message) -> None:
    """C-ECHO."""
    conversation.answer(message, status.SUCCESS)


def answers(address: Address) -> bool:
    """Whether the node takes an association and answers C-ECHO, if only to say that it has none."""
    heard = False
    with (
        suppress(UpperLayerError),  # how it ends after an answer changes nothing about that
        requestor.connect(address, [Proposal(VERIFICATION, UNCOMPRESSED)], conduct=SOON) as node,
    ):
        if context := node.context_for(VERIFICATION):
            number = node.next_message_id()
            command = dimse.request(CommandField.C_ECHO_RQ, number, VERIFICATION)
            node.send(context.context_id, command)
            node.next_response(number)
        heard = True
    return heard
