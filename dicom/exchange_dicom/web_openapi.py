"""The web door in OpenAPI 3.1: the same tables that `web_capabilities` tells, for other tools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from exchange import rejection
from exchange_dicom import web_capabilities
from exchange_dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    OCTET_STREAM,
    ZIP,
)
from exchange_dicom.query import OTHER_NUMBER
from exchange_dicom.web_capabilities import WADL, Transaction
from exchange_dicom.web_rendered import MEDIA_TYPES, PDF, VIDEO_TYPES
from exchange_storage.search import ATTRIBUTES

Json = dict[str, Any]

PROBLEM = "application/problem+json"

ERRORS = {
    400: "The request does not make sense, or asks for too much.",
    401: "An access token is needed.",
    403: "The policy says no; the detail says why.",
    404: "There is no such resource for the asker.",
    503: "A part does not answer now; ask again.",
}
"""Of every transaction, in problem documents (RFC 9457)."""

ERRORS_OF_ANSWERS = {406: "None of the accepted media types can be made."}
ERRORS_OF_BODIES = {
    408: "The rest of the body did not come.",
    413: "The request is larger than what is taken.",
    415: "The media type of the body cannot be read.",
    507: "There is no room; nothing was kept.",
}
ERRORS_OF_INSTANCES = {410: "It was there, and was rejected or deleted."}
ERRORS_OF_RANGES = {416: "No byte of the range is there."}

_SUCCESS = {
    200: "Done.",
    201: "Created.",
    202: "Accepted, or done in part.",
    204: "Done; there is nothing to tell.",
    206: "A part of it.",
    304: "What the asker has is still so.",
    409: "Not in this state; the Warning header field or the answer says why.",
    410: ERRORS_OF_INSTANCES[410],
}
_UID: Json = {"type": "string", "pattern": "^[0-9.]{1,64}$", "minLength": 1}
_TITLE: Json = {"type": "string", "pattern": "^[0-9A-Z_]{1,16}$", "minLength": 1}
_WHOLE: Json = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
_FLAG: Json = {"type": "string", "enum": ["true", "false"]}
_PATH: Mapping[str, Json] = {
    "listed": {"type": "string", "pattern": "^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}){0,4}$"},
    "path": {"type": "string", "pattern": "^[0-9A-F]{8}(/[0-9]{1,3}/[0-9A-F]{8}){0,2}$"},
    "day": {"type": "string", "pattern": "^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])$"},
    "code": {"type": "string", "enum": [*rejection.CODES]},
    "subscriber": _TITLE,
}
_QUERY: Mapping[str, Json] = {
    "limit": _WHOLE,
    "offset": _WHOLE,
    "after": _WHOLE,
    "fuzzymatching": _FLAG,
    "emptyvaluematching": _FLAG,
    "multiplevaluematching": _FLAG,
    "deletionlock": _FLAG,
    "since": {"type": "string", "format": "date-time"},
    "before": {"type": "string", "format": "date-time"},
    "workitem": _UID,
    "transaction-uid": _UID,
    "requestType": {"type": "string", "enum": ["WADO"]},
    "studyUID": _UID,
    "seriesUID": _UID,
    "objectUID": _UID,
    "presentationSeriesUID": _UID,
    "presentationUID": _UID,
    "annotation": {"type": "string", "enum": ["patient", "technique", "patient,technique"]},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100},
    "viewport": {"type": "string", "examples": ["256,256"]},
    "window": {"type": "string", "examples": ["40,400,linear"]},
    "filter": {"type": "string", "examples": ["WorklistLabel=READING"]},
    "includefield": {"type": "string", "examples": ["all", "PatientName"]},
}
_ELEMENT: Json = {
    "type": "object",
    "required": ["vr"],
    "properties": {
        "vr": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "Value": {"type": "array"},
        "InlineBinary": {"type": "string"},
        "BulkDataURI": {"type": "string"},
    },
}
MODEL: Json = {
    "type": "object",
    "description": "A data set in the DICOM JSON model (PS3.18 annex F).",
    "propertyNames": {"pattern": "^[0-9A-Fa-f]{8}$"},
    "additionalProperties": {"$ref": "#/components/schemas/DicomElement"},
}
SCHEMAS: Mapping[str, Json] = {"DicomElement": _ELEMENT, "DicomDataSet": MODEL}
_DATA_SET: Json = {"$ref": "#/components/schemas/DicomDataSet"}
_PROBLEM: Json = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_SHOWN = frozenset({*MEDIA_TYPES, *VIDEO_TYPES})

_COUNTS: Json = {
    "type": "object",
    "description": "What a hospital counts itself as sent; of one of the two at least.",
    "properties": {
        "source": {"type": "string", "minLength": 1, "maxLength": 64},
        "studies": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        "instances": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    },
    "additionalProperties": False,
}
_MANY = frozenset({"Search", "RetrieveMetadata", "RetrieveWorkitem"})
"""Transactions that answer with an array of data sets."""

_OURS = frozenset({"ReadChanges", "ReadLatestChange", "Reject", "ReadLedger"})
"""Transactions that answer with JSON which is no data set."""


def paths(routes: Iterable[object], prefix: str) -> Json:
    """The Paths Object of the door, whose routes stand below `prefix`."""
    found: Json = {}
    for path, transactions in web_capabilities.resources(routes):
        template = path.replace("{path:path}", "{path}")
        item = found.setdefault(f"{prefix}{template}", {"parameters": _of_path(template)})
        for method, transaction in transactions.items():
            item[method.lower()] = _operation(path, transaction)
    found[prefix] = {
        "options": {
            "operationId": "RetrieveCapabilities",
            "tags": ["DICOMweb"],
            "responses": _answers(Transaction("RetrieveCapabilities", (WADL, JSON))),
        }
    }
    return found


def _of_path(template: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH.get(name, _UID)}
        for name in re.findall(r"{([a-z]+)}", template)
    ]


def _operation(path: str, transaction: Transaction) -> Json:
    parameters = [
        {"name": name, "in": "query", "schema": _QUERY.get(name, {"type": "string"})}
        for name in transaction.parameters
    ]
    if transaction.name == "Search":
        parameters += _keys(path)
    if transaction.answered:
        parameters.append(
            {
                "name": "accept",
                "in": "query",
                "description": "Goes before the header field of that name (PS3.18 8.3.3.1).",
                "schema": {"type": "string", "enum": [*transaction.answered]},
            }
        )
    told: Json = {
        # Names are those of the transactions, which a resource of each level may have.
        "operationId": "_".join([transaction.name, *re.findall(r"[a-z]+", path)]),
        "summary": transaction.name,
        "tags": ["DICOMweb"],
        "parameters": parameters,
        "responses": _answers(transaction),
    }
    if transaction.sent:
        told["requestBody"] = {
            "required": transaction.name != "RequestCancellation",
            "content": {kind: _body(kind) for kind in _distinct(transaction.sent)},
        }
    if transaction.name == "TellLedger":
        told["requestBody"]["content"] = {JSON: {"schema": _COUNTS}}
    return told


def _keys(path: str) -> Iterator[Json]:
    """Attributes that a search matches; by tag they match too, which has no place here."""
    names = {*ATTRIBUTES, "ModalitiesInStudy", OTHER_NUMBER}
    if "workitems" in path:
        names = {"WorklistLabel", "ProcedureStepState", "PatientID", "PatientName"}
    for name in sorted(names):
        yield {"name": name, "in": "query", "schema": {"type": "string", "maxLength": 64}}


def _answers(transaction: Transaction) -> Json:
    content = {kind: _content(kind, transaction) for kind in _distinct(transaction.answered)}
    answers: Json = {}
    for status in transaction.statuses:
        answers[str(status)] = {"description": _SUCCESS[status]}
        if content and status not in (204, 304):
            answers[str(status)]["content"] = content
    for status, words in _errors(transaction):
        answer = answers.setdefault(str(status), {"description": words})
        answer["content"] = {**answer.get("content", {}), PROBLEM: {"schema": _PROBLEM}}
    return answers


def _errors(transaction: Transaction) -> Iterator[tuple[int, str]]:
    yield from ERRORS.items()
    if transaction.answered:
        yield from ERRORS_OF_ANSWERS.items()
    if transaction.sent:
        yield from ERRORS_OF_BODIES.items()
    yield from ERRORS_OF_INSTANCES.items()
    if 409 in transaction.statuses:
        yield 409, _SUCCESS[409]
    if 206 in transaction.statuses:
        yield from ERRORS_OF_RANGES.items()


def _distinct(kinds: Iterable[str]) -> Iterator[str]:
    """The media types without their parameters: in parts are in parts, whatever is in them."""
    yield from dict.fromkeys(kind.partition(";")[0] for kind in kinds)


def _body(kind: str) -> Json:
    return {"schema": _DATA_SET} if kind in (DICOM_JSON, JSON) else _bytes(kind)


def _content(kind: str, transaction: Transaction) -> Json:
    if kind not in (DICOM_JSON, JSON):
        return _bytes(kind)
    if transaction.name in _OURS or transaction.name == "RetrieveCapabilities":
        return {"schema": {"type": "object"}}
    many = transaction.name in _MANY
    return {"schema": {"type": "array", "items": _DATA_SET} if many else _DATA_SET}


def _bytes(kind: str) -> Json:
    if kind in (DICOM, MULTIPART, OCTET_STREAM, ZIP, PDF, DICOM_XML, WADL) or kind in _SHOWN:
        return {}
    return {"schema": {"type": "string"}}
