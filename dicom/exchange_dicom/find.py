"""The query half of the Query/Retrieve service class as SCP: C-FIND (PS3.4 C.4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from exchange import query
from exchange.errors import ExchangeError, Invalid
from exchange.own_numbers import Number
from exchange.summaries import NOTHING
from exchange_dicom import attributes, dimse, status
from exchange_dicom.association import Message, TooLarge
from exchange_dicom.contexts import FIND_LEVELS
from exchange_dicom.conversation import Conversation
from exchange_dicom.identifier import IDENTIFIER_LENGTH, Identifier
from exchange_dicom.query import REQUEST_ATTRIBUTES, question
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Level


def find(conversation: Conversation, message: Message) -> None:
    """C-FIND."""
    model = message.context.abstract_syntax
    if message.data is None:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is missing")
        return
    levels = FIND_LEVELS[model]
    extended = conversation.extended.get(model, b"").ljust(3, b"\0")
    relational = extended[0] == 1
    explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    try:
        raw = message.data.read(IDENTIFIER_LENGTH)
        identifier = Identifier.read(raw, message.context.transfer_syntax)
        level = identifier.level(levels, relational=relational)
        counted = not attributes.SUMMARIZED.isdisjoint(identifier.wanted)
        with conversation.exchange.on_behalf_of(conversation.requester) as access:
            asked = question(
                access,
                level,
                identifier.keys,
                combined=extended[1] == 1,
                fuzzy=extended[2] == 1,
                relational=relational,
            )
            answer = query.find(
                access,
                level,
                asked.criteria,
                limit=conversation.limits.matches,
                summarize=counted,
                company=counted,
                requests=REQUEST_ATTRIBUTES in identifier.wanted,
                too_broad=f"more than {conversation.limits.matches} matches: ask for less of them",
                asked=raw,
            )
    except TooLarge:
        conversation.answer(message, status.DIMSE[Invalid].find, "the identifier is too long")
        return
    except ExchangeError as error:
        conversation.answer(message, status.DIMSE[type(error)].find, str(error))
        return
    for told in _distinct(answer, level):
        lacking = identifier.lacks(told, attributes.ITEMS, asked.matched)
        missing = bool(asked.unsupported) or lacking
        code = status.PENDING_UNSUPPORTED if missing else status.PENDING
        pending = dimse.response(message.command, code, data_set_present=True)
        if conversation.association.cancelled(message.command.message_id):
            conversation.answer(message, status.CANCEL)
            return
        body = identifier.answer(told, levels, level, conversation.ae_title, explicit=explicit)
        conversation.association.send(message.context.context_id, pending, body, more=True)
    conversation.answer(message, status.SUCCESS)


def _distinct(answer: query.Answer, level: Level) -> Iterator[dict[str, attributes.Value]]:
    """The matches as attributes; at patient level one for each number, whoever else has records.

    A hospital's own record comes first, so that its PACS reads back what it has itself, and one
    that was merged last; counts are of all that it can ask for under that number, whatever else was
    asked for. Of patients who have none, nothing says that two are the same.
    """
    if level is not Level.PATIENT:
        yield from (attributes.describe(one, level) for one in answer.found)
        return
    told: dict[Number | int, query.Found] = {}
    for one in sorted(answer.found, key=_precedence):
        told.setdefault(_key(one), replace(one, summary=NOTHING))
    for one in (*answer.found, *answer.company):
        if (first := told.get(_key(one))) is not None:
            told[_key(one)] = replace(first, summary=first.summary + one.summary)
    yield from (attributes.describe(one, level) for one in told.values())


def _key(one: query.Found) -> Number | int:
    return one.number if one.number.value else one.patient.id


def _precedence(one: query.Found) -> tuple[bool, bool]:
    return one.number.issuer != one.owner.issuer, one.patient.replaced_by_id is not None
