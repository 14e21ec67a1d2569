"""Where the frames of an object lie (PS3.3 C.7.6.3, PS3.5 section 8 and A.4), read one at a time.

Native frames lie one behind the other. Encapsulated ones are found by the Extended or the Basic
Offset Table, else by a walk over the heads of the fragments. What was found is remembered under the
object's digest, which names the same bytes for ever, so that the frames of a long cine are looked
for once.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import BinaryIO, Literal, cast

import numpy as np

from exchange.errors import NotFound, TooLarge
from exchange.retrieval import Held
from exchange_dicom import header, kept
from exchange_dicom.data_set import Read
from exchange_dicom.header import EXPLICIT_VR_BIG_ENDIAN, LONG_FORM, MalformedDataSet

FRAME_LIMIT = 1 << 28
"""Bytes of the largest frame that is read, or made by decoding: it is in memory as a whole."""

INFLATED_LIMIT = 1 << 30
"""Bytes of the largest data set that is inflated to reach its frames."""

FRAMES = 1 << 20
"""Frames and fragments of one object that are looked for."""

REMEMBERED = 256
"""Objects whose frames are remembered in one process."""

REMEMBERED_BYTES = 64 << 20
"""Bytes of the places of all of their frames."""

WINDOW = 256 << 10
"""Bytes that are read at once where fragments are shorter than that."""

VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{last}{form}" for last in range(100, 109) for form in ("", ".1")
)
"""Transfer syntaxes whose fragments are one stream, whatever frames it shows (PS3.5 A.4.4 on)."""

GE_PRIVATE = "1.2.840.113619.5.2"
"""Implicit VR Little Endian whose Pixel Data alone is big endian."""

_KEYWORDS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_ROWS, _COLUMNS, _ALLOCATED, _STORED = 0x00280010, 0x00280011, 0x00280100, 0x00280101
_REPRESENTATION = 0x00280103
_TAGS = frozenset(
    {_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED}
    | {_REPRESENTATION}
)
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_ITEM, _SEQUENCE_END, _UNDEFINED = 0xFFFEE000, 0xFFFEE0DD, 0xFFFFFFFF
_ITEM_HEAD = Struct("<HHL")
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP", b"\xff\x0a")
"""How a JPEG, a JPEG 2000 codestream, a JP2 file and a JPEG XL codestream begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What an object says of its pixels, and where they lie within its data set."""

    tag: int
    """Of Pixel Data, or its forms with numbers of floating point."""
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    frames: int
    allocated: int
    stored: int
    representation: int
    head: int
    """Bytes of the data set before group 7FE0."""
    at: int
    """First byte of the value."""
    length: int | None
    """Bytes of the value; None where it is encapsulated."""
    swapped: int = 1
    """Bytes of the words whose order is that of big endian; 1 where there are none."""
    starts: array[int] = field(default_factory=lambda: array("Q"))
    """Of each encapsulated frame: the head of its first fragment."""
    ends: array[int] = field(default_factory=lambda: array("Q"))
    """Behind each frame's last fragment; 0 where it is the delimiter that tells."""

    @property
    def keyword(self) -> str:
        """The keyword of the tag."""
        return _KEYWORDS[self.tag]

    @property
    def bytes(self) -> int:
        """Bytes that the places of the frames take."""
        return self.starts.itemsize * len(self.starts) + self.ends.itemsize * len(self.ends)

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame."""
        pixels = self.rows * self.columns * self.allocated
        whole = pixels * self.samples
        if self.length is None or self.samples != 3:
            return whole
        factor = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}
        # Some say so and send every sample nevertheless.
        if self.photometric in factor and self.length * 8 < whole * self.frames:
            return pixels * factor[self.photometric] // 2
        return whole


class NoPixels(NotFound):
    """What was asked for is given, but is no image."""


def pixels(held: Held) -> Pixels:
    """What the object says of its pixels.

    Raises NoPixels where it has none, MalformedDataSet, TooLarge, Unavailable.
    """
    if (known := _remembered.get(held.digest)) is None:
        known = _looked_up(held)
        _remembered.put(held.digest, known)
    return known


def stored_frame(held: Held, known: Pixels, number: int) -> bytes:
    """A frame, counted from 1, as it is stored; native ones with little endian numbers.

    Raises NotFound, MalformedDataSet where the object ends before, TooLarge, Unavailable.
    """
    if not 1 <= number <= known.frames:
        raise NotFound(f"the instance has {known.frames} frames, counted from 1")
    read = kept.reading(held, INFLATED_LIMIT)
    if known.length is None:
        return _encapsulated(read, known, number)
    return _native(read, known, number)


class _Remembered:
    """The most recently used of what was looked up."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, digest: str) -> Pixels | None:
        with self._lock:
            if (known := self._known.get(digest)) is not None:
                self._known.move_to_end(digest)
            return known

    def put(self, digest: str, known: Pixels) -> None:
        with self._lock:
            if (before := self._known.pop(digest, None)) is not None:
                self._bytes -= before.bytes
            self._known[digest] = known
            self._bytes += known.bytes
            while len(self._known) > REMEMBERED or self._bytes > REMEMBERED_BYTES:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= oldest.bytes


_remembered = _Remembered()


def _looked_up(held: Held) -> Pixels:
    syntax = held.transfer_syntax_uid
    found = header.head(cast(BinaryIO, kept.Reader(held)), syntax, _TAGS)
    read = kept.reading(held, INFLATED_LIMIT)
    located = _value(read, found)
    if located is None:
        raise NoPixels("the instance has no frames: it holds no pixel data")
    tag, vr, at, length, tables = located
    order: Literal["little", "big"] = "big" if found.order == ">" else "little"
    number = {name: int.from_bytes(found.values.get(name, b"")[:2], order) for name in _TAGS}
    allocated = {0x7FE00008: 32, 0x7FE00009: 64}.get(tag, number[_ALLOCATED])
    known = Pixels(
        tag=tag,
        rows=number[_ROWS],
        columns=number[_COLUMNS],
        samples=number[_SAMPLES] or 1,
        photometric=_text(found, _PHOTOMETRIC) or "MONOCHROME2",
        planar=number[_PLANAR],
        frames=_count(_text(found, _FRAMES)),
        allocated=allocated,
        stored=number[_STORED] or allocated,
        representation=number[_REPRESENTATION],
        head=found.position,
        at=at,
        length=None if length == _UNDEFINED else length,
        swapped=_word(syntax, vr, allocated),
    )
    if not (known.rows and known.columns and allocated and (allocated == 1 or allocated % 8 == 0)):
        raise MalformedDataSet("pixels without rows, columns or whole bytes", found.position)
    if known.length is not None:
        return known
    return _with_frames(read, known, tables, held.size, whole=syntax in VIDEO)


def _text(found: header.Head, tag: int) -> str:
    return found.values.get(tag, b"").decode("ascii", "replace").strip(" \0")


def _count(text: str) -> int:
    """Number of Frames; one where it is absent or none."""
    first = text.partition("\\")[0].strip()
    return min(int(first), FRAMES) if first.isascii() and first.isdigit() and int(first) else 1


def _word(transfer_syntax_uid: str, vr: bytes, allocated: int) -> int:
    """Bytes whose order is to be turned: those of an OW's words, or of one sample (PS3.5 7.3)."""
    if transfer_syntax_uid not in (EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE):
        return 1
    if allocated <= 8:
        return 2 if vr == b"OW" and transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else 1
    return allocated // 8


def _value(
    read: Read, found: header.Head
) -> tuple[int, bytes, int, int, tuple[bytes, bytes]] | None:
    """Tag, VR, first byte and length of the pixels' value, and the extended offset table."""
    tag_of, word = Struct(found.order + "HH"), Struct(found.order + "L")
    half = Struct(found.order + "H")
    at = found.position
    tables = {_OFFSETS: b"", _LENGTHS: b""}
    while len(head := read(at, 12)) >= 8:
        group, element = tag_of.unpack_from(head)
        if group != 0x7FE0:
            return None
        tag, vr = group << 16 | element, b"" if found.implicit else head[4:6]
        if vr in LONG_FORM:
            if len(head) < 12:
                break
            length, at = word.unpack_from(head, 8)[0], at + 12
        elif found.implicit:
            length, at = word.unpack_from(head, 4)[0], at + 8
        else:
            length, at = half.unpack_from(head, 6)[0], at + 8
        if tag in _KEYWORDS:
            return tag, vr, at, length, (tables[_OFFSETS], tables[_LENGTHS])
        if tag in tables and length <= 8 * FRAMES:
            tables[tag] = read(at, length)
        at += length
    if head:
        raise MalformedDataSet("ends within an element", at)
    return None


def fragments(held: Held, known: Pixels) -> tuple[tuple[int, int], ...]:
    """First byte in the data set, and bytes, of each fragment of a value whose stream is one.

    Raises MalformedDataSet, TooLarge, Unavailable.
    """
    read = kept.reading(held, INFLATED_LIMIT)
    return tuple((at + 8, length) for at, length, _ in _heads(read, known.starts[0]))


def joined(value: memoryview) -> memoryview:
    """What the fragments of an encapsulated value hold, which is in memory and of one frame."""
    at, found = 0, []
    while (item := _item(value[at : at + 8], at))[0] == _ITEM:
        found.append(value[at + 8 : at + 8 + item[1]])
        at += 8 + item[1]
    return memoryview(b"".join(found[1:]))  # behind the offset table


def _with_frames(
    read: Read, known: Pixels, tables: tuple[bytes, bytes], size: int, *, whole: bool
) -> Pixels:
    """The same, with the place of each encapsulated frame; of one alone where they are `whole`."""
    tag, length = _item(read(known.at, 8), known.at)
    if tag != _ITEM or length > 4 * FRAMES:
        raise MalformedDataSet("an encapsulated value without its offset table", known.at)
    first = known.at + 8 + length
    extended = tables[0][: 8 * known.frames], tables[1][: 8 * known.frames]
    if known.frames == 1 or whole:
        starts, ends = array("Q", [first]), array("Q", [0])
    elif len(extended[0]) == len(extended[1]) == 8 * known.frames:
        offsets = np.frombuffer(extended[0], "<u8")
        lengths = np.frombuffer(extended[1], "<u8")
        if int(offsets.max()) > size or int(lengths.max()) > size:
            raise MalformedDataSet("an offset beyond the end of the object", known.at)
        starts = array("Q", (offsets + np.uint64(first)).tobytes())
        # A fragment has an even length, also where the frame in it has not.
        ends = array(
            "Q", (offsets + np.uint64(first + 8) + lengths + lengths % np.uint64(2)).tobytes()
        )
    else:
        table = read(known.at + 8, length)
        if len(table) < length:
            raise MalformedDataSet("the object ends within the offset table", known.at)
        basic = np.frombuffer(table, "<u4", length // 4).astype("<u8")
        if len(basic) == known.frames and basic[0] == 0 and bool(np.all(np.diff(basic) > 0)):
            starts = array("Q", (basic + np.uint64(first)).tobytes())
            ends = array("Q", [*starts[1:], 0])
        else:  # absent, or of more than 4 GiB
            starts, ends = _walked(read, first, known.frames)
    return Pixels(
        **{
            name: getattr(known, name) for name in known.__slots__ if name not in ("starts", "ends")
        },
        starts=starts,
        ends=ends,
    )


def _heads(read: Read, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Where each fragment has its head, its length, and its first bytes.

    Raises MalformedDataSet where no delimiter ends them, TooLarge.
    """
    window, base, last = b"", at, 0
    for _ in range(FRAMES + 1):
        if at + 16 > base + len(window):
            # Short fragments follow each other in one window; over long ones it is not filled.
            window, base = read(at, 16 if last > WINDOW else WINDOW), at
        tag, length = _item(window[at - base : at - base + 8], at)
        if tag == _SEQUENCE_END:
            return
        if tag != _ITEM:
            raise MalformedDataSet("neither a fragment nor the end of an encapsulated value", at)
        yield at, length, window[at - base + 8 : at - base + 16]
        last = 8 + length
        at += last
    raise TooLarge(f"an object may have at most {FRAMES} fragments")


def _walked(read: Read, at: int, frames: int) -> tuple[array[int], array[int]]:
    """Where the frames begin and end, by the heads of their fragments."""
    begins: list[int] = []
    starts: list[bool] = []
    for begin, length, first in _heads(read, at):
        begins.append(begin)
        starts.append(first.startswith(_STARTS))
        at = begin + 8 + length
    if len(begins) != frames:
        begins = [one for one, is_start in zip(begins, starts, strict=True) if is_start]
    if len(begins) != frames:
        raise MalformedDataSet("fragments that cannot be told apart as frames", at)
    return array("Q", begins), array("Q", [*begins[1:], at])


def _item(head: bytes | memoryview, at: int) -> tuple[int, int]:
    if len(head) < 8:
        raise MalformedDataSet("ends within an encapsulated value", at)
    group, element, length = _ITEM_HEAD.unpack(head)
    return group << 16 | element, length


def _encapsulated(read: Read, known: Pixels, number: int) -> bytes:
    """The fragments of a frame, joined."""
    at, end = known.starts[number - 1], known.ends[number - 1]
    fragments: list[bytes] = []
    if end:
        if end - at > FRAME_LIMIT:
            raise TooLarge(f"a frame may have at most {FRAME_LIMIT} bytes")
        whole = read(at, end - at)
        within = 0
        while within < end - at:
            tag, length = _item(whole[within : within + 8], at + within)
            if tag != _ITEM or within + 8 + length > len(whole):
                raise MalformedDataSet("a frame that ends within a fragment", at + within)
            fragments.append(whole[within + 8 : within + 8 + length])
            within += 8 + length
        return b"".join(fragments)
    read = _Windowed(read)
    size = 0
    while (item := _item(read(at, 8), at))[0] == _ITEM:
        if len(fragments) == FRAMES:
            raise TooLarge(f"a frame may have at most {FRAMES} fragments")
        size += item[1]
        if size > FRAME_LIMIT:
            raise TooLarge(f"a frame may have at most {FRAME_LIMIT} bytes")
        fragments.append(read(at + 8, item[1]))
        if len(fragments[-1]) < item[1]:
            raise MalformedDataSet("ends within a fragment", at)
        at += 8 + item[1]
    if item[0] != _SEQUENCE_END:
        raise MalformedDataSet("neither a fragment nor the end of an encapsulated value", at)
    return b"".join(fragments)


class _Windowed:
    """A `Read` going forward, in which short pieces that follow each other cost one read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._window = b""
        self._base = 0

    def __call__(self, start: int, length: int) -> bytes:
        """Nothing is read twice."""
        found = self._window[start - self._base :][:length]
        if len(found) == length:
            return found
        end = start + len(found)
        if length > WINDOW:
            return found + self._read(end, length - len(found))
        self._window, self._base = found + self._read(end, WINDOW), start
        return self._window[:length]


def _native(read: Read, known: Pixels, number: int) -> bytes:
    bits = known.frame_bits
    if bits > 8 * FRAME_LIMIT:
        raise TooLarge(f"a frame may have at most {FRAME_LIMIT} bytes")
    first = (number - 1) * bits
    if bits % 8 or first % 8:  # frames of single bits follow each other without padding
        begin, end = first // 8, (first + bits + 7) // 8
        packed = np.frombuffer(_exactly(read, known, begin, end - begin), np.uint8)
        single = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + bits]
        return np.packbits(single, bitorder="little").tobytes()
    start, length = first // 8, bits // 8
    word = known.swapped
    if word == 1:
        return _exactly(read, known, start, length)
    begin = start // word * word
    end = -(-(start + length) // word) * word
    turned = np.frombuffer(_exactly(read, known, begin, end - begin), np.uint8)
    straight = turned.reshape(-1, word)[:, ::-1].tobytes()
    return straight[start - begin : start - begin + length]


def _exactly(read: Read, known: Pixels, start: int, length: int) -> bytes:
    """Bytes of the value from `start`."""
    value = read(known.at + start, length)
    if len(value) < length or start + length > (known.length or 0):
        raise MalformedDataSet("a frame is longer than what it lies in", known.at)
    return value
