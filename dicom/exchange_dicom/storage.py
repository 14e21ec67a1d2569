"""The Storage service class as SCP (PS3.4 Annex B).

A C-STORE is answered 0000 when the instance is durable and indexed, not before; every other
status says that nothing was kept.

A C-STORE whose command and data set name different instances or SOP classes is refused with A900.
Where both agree and only the abstract syntax of the presentation context is another storage SOP
class (PS3.7 9.1.1.1.2 has them the same), the instance is kept: which image it is, is not in
doubt, and senders that do so go unnoticed elsewhere, since DCMTK's storescp takes it too.
"""

from __future__ import annotations

import time

from exchange import ingest
from exchange.errors import ExchangeError
from exchange_dicom import dimse, instance, part10, rejection_note, status
from exchange_dicom.association import Message
from exchange_dicom.conversation import Conversation


def store(conversation: Conversation, message: Message) -> None:
    """C-STORE."""
    command = message.command
    context = message.context
    if message.data is None:
        conversation.answer(message, status.UNRECOGNIZED_OPERATION)
        return
    try:
        meta = part10.file_meta(command.sop_class, command.sop_instance, context.transfer_syntax)
        with (
            conversation.exchange.on_behalf_of(conversation.requester) as access,
            ingest.begin(access, limit=conversation.limits.instance_bytes) as incoming,
        ):
            incoming.write(meta)
            for piece in message.data.pieces():
                incoming.write(piece)
            received = instance.read(incoming, len(meta), context.transfer_syntax)
            _agree(command, received)
            note = rejection_note.read(incoming, received, len(meta))
            ingest.receive(access, incoming, received, note=note)
    except _Mismatch as error:
        conversation.answer(message, status.DATA_SET_MISMATCH, str(error))
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].store, str(error))
    else:
        if pause := conversation.pace():
            time.sleep(pause)  # it is kept; the sender of too many waits for its answer
        conversation.answered(message, status.SUCCESS)
        conversation.association.send(context.context_id, dimse.stored(command))


class _Mismatch(Exception):
    """The data set is not the instance that the command names."""


def _agree(command: dimse.Command, received: ingest.Received) -> None:
    """PS3.7 9.1.1.1: the command names the instance that follows."""
    for keyword, named in (
        ("SOPInstanceUID", command.sop_instance),
        ("SOPClassUID", command.sop_class),
    ):
        if received.attributes.get(keyword, named) != named:
            raise _Mismatch(f"{keyword} differs between command and data set")
