"""The DIMSE part of the conformance statement (PS3.2 A.4.2), printed from the tables."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from pydicom.uid import UID

from exchange import availability, commitment, order_codes, registry
from exchange import performed as performed_steps
from exchange.errors import ExchangeError
from exchange.otherwise import MAX_NUMBERS
from exchange.settling import SETTLING
from exchange_dicom import attributes, contexts, performed, retrieve, sending, status, worklist
from exchange_dicom.conversation import Limits
from exchange_dicom.dimse import CommandField
from exchange_dicom.markdown import heading, prose, table
from exchange_dicom.negotiation import Conduct
from exchange_dicom.node import EXTENDED, ROUND_SECONDS, SERVICES
from exchange_dicom.pdu import CONTEXTS, RejectReason
from exchange_dicom.transcoding import NATIVE, decodes
from exchange_dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from exchange_storage.search import ATTRIBUTES, Level

_AS_SCU: Mapping[str, str] = {
    contexts.INSTANCE_AVAILABILITY_NOTIFICATION: "N-CREATE",
    contexts.STORAGE_COMMITMENT_PUSH: "command",
    contexts.VERIFICATION: "command",
    **dict.fromkeys((*contexts.FIND_LEVELS, *contexts.FIND_OF), "command"),
}
"""What is asked of others; storage apart."""

_OTHER_CLASS: Sequence[tuple[str, str, int, str]] = (
    (
        "Failure",
        "N-CREATE names another SOP class than its context",
        status.NO_SUCH_SOP_CLASS,
        "nothing is made",
    ),
    (
        "Failure",
        "another operation does",
        status.CLASS_INSTANCE_CONFLICT,
        "nothing is changed",
    ),
)
"""Statuses of N-services."""

EXTENDED_WORDS = (
    "relational queries and retrieval",
    "combined date-time matching",
    "fuzzy semantic matching of person names",
    "time zone query adjustment",
)
"""Sub-fields of extended negotiation (PS3.4 C.5.1.1, C.5.2.1), in their order."""

_REJECTIONS: Mapping[RejectReason, tuple[str, str]] = {
    RejectReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED: ("permanent", "it is not DICOM's"),
    RejectReason.CALLING_AE_TITLE_NOT_RECOGNIZED: (
        "permanent",
        "not registered, not for this address or certificate, or of a hospital that was "
        "deactivated; recorded in the trail",
    ),
    RejectReason.CALLED_AE_TITLE_NOT_RECOGNIZED: ("permanent", "it is not ours; recorded"),
    RejectReason.PROTOCOL_VERSION_NOT_SUPPORTED: ("permanent", "version 1 is not among them"),
    RejectReason.LOCAL_LIMIT_EXCEEDED: ("transient", "the node or the hospital has too many"),
    RejectReason.TEMPORARY_CONGESTION: ("transient", "the index does not answer"),
}


def used_and_provided() -> Iterator[Sequence[str]]:
    """Rows of Table 1-1: SOP class, UID, what of it is used, and what is provided."""
    known = {*SERVICES, *_AS_SCU}
    for uid in sorted(known, key=lambda one: (_name(one), one)):
        provided = sorted({_operation(field) for field in SERVICES.get(uid, ())})
        yield [_name(uid), uid, _AS_SCU.get(uid, "No"), ", ".join(provided) or "No"]


def cause(error: type[ExchangeError]) -> str:
    """What an error means, in its own words."""
    return (inspect.getdoc(error) or error.__name__).partition(".")[0]


def application_entity() -> Iterator[str]:
    """Section 4.2.1: the one application entity of DIMSE."""
    yield from heading("4.2.1", "EXCHANGE")
    yield from heading("4.2.1.1", "SOP classes")
    yield from prose("Those of Table 1-1, and the storage SOP classes of section 4.2.1.4.3.")
    yield from _association_policies()
    yield from _initiation()
    yield from _acceptance()
    yield from _verification()
    yield from _storage()
    yield from _queries()
    yield from _retrieval()
    yield from _storage_commitment()
    yield from _worklist()
    yield from _performed_steps()


def _association_policies() -> Iterator[str]:
    yield from heading("4.2.1.2", "Association policies")
    yield from heading("4.2.1.2.1", "General")
    yield from table(
        ("Parameter", "Value"),
        [
            ["Application context name", "1.2.840.10008.3.1.1.1"],
            ["Longest PDU received, bytes", str(Conduct().maximum_length)],
            ["Presentation contexts of one association", str(CONTEXTS)],
        ],
    )
    yield from heading("4.2.1.2.2", "Number of associations")
    yield from table(
        ("Associations at a time", "Of one process"),
        [
            ["accepted", str(Limits().associations)],
            ["accepted of one hospital", "as registered for it"],
            ["initiated by one C-MOVE", str(Limits().move_associations)],
            ["initiated by one route or for priors", "1; 4 deliveries at a time"],
        ],
    )
    yield from heading("4.2.1.2.3", "Asynchronous nature")
    yield from prose(
        "Not negotiated: one operation is outstanding. C-CANCEL is heard between matches and "
        "between sub-operations."
    )
    yield from heading("4.2.1.2.4", "Implementation identifying information")
    yield from table(
        ("Parameter", "Value"),
        [
            ["Implementation Class UID", IMPLEMENTATION_CLASS_UID],
            ["Implementation Version Name", IMPLEMENTATION_VERSION_NAME],
        ],
    )


def _initiation() -> Iterator[str]:
    yield from heading("4.2.1.3", "Association initiation policy")
    yield from heading("4.2.1.3.1", "Activity: send instances")
    yield from prose(
        "For a C-MOVE, by a route of the hospital, or as priors before a visit. One association "
        "for each destination, and a further one where there are more presentation contexts than "
        "fit. Each SOP class is proposed in the transfer syntax of each of its instances, in a "
        "context of its own, and once more without compression. Where the receiver aborts, closes "
        "or does not answer at an instance, that one has failed, and the others are sent over "
        f"another association, up to {sending.ENDED_IN_VAIN} in a row over which nothing was "
        "answered; after which C-ECHO asks, by a route or for priors, whether it answers at all."
    )
    yield from table(
        ("Abstract syntax", "Transfer syntaxes", "Role", "Extended negotiation"),
        [
            ["SOP class of an instance", "the one in which it is kept", "SCU", "none"],
            ["SOP class of an instance", _names(sending.UNCOMPRESSED), "SCU", "none"],
            ["Verification SOP Class", _names(sending.UNCOMPRESSED), "SCU", "none"],
        ],
    )
    yield from prose(
        "Sent as kept where that is accepted, else rewritten or decompressed without loss (Table "
        "4-2), else not sent. C-STORE requests of a C-MOVE carry its Move Originator. The "
        "responses mean:"
    )
    yield from table(
        ("Service status", "Status codes", "Behaviour"),
        [
            ["Success", f"{status.SUCCESS:04X}", "stored; by a route it is not sent again"],
            ["Warning", ", ".join(status.WARNINGS), "stored, counted as a warning of C-MOVE"],
            [
                "any other",
                "*",
                "a failed sub-operation of C-MOVE; by a route or as priors it is tried again for "
                "four days, then it is on the list of what was given up",
            ],
        ],
    )
    yield from heading("4.2.1.3.2", "Activity: report a storage commitment")
    yield from prose(
        "When every object was read back, on an association of the node's own, in which the asker "
        "has the role SCU and the node SCP; or on that of the request, where the asker is "
        "registered without a port. Tried again for four days, until it is answered with 0000."
    )
    yield from table(
        ("Abstract syntax", "Transfer syntaxes", "Role", "Operation"),
        [
            [
                _name(contexts.STORAGE_COMMITMENT_PUSH),
                _names(contexts.UNCOMPRESSED),
                "SCP, by role selection",
                "N-EVENT-REPORT",
            ]
        ],
    )
    yield from table(
        ("Event type", "Meaning"),
        [["1", "all instances are committed"], ["2", "some are not; each with its reason"]],
    )
    yield from heading("4.2.1.3.3", "Activity: notify of availability")
    yield from prose(
        "Sent to the application entities of a hospital that are registered for it, when a study "
        "of that hospital's has been quiet for a while, and again when more of it has come: all "
        f"of its instances then, up to {availability.INSTANCES}, as ONLINE. Tried again for four "
        "days. Referenced Performed Procedure Step Sequence has the step that told of the study, "
        "if one alone did."
    )
    yield from table(
        ("Abstract syntax", "Transfer syntaxes", "Role", "Operation"),
        [
            [
                _name(contexts.INSTANCE_AVAILABILITY_NOTIFICATION),
                _names(contexts.UNCOMPRESSED),
                "SCU",
                "N-CREATE",
            ]
        ],
    )


def _acceptance() -> Iterator[str]:
    yield from heading("4.2.1.4", "Association acceptance policy")
    yield from prose("From registered application entities. An association is rejected when:")
    yield from table(
        ("Result", "Source", "Reason", "Name", "When"),
        [
            [
                result,
                str(reason.value[0]),
                str(reason.value[1]),
                reason.name.lower().replace("_", " "),
                when,
            ]
            for reason, (result, when) in _REJECTIONS.items()
        ],
    )
    yield from prose(
        f"Within {registry.SECONDS:g} seconds after an application entity was removed, or "
        "its hospital, or a user who has proved who they are, deactivated, the next message in its "
        "associations is answered by A-ABORT of the service-provider (source 2); where none comes, "
        f"the A-ABORT comes by itself within {registry.SECONDS + ROUND_SECONDS:g} seconds. "
        "Everything else that changes of a registration holds from then on as well."
    )
    yield from heading("4.2.1.4.1", "Accepted presentation contexts")
    yield from table(
        ("Abstract syntax", "Transfer syntaxes", "Role", "Extended negotiation"),
        [
            [
                _name(uid),
                _names(contexts.UNCOMPRESSED),
                "SCP",
                _extended(uid),
            ]
            for uid in sorted(SERVICES, key=lambda one: (_name(one), one))
        ]
        + [
            [
                "storage SOP classes (Table 4-1), and those that the registry does not know",
                "all of Table 4-2, the one proposed first; but see below for C-GET",
                "SCP; SCU and SCP where the requestor proposes roles, for C-GET",
                "none",
            ]
        ],
    )
    never = ", ".join(EXTENDED_WORDS[max(EXTENDED.values()) :])
    yield from prose(
        f"Of extended negotiation only what is served is granted; never {never}. Any other "
        "abstract syntax of the registry is refused with result 3, a known one without a common "
        "transfer syntax with result 4. Implicit VR Little Endian is accepted in every context."
    )
    plain = " or ".join(map(_name, contexts.UNCOMPRESSED))
    yield from prose(
        "Where the requestor proposes the SCP role for a storage SOP class, for C-GET, one of its "
        f"contexts for it takes {plain} if any of them offers it, "
        "even if it proposes another one first: the last of them, where none has it first. What "
        "is kept in a transfer syntax of another context goes out as it is, all else is "
        "decompressed without loss. Video SOP classes are excepted, since their streams go out "
        "as they are or not at all."
    )


def _verification() -> Iterator[str]:
    yield from heading("4.2.1.4.2", "SOP-specific conformance for Verification")
    yield from prose("C-ECHO is answered with 0000.")


def _storage() -> Iterator[str]:
    yield from heading("4.2.1.4.3", "SOP-specific conformance for Storage")
    yield from prose(
        "Level 2 (full): every attribute is kept as it was sent, private ones included. SOP "
        "classes that the registry does not know are taken for private ones. The same instance "
        "again changes nothing. Another one under its SOP Instance UID, one of another patient or "
        "hospital in its study, of a series that is in another study, or after its rejection, is "
        "kept and answered with 0000, and is served only when somebody has reviewed it. That an "
        "association ends means nothing."
    )
    yield from _statuses(
        {error: one.store for error, one in status.DIMSE.items()},
        [
            ("Success", "durable, indexed and audited", status.SUCCESS, "nothing more to do"),
            (
                "Failure",
                "Command and data set name different instances",
                status.DATA_SET_MISMATCH,
                "nothing is kept",
            ),
            (
                "Failure",
                "There is no data set, or the operation is not the SOP class's",
                status.UNRECOGNIZED_OPERATION,
                "nothing is kept",
            ),
        ],
        "nothing is kept",
    )
    yield "Table 4-1: storage SOP classes"
    yield ""
    yield from table(
        ("SOP class", "UID"),
        [[_name(uid), uid] for uid in sorted(contexts.STORAGE, key=lambda uid: (_name(uid), uid))],
    )
    yield "Table 4-2: transfer syntaxes"
    yield ""
    yield from prose(
        "All are received, kept, and sent as they are. Rewritten: also sent as Explicit or "
        "Implicit VR Little Endian. Decompressed: the same, with its pixels decoded without loss. "
        "Nothing is compressed for DIMSE."
    )
    yield from table(
        ("Transfer syntax", "UID", "Rewritten", "Decompressed"),
        [
            [
                _name(uid),
                uid,
                "Yes" if uid in NATIVE else "",
                "Yes" if uid not in NATIVE and decodes(uid) else "",
            ]
            for uid in contexts.TRANSFER_SYNTAXES
        ],
    )


def _queries() -> Iterator[str]:
    yield from heading("4.2.1.4.4", "SOP-specific conformance for Query")
    yield from prose(
        "Hierarchical queries; relational ones when negotiated, which match keys below the level "
        "too, all of them in one instance. Studies of all hospitals are found that the asking one "
        "may see, each under its own patient number; Other Patient IDs match any other number of "
        "the patient, and Requested Procedure ID and Scheduled Procedure Step ID in one item of "
        "Request Attributes Sequence what a series was made for. Single value, list of UID, "
        "range, wildcard, sequence and universal matching: "
        "wildcards in text, not in numbers; Modalities in Study may be a list, with wildcards too; "
        "a range of dates may end on the 31st of any month, which means its last day, "
        "and one of times at 24; dates and times combined and person names by sound when "
        "negotiated. A time in less detail matches all of its span; integer strings match as "
        "they were written, Number of Frames by its number. Of an attribute with several values "
        "one is enough. Person names, the patient's and all others, match in any component "
        "group, in any case and width, and by pinyin; asked for without `^` also with the given "
        "name first, so that `Wang*` finds `Li^Wangping` too, and `Wang^*` does not. Keys that "
        "take no part are announced by FF01. A key below the level that took part is none of "
        "them; it is not returned, since the level has no value of it."
    )
    yield from prose(
        "Records of a patient that their hospital has merged (FHIR Patient.link of type "
        "replaced-by) are one patient from then on, until it takes that back: all their studies "
        "are found by either number, and answered, at every level and by DICOMweb too, under the "
        "number that survives (IHE RAD-12); one under which a study came stands in Other Patient "
        "IDs Sequence. Whoever asks by a number that was merged is answered by that number, as "
        "C.2.2.2.1 has it, with the surviving one in Other Patient IDs Sequence. Nothing is sent "
        "under a number that was merged, whichever one was asked for: C-MOVE, C-GET, WADO and "
        "metadata have the surviving one. Name, birth date and sex are matched and answered as the "
        "surviving record has them; by a name that it had, or that an image has, a merged one is "
        "found as well. Worklists say the same. At the level PATIENT there is one answer for each "
        "number, which counts all that can be asked for under it, and one for each patient "
        "without a number. More images of a study are taken under either number; once the merge is "
        "taken back, those that came under the other one wait for review by their hospital, and "
        "are served meanwhile."
    )
    yield from prose(
        "A Patient ID is the asking hospital's own, unless Issuer of Patient ID says whose. An "
        "issuer is the OID of a registered hospital, with or without `urn:oid:`, or like one by "
        "wildcards; of the asking hospital also its code, in any case of letters, and each name "
        "that the operator has registered for what stands in its images (section 4.4.1). Those "
        "mean no hospital but the one that asks: another issuer matches nobody, so that nobody is "
        "taken for the patient of another hospital who has the number there. Answers have the OID. "
        "The same holds for worklists and DICOMweb."
    )
    yield from prose(
        "Of a patient and a study is answered what came first; later images complete it and "
        "replace nothing, and each image keeps what it came with. Only the hospital's own feed of "
        "patients (FHIR) replaces what is known of one. A patient is found by the other names of "
        "images and orders too, and a study by the other accession numbers of its images, up to "
        f"{MAX_NUMBERS}; answered are the name and the number that came first, which then are not "
        "those that were asked for. Images that were rejected or deleted find nothing by their own "
        "names and numbers; a study whose first number was theirs has the next one. Orders, "
        "worklists and the ledger know a study by its first "
        "accession number alone. By another Study Description, Study Date or Referring "
        "Physician's Name than the first a study is not found. Images whose birth date, and name "
        "or sex, are another than their patient's complete nothing, and wait for review by their "
        "hospital; they are served meanwhile."
    )
    yield from prose(
        "An attribute without a value is matched by universal matching and by `*` alone. C.2.2.1.2 "
        "has an unknown value match any value that is asked for: whoever asks for an accession "
        "number or a name would be told of all patients whose hospital gave none. "
        "K.2.2.1.1.1 has it for worklists as it is here."
    )
    yield from prose(
        "Time zone query adjustment (C.5.1.1, byte 4) is never granted. Dates and times are kept, "
        "matched and answered as they were sent: an image that states no offset is of its "
        "hospital's time, which the index does not know for each, and a date without a time (of "
        "birth, of a study) cannot be moved. Timezone Offset From UTC of a question is no key. Nor "
        "is enhanced multi-frame conversion (byte 5): every instance is served as it was sent, "
        "and Query/Retrieve View takes no part."
    )
    for level in Level:
        yield f"Keys at the level {level.name}:"
        yield ""
        yield from table(
            ("Attribute", "Matched as", "Selective"),
            [
                [keyword, attribute.kind.value, "Yes" if attribute.selective else ""]
                for keyword, attribute in ATTRIBUTES.items()
                if attribute.level is level
            ],
        )
    yield from prose(
        "Derived and returned, at the level that they name: "
        f"{', '.join(attributes.DERIVED)}; of these Modalities in Study and SOP Classes in Study "
        "are matched."
    )
    yield from _statuses(
        {error: one.find for error, one in status.DIMSE.items()},
        [
            ("Success", "there are no more matches", status.SUCCESS, "no identifier"),
            ("Pending", "a match, all keys supported", status.PENDING, "its identifier"),
            (
                "Pending",
                "a match; some keys took no part in matching",
                status.PENDING_UNSUPPORTED,
                "its identifier",
            ),
            ("Cancel", "C-CANCEL was received", status.CANCEL, "the rest is not sent"),
        ],
        "no match is sent; Error Comment says why",
    )
    yield from prose(
        f"A question is out of resources when it has more than {Limits().matches} matches, or no "
        "selective key where that many are possible."
    )


def _retrieval() -> Iterator[str]:
    yield from heading("4.2.1.4.5", "SOP-specific conformance for Retrieve")
    yield from prose(
        "C-MOVE sends to application entities of the asking hospital that are registered with a "
        "port (section 4.2.1.3.1); C-GET over the association on which it was asked for, to who "
        "negotiated the role SCP. What is withheld is no match. Instances of other hospitals are "
        "coerced (section 8.1). Every response has the numbers of sub-operations; those that end "
        "without success have Failed SOP Instance UID List. While instances are on their way it "
        f"is decided anew every {retrieve.DECIDED_SECONDS:g} seconds: where a consent or an "
        "agreement has ended, nothing more is sent, and the end is Refused: not authorized. "
        "Group 2 in an identifier (PS3.5 7.1) is passed over."
    )
    yield from prose("Extension: served though the information model has no such level (C.6.2.1).")
    yield from table(
        ("SOP class", "Level", "Served"),
        [
            [
                _name(model),
                ", ".join(one.name for one in levels),
                "as in Patient Root, by Patient ID",
            ]
            for model, levels in contexts.RETRIEVED_BEYOND.items()
        ],
    )
    yield from _statuses(
        {error: one.retrieve for error, one in status.DIMSE.items()},
        [
            ("Success", "all was stored; or nothing matched", status.SUCCESS, "final"),
            ("Pending", "a sub-operation has ended", status.PENDING, "the next one begins"),
            (
                "Warning",
                "one or more failed or have a warning",
                status.SUB_OPERATIONS_FAILED,
                "final; the others were stored",
            ),
            (
                "Failure",
                "none could be sent",
                status.CANNOT_PERFORM_SUB_OPERATIONS,
                "final; also when the destination does not answer",
            ),
            (
                "Failure",
                "the move destination is not a node of the asking hospital",
                status.DESTINATION_UNKNOWN,
                "nothing is sent",
            ),
            ("Cancel", "C-CANCEL was received", status.CANCEL, "the rest is not sent"),
        ],
        "nothing is sent",
    )


def _storage_commitment() -> Iterator[str]:
    yield from heading("4.2.1.4.6", "SOP-specific conformance for Storage Commitment Push Model")
    yield from prose(
        f"At most {commitment.REFERENCES} instances. An instance is committed when it was read "
        "back from the object store with its digest, and lies where it will stay. What is still "
        "on its way there is waited for, and fails with 0110 when it is not found "
        f"{SETTLING // timedelta(hours=1)} hours after it was received. A transaction "
        "that is asked again before it was reported is the same one; another one under its UID "
        "fails as a whole. The node does not delete what it has committed, but by a retention "
        "rule or a rejection note of its hospital. For the report see section 4.2.1.3.2."
    )
    yield from table(
        ("Failure reason", "Meaning"),
        [[f"{code:04X}", words] for code, words in commitment.FAILURES.items()],
    )
    yield from _statuses(
        status.N_SERVICE,
        [
            ("Success", "the request is durable", status.SUCCESS, "it will be reported"),
            (
                "Failure",
                "the SOP instance is not the well-known one",
                status.NO_SUCH_OBJECT_INSTANCE,
                "there is no transaction",
            ),
            (
                "Failure",
                "the SOP class is not that of the context",
                status.CLASS_INSTANCE_CONFLICT,
                "there is no transaction",
            ),
            (
                "Failure",
                "the action type is not 1",
                status.NO_SUCH_ACTION,
                "there is no transaction",
            ),
            (
                "Failure",
                "the action information cannot be read",
                status.INVALID_ARGUMENT,
                "there is no transaction",
            ),
        ],
        "there is no transaction",
    )


def _worklist() -> Iterator[str]:
    yield from heading("4.2.1.4.7", "SOP-specific conformance for Modality Worklist")
    yield from prose(
        "The asking hospital's scheduled orders. One for no station is found for each, and "
        "answered with the station asked for, else the calling AE title; one without a start time "
        "is found at each time of its day, and answered with 000000. Ranges of start date and "
        "start time are one span (PS3.4 Table K.6-1). Fuzzy matching of the patient's name is "
        "served when negotiated (K.5.1). Statuses are those of Query."
    )
    yield from prose(
        "Requested Procedure Code Sequence has one item, Scheduled Protocol Code Sequence one for "
        "each protocol, and that of the procedure where the order names none. Codes that mean the "
        f"same are in its {worklist.EQUIVALENT}. Both are matched by an item's own code: "
        f"{', '.join(worklist.CODE)}. Who asks for one of the first three gets the one that the "
        "code has (PS3.3 8.1). A hospital's own coding scheme has the designator "
        f"{order_codes.LOCAL}, or the private one (99…) that the hospital gives it; "
        f"{worklist.SCHEMES} tells the UID or FHIR URI of {order_codes.LOCAL}, if that is one "
        "scheme."
    )
    yield from table(
        ("Key of the scheduled procedure step",), [[one] for one in worklist.STEP_KEYS]
    )
    yield from table(("Other key",), [[one] for one in worklist.KEYS])


def _performed_steps() -> Iterator[str]:
    yield from heading(
        "4.2.1.4.8", "SOP-specific conformance for Modality Performed Procedure Step"
    )
    yield from prose(
        "The order that is performed follows: in progress, completed or discontinued. What a step "
        "announces is expected by the completeness ledger. N-GET gives what is known of a step to "
        "its own hospital, with 0107 where some of it has no value that its VR can have."
    )
    yield from table(("Required by N-CREATE",), [[one] for one in performed.REQUIRED])
    yield from prose("Passed over in an N-SET, which is answered with 0107 then:")
    yield from table(("Not changed by N-SET",), [[one] for one in performed.NOT_CHANGED])
    yield from prose(
        "A step that is completed or discontinued without what the final state requires is "
        "completed or discontinued all the same, and so is its order: that it has ended is not "
        "lost. The N-SET is answered with 0107, the Error Comment names what is missing, and so "
        "does the audit trail; nothing is made up for it. A step that is completed while no "
        "series of it is known is refused with 0120, and can be completed by another N-SET."
    )
    yield from table(("Required in the final state",), [[one] for one in performed_steps.FINAL])
    yield from _statuses(
        status.N_SERVICE,
        [
            ("Success", "it is noted", status.SUCCESS, ""),
            (
                "Warning",
                "attributes were passed over, or are missing in the final state",
                status.ATTRIBUTE_LIST_ERROR,
                "all else is noted",
            ),
            (
                "Failure",
                "the step has ended (Error ID "
                f"{performed.NO_LONGER_UPDATED:04X}), or this is not a data set",
                status.PROCESSING_FAILURE,
                "nothing is changed",
            ),
            ("Failure", "the UID is used", status.DUPLICATE_INSTANCE, "nothing is made"),
            ("Failure", "the UID is none", status.INVALID_OBJECT_INSTANCE, "nothing is made"),
            *_OTHER_CLASS,
            ("Failure", "missing attribute", status.MISSING_ATTRIBUTE, "nothing is changed"),
            (
                "Failure",
                "missing attribute value",
                status.MISSING_ATTRIBUTE_VALUE,
                "nothing is changed",
            ),
        ],
        "nothing is changed",
    )


def _statuses(
    errors: Mapping[type[ExchangeError], int],
    others: Iterable[tuple[str, str, int, str]],
    behaviour: str,
) -> Iterator[str]:
    """A status table: service status, further meaning, code, behaviour (PS3.2 Table A.4.2-…)."""
    rows = [[kind, words, f"{code:04X}", then] for kind, words, code, then in others]
    rows += [["Failure", cause(error), f"{code:04X}", behaviour] for error, code in errors.items()]
    yield from table(("Service status", "Further meaning", "Status code", "Behaviour"), rows)


def _name(uid: str) -> str:
    return contexts.NEWER.get(uid) or UID(uid).name


def _names(uids: Iterable[str]) -> str:
    return ", ".join(map(_name, uids))


def _extended(uid: str) -> str:
    """The extended behaviours that are served; of a worklist the first two are reserved (K.5.1)."""
    first = 2 if uid == contexts.MODALITY_WORKLIST_FIND else 0
    return "; ".join(EXTENDED_WORDS[first : EXTENDED.get(uid, 0)]) or "none"


def _operation(field: CommandField) -> str:
    return field.name.rpartition("_")[0].replace("_", "-")
