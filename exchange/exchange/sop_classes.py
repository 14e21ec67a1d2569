"""What people call the instances of a SOP Class (PS3.4 B.5): images, reports, or neither."""

from __future__ import annotations

_STORAGE = "1.2.840.10008.5.1.4.1.1."

STRUCTURED = f"{_STORAGE}88."
"""With what the UIDs of SR storage classes begin."""

NOT_FOR_READING = frozenset({f"{STRUCTURED}{number}" for number in ("59", "67", "71", "76")})
"""Key objects, dose and other reports that are tables for programs."""

KEY_OBJECT_SELECTION = f"{STRUCTURED}59"
ENCAPSULATED_PDF = f"{_STORAGE}104.1"
ENCAPSULATED_CDA = f"{_STORAGE}104.2"

_WITHOUT_PIXELS = tuple(
    f"{_STORAGE}{number}"
    for number in (
        "9.",  # waveforms
        "11.",  # presentation states
        "79.",  # measurements of eyes
        "80.",
        "88.",  # structured reports, key objects, plans that are written as such
        "90.",  # assessments of images
        "91.",  # annotations of microscopy
        "104.",  # encapsulated documents and models
        "131",  # basic structured display
        "200.",  # protocols
        "201.",  # inventories
    )
)
"""What families of SOP Classes begin with that hold no pixels."""

_NO_IMAGE = frozenset(
    f"{_STORAGE}{number}"
    for number in (
        *("4.2", "66", "66.1", "66.2", "66.3", "66.5", "66.6", "67", "68.1", "68.2"),
        *("77.1.5.3", "77.1.5.8", "501.3"),
        *("78.1", "78.2", "78.3", "78.4", "78.5", "78.6", "78.7", "78.8"),
        *("481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9"),
        *("481.10", "481.11", "481.12", "481.13", "481.14", "481.15", "481.16", "481.17"),
        *("481.18", "481.19", "481.20", "481.21", "481.22", "481.25"),
    )
)
"""Spectra, raw data, registrations, surfaces, measurements, and plans of radiotherapy."""


def is_structured_report(sop_class_uid: str) -> bool:
    """Whether instances of the class are structured reports for people."""
    return sop_class_uid.startswith(STRUCTURED) and sop_class_uid not in NOT_FOR_READING


def is_report(sop_class_uid: str) -> bool:
    """Whether somebody reads it: a structured report or an encapsulated document."""
    documents = {ENCAPSULATED_PDF, ENCAPSULATED_CDA}
    return is_structured_report(sop_class_uid) or sop_class_uid in documents


def is_image(sop_class_uid: str) -> bool:
    """Whether somebody looks at it; a class that is not known here is taken for an image."""
    return not sop_class_uid.startswith(_WITHOUT_PIXELS) and sop_class_uid not in _NO_IMAGE
