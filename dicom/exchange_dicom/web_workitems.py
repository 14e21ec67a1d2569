"""The Worklist Service of DICOMweb, UPS-RS (PS3.18 sections 11.4 to 11.9): workitems are created,
read, updated, claimed, ended and searched for.

Warnings are in the words of the standard, which say what of PS3.4 stood in the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from starlette.responses import Response

from exchange import workitem_attributes, workitems, worklist
from exchange.access import Access, Exchange
from exchange.errors import Invalid
from exchange.policy import Requester
from exchange.workitem_attributes import MATCHED, Json, State
from exchange.workitems import Reason, StateConflict
from exchange.worklist import COLUMNS, Wanted
from exchange_dicom import dicom_json, query, web_models, web_search
from exchange_dicom.attributes import tag_and_vr
from exchange_dicom.media_types import MediaType
from exchange_dicom.query import question
from exchange_dicom.resources import Root, uid
from exchange_dicom.web_errors import problem
from exchange_storage.search import Kind, Level, Matching, Range

REQUEST_LENGTH = 1 << 20
"""Bytes of the longest request."""

AFFECTED = "00001000"
"""Affected SOP Instance UID, by which a request names the workitem that it creates."""

RETURNED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDsSequence",
    "StudyInstanceUID",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "CommentsOnTheScheduledProcedureStep",
    "ScheduledProcedureStepStartDateTime",
    "ScheduledWorkitemCodeSequence",
    "InputInformationSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "InputReadinessState",
    "ReferencedRequestSequence",
    "ProcedureStepState",
    "ProcedureStepProgressInformationSequence",
    "ScheduledProcedureStepPriority",
    "WorklistLabel",
    "ProcedureStepLabel",
    "ScheduledProcessingParametersSequence",
)
"""What a match tells unasked, empty where it has no value (return keys of type 1 and 2)."""

RETURNED_IF_THERE = (
    "MedicalAlerts",
    "PregnancyStatus",
    "SpecialNeeds",
    "ExpectedCompletionDateTime",
    "ReplacedProcedureStepSequence",
)

_PATIENT = {
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    *query.OTHER_IDS,
    query.OTHER_ISSUER,
}
_MOMENT = re.compile(r"\d{4,14}(\.\d{1,6})?([+-](0\d|1[0-4])[0-5]\d)?")


@dataclass(frozen=True, slots=True)
class Words:
    """What a failure is answered with."""

    http: int
    warning: str = ""
    """In the words of PS3.18; "" where it has none."""


UPDATE: Mapping[Reason, Words] = {
    Reason.NOT_IN_PROGRESS: Words(409, "The target URI did not reference a claimed Workitem."),
    **dict.fromkeys(
        (Reason.NO_TRANSACTION, Reason.OTHER_TRANSACTION, Reason.NO_LONGER_UPDATED),
        Words(
            400,
            "The submitted request is inconsistent with the current state of the Workitem.",
        ),
    ),
}
"""Section 11.6.3."""

_INCONSISTENT = Words(
    409, "The submitted request is inconsistent with the state of the UPS Instance."
)

CHANGE_STATE: Mapping[Reason, Words] = {
    Reason.NO_TRANSACTION: Words(400, "The Transaction UID is missing."),
    Reason.OTHER_TRANSACTION: Words(400, "The Transaction UID is incorrect."),
    **dict.fromkeys(
        (
            Reason.NO_LONGER_UPDATED,
            Reason.ALREADY_IN_PROGRESS,
            Reason.ONLY_CREATED_SCHEDULED,
            Reason.NOT_MET,
            Reason.NOT_IN_PROGRESS,
        ),
        _INCONSISTENT,
    ),
}
"""Section 11.7.3."""

CANCEL: Mapping[Reason, Words] = {
    Reason.ALREADY_COMPLETED: Words(409, "The UPS is already COMPLETED."),
    Reason.UNREACHABLE: Words(409, "The performer cannot be contacted."),
}
"""Section 11.8.3."""

CREATE: Mapping[Reason, Words] = {Reason.DUPLICATE: Words(409)}
"""Section 11.4.3."""

CREATED_WITH_MODIFICATIONS = "The Workitem was created with modifications."
ALREADY = "The UPS is already in the requested state of {}."


@dataclass(frozen=True, slots=True)
class Sent:
    """What comes with a request that changes something."""

    content_type: str
    body: Iterable[bytes]
    parameters: Sequence[tuple[str, str]] = ()
    """Of the query."""

    def data_set(self) -> dict[str, Any]:
        """The data set, as it was sent, of any type. Raises TooLarge, Invalid."""
        body = web_models.read(self.body, REQUEST_LENGTH)
        found = web_models.received(self.content_type, body)
        if not isinstance(found, dict):
            raise Invalid("the request is not one data set")
        return found


def create(
    exchange: Exchange, requester: Requester, root: Root, sent: Sent, *, zone: tzinfo
) -> Response:
    """Create a workitem (11.4): 201 with its URL, 409 where the UID is in use.

    Raises Refused, Invalid, TooLarge, UnsupportedMediaType.
    """
    model = sent.data_set()
    named = [_named(sent.parameters, "workitem")]
    for tag in (AFFECTED, workitem_attributes.SOP_INSTANCE_UID):
        element = model.pop(tag, None)
        if isinstance(element, dict):
            named.append(workitem_attributes.text({tag: element}, tag))
    given = {one for one in named if one}
    if len(given) != 1:
        raise Invalid("the request names the workitem that it creates by one UID")
    (number,) = given
    content = dicom_json.canonical(model)
    try:
        with exchange.on_behalf_of(requester) as access:
            modified = workitems.create(access, uid(number), content, zone=zone)
    except StateConflict as error:
        return _conflict(root, error, CREATE)
    response = Response(status_code=201, headers={"Location": f"{root.url}/workitems/{number}"})
    if modified:
        response.headers.append(*root.warning(CREATED_WITH_MODIFICATIONS))
    return response


def retrieve(
    exchange: Exchange, requester: Requester, number: str, *, accept: Sequence[MediaType]
) -> Response:
    """Read a workitem (11.5). Raises NotFound, Gone, Refused, NotAcceptable."""
    kind = web_models.choose(accept, parted=True)
    with exchange.on_behalf_of(requester) as access:
        found = worklist.retrieve(access, uid(number))
    return web_models.many(kind, [_told(found)])


def update(
    exchange: Exchange, requester: Requester, root: Root, number: str, sent: Sent, *, zone: tzinfo
) -> Response:
    """Change attributes of a workitem (11.6).

    Raises NotFound, Gone, Refused, Invalid, TooLarge, UnsupportedMediaType.
    """
    changes = dicom_json.canonical(sent.data_set())
    within = workitem_attributes.text(changes, workitem_attributes.TRANSACTION_UID)
    transaction = _named(sent.parameters, "transaction-uid") or within
    try:
        with exchange.on_behalf_of(requester) as access:
            workitems.update(access, uid(number), changes, transaction, zone=zone)
    except StateConflict as error:
        return _conflict(root, error, UPDATE)
    return Response(status_code=200)


def change_state(
    exchange: Exchange, requester: Requester, root: Root, number: str, sent: Sent, *, zone: tzinfo
) -> Response:
    """Claim, complete or cancel a workitem (11.7).

    Raises NotFound, Gone, Refused, Invalid, TooLarge, UnsupportedMediaType.
    """
    asked = dicom_json.canonical(sent.data_set())
    transaction = workitem_attributes.text(asked, workitem_attributes.TRANSACTION_UID)
    try:
        state = State(workitem_attributes.text(asked, workitem_attributes.STATE))
    except ValueError:
        states = "IN PROGRESS, COMPLETED or CANCELED"
        raise Invalid(f"the request has no Procedure Step State of {states}") from None
    try:
        with exchange.on_behalf_of(requester) as access:
            changed = workitems.change_state(access, uid(number), state, transaction, zone=zone)
    except StateConflict as error:
        return _conflict(root, error, CHANGE_STATE)
    response = Response(status_code=200)
    if not changed:
        response.headers.append(*root.warning(ALREADY.format(state)))
    return response


def request_cancellation(
    exchange: Exchange, requester: Requester, root: Root, number: str, sent: Sent, *, zone: tzinfo
) -> Response:
    """Ask for the cancellation of a workitem (11.8): 202.

    Raises NotFound, Gone, Refused, Invalid, TooLarge, UnsupportedMediaType.
    """
    body = web_models.read(sent.body, REQUEST_LENGTH)
    told: dict[str, Any] = {}
    if body.strip():
        told = dicom_json.canonical(Sent(sent.content_type, [body]).data_set())
    try:
        with exchange.on_behalf_of(requester) as access:
            asked = workitems.request_cancellation(access, uid(number), told, zone=zone)
    except StateConflict as error:
        return _conflict(root, error, CANCEL)
    response = Response(status_code=202)
    if not asked:
        response.headers.append(*root.warning(ALREADY.format(State.CANCELED)))
    return response


def _conflict(root: Root, error: StateConflict, words: Mapping[Reason, Words]) -> Response:
    answer = words[error.reason]
    response = problem(answer.http, str(error))
    if answer.warning:
        response.headers.append(*root.warning(answer.warning))
    return response


def _named(parameters: Sequence[tuple[str, str]], name: str) -> str:
    """A UID that is the whole query, as PS3.18 writes it, or a parameter of that name."""
    for key, value in parameters:
        if key == name:
            return uid(value)
        if not value and re.fullmatch(r"[0-9.]{1,64}", key):
            return key
    return ""


def search(
    exchange: Exchange,
    requester: Requester,
    root: Root,
    parameters: Iterable[tuple[str, str]],
    *,
    accept: Sequence[MediaType],
    zone: tzinfo,
    asked: str,
) -> Response:
    """The workitems that match (11.9); 204 where there are none.

    `asked` is the question for the audit trail. Raises Invalid, NotAcceptable, Refused.
    """
    kind = web_models.choose(accept, parted=True)
    read = web_search.read({}, parameters)
    with exchange.on_behalf_of(requester) as access:
        meant, ignored = wanted(access, read.keys, fuzzy=read.fuzzy, zone=zone)
        answer = worklist.search(
            access,
            meant,
            limit=min(read.limit, web_search.MAX_LIMIT),
            offset=read.offset,
            asked=asked,
        )
    fields = {path.partition(".")[0] for path in (*read.keys, *read.fields)}
    body = [
        _told(told) if read.everything else _match(told, fields)
        for told in map(worklist.told, answer.found)
    ]
    response = web_models.many(kind, body) if body else Response(status_code=204)
    for text in _warnings(read, ignored, more=answer.more):
        response.headers.append(*root.warning(text))
    return response


def wanted(
    access: Access, keys: Mapping[str, str], *, fuzzy: bool = False, zone: tzinfo
) -> tuple[Wanted, Sequence[str]]:
    """What workitems `keys` mean, and the keys that take no part in matching. Raises Invalid."""
    own: list[tuple[str, Matching]] = []
    of_patient: list[tuple[str, str]] = []
    ignored: list[str] = []
    for path, raw in keys.items():
        value = raw.strip()
        if path in COLUMNS or path in MATCHED:
            if value.strip("*"):
                own.append((path, _matching(path, value, zone)))
        elif path in _PATIENT:
            of_patient.append((path, value))
        elif value.strip("*"):
            ignored.append(path)
    patient = question(access, Level.PATIENT, of_patient, fuzzy=fuzzy)
    return Wanted(tuple(own), patient.criteria), [*ignored, *patient.unsupported]


def _matching(path: str, value: str, zone: tzinfo) -> Matching:
    kind = (COLUMNS.get(path) or MATCHED[path])[1]
    if len(value) > query.MAX_LENGTH * (64 if kind is Kind.UID else 1):
        raise Invalid(f"the value of {path} is too long")
    match kind:
        case Kind.UID:
            return query.matching("StudyInstanceUID", value)
        case Kind.TIME:
            return _span(path, value.replace(" ", "+"), zone)
        case _:
            return query.text(value)


def _span(path: str, value: str, zone: tzinfo) -> Range:
    """A date and time, or a range of them; a hyphen is an offset where it can be one."""
    for low, high in _ends(value):
        if all(_MOMENT.fullmatch(one) for one in (low, high) if one):
            ends = [workitem_attributes.moment(one, zone) if one else None for one in (low, high)]
            if "" not in ends:
                return Range(*ends)
    raise Invalid(f"{path} is not a date and time, or a range of them")


def _ends(value: str) -> Iterator[tuple[str, str]]:
    if "-" not in value or _MOMENT.fullmatch(value):
        yield value, value
    for at, character in enumerate(value):
        if character == "-" and value != "-":
            yield value[:at], value[at + 1 :]


def _match(content: Json, fields: set[str]) -> Json:
    told = {}
    for keyword in {*RETURNED, *RETURNED_IF_THERE, *fields}:
        tag, vr = tag_and_vr(keyword)
        number = f"{tag:08X}"
        if number in content or keyword in RETURNED:
            told[number] = content.get(number, {"vr": vr})
    return _told(told)


def _told(content: Json) -> Json:
    return dict(sorted({**content, "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}.items()))


def _warnings(read: web_search.Asked, ignored: Sequence[str], *, more: bool) -> Iterator[str]:
    for name in read.unserved:
        kind = f"{name.removesuffix('valuematching').capitalize()} Value Matching"
        yield f"The {name} parameter is not supported. {kind} has not been performed."
    if unused := sorted({*read.unknown, *ignored}):
        yield f"Not supported for matching or returning, and ignored: {web_search.some(unused)}"
    if more:
        yield "There are additional results that can be requested"
