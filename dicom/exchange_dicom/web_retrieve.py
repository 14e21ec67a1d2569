"""The Retrieve transaction of DICOMweb, WADO-RS (PS3.18 section 10.4): instances.

Explicit VR Little Endian is the default, and the only syntax without compression that may be used
(8.7.3): instances kept in another such syntax are written anew, and compressed pixels decompressed.
Who can read those says so with ``transfer-syntax=*``, and gets them as they are kept. Under that
wildcard, and only there, instances that cannot be written anew, since their data set is broken, go
out in the syntax they have; without it they are left out, which is found out before the first byte
of the answer leaves. So are those that a scrub has found damaged, and those
whose objects are not in the store. That a decoder fails is found out
when its turn comes: of one instance that is in time, an answer with several breaks off.

Whoever asks for a hospital gets the patients of others under its own number, as by C-MOVE and C-GET
(see `coercion`); an instance in which that cannot be written is like one whose decoder fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starlette.responses import Response

from exchange import retrieval, spans
from exchange.access import Exchange
from exchange.keys import segment
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import data_set, kept, media_types, multipart, transcoding
from exchange_dicom.archive import archive
from exchange_dicom.coercion import Coercion, coerced, needed
from exchange_dicom.header import EXPLICIT_VR_BIG_ENDIAN, DataSetError, MalformedDataSet
from exchange_dicom.media_types import (
    DICOM,
    MULTIPART,
    ZIP,
    MediaType,
    NotAcceptable,
)
from exchange_dicom.part10 import file_meta
from exchange_dicom.resources import Root
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_dicom.web_answers import DAMAGED, MISSING, SMALL, Piece, partial, streamed

REWRITE_LIMIT = 1 << 30
"""Bytes of the largest data set that is inflated to be written anew with Explicit VR."""

_ANY = "*"
_NEVER_SENT = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN})
_REWRITTEN = _NEVER_SENT | {"1.2.840.10008.1.2.1.99"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How instances are wanted: in a multipart body or one bare, and in which syntaxes."""

    how: str
    """The media type of the answer."""
    transfer_syntaxes: frozenset[str]

    @property
    def whatever(self) -> bool:
        """Whether any transfer syntax will do."""
        return _ANY in self.transfer_syntaxes


@dataclass(frozen=True, slots=True)
class _Sent:
    """An instance, and the transfer syntax in which it goes out."""

    held: Held
    transfer_syntax_uid: str
    coercion: Coercion | None = None
    """How its patient is known to the asker, if not as it says itself."""

    @property
    def as_kept(self) -> bool:
        return self.held.transfer_syntax_uid == self.transfer_syntax_uid

    @property
    def path(self) -> str:
        return f"{segment(self.held.series_instance_uid)}/{segment(self.held.sop_instance_uid)}"

    @property
    def media_type(self) -> str:
        return f"{DICOM}; transfer-syntax={self.transfer_syntax_uid}"

    def or_as_kept(self) -> _Sent:
        """The same, in the syntax it is kept in where it cannot be written anew."""
        if self.as_kept or _can_be_rewritten(self.held):
            return self
        return replace(self, transfer_syntax_uid=self.held.transfer_syntax_uid)

    def pieces(self) -> Iterator[Piece]:
        if self.coercion is not None:
            return _made(self.held, self.transfer_syntax_uid, self.coercion)
        if self.as_kept:
            return self.held.lying() if self.held.size > SMALL else self.held.stream()
        if self.held.transfer_syntax_uid in _REWRITTEN:
            return _rewritten(self.held)
        return _made(self.held, self.transfer_syntax_uid)


def instances(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str | None,
    instance: str | None,
    *,
    accept: Sequence[MediaType],
) -> Response:
    """The instances of a study or series, or one: 200, or 206 where not all of them can be given.

    Raises NotFound, Refused, Damaged, and NotAcceptable, which names the syntaxes that can be had.
    """
    wanted = _wanted(accept, single=instance is not None)
    with exchange.on_behalf_of(requester) as access:
        known, issuer = retrieval.as_known(
            access, retrieval.instances(access, study, series, instance)
        )
        whole = retrieval.whole(known.instances)
        coercion = needed(known, issuer, datetime.now(UTC))
        if not any(_syntax(one, wanted.transfer_syntaxes) for one in whole):
            raise _not_acceptable(whole)
    held = retrieval.there(whole)
    sent = [
        _Sent(one, syntax, coercion)
        for one in held
        if (syntax := _syntax(one, wanted.transfer_syntaxes)) is not None
    ]
    if not wanted.whatever:
        sent = [one for one in sent if one.as_kept or _can_be_rewritten(one.held)]
        if not sent:
            raise _not_acceptable(held)
    elif wanted.how == DICOM:
        sent = [one.or_as_kept() for one in sent]
    try:
        response = _answer(sent, wanted, study)
    except CannotTranscode as error:
        raise _not_acceptable(held) from error
    partial(response, root, len(held) - len(sent), "ask with transfer-syntax=*")
    partial(response, root, len(known.instances) - len(whole), DAMAGED)
    partial(response, root, len(whole) - len(held), MISSING)
    return response


def _answer(sent: Sequence[_Sent], wanted: _Wanted, study: str) -> Response:
    if wanted.how == DICOM:
        return _stream(sent[0].pieces(), sent[0].media_type, _length(sent))
    # Under the wildcard each part says its own syntax, so each is decided when its turn comes.
    final = map(_Sent.or_as_kept, sent) if wanted.whatever else iter(sent)
    if wanted.how == ZIP:
        files = ((f"{one.path}.dcm", spans.read(one.pieces())) for one in final)
        named = f'attachment; filename="{segment(study)}.zip"'
        return streamed(archive(files), {"Content-Type": ZIP, "Content-Disposition": named})
    boundary = multipart.new_boundary()
    kind = f'{MULTIPART}; type="{DICOM}"; boundary={boundary}'
    return _stream(_body(final, boundary), kind, _length(sent, boundary))


def _wanted(accept: Sequence[MediaType], *, single: bool) -> _Wanted:
    """Raises NotAcceptable."""
    named: list[tuple[str, frozenset[str]]] = []
    for one in accept:
        inner = media_types.parse(one.parameters.get("type", DICOM))
        # Some clients say the syntax within the type that they quote.
        parameters = {**(inner[0].parameters if inner else {}), **one.parameters}
        default = _ANY if "*" in (one.type, one.subtype) else EXPLICIT_VR_LITTLE_ENDIAN
        syntaxes = frozenset({parameters.get("transfer-syntax", default)})
        if one.covers(MULTIPART) and inner and inner[0].covers(DICOM):
            named.append((MULTIPART, syntaxes))
        elif single and one.covers(DICOM):
            named.append((DICOM, syntaxes))
        elif one.name == ZIP:  # for people, who want what there is
            named.append((ZIP, frozenset({parameters.get("transfer-syntax", _ANY)})))
    if not named:
        raise NotAcceptable(f'instances can be had as {MULTIPART}; type="{DICOM}", or as {ZIP}')
    how = named[0][0]
    return _Wanted(how, frozenset().union(*(syntaxes for kind, syntaxes in named if kind == how)))


def _syntax(held: Held, wanted: frozenset[str]) -> str | None:
    """The transfer syntax in which the instance goes out, or None where none is acceptable."""
    kept = held.transfer_syntax_uid
    if kept in wanted and kept not in _NEVER_SENT:
        return kept
    if kept in _REWRITTEN and wanted & {_ANY, EXPLICIT_VR_LITTLE_ENDIAN}:
        return EXPLICIT_VR_LITTLE_ENDIAN
    if _ANY in wanted:
        return kept
    if EXPLICIT_VR_LITTLE_ENDIAN in wanted and transcoding.decodes(kept):
        return EXPLICIT_VR_LITTLE_ENDIAN
    return None


def _not_acceptable(held: Sequence[Held]) -> NotAcceptable:
    kept = ", ".join(sorted({one.transfer_syntax_uid for one in held}))
    return NotAcceptable(f"kept in the transfer syntax {kept}; ask for it with transfer-syntax=*")


def _stream(pieces: Iterable[Piece], media_type: str, length: int | None) -> Response:
    headers = {"Content-Type": media_type}
    if length is not None:
        headers["Content-Length"] = str(length)
    return streamed(pieces, headers)


def _length(sent: Sequence[_Sent], boundary: str | None = None) -> int | None:
    """Bytes of the body, where that is known before it is made."""
    if not all(one.as_kept and one.coercion is None for one in sent):
        return None
    size = sum(one.held.size for one in sent)
    if boundary is not None:
        size += sum(len(multipart.head(_fields(one), boundary)) for one in sent)
        size += len(multipart.tail(boundary))
    return size


def _fields(one: _Sent) -> Mapping[str, str]:
    return {"Content-Type": one.media_type}


def _body(sent: Iterable[_Sent], boundary: str) -> Iterator[Piece]:
    for one in sent:
        yield multipart.head(_fields(one), boundary)
        yield from one.pieces()
    yield multipart.tail(boundary)


def _rewritten(held: Held) -> Iterator[bytes | memoryview]:
    """The instance with Explicit VR Little Endian. Raises MalformedDataSet."""
    yield file_meta(held.sop_class_uid, held.sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN)
    reading = kept.reading(held, REWRITE_LIMIT)
    yield from data_set.explicit(data_set.walk(reading, held.transfer_syntax_uid), reading)


def _made(
    held: Held, transfer_syntax_uid: str, coercion: Coercion | None = None
) -> Iterator[Piece]:
    """What is decompressed or coerced. Raises CannotTranscode before its first piece."""
    pieces: Iterator[Piece]
    as_kept = transfer_syntax_uid == held.transfer_syntax_uid
    if coercion is not None and as_kept and transfer_syntax_uid not in _REWRITTEN:
        pieces = coerced(_headed(held), transfer_syntax_uid, coercion)
    else:
        pieces = transcoding.data_set_of(held, transfer_syntax_uid, coercion)
    try:
        first = next(pieces)
    except DataSetError as error:
        raise CannotTranscode(str(error)) from error
    yield file_meta(held.sop_class_uid, held.sop_instance_uid, transfer_syntax_uid)
    yield first
    yield from pieces


def _headed(held: Held) -> Iterator[Piece]:
    """The data set as it is kept: its head, which is taken apart, and what lies behind."""
    start = kept.offset(held)
    head = held.read(start, SMALL)
    yield head
    if (behind := start + len(head)) < held.size:
        yield from held.lying(behind)


def _can_be_rewritten(held: Held) -> bool:
    """Whether `_rewritten` will not raise MalformedDataSet. Raises Unavailable."""
    if held.transfer_syntax_uid not in _REWRITTEN:
        return True  # which only decoding tells
    try:
        data_set.check(kept.reading(held, REWRITE_LIMIT), held.transfer_syntax_uid)
    except MalformedDataSet:
        return False
    return True
