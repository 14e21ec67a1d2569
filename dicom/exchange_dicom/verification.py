"""The Verification service class as SCP (PS3.4 Annex A)."""

from __future__ import annotations

from exchange_dicom import status
from exchange_dicom.association import Message
from exchange_dicom.conversation import Conversation


def echo(conversation: Conversation, message: Message) -> None:
    """C-ECHO."""
    conversation.answer(message, status.SUCCESS)
