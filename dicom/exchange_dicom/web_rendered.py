"""Rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4; query parameters of 8.3.5).

An instance is rendered as its first frame, or as an animation of all of them; frames as they are
listed; a series or study as a picture of each of its images, in parts, or as the one that stands
for them. A presentation state is rendered as the images to which it applies, shown as it says, each
decided as if it had been asked for itself. An encapsulated PDF is that document, a video the file
that it is.
Thumbnails are always one picture, of the middle image, and kept for those who ask again.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby

from PIL import Image
from starlette.responses import Response

from exchange import retrieval
from exchange.access import Exchange
from exchange.errors import Gone, Invalid, NotFound, TooLarge
from exchange.policy import Requester
from exchange.retrieval import Held, Selected
from exchange.sop_classes import ENCAPSULATED_PDF
from exchange_dicom import (
    media_types,
    multipart,
    pixel_data,
    rendering,
    web_bulk,
    web_frames,
)
from exchange_dicom.grey_values import FUNCTIONS, CannotRender, Function, Window
from exchange_dicom.header import MalformedDataSet
from exchange_dicom.lettering import LATIN, Lettering
from exchange_dicom.media_types import MULTIPART, MediaType, NotAcceptable
from exchange_dicom.presentation_state import STATES, PresentationState
from exchange_dicom.rendering import Presentation, Profile, Rendering
from exchange_dicom.resources import Root
from exchange_dicom.transcoding import CannotTranscode
from exchange_dicom.viewport import Viewport
from exchange_dicom.web_answers import CACHING, DAMAGED, entity_tag, partial, streamed, unchanged

MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif")
"""What pictures are made as, first the default (Table 8.7.4-1)."""

PDF = "application/pdf"
"""As what an encapsulated document is rendered."""

_ENCAPSULATED_DOCUMENT = "00420011"

THUMBNAIL = Viewport(128, 128)
"""Where a thumbnail asks for no other size."""

PICTURES = 2000
"""Pictures of one answer."""

VIEWPORT = 16384
"""Pixels of the longest side of a viewport."""

REMEMBERED = 2000
"""Thumbnails that one process remembers, of at most `REMEMBERED_BYTES` each."""

REMEMBERED_BYTES = 32 << 10

VIDEO_TYPES = ("video/mp4", "video/mpeg")
"""What a stored video is had as, where its stream is of that kind."""

STATE_IMAGES = 200
"""Images of a presentation state that are rendered at once."""

ANNOTATIONS = ("patient", "technique")
"""What can be written on a picture (PS3.18 8.3.5.1.1)."""

_USED = {"accept", "annotation", "window", "viewport", "quality", "iccprofile"}
_KNOWN = {"charset"}
_RENDERED_FORM = "rendered 3"
"""Changes when the same pictures are made in another way."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is rendered: a study, a series of it, an instance in that, or listed frames of it."""

    study: str
    series: str | None = None
    instance: str | None = None
    frames: str | None = None
    state: tuple[str, str] | None = None
    """Series and instance of a presentation state by which it is shown."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """One of the pictures that were asked for; no frame means the one that stands for all."""

    held: Held
    frame: int | None


@dataclass(frozen=True, slots=True)
class _Way:
    """How all pictures of an answer are made."""

    wanted: Presentation
    lettering: Lettering
    state: PresentationState | None = None

    def picture(self, made: Rendering, frame: int) -> Image.Image:
        return made.picture(frame, self.wanted, self.state, self.lettering)


def presentation(query: Mapping[str, str]) -> Presentation:
    """What the query parameters ask for. Raises Invalid."""
    return Presentation(
        _window(query["window"]) if query.get("window") else None,
        _viewport(query["viewport"]) if query.get("viewport") else None,
        _quality(query["quality"]) if query.get("quality") else Presentation().quality,
        _profile(query.get("iccprofile") or Profile.NO),
    )


def unused(query: Iterable[str]) -> list[str]:
    """The query parameters that take no part, by their names where the standard has them."""
    return named_or_not(query, _USED, _KNOWN)


def named_or_not(query: Iterable[str], used: Set[str], known: Set[str]) -> list[str]:
    """What of `query` is not used, without repeating what nobody knows."""
    ignored = sorted(set(query) - used)
    return list(dict.fromkeys(one if one in known else "one that is not known" for one in ignored))


def written(text: str) -> frozenset[str]:
    """What is to be written on a picture. Raises Invalid."""
    named = frozenset(filter(None, (one.strip().lower() for one in text.split(","))))
    if not named <= {*ANNOTATIONS}:
        raise Invalid(f"annotation is {' and '.join(ANNOTATIONS)}, with a comma between them")
    return named


def rendered(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    subject: Subject,
    wanted: Presentation,
    *,
    accept: Sequence[MediaType],
    if_none_match: str,
    thumbnail: bool = False,
    annotation: Set[str] = frozenset(),
    lettering: Lettering = LATIN,
    unused: Sequence[str] = (),
) -> Response:
    """The pictures of a resource, or its thumbnail; `unused` parameters are announced.

    Of several pictures those of damaged images are left out (206). Raises NotFound, Gone, Refused,
    Damaged, Invalid, TooLarge, NotAcceptable.
    """
    if thumbnail and wanted.viewport is None:
        wanted = replace(wanted, viewport=THUMBNAIL)
    listed = None if subject.frames is None else web_frames.numbers(subject.frames)
    purpose = "thumbnail" if thumbnail else "rendered"
    with exchange.on_behalf_of(requester) as access:
        retrieved = retrieval.instances(
            access,
            subject.study,
            subject.series,
            subject.instance,
            purpose=purpose,
            part={"frames": subject.frames[:256]} if subject.frames else None,
        )
        held, stated = retrieval.whole(retrieved.instances), None
        if subject.state is not None:
            (stated,) = retrieval.instances(
                access, subject.study, *subject.state, purpose=purpose
            ).instances
        if "patient" in annotation:
            known, _ = retrieval.as_known(access, retrieved)
            wanted = replace(wanted, patient=_about(known, lettering))
    left_out = len(retrieved.instances) - len(held)
    wanted = replace(wanted, technique="technique" in annotation)
    if subject.instance is not None and held[0].sop_class_uid == ENCAPSULATED_PDF:
        return _document(held[0], accept, if_none_match)
    whole = subject.instance is not None and listed is None and not thumbnail
    if whole and held[0].transfer_syntax_uid in pixel_data.VIDEO:
        return _video(held[0], accept, if_none_match)
    is_state = subject.instance is not None and held[0].sop_class_uid in STATES
    several = subject.instance is None or is_state or len(listed or ()) > 1
    media_type, in_parts = _form(accept, several and not thumbnail)
    # A part, or an animation, for each; else the one that stands for them.
    each = in_parts or media_type == "image/gif"
    if several and listed and not each and not thumbnail:
        raise NotAcceptable(f'several frames are had as {MULTIPART}; type="{media_type}"')
    state = _state(held[0] if is_state else stated)
    pictures: list[_Picture] | None = None
    if state is not None and is_state:
        if listed is not None:
            raise NotFound("a presentation state has no frames")
        pictures, left_out = _of_state(
            exchange, requester, subject.study, state, purpose, each=each
        )
        held = tuple(one.held for one in pictures)
    tag = entity_tag(
        _RENDERED_FORM,
        repr((wanted, thumbnail, listed, media_type, in_parts)),
        *(one.digest for one in held),
        *(() if state is None else (state.digest,)),
    )
    if (same := unchanged(if_none_match, tag)) is not None:
        return same
    headers = {"ETag": tag, "Cache-Control": CACHING, "Content-Type": media_type}
    way = _Way(wanted, lettering, state)
    if thumbnail:
        content = _thumbnails.get(tag)
        if content is None:
            one = pictures[0] if pictures else _standing_for(held, listed)
            content = _single(one, way, media_type)
            _thumbnails.put(tag, content)
        answer = Response(content, headers=headers)
    elif in_parts:
        boundary = multipart.new_boundary()
        headers["Content-Type"] = f'{MULTIPART}; type="{media_type}"; boundary={boundary}'
        asked = pictures or _all(held, listed, each=False)
        answer = streamed(_parts(asked, way, media_type, boundary), headers)
    elif each:
        asked = pictures or _all(held, listed, each=True)
        answer = Response(_animation(asked, way), headers=headers)
    else:
        if pictures:
            one = pictures[0]
        else:
            one = _standing_for(held, listed) if several else _all(held, listed, each=False)[0]
        answer = Response(_single(one, way, media_type), headers=headers)
    if unused:
        answer.headers.append(*root.warning(f"parameters not used: {', '.join(unused)}"))
    if each and not thumbnail:
        partial(answer, root, left_out, DAMAGED)
    return answer


def _about(known: Selected, lettering: Lettering) -> tuple[str, ...]:
    """Who was imaged where, under the number by which the asker knows the patient."""
    patient = known.patient
    alphabetic, _, rest = patient.name.partition("=")
    ideographic = rest.partition("=")[0].replace("^", "")
    name = ideographic if ideographic and lettering.writes(ideographic) else alphabetic
    born = patient.birth_date
    when = known.study.study_date
    return (
        " ".join(filter(None, name.split("^"))) or "?",
        " ".join(filter(None, (known.number.value, patient.sex, _day(born)))),
        " ".join(filter(None, (_day(when), known.owner.name))),
    )


def _day(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date


def _state(held: Held | None) -> PresentationState | None:
    """Raises NotAcceptable, TooLarge, Unavailable."""
    if held is None:
        return None
    try:
        return PresentationState(held)
    except CannotRender as error:
        raise NotAcceptable(str(error)) from error
    except MalformedDataSet as error:
        raise NotAcceptable("the presentation state is damaged") from error


def _of_state(
    exchange: Exchange,
    requester: Requester,
    study: str,
    state: PresentationState,
    purpose: str,
    *,
    each: bool,
) -> tuple[list[_Picture], int]:
    """The pictures of the images to which a presentation state applies; the first, if not `each`.
    And how many images are left out, which are damaged.

    What it refers to is known once it was read, which is not done within a transaction: these
    images are decided and recorded in one of their own. Raises NotFound, Gone, Refused, Damaged,
    TooLarge.
    """
    wanted = state.references if each else state.references[:1]
    if len(wanted) > STATE_IMAGES:
        raise TooLarge(f"of a presentation state at most {STATE_IMAGES} images are rendered")
    try:
        with exchange.on_behalf_of(requester) as access:
            found = [
                (
                    one,
                    retrieval.instances(
                        access,
                        study,
                        one.series_instance_uid,
                        one.sop_instance_uid,
                        purpose=purpose,
                        part={"presentation state": state.sop_instance_uid},
                    ).instances[0],
                )
                for one in wanted
            ]
    except Gone:
        raise
    except NotFound as error:  # the state itself is there
        raise pixel_data.NoPixels(str(error)) from error
    there = retrieval.whole([held for _, held in found])
    pictures: list[_Picture] = []
    for one, held in found:
        if held.damaged:
            continue
        frames: Iterable[int] = one.frames or (1,)
        if each and not one.frames:
            frames = range(1, _frames_of(held) + 1)
        pictures += [_Picture(held, frame) for frame in frames]
    if len(pictures) > PICTURES:
        raise TooLarge(f"an answer may have at most {PICTURES} pictures: ask for fewer at once")
    if not pictures:
        raise pixel_data.NoPixels("the presentation state refers to no image")
    return pictures, len(found) - len(there)


def _frames_of(held: Held) -> int:
    """Raises NotFound, NotAcceptable, TooLarge, Unavailable."""
    try:
        return pixel_data.pixels(held).frames
    except MalformedDataSet as error:
        raise _damaged() from error


def _damaged() -> NotAcceptable:
    return NotAcceptable("the image is damaged: retrieve the instance itself")


def _video(held: Held, accept: Sequence[MediaType], if_none_match: str) -> Response:
    """A stored video as it lies, where that is a file of its kind. Raises NotAcceptable."""
    try:
        value = web_bulk.pixel_value(held, f"{pixel_data.pixels(held).tag:08X}")
        if value is None:
            raise _damaged()
        head = b"".join(value.pieces(held, 0, min(12, value.size)))
        # An MP4 file begins with its File Type Box (ISO 14496-12 4.3), a program stream of MPEG-2
        # with a pack header and an elementary one with a sequence header (ISO 13818).
        found = "video/mp4" if head[4:8] == b"ftyp" else ""
        if head[:4] in (b"\0\0\1\xba", b"\0\0\1\xb3"):
            found = "video/mpeg"
        if not found:
            raise NotAcceptable("the video is no file that can be shown: ask for bulk data")
        media_types.choose(accept, (found,))
        tag = entity_tag(_RENDERED_FORM, found, held.digest)
        if (same := unchanged(if_none_match, tag)) is not None:
            return same
        headers = {"Content-Type": found, "ETag": tag, "Cache-Control": CACHING}
        return streamed(value.pieces(held, 0, value.size), headers)
    except MalformedDataSet as error:
        raise _damaged() from error


def _document(held: Held, accept: Sequence[MediaType], if_none_match: str) -> Response:
    """The document that an instance encapsulates. Raises NotFound, NotAcceptable."""
    media_types.choose(accept, (PDF,))
    tag = entity_tag(_RENDERED_FORM, PDF, held.digest)
    if (same := unchanged(if_none_match, tag)) is not None:
        return same
    try:
        document = web_bulk.found(held, _ENCAPSULATED_DOCUMENT)
        size = document.size
        if b"".join(document.pieces(held, max(0, size - 1), size)) == b"\0":
            size -= 1  # which made its length even
        return streamed(
            document.pieces(held, 0, size),
            {"Content-Type": PDF, "ETag": tag, "Cache-Control": CACHING},
        )
    except MalformedDataSet as error:
        raise NotAcceptable("the document is damaged: retrieve the instance itself") from error


def _form(accept: Sequence[MediaType], several: bool) -> tuple[str, bool]:
    """Media type of a picture, and whether they are wanted in parts. Raises NotAcceptable."""
    for one in accept:
        anything = one.type == "*"
        if one.covers(MULTIPART) and (several or not anything):
            inner = media_types.parse(one.parameters.get("type", "*/*"))
            for name in MEDIA_TYPES:
                if inner and inner[0].covers(name):
                    return name, True
        for name in MEDIA_TYPES:
            if one.covers(name):
                return name, False
    raise NotAcceptable(f"pictures can be had as {' or '.join(MEDIA_TYPES)}")


def _images(held: Sequence[Held]) -> list[Held]:
    """The instances that are images. Raises NoPixels where none is."""
    found = [one for one in held if one.rows]
    if not found:
        raise pixel_data.NoPixels("there is no image to be shown")
    return found


def _standing_for(held: Sequence[Held], listed: Sequence[int] | None) -> _Picture:
    """The middle image of the series that has the most."""
    series = [
        list(images) for _, images in groupby(_images(held), lambda one: one.series_instance_uid)
    ]
    longest = max(series, key=len)
    return _Picture(longest[len(longest) // 2], listed[0] if listed else None)


def _all(held: Sequence[Held], listed: Sequence[int] | None, *, each: bool) -> list[_Picture]:
    """A picture for each listed frame, else for each image; for `each` of its frames if it is one.

    Raises NotFound, TooLarge.
    """
    images = _images(held)
    if listed is None:
        if each and len(images) == 1:
            frames = rendering.Rendering(images[0]).pixels.frames
            listed = range(1, frames + 1)
        else:
            listed = (1,)
    if len(images) * len(listed) > PICTURES:
        raise TooLarge(f"an answer may have at most {PICTURES} pictures: ask for fewer at once")
    return [_Picture(one, frame) for one in images for frame in listed]


def _single(one: _Picture, way: _Way, media_type: str) -> bytes:
    try:
        made = Rendering(one.held)
        frame = made.representative if one.frame is None else one.frame
        _check(one.held, frame, way)
        picture = way.picture(made, frame)
        return rendering.encoded([picture], media_type, way.wanted.quality, made.duration)
    except (CannotRender, CannotTranscode) as error:
        raise NotAcceptable(str(error)) from error
    except MalformedDataSet as error:
        raise _damaged() from error


def _check(held: Held, frame: int, way: _Way) -> None:
    """Raises NotAcceptable where the presentation state says nothing of this frame."""
    if way.state is not None and not way.state.applies_to(held.sop_instance_uid, frame):
        raise NotAcceptable("the presentation state does not apply to this image")


def _animation(pictures: Sequence[_Picture], way: _Way) -> bytes:
    """Raises NotFound, NotAcceptable, TooLarge."""
    try:
        first = Rendering(pictures[0].held)
        for one in pictures:
            _check(one.held, one.frame or 1, way)
        shown = (
            way.picture(
                first if one.held is pictures[0].held else Rendering(one.held), one.frame or 1
            )
            for one in pictures
        )
        return rendering.encoded(shown, "image/gif", way.wanted.quality, first.duration)
    except (CannotRender, CannotTranscode) as error:
        raise NotAcceptable(str(error)) from error
    except MalformedDataSet as error:
        raise _damaged() from error


def _parts(
    pictures: Sequence[_Picture], way: _Way, media_type: str, boundary: str
) -> Iterator[bytes]:
    """A part for each picture that can be made; what cannot is left out, if it is not the only."""
    made = 0
    refused: Exception | None = None
    for one in pictures:
        try:
            content = _single(one, way, media_type)
        except (NotAcceptable, NotFound, TooLarge) as error:
            refused = error
            continue
        made += 1
        fields = {"Content-Type": media_type, "Content-Length": str(len(content))}
        yield multipart.head(fields, boundary)
        yield content
    if not made and refused is not None:
        raise refused
    yield multipart.tail(boundary)


def _numbers(text: str, name: str) -> list[float | None]:
    try:
        found = [float(one) if one.strip() else None for one in text.split(",")]
    except ValueError:
        raise Invalid(f"{name} has numbers with commas between them") from None
    if not all(one is None or math.isfinite(one) for one in found):
        raise Invalid(f"{name} has finite numbers")
    return found


def _window(text: str) -> Window:
    numbers, name = text, Function.LINEAR.value
    if text.count(",") == 2:
        numbers, _, name = text.rpartition(",")
        name = name.strip().lower().replace("_", "-")
    match _numbers(numbers, "window"):
        case [float(center), float(width)] if name in FUNCTIONS:
            function = FUNCTIONS[name]
            if width >= 1 or (width > 0 and function is not Function.LINEAR):
                return Window(center, width, function)
    raise Invalid(f"window is center,width,function: {', '.join(Function)}; the width at least 1")


def _viewport(text: str) -> Viewport:
    asked = _numbers(text, "viewport")
    if len(asked) in (2, 6) and asked[0] and asked[1]:
        left, top, wide, high = asked[2:] or [None] * 4
        left, top = left or 0, top or 0
        fits = 1 <= asked[0] <= VIEWPORT and 1 <= asked[1] <= VIEWPORT
        if fits and left >= 0 and top >= 0 and wide != 0 and high != 0:
            return Viewport(int(asked[0]), int(asked[1]), left, top, wide, high)
    raise Invalid(
        "viewport is width,height or width,height,left,top,width,height of the region, "
        f"sides at most {VIEWPORT}"
    )


def _quality(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:4]) <= 100:
        raise Invalid("quality is a number from 1 to 100")
    return int(text)


def _profile(text: str) -> Profile:
    try:
        return Profile(text.lower())
    except ValueError:
        raise Invalid(f"iccprofile is one of {', '.join(Profile)}") from None


class _Thumbnails:
    """The thumbnails that were asked for last, by their entity tag."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tag: str) -> bytes | None:
        with self._lock:
            if (known := self._known.get(tag)) is not None:
                self._known.move_to_end(tag)
            return known

    def put(self, tag: str, content: bytes) -> None:
        if len(content) > REMEMBERED_BYTES:
            return
        with self._lock:
            self._known[tag] = content
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


_thumbnails = _Thumbnails()
