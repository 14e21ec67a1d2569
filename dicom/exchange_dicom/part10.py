"""File Meta Information, as PS3.10 section 7.1 defines it: written one way, read leniently."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO

from exchange_dicom.header import EXPLICIT_VR_BIG_ENDIAN, LONG_FORM, DataSetError
from exchange_dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

META_LIMIT = 64 * 1024
"""Bytes within which the preamble and group 0002 must end."""

_PREAMBLE = bytes(128) + b"DICM"
_SHORT = Struct("<HH2sH")
_LONG = Struct("<HH2sHL")
_IMPLICIT = Struct("<HHL")
_UID = re.compile(rb"[0-9.]{1,64}")


class NotPart10(DataSetError):
    """Not a DICOM file: nothing that PS3.10 or a bare data set could begin with."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a file says of its data set; the SOP UIDs are None where group 0002 leaves them out.

    `data_set_offset` is the data set's first byte, counted as the reader's own position.
    """

    sop_class_uid: str | None
    sop_instance_uid: str | None
    transfer_syntax_uid: str
    data_set_offset: int


def _ui(element: int, uid: str) -> bytes:
    value = uid.rstrip(" \0").encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _SHORT.pack(2, element, b"UI", len(value)) + value


_VERSION = _LONG.pack(2, 1, b"OB", 0, 2) + b"\0\1"
_IMPLEMENTATION = _ui(0x0012, IMPLEMENTATION_CLASS_UID)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """The header that every kept file begins with: preamble, DICM and group 0002 (PS3.10 7.1).

    A function of its three arguments alone, for ever: no AE title, version name or time. The same
    data set, however it came, is the same file with the same digest. Raises UnicodeEncodeError
    if a UID is not ASCII.
    """
    group = b"".join(
        (
            _VERSION,
            _ui(0x0002, sop_class_uid),
            _ui(0x0003, sop_instance_uid),
            _ui(0x0010, transfer_syntax_uid),
            _IMPLEMENTATION,
        )
    )
    return b"".join(
        (_PREAMBLE, _SHORT.pack(2, 0, b"UL", 4), len(group).to_bytes(4, "little"), group)
    )


def read_file_meta(reader: BinaryIO) -> FileMeta:
    """Read from the current position up to the data set, and leave the reader at its first byte.

    Lenient as senders require: without a preamble, without a group length (never trusted when
    there), or without group 0002 at all, where the data set's first element tells the transfer
    syntax. Raises NotPart10.
    """
    start = reader.tell()
    head = reader.read(4096)
    if not head:
        raise NotPart10("the file is empty")
    position = next((at + 4 for at in (128, 0) if head[at : at + 4] == b"DICM"), 0)
    prefixed = position > 0
    uids: dict[int, bytes] = {}
    while head[position : position + 2] == b"\2\0":
        if position + 12 > len(head):
            head = _more(reader, head)
        element, value, length = _meta_element(head, position)
        if value + length > META_LIMIT:
            raise NotPart10(f"group 0002 is longer than {META_LIMIT} bytes")
        while value + length + 12 > len(head) and (longer := _more(reader, head)) != head:
            head = longer
        if value + length > len(head):
            raise NotPart10("the file ends within group 0002")
        # The first counts: what follows a header may be a data set that begins with its sender's.
        uids.setdefault(element, head[value : value + length].strip(b" \0"))
        position = value + length
    transfer_syntax_uid = _uid(uids.get(0x0010, b""))
    if transfer_syntax_uid is None:
        if uids.get(0x0010):
            raise NotPart10("the Transfer Syntax UID is not a UID")
        transfer_syntax_uid = _guessed(
            head[position : position + 8], prefixed=prefixed or bool(uids)
        )
    reader.seek(start + position, os.SEEK_SET)
    return FileMeta(
        _uid(uids.get(0x0002, b"")),
        _uid(uids.get(0x0003, b"")),
        transfer_syntax_uid,
        start + position,
    )


def _more(reader: BinaryIO, head: bytes) -> bytes:
    return head + reader.read(META_LIMIT)


def _meta_element(head: bytes, position: int) -> tuple[int, int, int]:
    """Element number, value position and value length of an element of group 0002."""
    if position + 8 > len(head):
        raise NotPart10("the file ends within group 0002")
    _, element, vr, length = _SHORT.unpack_from(head, position)
    if vr in LONG_FORM:
        if position + 12 > len(head):
            raise NotPart10("the file ends within group 0002")
        return element, position + 12, _LONG.unpack_from(head, position)[4]
    if not (vr.isalpha() and vr.isupper()):
        # Group 0002 is explicit by definition; some writers followed the data set instead.
        length = _IMPLICIT.unpack_from(head, position)[2]
    return element, position + 8, length


def _uid(value: bytes) -> str | None:
    return value.decode("ascii") if _UID.fullmatch(value) else None


def _guessed(first: bytes, *, prefixed: bool) -> str:
    """The transfer syntax of a data set that nobody declared, from its first element."""
    if len(first) < 8:
        raise NotPart10("neither a Transfer Syntax UID nor a data set")
    group, _, vr, _ = _SHORT.unpack(first)
    explicit = vr.isalpha() and vr.isupper()
    # 0008 in the other byte order is 0800.
    if explicit and group >= 0x0400 and 0 < int.from_bytes(first[:2], "big") <= 0xFF:
        return EXPLICIT_VR_BIG_ENDIAN
    # A bare data set begins with group 0008 or a lower one; text or an image does not.
    if not prefixed and not 0x0004 <= group <= 0x00FF:
        raise NotPart10("neither a DICM prefix nor the first element of a data set")
    return EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN
