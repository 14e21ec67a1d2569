"""The node: Verification, Storage and Query SCP (PS3.4 Annexes A, B and C) behind one acceptor.

A C-STORE is answered 0000 when the instance is durable and indexed, not before; every other
status says that nothing was kept. An association belongs to one hospital, found from the calling
AE title and its address or certificate; all that is asked in it is asked on its behalf.

A C-STORE whose command and data set name different instances or SOP classes is refused with A900.
Where both agree and only the abstract syntax of the presentation context is another storage SOP
class (PS3.7 9.1.1.1.2 has them the same), the instance is kept: which image it is, is not in
doubt, and senders that do so go unnoticed elsewhere, since DCMTK's storescp takes it too.
"""

from __future__ import annotations

import hashlib
import io
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pydicom.datadict import keyword_for_tag

from exchange import ingest, organizations, query
from exchange.access import Exchange
from exchange.errors import ExchangeError, Invalid, Unavailable
from exchange.policy import Requester
from exchange_dicom import (
    attributes,
    contexts,
    data_set,
    dimse,
    header,
    instance,
    part10,
    status,
)
from exchange_dicom.association import Association, Message, TooLarge
from exchange_dicom.contexts import FIND_LEVELS, VERIFICATION
from exchange_dicom.dimse import CommandField
from exchange_dicom.listener import Acceptor
from exchange_dicom.negotiation import Accepted, Conduct, Peer, select_contexts
from exchange_dicom.pdu import AssociateReject, AssociateRequest, RejectReason
from exchange_dicom.query import question
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Level

log = logging.getLogger(__name__)

IDENTIFIER_LENGTH = 1 << 16
"""Bytes of the longest C-FIND identifier that is read."""

MATCHES = 5000
"""A C-FIND with more matches than this is refused as too broad."""

_NO_STORAGE = FIND_LEVELS.keys() | {VERIFICATION}
_UNIQUE = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
}
_ALWAYS = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "SpecificCharacterSet"})
_TEXT_ENCODINGS = {"GB18030": "gb18030", "GBK": "gbk"}
"""Character sets of a question that are kept in its answer; any other gets UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one association may ask for."""

    instance_bytes: int = 8 << 30
    matches: int = MATCHES
    associations: int = 200


def node(
    exchange: Exchange,
    *,
    ae_title: str,
    addresses: Sequence[tuple[str, int]],
    conduct: Conduct | None = None,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    share_port: bool = False,
) -> Acceptor:
    """The DICOM door: an acceptor that serves `exchange` under `ae_title` (not started yet)."""
    bounds = limits or Limits()

    def handle(association: Association) -> None:
        _Conversation(exchange, association, ae_title, bounds).run()

    return Acceptor(
        addresses,
        handle,
        conduct=conduct,
        tls=tls,
        maximum_associations=bounds.associations,
        share_port=share_port,
    )


class _Conversation:
    """One association, from its request to its end."""

    def __init__(
        self, exchange: Exchange, association: Association, ae_title: str, limits: Limits
    ) -> None:
        self._exchange = exchange
        self._association = association
        self._ae_title = ae_title
        self._limits = limits
        self._requester: Requester | None = None
        self._relational: frozenset[str] = frozenset()

    def run(self) -> None:
        if not self._association.negotiate(self._decide) or self._requester is None:
            return
        operations: dict[CommandField, Callable[[Requester, Message], None]] = {
            CommandField.C_ECHO_RQ: self._echo,
            CommandField.C_STORE_RQ: self._store,
            CommandField.C_FIND_RQ: self._find,
        }
        for message in self._association.messages():
            command = message.command
            operation = operations.get(command.command_field)
            if operation is not None:
                operation(self._requester, message)
            elif not command.command_field.is_response:
                self._answer(message, status.UNRECOGNIZED_OPERATION)

    def _decide(self, request: AssociateRequest, peer: Peer) -> Accepted | AssociateReject:
        shown = hashlib.sha256(peer.certificate).hexdigest() if peer.certificate else ""
        try:
            if request.called_ae != self._ae_title:
                reason = "called AE title not recognized"
                organizations.refused(self._exchange, request.calling_ae, str(peer.address), reason)
                return AssociateReject(RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED)
            self._requester = organizations.caller(
                self._exchange, request.calling_ae, str(peer.address), shown
            )
        except Unavailable:
            return AssociateReject(RejectReason.TEMPORARY_CONGESTION, transient=True)
        if self._requester is None:
            return AssociateReject(RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED)
        asked = {
            uid: wanted
            for uid, wanted in request.user.extended.items()
            if uid in FIND_LEVELS and wanted
        }
        # Of the extended behaviours (PS3.4 C.5.1.1) only relational queries, the first, are served.
        self._relational = frozenset(uid for uid, wanted in asked.items() if wanted[0] == 1)
        return Accepted(
            contexts=select_contexts(request.contexts, contexts.supported),
            extended={
                uid: bytes([uid in self._relational]) + bytes(len(wanted) - 1)
                for uid, wanted in asked.items()
            },
        )

    def _echo(self, _: Requester, message: Message) -> None:
        self._answer(message, status.SUCCESS)

    def _store(self, requester: Requester, message: Message) -> None:
        command = message.command
        context = message.context
        if context.abstract_syntax in _NO_STORAGE or message.data is None:
            self._answer(message, status.UNRECOGNIZED_OPERATION)
            return
        try:
            meta = part10.file_meta(
                command.sop_class, command.sop_instance, context.transfer_syntax
            )
            with (
                self._exchange.on_behalf_of(requester) as access,
                ingest.begin(access, limit=self._limits.instance_bytes) as incoming,
            ):
                incoming.write(meta)
                for piece in message.data.pieces():
                    incoming.write(piece)
                received = instance.read(incoming, len(meta), context.transfer_syntax)
                _agree(command, received)
                ingest.receive(access, incoming, received)
        except _Mismatch as error:
            self._answer(message, status.DATA_SET_MISMATCH, str(error))
        except ExchangeError as error:
            self._answer(message, status.DIMSE[type(error)].store, str(error))
        else:
            self._association.send(context.context_id, dimse.stored(command))

    def _find(self, requester: Requester, message: Message) -> None:
        model = message.context.abstract_syntax
        if model not in FIND_LEVELS or message.data is None:
            self._answer(message, status.SOP_CLASS_NOT_SUPPORTED)
            return
        explicit = message.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
        try:
            raw = message.data.read(IDENTIFIER_LENGTH)
            identifier = _Identifier.read(raw, message.context.transfer_syntax)
            level = identifier.level(model, relational=model in self._relational)
            with self._exchange.on_behalf_of(requester) as access:
                asked = question(access, level, identifier.keys)
                answer = query.find(
                    access,
                    level,
                    asked.criteria,
                    limit=self._limits.matches,
                    too_broad=f"more than {self._limits.matches} matches: add a selective key",
                    asked=raw,
                )
        except TooLarge:
            self._answer(message, status.DIMSE[Invalid].find, "the identifier is too long")
            return
        except ExchangeError as error:
            self._answer(message, status.DIMSE[type(error)].find, str(error))
            return
        for told in _distinct(answer.found, level):
            missing = bool(asked.unsupported) or not identifier.wanted <= told.keys()
            code = status.PENDING_UNSUPPORTED if missing else status.PENDING
            pending = dimse.response(message.command, code, data_set_present=True)
            if self._association.cancelled(message.command.message_id):
                self._answer(message, status.CANCEL)
                return
            body = identifier.answer(told, level, self._ae_title, explicit=explicit)
            self._association.send(message.context.context_id, pending, body)
        self._answer(message, status.SUCCESS)

    def _answer(self, message: Message, code: int, comment: str = "") -> None:
        response = dimse.response(message.command, code, error_comment=comment)
        self._association.send(message.context.context_id, response)


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


@dataclass(frozen=True, slots=True)
class _Identifier:
    """A C-FIND identifier: its matching keys, and all attributes that it wants returned."""

    wanted: frozenset[str]
    """Without those that every answer has."""
    keys: tuple[tuple[str, str], ...]
    asked_level: str
    character_set: str

    @classmethod
    def read(cls, raw: bytes, transfer_syntax: str) -> _Identifier:
        """Raises Invalid."""
        try:
            tags = [element.tag for element in data_set.elements(raw, transfer_syntax)]
            keywords = {tag: keyword_for_tag(tag) for tag in tags}
            known = {tag: keyword for tag, keyword in keywords.items() if keyword}
            read = header.read(io.BytesIO(raw), transfer_syntax, known)
            keys = dict(read.attributes)
            if "OtherPatientIDsSequence" in known.values():
                keys.pop("OtherPatientIDsSequence", None)
                for other in read.other_patient_ids:
                    keys["OtherPatientIDsSequence.PatientID"] = other.patient_id
        except header.DataSetError as error:
            raise Invalid("the identifier is not a data set") from error
        for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
            keys.pop(keyword, None)
        return cls(
            wanted=frozenset(known.values()) - _ALWAYS,
            asked_level=keys.pop("QueryRetrieveLevel", ""),
            keys=tuple(keys.items()),
            character_set=read.character_set.declared,
        )

    def level(self, model: str, *, relational: bool) -> Level:
        """The level asked for, with the unique keys above it there (PS3.4 C.4.1.2.1).

        Raises Invalid.
        """
        levels = FIND_LEVELS[model]
        level = Level.__members__.get(self.asked_level.strip())
        if level is None or level not in levels:
            raise Invalid("QueryRetrieveLevel is not one of the information model")
        given = dict(self.keys)
        for above in levels:
            key = _UNIQUE.get(above, "")
            value = given.get(key, "")
            if above < level and not relational and (not value or set(value) & set("*?\\")):
                raise Invalid(f"{key} must be given as a single value")
        return level

    def answer(
        self, told: dict[str, attributes.Value], level: Level, ae_title: str, *, explicit: bool
    ) -> bytes:
        """The identifier of one response: of what was wanted the keys that are supported.

        Others are not returned, rather than returned as if they were empty (C.2.2.1.3).
        """
        encoding = _TEXT_ENCODINGS.get(self.character_set, "utf-8")
        body = {keyword: told[keyword] for keyword in self.wanted if keyword in told}
        body["QueryRetrieveLevel"] = level.name
        body["RetrieveAETitle"] = ae_title
        body["SpecificCharacterSet"] = (
            self.character_set if self.character_set in _TEXT_ENCODINGS else "ISO_IR 192"
        )
        return attributes.encode(body, explicit=explicit, encoding=encoding)


def _distinct(found: Sequence[query.Found], level: Level) -> Iterator[dict[str, attributes.Value]]:
    """The matches as attributes; at patient level one for each number, whoever else has records.

    A hospital's own record comes first, so that its PACS reads back what it has itself; counts are
    of all that it can ask for under that number.
    """
    if level is not Level.PATIENT:
        yield from (attributes.describe(one, level) for one in found)
        return
    told: dict[query.Number, query.Found] = {}
    for one in sorted(found, key=lambda one: one.number.issuer != one.owner.issuer):
        first = told.get(one.number)
        told[one.number] = (
            one if first is None else replace(first, summary=first.summary + one.summary)
        )
    yield from (attributes.describe(one, level) for one in told.values())
