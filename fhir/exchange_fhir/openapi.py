"""The FHIR door in OpenAPI 3.1: searches from what the CapabilityStatement states, and what is done
with resources of every type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exchange_fhir import openapi_operations, outcome, patching
from exchange_fhir.definitions import search_parameters
from exchange_fhir.negotiation import JSON, XML

Json = dict[str, Any]

ERRORS = (400, 401, 403, 404, 405, 406, 410, 503)
"""Statuses that every interaction may have, as an OperationOutcome."""

ERRORS_OF_CHANGES = (409, 412, 413, 415, 422, 507)
"""And those that change something."""

WORDS = {
    405: "This is not done with such resources.",
    406: "Resources are told in JSON and XML.",
    415: "The body is of another media type than JSON or XML of FHIR.",
    422: "The resource does not keep to a rule.",
}

RESULTS: tuple[tuple[str, Json], ...] = (
    ("_count", {"type": "integer", "minimum": 0, "maximum": 500}),
    ("_sort", {"type": "string"}),
    ("_total", {"type": "string", "enum": ["none", "estimate", "accurate"]}),
    ("_summary", {"type": "string", "enum": ["count", "false"]}),
    ("_format", {"type": "string", "enum": ["json", "xml", JSON, XML]}),
)

_FORM = "application/x-www-form-urlencoded"
_VERSION: Json = {"type": "string", "pattern": r"^[1-9][0-9]{0,8}$", "minLength": 1}


def paths(statement: Mapping[str, Any], prefix: str) -> Json:
    """The Paths Object of the door below `prefix`; what can be searched is what `statement` says.

    A type that can be searched has paths of its own, all others one for all of them.
    """
    found: Json = {
        f"{prefix}/metadata": {
            "get": {**_operation("capabilities", "System", "CapabilityStatement"), "security": []}
        },
        f"{prefix}/$versions": {
            "get": {**_operation("versions", "System", "Parameters"), "security": []}
        },
        f"{prefix}/_history": {"get": _operation("history", "System", "Bundle")},
        prefix: {"post": _change("batch", "System", "Bundle", sent="Bundle")},
    }
    searched = [
        one
        for server in statement["rest"]
        for one in server["resource"]
        if one["type"] in search_parameters.kinds()
        and {"code": "search-type"} in one["interaction"]
    ]
    names = {one["type"] for one in searched}
    for resource in searched:
        kind = resource["type"]
        parameters = list(_search(resource))
        found |= _of_type(kind, f"{prefix}/{kind}")
        found[f"{prefix}/{kind}"]["get"] = _operation(
            "search", kind, "Bundle", parameters=parameters
        )
        found[f"{prefix}/{kind}/_search"] = {"post": _by_form(kind, parameters)}
    every = _of_type("Resource", f"{prefix}/{{type}}")
    others = [kind for kind in search_parameters.kinds() if kind not in names]
    for item in every.values():
        of_type = _in_path("type", {"type": "string", "enum": others})
        item["parameters"] = [of_type, *item.get("parameters", ())]
    for path, item in openapi_operations.paths(
        prefix,
        sorted({*names, *others}),
        _operation,
        _schema,
        errors=(*ERRORS, *ERRORS_OF_CHANGES),
    ).items():
        found[path] = found.get(path, {}) | item
    return found | every


def _of_type(kind: str, path: str) -> Json:
    """What is done with resources of a type: read, vread, history, create, update, delete."""
    in_path = [_in_path("id", openapi_operations.ID)]
    return {
        path: {
            "post": _change("create", kind, kind, sent=kind, done=(200, 201)),
            "put": _change("updateConditionally", kind, kind, sent=kind, done=(200, 201)),
            "patch": _change("patchConditionally", kind, kind, patch=True),
            "delete": _change("deleteConditionally", kind, "OperationOutcome", done=(200, 204)),
        },
        f"{path}/_history": {"get": _operation("historyOfType", kind, "Bundle")},
        f"{path}/{{id}}": {
            "parameters": in_path,
            "get": _operation("read", kind, kind, done=(200, 304)),
            "put": _change("update", kind, kind, sent=kind, done=(200, 201)),
            "patch": _change("patch", kind, kind, patch=True),
            "delete": _change("delete", kind, "OperationOutcome", done=(200, 204)),
        },
        f"{path}/{{id}}/_history": {
            "parameters": in_path,
            "get": _operation("historyOfInstance", kind, "Bundle"),
        },
        f"{path}/{{id}}/_history/{{version}}": {
            "parameters": [*in_path, _in_path("version", _VERSION)],
            "get": _operation("vread", kind, kind),
        },
    }


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _search(resource: Mapping[str, Any]) -> Iterator[Json]:
    stated = {one["name"] for one in resource.get("searchParam", ())}
    for one in resource.get("searchParam", ()):
        yield {
            "name": one["name"],
            "in": "query",
            "description": one.get("documentation") or one["type"],
            "schema": {"type": "string", "maxLength": 100},
        }
    for name, schema in RESULTS:
        if name not in stated:
            yield {"name": name, "in": "query", "schema": schema}
    for name, listed in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
        if values := resource.get(listed):
            yield {"name": name, "in": "query", "schema": {"type": "string", "enum": [*values]}}


def _by_form(kind: str, parameters: Sequence[Json]) -> Json:
    fields = {one["name"]: one["schema"] for one in parameters}
    schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {
        **_operation("searchByForm", kind, "Bundle", errors=(*ERRORS, 413, 415)),
        "requestBody": {"content": {_FORM: {"schema": schema}}},
    }


def _change(
    name: str,
    kind: str,
    answered: str,
    *,
    sent: str = "",
    patch: bool = False,
    done: Sequence[int] = (200,),
) -> Json:
    told = _operation(name, kind, answered, errors=(*ERRORS, *ERRORS_OF_CHANGES), done=done)
    if sent:
        content = {media_type: {"schema": _schema(sent)} for media_type in (JSON, XML)}
        told["requestBody"] = {"required": True, "content": content}
    if patch:
        changes = {
            patching.MEDIA_TYPE: {"schema": {"type": "array", "items": {"type": "object"}}},
            patching.MERGE: {"schema": {"type": "object"}},
            JSON: {"schema": _schema("Parameters")},
            XML: {"schema": _schema("Parameters")},
        }
        told["requestBody"] = {"required": True, "content": changes}
    return told


def _operation(
    name: str,
    kind: str,
    answered: str,
    *,
    parameters: Sequence[Json] = (),
    errors: Sequence[int] = ERRORS,
    done: Sequence[int] = (200,),
) -> Json:
    responses: Json = {}
    for status in done:
        responses[str(status)] = {"description": answered if status < 204 else "Nothing to tell."}
        if status < 204:
            responses[str(status)]["content"] = _written(answered)
    for status in errors:
        responses[str(status)] = {
            "description": WORDS.get(status) or _code(status),
            "content": _written("OperationOutcome"),
        }
    return {
        "operationId": f"{name}{kind}",
        "tags": ["FHIR"],
        "parameters": [*parameters],
        "responses": responses,
    }


def _code(http: int) -> str:
    return next((one.code for one in outcome.HTTP.values() if one.http == http), "not done")


def _written(kind: str) -> Json:
    return {media_type: {"schema": _schema(kind)} for media_type in (JSON, XML)}


def _schema(kind: str) -> Json:
    named: Json = {"type": "string"} if kind == "Resource" else {"const": kind}
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": named},
    }
