"""The DICOM conformance statement, in the order of PS3.2 annex N, printed from the tables.

    python -m exchange_dicom.conformance > dicom/CONFORMANCE.md

A test compares what is printed with what is kept, so that the statement cannot fall behind.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import UID

from exchange import availability, commitment, rejection
from exchange_dicom import (
    attributes,
    contexts,
    data_set,
    frame_coding,
    identifier,
    performed,
    pixel_data,
    query,
    rendering,
    status,
    transport_security,
    web_frames,
    web_rendered,
    web_retrieve,
    worklist,
)
from exchange_dicom.conversation import Limits
from exchange_dicom.dimse import CommandField
from exchange_dicom.negotiation import Conduct
from exchange_dicom.node import SERVICES
from exchange_dicom.pdu import RejectReason
from exchange_dicom.transcoding import NATIVE
from exchange_dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from exchange_storage.search import ATTRIBUTES, Level


def statement() -> str:
    """The whole statement, in Markdown."""
    return "\n".join(
        line
        for part in (_overview, _storage, _services, _queries, _more, _network, _web)
        for line in part()
    )


def _overview() -> Iterator[str]:
    yield "# DICOM conformance statement"
    yield ""
    yield from _prose(
        "Printed by `python -m exchange_dicom.conformance`; a test compares it with the tables."
    )
    yield ""
    yield "## 1 Overview"
    yield ""
    yield from _prose(
        "The node is the archive of a region's hospitals: it receives, keeps, finds and "
        "returns instances, each hospital under its own patient numbers. An association "
        "belongs to one hospital, known by its calling AE title and its address or "
        "certificate."
    )
    yield ""
    roles = {
        uid: _roles(services) + (", SCU" if uid in _ASKED_OF_OTHERS else "")
        for uid, services in SERVICES.items()
    }
    roles[contexts.INSTANCE_AVAILABILITY_NOTIFICATION] = "SCU (N-CREATE)"
    rows = [
        [UID(uid).name, uid, role]
        for uid, role in sorted(roles.items(), key=lambda one: (UID(one[0]).name, one[0]))
    ]
    yield from _table(("SOP class", "UID", "Role"), rows)
    storage = len(contexts.STORAGE)
    yield ""
    yield from _prose(
        f"and {storage} storage SOP classes (section 2) as SCP, and as SCU by C-MOVE and routes. "
        "The other roles of an SCU are those of the commands `exchange echo`, `send`, `query`, "
        "`move`, `get` and `commit`, which offer the default transfer syntax with each class."
    )
    yield ""


_ASKED_OF_OTHERS = {
    contexts.VERIFICATION,
    contexts.STORAGE_COMMITMENT_PUSH,
    *contexts.FIND_LEVELS,
    *contexts.RETRIEVE_LEVELS,
}


def _storage() -> Iterator[str]:
    yield "## 2 Storage"
    yield ""
    yield from _prose(
        "Level 2 (full): every attribute is kept as it was sent, private ones included. 0000 "
        "means durable, indexed and audited. SOP classes that the registry does not know are "
        "taken for private ones. The transfer syntax that is proposed first is accepted."
    )
    yield ""
    rows = [
        [UID(uid).name, uid]
        for uid in sorted(contexts.STORAGE, key=lambda uid: (UID(uid).name, uid))
    ]
    yield from _table(("SOP class", "UID"), rows)
    yield ""
    yield "### Transfer syntaxes"
    yield ""
    yield from _prose(
        "Sent as kept where the receiver takes that; those marked are also written without "
        "loss as Explicit or Implicit VR Little Endian. Compressed pixels are decompressed "
        "where a decoder is there; nothing is ever compressed."
    )
    yield ""
    rows = [
        [contexts.NEWER.get(uid) or UID(uid).name, uid, "yes" if uid in NATIVE else ""]
        for uid in contexts.TRANSFER_SYNTAXES
    ]
    yield from _table(("Transfer syntax", "UID", "Rewritten"), rows)
    yield ""
    yield "### Statuses of C-STORE, C-FIND and C-MOVE or C-GET"
    yield ""
    rows = [
        [name.__name__, *(f"{code:04X}" for code in (one.store, one.find, one.retrieve))]
        for name, one in status.DIMSE.items()
    ]
    yield from _table(("Cause", "C-STORE", "C-FIND", "C-MOVE, C-GET"), rows)
    yield ""
    yield from _prose(f"A900 also where command and data set name different instances. {_bytes()}")
    yield ""


def _bytes() -> str:
    return f"An instance has at most {Limits().instance_bytes} bytes unless set otherwise."


def _services() -> Iterator[str]:
    yield "## 3 Coercion"
    yield ""
    yield from _prose(
        "Instances are not coerced on the way in. On the way out to another hospital (C-MOVE, "
        "C-GET, routes) Patient ID (0010,0020) and Issuer of Patient ID (0010,0021) become "
        "that hospital's; the owner's stand in Other Patient IDs Sequence (0010,1002), what "
        "was replaced in Original Attributes Sequence (0400,0561), reason COERCE. Institution "
        "Name (0008,0080) is added where the instance has none and its character set can "
        "write it."
    )
    yield ""


def _queries() -> Iterator[str]:
    yield "## 4 Query and retrieval"
    yield ""
    yield from _prose(
        "Extended negotiation (PS3.4 C.5.1.1): relational queries and retrieval, combined "
        "date-time matching and fuzzy matching of names are served when negotiated; time zone "
        "adjustment is not. Relational queries match keys below the level too, all of them in "
        "one instance. Wildcards are served in text, not in numbers. A time in less detail "
        "matches all of its span. An attribute without a value matches no value of its key. "
        "Person names match in any component group, in any case and width, "
        f"and by pinyin. A question is refused with A700 when more than {Limits().matches} "
        "matches are possible and no selective key is given. Keys that are not matched are "
        "announced by FF01. Derived and returned, at the level that they name: "
        f"{', '.join(attributes.DERIVED)}; of these Modalities in Study and SOP Classes in Study "
        "are matched. Answers are in the character set of the question where that has "
        "all their characters, else in GB18030 if it was a Chinese one and in ISO_IR 192 if "
        "not; Specific Character Set is left out where all is ASCII."
    )
    yield ""
    for level in Level:
        yield f"### Keys at the level {level.name}"
        yield ""
        rows = [
            [keyword, attribute.kind.value, "yes" if attribute.selective else ""]
            for keyword, attribute in ATTRIBUTES.items()
            if attribute.level is level
        ]
        yield from _table(("Attribute", "Matched as", "Selective"), rows)
        yield ""
    yield from _prose(
        f"A key has at most {query.MAX_VALUES} values of {query.MAX_LENGTH} characters, an "
        f"identifier {identifier.IDENTIFIER_LENGTH} bytes. Other Patient IDs match any other "
        "number of the patient. C-MOVE sends to application entities of the asking hospital "
        "that are registered with a port."
    )
    yield ""


def _more() -> Iterator[str]:
    yield "## 5 Workflow"
    yield ""
    yield "### Storage Commitment Push Model"
    yield ""
    yield from _prose(
        f"At most {commitment.REFERENCES} instances. An instance is committed when it was read "
        "back from the object store with its digest. A transaction that is asked again before it "
        "was reported is the same one; another one under its UID fails as a whole. The report "
        "comes on an association of the node's own, or on that of the request where the asker "
        "is registered without a port."
    )
    yield ""
    rows = [[f"{code:04X}", words] for code, words in commitment.FAILURES.items()]
    yield from _table(("Failure reason", "Meaning"), rows)
    yield ""
    yield "### Modality Worklist"
    yield ""
    yield from _prose(
        "Ranges of start date and start time are one span (PS3.4 Table K.6-1). Fuzzy matching of "
        "the patient's name is served when negotiated (K.5.1)."
    )
    yield ""
    yield from _table(
        ("Key of the scheduled procedure step",), [[one] for one in worklist.STEP_KEYS]
    )
    yield ""
    yield from _table(("Other key",), [[one] for one in worklist.KEYS])
    yield ""
    yield "### Modality Performed Procedure Step"
    yield ""
    yield from _table(("Required by N-CREATE",), [[one] for one in performed.REQUIRED])
    yield ""
    yield from _prose("Passed over in an N-SET, which is answered with 0107 then:")
    yield ""
    yield from _table(("Not changed by N-SET",), [[one] for one in performed.NOT_CHANGED])
    yield ""
    yield "### Instance Availability Notification"
    yield ""
    yield from _prose(
        "Sent to the application entities of a hospital that are registered for it, when a study "
        "of that hospital's has been quiet for a while, and again when more of it has come: all "
        f"of its instances then, up to {availability.INSTANCES}, as ONLINE. Tried again for four "
        "days. Referenced Performed Procedure Step Sequence has the step that told of the study, "
        "if one alone did."
    )
    yield ""
    yield "### Rejection notes"
    yield ""
    yield from _prose(
        "Key Object Selection documents of these titles hide the instances of their own hospital."
    )
    yield ""
    yield from _table(("Code (DCM)", "Meaning"), rejection.CODES.items())
    yield ""


def _network() -> Iterator[str]:
    conduct = Conduct()
    yield "## 6 Network"
    yield ""
    rows = [
        ["Implementation Class UID", IMPLEMENTATION_CLASS_UID],
        ["Implementation Version Name", IMPLEMENTATION_VERSION_NAME],
        ["Longest PDU received", str(conduct.maximum_length)],
        ["Associations at a time, one process", str(Limits().associations)],
        ["Wait for a request (ARTIM), s", f"{conduct.artim_timeout:.0f}"],
        ["Silence between messages, s", f"{conduct.network_timeout:.0f}"],
        ["One PDU, s", f"{conduct.pdu_timeout:.0f}"],
        ["Asynchronous operations", "not negotiated"],
        ["User identity", "names are logged, not used for authentication"],
    ]
    yield from _table(("Parameter", "Default"), rows)
    yield ""
    yield (
        "Rejections: "
        + ", ".join(
            reason.name.lower().replace("_", " ")
            for reason in (
                RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED,
                RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED,
                RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
                RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED,
                RejectReason.LOCAL_LIMIT_EXCEEDED,
                RejectReason.TEMPORARY_CONGESTION,
            )
        )
        + "."
    )
    yield ""
    yield from _prose(
        "TLS where a certificate is set, by the BCP 195 profile (PS3.15 B.12): TLS 1.2 or 1.3, the "
        "suites of TLS 1.3 and those below, no renegotiation; with a client's certificate where a "
        "CA is set. An application entity can be registered with the SHA-256 of its certificate: "
        "then it is known by that alone, called over TLS alone, and the certificate stands for no "
        "other hospital."
    )
    yield ""
    yield from _table(("Cipher suite of TLS 1.2",), [[one] for one in transport_security.SUITES])
    yield ""


def _web() -> Iterator[str]:
    yield "## 7 DICOMweb"
    yield ""
    yield from _prose(
        "Search, Store and Retrieve of the Studies Service (PS3.18 section 10). The query "
        "parameter `accept` goes before the header field. Entity tags and `If-None-Match` on "
        "metadata, frames, bulk data and pictures. 410 for what was rejected or deleted."
    )
    yield ""
    yield "### Instances"
    yield ""
    yield from _prose(
        "As they are kept under `transfer-syntax=*`, else in Explicit VR Little Endian, to which "
        "all uncompressed syntaxes are rewritten and those with a decoder are decompressed; what "
        "remains is left out (206). In parts, one bare, or as application/zip with a file for "
        "each instance, as kept. WADO-URI (section 9) at `/wado`: application/dicom and pictures; "
        "anonymize and presentation states are refused."
    )
    yield ""
    yield "### Bulk data"
    yield ""
    yield from _prose(
        f"Binary values of more than {data_set.BULK} bytes, any of more than "
        f"{web_retrieve.VALUE_LIMIT}, and the pixels have a BulkDataURI in the metadata. They are "
        "had bare or in a part, and in single ranges of bytes (206, 416); compressed pixels as "
        "frames, a video as one stream."
    )
    yield ""
    yield "### Frames"
    yield ""
    yield from _prose(
        "As they are stored where the asker accepts that, else uncompressed, or compressed to a "
        "syntax that is marked; never with loss. With `transfer-syntax=*` they are as stored "
        "under `application/octet-stream` too. One frame can be had without parts. A frame has "
        f"at most {pixel_data.FRAME_LIMIT} bytes."
    )
    yield ""
    rows = [
        [name, uid, "" if place else "yes", "yes" if uid in _MADE else ""]
        for name, uids in web_frames.TRANSFER_SYNTAXES.items()
        for place, uid in enumerate(uids)
    ]
    yield from _table(("Media type", "Transfer syntax", "Default", "Made"), rows)
    yield ""
    yield "### Rendered resources and thumbnails"
    yield ""
    yield from _prose(
        f"At every level, as {', '.join(web_rendered.MEDIA_TYPES)}, bare or in parts. An instance "
        "is its first frame, or all of them as image/gif; a series or study is a part for each "
        "image, or the middle one bare; a thumbnail is the middle image. `window` (with "
        f"{', '.join(rendering.Function)}), `viewport` and `quality` are used, other parameters "
        "announced by Warning 299. Modality LUT, VOI LUT or window (those of the frame first), "
        "MONOCHROME1 and 2, PALETTE COLOR, RGB and YBR, overlays and pixel aspect are applied; "
        "presentation states and ICC profiles are not."
    )
    yield ""
    rows = [
        ["Pixels of a frame or picture", str(rendering.PIXEL_LIMIT)],
        ["Pixels of an animation", str(rendering.GIF_PIXELS)],
        ["Pictures of an answer", str(web_rendered.PICTURES)],
        ["Side of a viewport, pixels", str(web_rendered.VIEWPORT)],
        ["Bytes of the header", str(rendering.HEAD_LIMIT)],
    ]
    yield from _table(("Limit", "At most"), rows)
    yield ""


_MADE = {EXPLICIT_VR_LITTLE_ENDIAN, *frame_coding.ENCODED}


def _roles(services: Iterable[CommandField]) -> str:
    names = sorted(one.name.rpartition("_")[0].replace("_", "-") for one in services)
    return f"SCP ({', '.join(names)})"


def _prose(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 96)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield from _prose(f"|{'---|' * len(head)}")
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write(statement())
