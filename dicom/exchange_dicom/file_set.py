"""A study as a File-set on a medium: names of files, and the DICOMDIR (PS3.10 8, PS3.3 annex F).

What reads media reads the DICOMDIR alone to tell what is there: patient, study, series and each
instance, as records that point to each other by their places in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exchange_dicom import structured_report
from exchange_dicom.part10 import file_meta
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

NAME = "DICOMDIR"

LENGTH = 1024
"""Characters of the longest value (ST); what a sender wrote may have more."""

_STORAGE = "1.2.840.10008.5.1.4.1.1"
_TYPES: Sequence[tuple[str, str]] = (
    (f"{_STORAGE}.88.59", "KEY OBJECT DOC"),
    (f"{_STORAGE}.88.", "SR DOCUMENT"),
    (f"{_STORAGE}.104.", "ENCAP DOC"),
    (f"{_STORAGE}.11.", "PRESENTATION"),
    (f"{_STORAGE}.9.", "WAVEFORM"),
    (f"{_STORAGE}.66", "RAW DATA"),
)
"""Directory Record Type by SOP class (PS3.3 table F.4-1); what is not here is an IMAGE."""

_LONG = frozenset({"OB", "SQ", "UT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An instance in the File-set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    instance_number: str
    model: Mapping[str, Any] = field(default_factory=dict)
    """Its attributes as DICOM JSON, where it is no image and its record says more of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A series in the File-set."""

    series_instance_uid: str
    modality: str
    series_number: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """One study of one patient. Text is as DICOM writes it."""

    patient_id: str
    patient_name: str
    study_instance_uid: str
    study_date: str
    study_time: str
    study_id: str
    study_description: str
    accession_number: str
    series: tuple[Group, ...]


def file_id(series: int, instance: int) -> tuple[str, ...]:
    """The components of a File ID (PS3.10 8.2): at most 8 upper-case letters and digits each."""
    return "DICOM", f"SE{series:06}", f"IM{instance:06}"


def described(sop_class_uid: str) -> bool:
    """Whether the record of such an instance says more than its number: see `Member.model`."""
    return record_type(sop_class_uid) != "IMAGE"


def record_type(sop_class_uid: str) -> str:
    """The Directory Record Type of an instance."""
    return next((kind for begins, kind in _TYPES if sop_class_uid.startswith(begins)), "IMAGE")


def directory(contents: Contents) -> bytes:
    """The DICOMDIR of `contents`, whose files are named by `file_id`, counted from 1."""
    root = [_record_of_patient(contents)]
    before = b"".join(
        (
            file_meta(MEDIA_STORAGE_DIRECTORY, _own_uid(contents), EXPLICIT_VR_LITTLE_ENDIAN),
            _text(0x00041130, "CS", "EXCHANGE"),
        )
    )
    # Three elements and the head of the sequence stand between that and the first record.
    first = len(before) + 12 + 12 + 10 + 12
    _place(root, first)
    records = b"".join(record.written() for record in _all(root))
    return b"".join(
        (
            before,
            _element(0x00041200, "UL", struct.pack("<I", root[0].offset)),
            _element(0x00041202, "UL", struct.pack("<I", root[-1].offset)),
            _element(0x00041212, "US", b"\0\0"),
            _element(0x00041220, "SQ", records),
        )
    )


@dataclass(slots=True)
class _Record:
    """A directory record, with those below it."""

    kind: str
    keys: list[tuple[int, str, str | bytes]]
    file: tuple[str, ...] = ()
    member: Member | None = None
    below: list[_Record] = field(default_factory=list)
    offset: int = 0
    following: int = 0

    def written(self) -> bytes:
        """The item, of the same length whatever the offsets are."""
        lower = self.below[0].offset if self.below else 0
        parts = [
            _element(0x00041400, "UL", struct.pack("<I", self.following)),
            _element(0x00041410, "US", b"\xff\xff"),
            _element(0x00041420, "UL", struct.pack("<I", lower)),
            _text(0x00041430, "CS", self.kind),
        ]
        if self.member is not None:
            parts += [
                _text(0x00041500, "CS", "\\".join(self.file)),
                _text(0x00041510, "UI", self.member.sop_class_uid),
                _text(0x00041511, "UI", self.member.sop_instance_uid),
                _text(0x00041512, "UI", self.member.transfer_syntax_uid),
            ]
        keys: list[tuple[int, str, str | bytes]] = [(0x00080005, "CS", "ISO_IR 192"), *self.keys]
        for tag, vr, value in sorted(keys, key=lambda key: key[0]):
            parts.append(
                _element(tag, vr, value) if isinstance(value, bytes) else _text(tag, vr, value)
            )
        content = b"".join(parts)
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _record_of_patient(contents: Contents) -> _Record:
    study = _Record(
        "STUDY",
        [
            (0x00080020, "DA", contents.study_date),
            (0x00080030, "TM", contents.study_time),
            (0x00080050, "SH", contents.accession_number),
            (0x00081030, "LO", contents.study_description),
            (0x0020000D, "UI", contents.study_instance_uid),
            (0x00200010, "SH", contents.study_id or "1"),
        ],
    )
    for number, group in enumerate(contents.series, 1):
        series = _Record(
            "SERIES",
            [
                (0x00080060, "CS", group.modality or "OT"),
                (0x0020000E, "UI", group.series_instance_uid),
                (0x00200011, "IS", group.series_number or str(number)),
            ],
        )
        series.below = [
            _Record(
                record_type(member.sop_class_uid),
                _keys(member, place),
                file_id(number, place),
                member,
            )
            for place, member in enumerate(group.members, 1)
        ]
        study.below.append(series)
    patient = [
        (0x00100010, "PN", contents.patient_name),
        (0x00100020, "LO", contents.patient_id),
    ]
    return _Record("PATIENT", [*patient], below=[study])


def _keys(member: Member, place: int) -> list[tuple[int, str, str | bytes]]:
    """The keys of the record of an instance (PS3.3 F.5), as far as the instance has them."""
    keys: list[tuple[int, str, str | bytes]] = [
        (0x00200013, "IS", member.instance_number or str(place))
    ]
    told = member.model
    wanted: Sequence[tuple[int, str]] = ()
    match record_type(member.sop_class_uid):
        case "SR DOCUMENT":
            wanted = (
                (0x00080023, "DA"),
                (0x00080033, "TM"),
                (0x0040A491, "CS"),
                (0x0040A493, "CS"),
            )
        case "KEY OBJECT DOC" | "WAVEFORM" | "RAW DATA":
            wanted = ((0x00080023, "DA"), (0x00080033, "TM"))
        case "ENCAP DOC":
            wanted = ((0x00420010, "ST"), (0x00420012, "LO"))
        case "PRESENTATION":
            wanted = ((0x00700080, "CS"), (0x00700082, "DA"), (0x00700083, "TM"))
        case _:
            pass
    keys += [(tag, vr, structured_report.text(told, f"{tag:08X}")) for tag, vr in wanted]
    if record_type(member.sop_class_uid) in {"SR DOCUMENT", "KEY OBJECT DOC", "ENCAP DOC"}:
        keys.append((0x0040A043, "SQ", _concept(told)))
    return keys


def _concept(model: Mapping[str, Any]) -> bytes:
    """The item of a Concept Name Code Sequence; nothing where there is none."""
    value, scheme, meaning = structured_report.concept(model)
    if not value:
        return b""
    content = b"".join(
        (
            _text(0x00080100, "SH", value),
            _text(0x00080102, "SH", scheme),
            _text(0x00080104, "LO", meaning),
        )
    )
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _place(siblings: list[_Record], at: int) -> int:
    """Give records their places, each before those below it; returns where the next begins."""
    for number, record in enumerate(siblings):
        record.offset = at
        at = _place(record.below, at + len(record.written()))
        record.following = at if number + 1 < len(siblings) else 0
    return at


def _all(records: Iterable[_Record]) -> Iterable[_Record]:
    for record in records:
        yield record
        yield from _all(record.below)


def _text(tag: int, vr: str, text: str) -> bytes:
    value = text[:LENGTH].encode()
    return _element(tag, vr, value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))


def _element(tag: int, vr: str, value: bytes) -> bytes:
    """An element with Explicit VR Little Endian (PS3.5 7.1.2)."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in _LONG:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _own_uid(contents: Contents) -> str:
    """The SOP Instance UID of the DICOMDIR: the same study is the same File-set."""
    return f"2.25.{int.from_bytes(contents.study_instance_uid.encode()[-15:])}"
