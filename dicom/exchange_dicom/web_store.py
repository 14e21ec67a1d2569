"""The Store transaction of DICOMweb, STOW-RS (PS3.18 section 10.5, Annex I).

Every instance is received by itself, in a transaction of its own, as C-STORE does it: what is in
Referenced SOP Sequence is durable and indexed, whatever became of the rest of the body. What one
door keeps is byte for byte what the other would: the sender's group 0002 is replaced.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from exchange import ingest
from exchange.access import Access, Exchange
from exchange.errors import (
    ExchangeError,
    Invalid,
    NoRoom,
    Refused,
    TooLarge,
    Unavailable,
)
from exchange.ingest import Incoming, Received
from exchange.policy import Requester
from exchange.rejection import Note
from exchange_dicom import (
    attributes,
    instance,
    media_types,
    multipart,
    part10,
    rejection_note,
    web_composed,
    web_errors,
    web_models,
)
from exchange_dicom.attributes import Value
from exchange_dicom.header import DataSetError
from exchange_dicom.media_types import DICOM, MULTIPART, UnsupportedMediaType
from exchange_dicom.multipart import MalformedMultipart, Part
from exchange_dicom.resources import Root
from exchange_dicom.status import PROCESSING_FAILURE
from exchange_dicom.web_composed import Composed

KEPT_FOR_REVIEW = 0xB0C0
"""Warning Reason (0008,1196) of ours, as PS3.18 I.2.1 allows: none of B000 (coerced), B006
(elements discarded) and B007 (not of its SOP class) says that all of it is kept, but not served."""

WARNINGS = 8
"""Different reasons told in Warning header fields, at most."""

# With one of these for every instance the request as a whole has failed, and its status says how.
_OF_THE_REQUEST = (TooLarge, NoRoom, Unavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request may bring."""

    instance_bytes: int = 8 << 30
    body_bytes: int = 64 << 30
    parts: int = multipart.PART_LIMIT
    part_header_bytes: int = multipart.HEADER_LIMIT


@dataclass(frozen=True, slots=True)
class _Stored:
    received: Received
    receipt: ingest.Receipt


@dataclass(frozen=True, slots=True)
class _Failed:
    """What is known of an instance that was not kept, and why it was not."""

    known: Mapping[str, str]
    """Attributes by keyword."""
    error: ExchangeError | None
    """None where the fault is ours."""

    @property
    def words(self) -> str:
        return "processing failure" if self.error is None else str(self.error)


def store(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    content_type: str,
    body: Iterable[bytes],
    *,
    accept: Sequence[media_types.MediaType],
    study: str | None,
    limits: Limits,
) -> Response:
    """Receive the instances of `body`, all of them of `study` unless that is None.

    200 when all are kept, 202 when some are or some wait for review, 409 when none is. Raises
    Refused, Invalid, UnsupportedMediaType, NotAcceptable; TooLarge, NoRoom or Unavailable when that
    kept every instance from being stored. A body that is cut off costs the instance in which it
    ends, none before it.
    """
    answered = web_models.choose(accept, parted=False)
    stored: list[_Stored] = []
    failed: list[_Failed] = []
    try:
        with ExitStack() as spools:
            parts, kind = _parts(content_type, _bounded(body, limits.body_bytes), limits)
            if kind in web_composed.METADATA:
                access = spools.enter_context(exchange.on_behalf_of(requester))
                spool = spools.enter_context(ingest.begin(access, limit=limits.body_bytes))
                parts = web_composed.composed(parts, spool)
            for part in parts:
                match _receive(exchange, requester, part, study, limits):
                    case _Stored() as one:
                        stored.append(one)
                    case _Failed(error=Refused() as refusal):
                        raise refusal  # of the sender, not of this instance
                    case _Failed() as one:
                        failed.append(one)
    except (MalformedMultipart, TooLarge) as error:
        if not stored:
            raise
        failed.append(_Failed({}, error))
    if failed and not stored:
        first = failed[0].error
        alike = len({type(one.error) for one in failed}) == 1
        if alike and isinstance(first, _OF_THE_REQUEST):
            raise first
    reviewed = [one.receipt.reason for one in stored if one.receipt.reason]
    http = 409 if not stored else 202 if failed or reviewed else 200
    response = web_models.one(answered, attributes.to_json(_module(root, stored, failed)), http)
    reasons = Counter(one.words for one in failed)
    reasons.update(f"kept for review, not served: {reason}" for reason in reviewed)
    for words, count in reasons.most_common(WARNINGS):
        response.headers.append(*root.warning(f"{count} of the instances: {words}"))
    return response


def _parts(content_type: str, body: Iterator[bytes], limits: Limits) -> tuple[Iterator[Part], str]:
    """The parts of a body, and the media type that they, or their first, are of."""
    sent = media_types.parse(content_type)
    if len(sent) == 1 and sent[0].name == DICOM:
        return iter([Part({}, body)]), DICOM
    kind = media_types.parse(sent[0].parameters.get("type", DICOM)) if len(sent) == 1 else ()
    taken = (DICOM, *web_composed.METADATA)
    if not kind or sent[0].name != MULTIPART or kind[0].name not in taken:
        raise UnsupportedMediaType(
            f"send {MULTIPART} with a type of {', '.join(taken)}; or one instance as {DICOM}"
        )
    boundary = sent[0].parameters.get("boundary")
    if boundary is None:
        raise Invalid("multipart/related needs a boundary parameter")
    parts = multipart.parts(
        body, boundary, header_limit=limits.part_header_bytes, part_limit=limits.parts
    )
    return parts, kind[0].name


class _BodyTooLarge(TooLarge):
    """Nothing more of the body is read."""


def _bounded(body: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for piece in body:
        total += len(piece)
        if total > limit:
            raise _BodyTooLarge(f"a request may bring at most {limit} bytes")
        yield piece


def _receive(
    exchange: Exchange, requester: Requester, part: Part, study: str | None, limits: Limits
) -> _Stored | _Failed:
    """One instance, through the gate. Raises MalformedMultipart when the body ends within it."""
    known: Mapping[str, str] = part.reference if isinstance(part, Composed) else {}
    try:
        with (
            exchange.on_behalf_of(requester) as access,
            ingest.begin(access, limit=limits.instance_bytes) as incoming,
        ):
            kind = media_types.parse(part.fields.get("content-type", DICOM))
            if [one.name for one in kind] != [DICOM]:
                raise Invalid(f"a part is not {DICOM}")
            header, transfer_syntax_uid = _write(incoming, part.pieces)
            received = instance.read(incoming, len(header), transfer_syntax_uid)
            known = received.attributes
            if study is not None and received.attributes.get("StudyInstanceUID") != study:
                raise Invalid("the instance is not of the study that the URL names")
            note = rejection_note.read(incoming, received, len(header))
            receipt = _keep(access, incoming, received, header, limits, note)
    except (MalformedMultipart, _BodyTooLarge, ClientDisconnect):
        raise
    except ExchangeError as error:
        return _Failed(known, error)
    except Exception as error:
        # One image that we cannot cope with must not keep the rest of its study out.
        web_errors.unexpected(error)
        return _Failed(known, None)
    return _Stored(received, receipt)


def _write(incoming: Incoming, pieces: Iterator[bytes]) -> tuple[bytes, str]:
    """Write the file with a header of ours; that header, and the transfer syntax.

    Raises Invalid where the file is none of PS3.10.
    """
    head = b""
    for piece in pieces:
        head += piece
        if len(head) > 2 * part10.META_LIMIT:
            break
    try:
        meta = part10.read_file_meta(io.BytesIO(head))
    except DataSetError as error:
        raise Invalid(str(error)) from error
    header = part10.file_meta(
        meta.sop_class_uid or "", meta.sop_instance_uid or "", meta.transfer_syntax_uid
    )
    for piece in chain((header, head[meta.data_set_offset :]), pieces):
        incoming.write(piece)
    return header, meta.transfer_syntax_uid


def _keep(
    access: Access,
    incoming: Incoming,
    received: Received,
    header: bytes,
    limits: Limits,
    note: Note | None,
) -> ingest.Receipt:
    """Receive it under the header that its data set asks for: group 0002 may name another."""
    sop_class = received.attributes.get("SOPClassUID", "")
    sop_instance = received.attributes.get("SOPInstanceUID", "")
    if sop_class.isascii() and sop_instance.isascii():
        due = part10.file_meta(sop_class, sop_instance, received.transfer_syntax_uid)
        if due != header:
            with (
                ingest.begin(access, limit=limits.instance_bytes) as renamed,
                incoming.staged.reader() as reader,
            ):
                reader.seek(len(header))
                renamed.write(due)
                while piece := reader.read(1 << 20):
                    renamed.write(piece)
                return ingest.receive(access, renamed, received, note=note)
    return ingest.receive(access, incoming, received, note=note)


def _module(root: Root, stored: Sequence[_Stored], failed: Sequence[_Failed]) -> dict[str, Value]:
    """The Store Instances Response Module (PS3.18 Table I.1-1)."""
    studies = {one.received.attributes["StudyInstanceUID"] for one in stored}
    named = [one for one in failed if _reference(one.known)]
    nameless = [one for one in failed if one not in named]
    module: dict[str, Value] = {
        "RetrieveURL": root.resource(*studies) if len(studies) == 1 else "",
    }
    if stored:
        module["ReferencedSOPSequence"] = [_referenced(root, one) for one in stored]
    if named:
        module["FailedSOPSequence"] = [_reference(one.known) | _reason(one) for one in named]
    if nameless:
        module["OtherFailuresSequence"] = [_reason(one) for one in nameless]
    return module


def _reference(told: Mapping[str, str]) -> dict[str, Value]:
    """The SOP Instance Reference Macro (PS3.3 Table 10-11); empty where a name is missing."""
    if "SOPClassUID" not in told or "SOPInstanceUID" not in told:
        return {}
    return {
        "ReferencedSOPClassUID": told["SOPClassUID"],
        "ReferencedSOPInstanceUID": told["SOPInstanceUID"],
    }


def _referenced(root: Root, one: _Stored) -> dict[str, Value]:
    told = one.received.attributes
    item = _reference(told)
    if one.receipt.outcome is ingest.Outcome.CONFLICT:
        # Under this name another instance is served: there is no URL of this one.
        return item | {"RetrieveURL": "", "WarningReason": KEPT_FOR_REVIEW}
    url = root.resource(told["StudyInstanceUID"], told["SeriesInstanceUID"], told["SOPInstanceUID"])
    return item | {"RetrieveURL": url}


def _reason(one: _Failed) -> dict[str, Value]:
    if one.error is None:
        return {"FailureReason": PROCESSING_FAILURE}
    return {"FailureReason": web_errors.of(one.error).failure_reason}
