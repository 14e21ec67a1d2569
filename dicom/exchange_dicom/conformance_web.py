"""The DICOMweb part of the conformance statement (PS3.2 annex A, PS3.18), from the tables."""

from __future__ import annotations

from collections.abc import Iterator

from exchange import changes, commitment, rejection, watching, workitem_attributes, workitems
from exchange_dicom import (
    data_set,
    frame_coding,
    grey_values,
    media_types,
    pixel_data,
    presentation_state,
    rendering,
    series_metadata,
    status,
    viewport,
    web_capabilities,
    web_changes,
    web_commitment,
    web_composed,
    web_frames,
    web_notifications,
    web_rejection,
    web_rendered,
    web_search,
    web_store,
    web_workitems,
)
from exchange_dicom.conformance_dimse import cause
from exchange_dicom.markdown import heading, prose, table
from exchange_dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN


def origin_server() -> Iterator[str]:
    """Section 4.2.2: the Studies Service and the URI Service of PS3.18."""
    yield from heading("4.2.2", "DICOMweb")
    yield from prose(
        "Search, Store and Retrieve of the Studies Service (PS3.18 section 10). The query "
        "parameter `accept` goes before the header field. Entity tags and `If-None-Match` on "
        "metadata, frames, bulk data and pictures. 410 for a study, series or instance that "
        "was rejected or deleted. An instance that a scrub has found damaged is left out of what "
        "is made of several (206, with a Warning), and is 503 by itself, without Retry-After, "
        "until its hospital has sent it again. Retrieve of a study or series leaves out as well "
        "what is not in the store at that moment."
    )
    yield from heading("4.2.2.1", "Transactions and statuses")
    yield from table(
        ("Transaction", "Resources", "Media types"),
        [
            [
                "Store",
                "studies, a study",
                f"{media_types.DICOM}, bare or in parts; multipart/related with "
                f"{' or '.join(web_composed.METADATA)} and bulk data; answers in "
                f"{media_types.DICOM_JSON}, {media_types.JSON} or {media_types.DICOM_XML}",
            ],
            [
                "Search",
                "studies, series, instances, below each other too",
                f"{media_types.DICOM_JSON}, {media_types.JSON}, multipart/related with "
                f"{media_types.DICOM_XML}; {web_search.LIMIT} matches, at most "
                f"{web_search.MAX_LIMIT}",
            ],
            [
                "Retrieve",
                "study, series, instance, metadata, frames, bulk data, rendered, thumbnail",
                "see below",
            ],
            ["URI service", "instance", "application/dicom and pictures"],
            [
                "Storage Commitment (section 13)",
                "commitment-requests/{transaction UID}: Request, Result Check",
                f"{media_types.DICOM_JSON}, {media_types.JSON}, {media_types.DICOM_XML}",
            ],
            [
                "Worklist Service (section 11)",
                "workitems, a workitem, its state, cancelrequest, subscribers: Create, Retrieve, "
                "Update, Change State, Request Cancellation, Search, Subscribe, Unsubscribe, "
                "Suspend",
                f"{media_types.DICOM_JSON}, {media_types.JSON}, {media_types.DICOM_XML} (answers "
                "in parts)",
            ],
            [
                "Notifications (section 8.10)",
                "ws/subscribers/{AE title}",
                "WebSocket, text frames in DICOM JSON",
            ],
            [
                "Capabilities (OPTIONS, section 8.9)",
                "`/dicom-web`, and every resource below it",
                f"{web_capabilities.WADL}, {media_types.JSON}",
            ],
        ],
    )
    yield from table(
        ("Cause", "HTTP status", "Failure Reason of one instance in Store"),
        [
            [cause(error), str(one.http), f"{one.failure_reason:04X}"]
            for error, one in status.WEB.items()
        ],
    )
    yield from prose(
        "Store composes metadata and bulk data into data sets with Explicit VR Little Endian and "
        "ISO_IR 192, or with encapsulated pixels whose frames are parts of the same "
        f"Content-Location; metadata of a request have at most {web_composed.METADATA_LIMIT} bytes "
        f"and {web_composed.INSTANCES} instances. An instance has at most "
        f"{_LIMITS.instance_bytes} bytes, a request "
        f"{_LIMITS.body_bytes} bytes and {_LIMITS.parts} parts. "
        "Store answers 200, 202 where some failed or have a warning, 409 where all failed. Warning "
        f"Reason {web_store.KEPT_FOR_REVIEW:04X} says that an instance is kept, and not served "
        "before somebody has reviewed it. Search matches as C-FIND does (section 4.2.1.4.4), "
        "names of persons by their sound with `fuzzymatching=true`, and answers 204 for no match. "
        "What takes no part in matching (`emptyvaluematching` and `multiplevaluematching` too), "
        "and that more matches remain, is told by Warning 299. Paths match in Other Patient IDs "
        "Sequence and Request Attributes Sequence. Studies are in the order of their dates, the "
        "newest first, all else in that of reception."
    )
    yield from prose(
        "Storage Commitment answers 200 with the result when it is found within "
        f"{web_commitment.SECONDS:g} seconds, else 202 with Retry-After, and 409 where the "
        "Transaction UID is in use by the hospital; the same request may be repeated until its "
        f"result was given. At most {commitment.REFERENCES} instances; what a verdict rests on is "
        "what section 4.2.1 says of the Push Model."
    )
    yield from _worklist_service()
    yield from prose(
        "The change feed is ours: `/changefeed?after=&since=&before=&limit=`, "
        f"{web_changes.PAGE} changes in an answer, at most {changes.LIMIT}, in the order of their "
        "commits, each with its sequence number and the state of its instance at the moment of "
        f"reading ({', '.join(changes.State)}). A reader goes on from `through`, or by the Link "
        "header field. An entry shows to whom its study shows."
    )
    yield from prose(
        "So is the ledger, `/ledger/{YYYYMMDD}`: a hospital's system tells by PUT what it counts "
        "as sent on a day (application/json with source, studies and instances; 204), and reads "
        "by GET what was ordered, announced and counted against what came and was read back."
    )
    codes = ", ".join(f"{code} {words}" for code, words in rejection.CODES.items())
    yield from prose(
        "So are `POST {study, series or instance}/reject/{code}` (200, with the count), by which a "
        f"hospital's system rejects its own instances as by a rejection note ({codes}), and "
        f"`DELETE` of the same resources, the rejection with {web_rejection.EXPIRED}: 204, or 202 "
        "where a legal hold keeps them, out of use. 403 for another hospital's (404 to who may see "
        "no record of the person), 410 for what was rejected or deleted before."
    )
    yield from heading("4.2.2.2", "Instances")
    yield from prose(
        "As they are kept under `transfer-syntax=*`, else in Explicit VR Little Endian, to which "
        "all uncompressed syntaxes are rewritten and those with a decoder are decompressed; what "
        "remains is left out (206). In parts, one bare, or as application/zip with a file for "
        "each instance, as kept. WADO-URI (section 9) at `/wado`: application/dicom and pictures, "
        "by a presentation state too; anonymize is refused."
    )
    yield from prose(
        "Whoever asks for a hospital gets the patients of other hospitals under its own number, in "
        "the instances and in the metadata, coerced as by C-MOVE and C-GET (section 8.1); the "
        "metadata then have a weak entity tag, since the moment of the coercion stands in them. "
        "Metadata are DICOM JSON, or XML in a part for each instance."
    )
    yield from heading("4.2.2.3", "Bulk data")
    yield from prose(
        f"Binary values of more than {data_set.BULK} bytes, any of more than "
        f"{series_metadata.VALUE_LIMIT}, and the pixels have a BulkDataURI in the metadata. They "
        "are had bare or in a part, and in single ranges of bytes (206, 416); compressed pixels as "
        "frames, a video as one stream. All of a study, series or instance are had by `bulkdata` "
        "and `pixeldata` at its level, in a part for each value or frame with its "
        "Content-Location."
    )
    yield from heading("4.2.2.4", "Frames")
    yield from prose(
        "As they are stored where the asker accepts that, else uncompressed, or compressed to a "
        "syntax that is marked; never with loss. With `transfer-syntax=*` they are as stored "
        "under `application/octet-stream` too. One frame can be had without parts. A frame has "
        f"at most {pixel_data.FRAME_LIMIT} bytes."
    )
    rows = [
        [name, uid, "" if place else "yes", "yes" if uid in _MADE else ""]
        for name, uids in web_frames.TRANSFER_SYNTAXES.items()
        for place, uid in enumerate(uids)
    ]
    yield from table(("Media type", "Transfer syntax", "Default", "Made"), rows)
    yield from heading("4.2.2.5", "Rendered resources and thumbnails")
    yield from prose(
        f"At every level, as {', '.join(web_rendered.MEDIA_TYPES)}, bare or in parts. An instance "
        "is its first frame, or all of them as image/gif; a series or study is a part for each "
        "image, or the middle one bare; a thumbnail is the middle image; an encapsulated PDF "
        "is application/pdf; a video that is stored as a file of MP4 or a stream of MPEG-2 is "
        f"{' or '.join(web_rendered.VIDEO_TYPES)}, as it lies. `window` (with "
        f"{', '.join(grey_values.Function)}), `viewport`, `quality` and `annotation` are used, "
        "other parameters announced by Warning 299. Modality LUT, VOI LUT or window (those of the "
        "frame first), "
        "MONOCHROME1 and 2, PALETTE COLOR, RGB and YBR, overlays and pixel aspect are applied. "
        "With `iccprofile` yes, a picture in colour has the ICC "
        "profile of its image, with srgb it is converted and has that one; adobergb and rommrgb "
        "are refused."
    )
    yield from prose(
        "A Grayscale or Color Softcopy Presentation State is rendered as its first image, or as "
        "all of them in parts or as image/gif, each decided and recorded as if it were asked for "
        "itself. Modality, VOI and Presentation LUT, shutters, overlays that are activated, "
        "displayed area (fitted whatever its size mode), rotation and flip, graphics and text "
        "with the tone and order of their layer are applied; styles of text, lines and patterns "
        "and compound graphics are not; one that subtracts a mask is refused. Pseudo-color, "
        "blending and volumetric states have no picture (406). `annotation=patient` writes the "
        "name, the number under which the asker knows the patient, birth date, study date and "
        "hospital; `technique` modality, part of the body, exposure and the like. Hanzi need a "
        "typeface of the system (EXCHANGE_FONT); without one names are written in Latin letters."
    )
    rows = [
        ["Pixels of a frame or picture", str(viewport.PIXEL_LIMIT)],
        ["Pixels of an animation", str(rendering.GIF_PIXELS)],
        ["Pictures of an answer", str(web_rendered.PICTURES)],
        ["Images of a presentation state", str(web_rendered.STATE_IMAGES)],
        ["Bytes of a presentation state", str(presentation_state.SIZE_LIMIT)],
        ["Objects that it draws, points of each", str(presentation_state.MARKS)],
        ["Points and characters of all of them", str(presentation_state.POINTS)],
        ["Side of a viewport, pixels", str(web_rendered.VIEWPORT)],
        ["Bytes of the header", str(rendering.HEAD_LIMIT)],
    ]
    yield from table(("Limit", "At most"), rows)


def _worklist_service() -> Iterator[str]:
    """What PS3.4 CC.4.2.1 wants said of an SCP."""
    matched = ", ".join(sorted({*workitem_attributes.MATCHED, "SOPInstanceUID"}))
    yield from prose(
        "The Worklist Service serves UPS Push, Pull, Watch, Event and Query. A workitem is of the "
        "hospital whose system creates it; another hospital finds it, does it and watches it where "
        "a Human Performer's Organization of its Scheduled Human Performers Sequence is that "
        "hospital's code or name, and as far as it may see the patient's record. The patient is "
        "registered by Patient ID, whose issuer is the hospital. A missing Worklist Label becomes "
        "the hospital's name (Warning 299). Attributes of type 1 are insisted on, those of type 2 "
        "are not. Nobody is subscribed by creating. Update replaces whole attributes: of a "
        "scheduled workitem by its hospital, else with the Transaction UID, as parameter "
        "`transaction-uid`, as the whole query, or in the data set. Completion needs "
        f"{', '.join(workitem_attributes.TO_COMPLETE.values())}; a cancellation without a moment "
        "or a reason gets the current one and (110513, DCM). A request to cancel ends what is "
        "scheduled, is told to the subscribers of what is in progress, and fails where there are "
        "none."
    )
    yield from prose(
        f"Search matches {matched} and ProcedureStepState, with patient keys as at the patient "
        "level; keys in the items of one sequence match in one item. Moments compare in the zone "
        "that is set for the hospitals. In the order of creation."
    )
    yield from prose(
        "Subscriptions are an AE title's at the hospital that asks, and survive restarts; "
        "Filtered Worklist Subscriptions and deletion locks are granted, "
        f"{watching.SUBSCRIBERS} subscriptions to the worklist for a hospital. Event reports "
        "(state, cancel requested, progress, assigned; SCP status change to who watches the "
        "worklist, when all of an exchange that runs on one machine starts or ends) wait for "
        f"{watching.WAITS.days} days; what was sent within {web_notifications.HELD:g} seconds "
        "before a connection broke is sent again. A connection ends with 1008 when its token does. "
        f"What has ended is deleted after {workitems.KEPT.days} days without a lock (410). A "
        f"request has at most {web_workitems.REQUEST_LENGTH} bytes."
    )
    rows = []
    for name, words in (
        ("Create", web_workitems.CREATE),
        ("Update", web_workitems.UPDATE),
        ("Change State", web_workitems.CHANGE_STATE),
        ("Request Cancellation", web_workitems.CANCEL),
    ):
        rows += [
            [name, str(reason), str(answer.http), answer.warning]
            for reason, answer in words.items()
        ]
    yield from table(
        ("Transaction", "Failure (PS3.4)", "HTTP status", "Warning 299"),
        rows,
    )


_MADE = {EXPLICIT_VR_LITTLE_ENDIAN, *frame_coding.ENCODED}
_LIMITS = web_store.Limits()
