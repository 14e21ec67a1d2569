"""What the FHIR door does beside the interactions with one type, in OpenAPI 3.1: operations, Bulk
Data, searches of all types and of a patient's compartment; one line for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exchange_fhir.asking import COMPARTMENT
from exchange_fhir.negotiation import JSON, XML

Json = dict[str, Any]

NDJSON = "application/fhir+ndjson"

FORM = "application/x-www-form-urlencoded"

ID: Json = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$", "minLength": 1}

GET, POST, DELETE = ("get",), ("post",), ("delete",)
BOTH = (*GET, *POST)


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done at a path by these methods."""

    name: str
    path: str
    methods: tuple[str, ...]
    answered: str
    """A resource type; "" where nothing is told but the status."""
    parameters: tuple[str, ...] = ()
    """In the query."""
    done: tuple[int, ...] = (200,)
    sent: tuple[str, ...] = ("Parameters",)
    """Resource types, or a media type, of the body of a POST; it may be left out."""
    media_type: str = ""
    """Of an answer that is no resource."""
    in_background: bool = False


_SEARCH = ("_id", "_lastUpdated", "_count", "_format")
_EXPORT = ("_since", "_until", "_type", "_outputFormat", "_typeFilter", "_elements")
_EVERYTHING = ("start", "end", "_since", "_type", "_count")
_EVENTS = ("eventsSinceNumber", "eventsUntilNumber", "content")
_BINDING = "$get-ws-binding-token"

OPERATIONS = (
    Operation("export", "/$export", BOTH, "OperationOutcome", _EXPORT, (202,), in_background=True),
    Operation(
        "exportPatients", "/Patient/$export", BOTH, "OperationOutcome", _EXPORT, (202,),
        in_background=True,
    ),
    Operation(
        "exportGroup", "/Group/{id}/$export", BOTH, "OperationOutcome", _EXPORT, (202,),
        in_background=True,
    ),
    Operation(
        "import", "/$import", POST, "OperationOutcome", (), (202,), (NDJSON,), in_background=True
    ),
    Operation(
        "bulkStatus", "/$bulk-status/{token}", GET, "", (), (200, 202, 500),
        media_type="application/json",
    ),
    Operation("cancelBulk", "/$bulk-status/{token}", DELETE, "OperationOutcome", (), (202,)),
    Operation("bulkFile", "/$bulk-file/{token}/{number}", GET, "", media_type=NDJSON),
    Operation("everything", "/Patient/{id}/$everything", BOTH, "Bundle", _EVERYTHING),
    Operation("match", "/Patient/$match", POST, "Bundle", sent=("Parameters", "Patient")),
    Operation(
        "crossReference", "/Patient/$ihe-pix", BOTH, "Parameters",
        ("sourceIdentifier", "targetSystem"),
    ),
    Operation(
        "lastN", "/Observation/$lastn", BOTH, "Bundle",
        ("patient", "subject", "category", "code", "max"),
    ),
    Operation(
        "documents", "/DocumentReference/$docref", BOTH, "Bundle",
        ("patient", "start", "end", "type", "on-demand"),
    ),
    Operation("document", "/Composition/$document", BOTH, "Bundle", ("id", "persist")),
    Operation("documentOf", "/Composition/{id}/$document", BOTH, "Bundle", ("persist",)),
    Operation(
        "validate", "/{type}/$validate", POST, "OperationOutcome", ("mode",),
        sent=("Resource", "Parameters"),
    ),
    Operation(
        "validateOne", "/{type}/{id}/$validate", BOTH, "OperationOutcome", ("mode",),
        sent=("Resource", "Parameters"),
    ),
    Operation("subscriptionStatus", "/Subscription/$status", BOTH, "Bundle", ("id", "status")),
    Operation("subscriptionStatusOf", "/Subscription/{id}/$status", BOTH, "Bundle"),
    Operation("subscriptionEvents", "/Subscription/{id}/$events", BOTH, "Bundle", _EVENTS),
    Operation("bindSubscriptions", f"/Subscription/{_BINDING}", BOTH, "Parameters", ("id",)),
    Operation("bindSubscription", f"/Subscription/{{id}}/{_BINDING}", BOTH, "Parameters"),
    Operation("searchAll", "", GET, "Bundle", _SEARCH),
    Operation("searchAllByForm", "/_search", POST, "Bundle", sent=(FORM,)),
    Operation("searchCompartment", "/Patient/{id}/{kind}", GET, "Bundle", _SEARCH),
    Operation(
        "searchCompartmentByForm", "/Patient/{id}/{kind}/_search", POST, "Bundle", sent=(FORM,)
    ),
    Operation(
        "smartConfiguration", "/.well-known/smart-configuration", GET, "",
        media_type="application/json",
    ),
    Operation("meta", "/{type}/{id}/$meta", GET, "Parameters"),
    Operation("metaOfVersion", "/{type}/{id}/_history/{version}/$meta", GET, "Parameters"),
    Operation("metaOfType", "/{type}/$meta", GET, "Parameters"),
    Operation("metaOfAll", "/$meta", GET, "Parameters"),
    Operation("metaAdd", "/{type}/{id}/$meta-add", POST, "Parameters"),
    Operation("metaDelete", "/{type}/{id}/$meta-delete", POST, "Parameters"),
)  # fmt: skip
"""What stands beside the interactions; `Patient/$everything` is refused as too costly."""

_PATH: Mapping[str, Json] = {
    "token": {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$", "minLength": 8},
    "kind": {"type": "string", "enum": ["*", *sorted(COMPARTMENT)]},
    "number": {"type": "string", "pattern": "^[0-9]{1,9}$", "minLength": 1},
    "id": ID,
    "version": {"type": "string", "pattern": "^[0-9]{1,9}$", "minLength": 1},
}
_QUERY: Mapping[str, Json] = {
    "_since": {"type": "string", "format": "date-time"},
    "_until": {"type": "string", "format": "date-time"},
    "start": {"type": "string", "format": "date"},
    "end": {"type": "string", "format": "date"},
    "_outputFormat": {"type": "string", "enum": ["ndjson", NDJSON, "application/ndjson"]},
    "_count": {"type": "integer", "minimum": 1, "maximum": 500},
    "max": {"type": "integer", "minimum": 1, "maximum": 100},
    "_format": {"type": "string", "enum": ["json", "xml", JSON, XML]},
    "mode": {"type": "string", "enum": ["create", "update", "delete"]},
    "persist": {"type": "string", "enum": ["true", "false"]},
    "content": {"type": "string", "enum": ["empty", "id-only", "full-resource"]},
    "eventsSinceNumber": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "eventsUntilNumber": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "status": {"type": "string", "enum": ["requested", "active", "error", "off"]},
    "on-demand": {"type": "string", "enum": ["true", "false"]},
}


def paths(
    prefix: str,
    kinds: Sequence[str],
    operation: Callable[..., Json],
    schema: Callable[[str], Json],
    *,
    errors: Sequence[int],
) -> Json:
    """The Paths Object of the operations below `prefix`; `operation` tells of what all of them say.

    `errors` are statuses, `kinds` the resource types of which something is validated.
    """
    found: Json = {}
    for one in OPERATIONS:
        path = f"{prefix}{one.path}"
        of_path = {"type": {"type": "string", "enum": [*kinds]}, **_PATH}
        item = found.setdefault(path, {})
        if names := re.findall(r"{([a-z]+)}", path):
            item["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": of_path[name]}
                for name in names
            ]
        for method in one.methods:
            item[method] = _told(one, method, operation, schema, errors)
    return found


def _told(
    one: Operation,
    method: str,
    operation: Callable[..., Json],
    schema: Callable[[str], Json],
    errors: Sequence[int],
) -> Json:
    told = operation(
        f"{one.name}_{method}",
        "",
        one.answered or "Parameters",
        parameters=[
            {"name": name, "in": "query", "schema": _QUERY.get(name, {"type": "string"})}
            for name in one.parameters
        ],
        errors=[status for status in errors if status not in one.done],
        done=one.done,
    )
    if one.in_background:
        told["parameters"].append(
            {
                "name": "Prefer",
                "in": "header",
                "required": True,
                "schema": {"type": "string", "enum": ["respond-async"]},
            }
        )
    if not one.answered:
        for status in one.done:
            told["responses"][str(status)] = {"description": "How far it is, or what it is."}
            if status != 202:
                told["responses"][str(status)]["content"] = {
                    one.media_type if status < 300 else JSON: {}
                }
    if one.name == "smartConfiguration":
        told["security"] = []
    if method == "post":
        content: Json = {}
        for kind in one.sent:
            if "/" in kind:
                content[kind] = {"schema": {"type": "object" if kind == FORM else "string"}}
                continue
            for media_type in (JSON, XML):
                meant = content.setdefault(media_type, {"schema": {"anyOf": []}})
                meant["schema"]["anyOf"].append(schema(kind))
        told["requestBody"] = {"required": one.name in ("match", "import"), "content": content}
    return told
