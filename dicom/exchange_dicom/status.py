"""What each error of the exchange is called in DIMSE and in DICOMweb, tabulated once.

PS3.7 Annex C (status types), PS3.4 B.2.3 (C-STORE), C.4.1.1.4 (C-FIND), C.4.2.1.5 (C-MOVE) and
C.4.3.1.4 (C-GET); PS3.18 section 8.5
(HTTP status codes) and Table I.2-2 (store instances failure reasons).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from exchange import errors

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_UNSUPPORTED = 0xFF01
"""Pending, and one or more optional keys were not supported for matching."""
CANCEL = 0xFE00
CANNOT_COUNT_MATCHES = 0xA701
CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
DESTINATION_UNKNOWN = 0xA801
SUB_OPERATIONS_FAILED = 0xB000
"""Sub-operations complete, one or more failures or warnings (PS3.4 Tables C.4-2 and C.4-3)."""
WARNINGS = ("0001", "0107", "0116", "Bxxx")
"""Done, with a remark (PS3.7 C.1), in hexadecimal with x for any digit: a receiver may have remarks
that PS3.4 Table B.2-1 does not have, and has stored the instance all the same."""
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
PROCESSING_FAILURE = 0x0110
OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
ATTRIBUTE_LIST_ERROR = 0x0107
ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
"""Warnings of N-CREATE and N-SET: it was done all the same."""
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_OBJECT_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
INVALID_OBJECT_INSTANCE = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
INVALID_ATTRIBUTE_VALUE = 0x0106
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
RESOURCE_LIMITATION = 0x0213
"""Statuses of the N-services (PS3.7 annex C.5)."""


def warns(code: int) -> bool:
    """Whether a status is one of `WARNINGS`."""
    return f"{code:04X}" in WARNINGS or code >> 12 == 0xB


class Type(StrEnum):
    """The types of status (PS3.7 annex C)."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


def type_of(code: int) -> Type:
    """Of which type a status is: whatever is nothing else is a failure."""
    match code:
        case 0x0000:
            return Type.SUCCESS
        case 0xFF00 | 0xFF01:
            return Type.PENDING
        case 0xFE00:
            return Type.CANCEL
        case _:
            return Type.WARNING if warns(code) else Type.FAILURE


@dataclass(frozen=True, slots=True)
class Dimse:
    """Status of the response to a C-STORE, to a C-FIND, and to a C-MOVE or C-GET."""

    store: int
    find: int
    retrieve: int


DIMSE: Mapping[type[errors.ExchangeError], Dimse] = {
    errors.NotAuthenticated: Dimse(
        store=0x0124, find=0x0124, retrieve=0x0124
    ),  # refused: not authorized
    errors.Refused: Dimse(store=0x0124, find=0x0124, retrieve=0x0124),
    errors.NotFound: Dimse(store=0xC001, find=0xC001, retrieve=0xC001),
    errors.Invalid: Dimse(
        store=0xC000, find=0xA900, retrieve=0xA900
    ),  # cannot understand; does not match
    errors.Conflicting: Dimse(store=0xA900, find=0xA900, retrieve=0xA900),
    errors.Stale: Dimse(store=0xA900, find=0xA900, retrieve=0xA900),
    errors.TooBroad: Dimse(
        store=0xA700, find=0xA700, retrieve=CANNOT_COUNT_MATCHES
    ),  # out of resources
    errors.TooLarge: Dimse(store=0xA700, find=0xA700, retrieve=0xA702),
    errors.NoRoom: Dimse(store=0xA700, find=0xA700, retrieve=0xA702),
    errors.Unavailable: Dimse(store=0xA700, find=0xA700, retrieve=CANNOT_COUNT_MATCHES),
}

N_SERVICE: Mapping[type[errors.ExchangeError], int] = {
    errors.NotAuthenticated: NOT_AUTHORIZED,
    errors.Refused: NOT_AUTHORIZED,
    errors.NotFound: NO_SUCH_OBJECT_INSTANCE,
    errors.Invalid: INVALID_ATTRIBUTE_VALUE,
    errors.Conflicting: PROCESSING_FAILURE,
    errors.Stale: PROCESSING_FAILURE,
    errors.TooBroad: RESOURCE_LIMITATION,
    errors.TooLarge: RESOURCE_LIMITATION,
    errors.NoRoom: RESOURCE_LIMITATION,
    errors.Unavailable: PROCESSING_FAILURE,
}
"""Statuses of N-CREATE, N-SET, N-GET and N-ACTION responses (PS3.7 annex C.5)."""

DATA_SET_MISMATCH = 0xA900
"""The data set does not match the SOP class, or is not the instance that the command names."""
CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class Web:
    """HTTP status of a request, and Failure Reason (0008,1197) of one instance of a STOW-RS."""

    http: int
    failure_reason: int


WEB: Mapping[type[errors.ExchangeError], Web] = {
    errors.NotAuthenticated: Web(401, 0x0124),
    errors.Refused: Web(403, 0x0124),
    errors.NotFound: Web(404, 0xC001),
    errors.Invalid: Web(400, 0xC000),
    errors.Conflicting: Web(409, 0xC000),
    errors.Stale: Web(412, 0xC000),
    errors.TooBroad: Web(400, 0xA700),
    errors.TooLarge: Web(413, 0xA700),
    errors.NoRoom: Web(507, 0xA700),
    errors.Unavailable: Web(503, 0xA700),
}
