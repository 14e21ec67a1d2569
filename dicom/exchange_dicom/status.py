"""What each error of the exchange is called in DIMSE and in DICOMweb, tabulated once.

PS3.7 Annex C (status types), PS3.4 B.2.3 (C-STORE) and C.4.1.1.4 (C-FIND); PS3.18 section 8.5
(HTTP status codes) and Table I.2-2 (store instances failure reasons).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exchange import errors

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_UNSUPPORTED = 0xFF01
"""Pending, and one or more optional keys were not supported for matching."""
CANCEL = 0xFE00
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True, slots=True)
class Dimse:
    """Status of a C-STORE and of a C-FIND response."""

    store: int
    find: int


DIMSE: Mapping[type[errors.ExchangeError], Dimse] = {
    errors.NotAuthenticated: Dimse(store=0x0124, find=0x0124),  # refused: not authorized
    errors.Refused: Dimse(store=0x0124, find=0x0124),
    errors.NotFound: Dimse(store=0xC001, find=0xC001),
    errors.Invalid: Dimse(store=0xC000, find=0xA900),  # cannot understand; does not match
    errors.TooBroad: Dimse(store=0xA700, find=0xA700),  # out of resources
    errors.TooLarge: Dimse(store=0xA700, find=0xA700),
    errors.NoRoom: Dimse(store=0xA700, find=0xA700),
    errors.Unavailable: Dimse(store=0xA700, find=0xA700),
}

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
    errors.TooBroad: Web(400, 0xA700),
    errors.TooLarge: Web(413, 0xA700),
    errors.NoRoom: Web(507, 0xA700),
    errors.Unavailable: Web(503, 0xA700),
}
