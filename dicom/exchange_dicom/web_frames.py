"""Frames of an instance (PS3.18 10.4.1.1.6), in the media types of Tables 8.7.3-2 and 8.7.3-5.

Each frame goes out as it is stored, or uncompressed, or compressed without loss, as the asker
accepts: in a part of its own, or a single one bare. Only what was asked for is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from exchange import retrieval
from exchange.access import Exchange
from exchange.errors import Invalid, NotFound
from exchange.policy import Requester
from exchange.retrieval import Held
from exchange_dicom import frame_coding, media_types, multipart, pixel_data
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.media_types import MULTIPART, OCTET_STREAM, MediaType, NotAcceptable
from exchange_dicom.pixel_data import Pixels
from exchange_dicom.resources import Root
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from exchange_dicom.web_answers import CACHING, entity_tag, streamed, unchanged

TRANSFER_SYNTAXES: Mapping[str, tuple[str, ...]] = {
    OCTET_STREAM: (EXPLICIT_VR_LITTLE_ENDIAN,),
    "image/jpeg": tuple(f"1.2.840.10008.1.2.4.{last}" for last in (70, 50, 51, 57)),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
    "image/jls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    "image/jp2": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    "image/jpx": ("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"),
    "image/jphc": tuple(f"1.2.840.10008.1.2.4.{last}" for last in (201, 202, 203)),
    "image/jxl": tuple(f"1.2.840.10008.1.2.4.{last}" for last in (110, 111, 112)),
}
"""Media types of frames, and the transfer syntaxes in each, first the default (Table 8.7.3-5)."""

_RETIRED = {f"1.2.840.10008.1.2.4.{last}": "image/jpeg" for last in (52, 53, 54, 55, 56, 58, 59)}
"""Retired processes of JPEG, which the table no longer has."""

_MEDIA_TYPE = {uid: name for name, uids in TRANSFER_SYNTAXES.items() for uid in uids} | _RETIRED

_ANY = "*"
_LIST = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_FRAMES_FORM = "frames 1"
"""Changes when the same frames are answered in another way."""


@dataclass(frozen=True, slots=True)
class Form:
    """How frames go out: media type and transfer syntax, in parts or one bare."""

    media_type: str
    transfer_syntax_uid: str
    in_parts: bool

    @property
    def content_type(self) -> str:
        """The Content-Type of one frame."""
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


def media_type(transfer_syntax_uid: str) -> str:
    """The media type of a frame that is stored so."""
    return _MEDIA_TYPE.get(transfer_syntax_uid, OCTET_STREAM)


def numbers(text: str) -> tuple[int, ...]:
    """A list of frames, counted from 1, as it stands in a URL. Raises Invalid."""
    if not _LIST.fullmatch(text):
        raise Invalid("frames are a list of numbers from 1, with commas between them")
    return tuple(int(one) for one in text.split(","))


def frames(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    study: str,
    series: str,
    instance: str,
    listed: str,
    *,
    accept: Sequence[MediaType],
    if_none_match: str,
) -> Response:
    """The listed frames in the order of the list: 200, or 206 where the instance has not all.

    Raises NotFound, Gone, Refused, Damaged, Invalid, TooLarge, and NotAcceptable where the frames
    cannot be had in any of the forms that are accepted, or the pixel data are damaged.
    """
    asked = numbers(listed)
    with exchange.on_behalf_of(requester) as access:
        (held,) = retrieval.instances(
            access, study, series, instance, purpose="frames", part={"frames": listed[:256]}
        ).instances
    return answered(root, held, asked, accept=accept, if_none_match=if_none_match)


def answered(
    root: Root,
    held: Held,
    asked: Sequence[int] | None,
    *,
    accept: Sequence[MediaType],
    if_none_match: str,
) -> Response:
    """The same for an instance that the asker may have; all frames where none are listed."""
    try:
        known = pixel_data.pixels(held)
    except MalformedDataSet as error:
        raise _damaged() from error
    if asked is None:
        asked = range(1, known.frames + 1)
    form = negotiated(held.transfer_syntax_uid, accept, single=len(asked) == 1)
    listed = ",".join(map(str, asked))
    tag = entity_tag(_FRAMES_FORM, held.digest, listed, form.content_type, str(form.in_parts))
    if (same := unchanged(if_none_match, tag)) is not None:
        return same
    try:
        there = tuple(one for one in asked if one <= known.frames)
        if not there:
            raise NotFound(f"the instance has {known.frames} frames, counted from 1")
        answer = _answer(root, held, known, there, form)
    except MalformedDataSet as error:
        raise _damaged() from error
    except CannotTranscode as error:
        raise _not_acceptable(held.transfer_syntax_uid, str(error)) from error
    answer.headers["ETag"] = tag
    answer.headers["Cache-Control"] = CACHING
    if left_out := len(asked) - len(there):
        answer.status_code = 206
        answer.headers.append(*root.warning(f"{left_out} frames are not there"))
    return answer


def negotiated(kept: str, accept: Sequence[MediaType], *, single: bool) -> Form:
    """How frames that are kept in the transfer syntax `kept` go out. Raises NotAcceptable.

    A media type without a transfer syntax means what is kept, if it is of that media type, else its
    default. ``transfer-syntax=*`` means what is kept with ``application/octet-stream`` too, since
    viewers ask so for frames of any kind.
    """
    if kept not in _MEDIA_TYPE and not frame_coding.decodes(kept):
        raise NotAcceptable(f"no frames can be had of what is kept in {kept}: ask for bulk data")
    for one in accept:
        inner = media_types.parse(one.parameters.get("type", "*/*"))
        if one.covers(MULTIPART) and inner:
            parameters = {**inner[0].parameters, **one.parameters}
            if found := _chosen(kept, inner[0], parameters.get("transfer-syntax")):
                return Form(*found, in_parts=True)
        elif single and (found := _chosen(kept, one, one.parameters.get("transfer-syntax"))):
            return Form(*found, in_parts=False)
    raise _not_acceptable(kept)


def _chosen(kept: str, wanted: MediaType, syntax: str | None) -> tuple[str, str] | None:
    """Media type and transfer syntax of a form that is wanted, if there is one."""
    own = (media_type(kept), kept)
    if kept in frame_coding.PLAIN or kept == frame_coding.DEFLATED_FRAMES:
        own = (OCTET_STREAM, EXPLICIT_VR_LITTLE_ENDIAN)
    if wanted.covers(own[0]) and syntax in (None, _ANY, own[1]):
        return own
    if syntax in (_ANY, kept) and wanted.covers(OCTET_STREAM):
        return own
    if not frame_coding.decodes(kept):
        return None
    for name, syntaxes in TRANSFER_SYNTAXES.items():
        if wanted.covers(name) and syntax in (None, _ANY, *syntaxes):
            made = syntaxes[0] if syntax in (None, _ANY) else syntax
            if made == EXPLICIT_VR_LITTLE_ENDIAN or made in frame_coding.ENCODED:
                return name, made
    return None


def _damaged() -> NotAcceptable:
    return NotAcceptable("the pixel data are damaged: retrieve the instance itself")


def _not_acceptable(kept: str, why: str = "") -> NotAcceptable:
    own = media_type(kept)
    told = f'kept in the transfer syntax {kept}: ask for {MULTIPART}; type="{own}"'
    return NotAcceptable(f"{why}; {told}" if why else told)


def _answer(root: Root, held: Held, known: Pixels, asked: Sequence[int], form: Form) -> Response:
    if not form.in_parts:
        content = frame(held, known, asked[0], form)
        return Response(content, media_type=form.content_type)
    boundary = multipart.new_boundary()
    kind = f'{MULTIPART}; type="{form.media_type}"; boundary={boundary}'
    return streamed(_body(root, held, known, asked, form, boundary), {"Content-Type": kind})


def _body(
    root: Root, held: Held, known: Pixels, asked: Sequence[int], form: Form, boundary: str
) -> Iterator[bytes]:
    where = root.resource(held.study_instance_uid, held.series_instance_uid, held.sop_instance_uid)
    for number in asked:
        content = frame(held, known, number, form)
        fields = {
            "Content-Type": form.content_type,
            "Content-Length": str(len(content)),
            "Content-Location": f"{where}/frames/{number}",
        }
        yield multipart.head(fields, boundary)
        yield content
    yield multipart.tail(boundary)


def frame(held: Held, known: Pixels, number: int, form: Form) -> bytes:
    """One frame in the negotiated transfer syntax. Raises CannotTranscode and as it is read."""
    stored, kept = pixel_data.stored_frame(held, known, number), held.transfer_syntax_uid
    if form.transfer_syntax_uid == kept and kept not in frame_coding.PLAIN:
        return stored
    with frame_coding.in_turn(known):
        if form.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN:
            return frame_coding.native(known, kept, stored)
        plain = frame_coding.decoded(known, kept, stored)
        return frame_coding.encoded(known, plain, form.transfer_syntax_uid)
