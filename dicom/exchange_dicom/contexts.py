"""What the node accepts: SOP classes and transfer syntaxes (PS3.4 Annex B, C; PS3.5 Annex A).

The tables come from the registry of UIDs (PS3.6 Annex A) that pydicom carries, retired ones
included: an old modality's images are no less an image.
"""

from __future__ import annotations

import re

from pydicom._uid_dict import UID_dictionary

from exchange_dicom.negotiation import TransferSyntaxes
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from exchange_storage.search import Level

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STORAGE_COMMITMENT_PUSH = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP Instance (PS3.4 J.3.5)."""
MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
PERFORMED_PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
PERFORMED_PROCEDURE_STEP_RETRIEVE = "1.2.840.10008.3.1.2.3.4"
INSTANCE_AVAILABILITY_NOTIFICATION = "1.2.840.10008.5.1.4.33"

FIND_LEVELS: dict[str, tuple[Level, ...]] = {
    PATIENT_ROOT_FIND: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    STUDY_ROOT_FIND: (Level.STUDY, Level.SERIES, Level.IMAGE),
}
"""The levels of each information model (PS3.4 C.6.1.1, C.6.2.1)."""

RETRIEVE_LEVELS: dict[str, tuple[Level, ...]] = {
    PATIENT_ROOT_GET: FIND_LEVELS[PATIENT_ROOT_FIND],
    PATIENT_ROOT_MOVE: FIND_LEVELS[PATIENT_ROOT_FIND],
    STUDY_ROOT_GET: FIND_LEVELS[STUDY_ROOT_FIND],
    STUDY_ROOT_MOVE: FIND_LEVELS[STUDY_ROOT_FIND],
}
"""The same for retrieval."""

RETRIEVED_BEYOND: dict[str, tuple[Level, ...]] = dict.fromkeys(
    (STUDY_ROOT_GET, STUDY_ROOT_MOVE), (Level.PATIENT,)
)
"""Levels that a model does not have (C.6.2.1), served in retrieval as in Patient Root: some, such
as Orthanc, ask for a whole patient in Study Root."""

FIND_OF: dict[str, str] = {
    PATIENT_ROOT_GET: PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE: PATIENT_ROOT_FIND,
    STUDY_ROOT_GET: STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE: STUDY_ROOT_FIND,
}
"""The query model of each retrieval model."""

NEWER: dict[str, str] = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Transfer syntaxes that pydicom's registry has only where pynetdicom was imported too."""

TRANSFER_SYNTAXES: tuple[str, ...] = (
    *(
        uid
        for uid, (_, kind, *_) in UID_dictionary.items()
        if kind == "Transfer Syntax" and uid not in NEWER
    ),
    *NEWER,
)
"""Every transfer syntax of the registry: objects are kept as they were sent."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_NOT_OBJECTS = ("Commitment", "Directory", "Query", "Management")

STORAGE: frozenset[str] = frozenset(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in name and not any(w in name for w in _NOT_OBJECTS)
)
"""The storage SOP classes of the registry."""

RETIRED: frozenset[str] = frozenset(
    uid for uid, (name, _, _, retired, *_) in UID_dictionary.items() if retired or "Trial" in name
)
"""UIDs that nobody should propose any more."""

UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""For everything that is not an object, in our order of preference."""


VIDEO: frozenset[str] = frozenset(uid for uid in STORAGE if "Video" in UID_dictionary[uid][0])
"""Those that are kept as a stream of video, which nothing here decompresses."""


def stored(abstract_syntax: str, *, received: bool = False) -> TransferSyntaxes | None:
    """The transfer syntaxes in which an abstract syntax is stored, or None where it is not.

    Whatever the registry does not know is taken for a private storage SOP class. Whoever wants to
    receive too (C-GET) may ask for anything, kept in any syntax: all can be sent uncompressed.
    """
    private = _UID.fullmatch(abstract_syntax) and abstract_syntax not in UID_dictionary
    if private or abstract_syntax in STORAGE:
        needed = UNCOMPRESSED if received and abstract_syntax not in VIDEO else ()
        return TransferSyntaxes(TRANSFER_SYNTAXES, proposer_chooses=True, needed=needed)
    return None
