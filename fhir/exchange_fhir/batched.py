"""Operations, and searches by POST, as entries of a batch (R4 3.1.0.11.2): each asked as if it had
come alone.

Whoever sent the Bundle is identified, decided about and recorded for each anew. Of what comes piece
by piece there is the first page; what is answered later or on another connection is asked by
itself.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match

from exchange_fhir import json_format, parameters, validation
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import Pairs
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Problem

DONE = frozenset(
    {
        "$docref",
        "$document",
        "$ihe-pix",
        "$lastn",
        "$match",
        "$meta",
        "$meta-add",
        "$meta-delete",
        "$validate",
    }
)
"""Operations that are answered by one resource at once."""

FORM = "application/x-www-form-urlencoded"

QUERY_LENGTH = 64 << 10
"""Characters of the longest query, as of a request that comes alone."""

Operate = Callable[[str, str, str, Json | None], Answered]
"""Asks for an operation by method, path below the server's address, query and resource."""


def is_done(path: str) -> bool:
    """Whether what is below the server's address is an operation, or search, of a batch."""
    *place, name = path.split("/")
    match name:
        case "$everything":
            return len(place) == 2 and place[0] == "Patient"
        case "_search":
            return len(place) == 1
        case _:
            return name in DONE


def is_entry(request: Request) -> bool:
    """Whether a request is one of a batch: what is answered goes into a Bundle."""
    return _MARK in request.scope


def searched(query: str, resource: Json | None) -> Pairs:
    """The parameters of a search by POST: in its address, and as Parameters or a form, which a
    Binary holds. Raises Problem."""
    asked = pairs(query)
    match (resource or {}).get("resourceType"):
        case None:
            return asked
        case "Parameters":
            given = parameters.of(resource or {})
            return [*asked, *((name, text(one)) for name, told in given.items() for one in told)]
        case "Binary" if resource is not None and resource.get("contentType") == FORM:
            validation.check(resource, "Binary")
            return [*asked, *pairs(_decoded(resource))]
    told = f"a search by POST in a batch is sent as Parameters, or as a Binary of {FORM}"
    raise Problem(415, "not-supported", told)


def text(value: object) -> str:
    """The value of a parameter as an address has it. Raises Problem."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | Decimal():
            return str(value)
    raise Problem(400, "invalid", "a parameter of a search is a text, a number or a date")


def _decoded(binary: Json) -> str:
    try:
        return base64.b64decode(binary.get("data", "")).decode()
    except ValueError:
        raise Problem(400, "structure", "the form cannot be read") from None


def pairs(query: str) -> Pairs:
    """The parameters of a query, as many as one that comes alone may have. Raises Problem."""
    if len(query) > QUERY_LENGTH:
        raise Problem(414, "too-long", f"a query has at most {QUERY_LENGTH} characters")
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Problem(400, "structure", "the parameters cannot be read") from None


def nothing(_: str, path: str, *__: object) -> Answered:
    """Where nobody is there who could ask for one."""
    name = path.rpartition("/")[2][:64]
    raise Problem(404, "not-supported", f"{name} is not asked for here")


_OF_BUNDLE = frozenset(
    {
        *(b"accept", b"content-encoding", b"content-length", b"content-type", b"prefer"),
        *(b"if-match", b"if-modified-since", b"if-none-exist", b"if-none-match"),
        b"transfer-encoding",
    }
)
"""Headers that say how the Bundle was sent and is answered; all others are of who asks."""
_OF_FORM = frozenset({"_format", "_pretty"})
_MARK = "exchange.batched"
"""In the scope of a request that is an entry of a batch: nothing that a client sends is a key of
one."""


def operating(request: Request, routes: Sequence[BaseRoute], door: str) -> Operate:
    """What asks for operations of `routes` on behalf of who sent `request` to the `door`."""

    def operate(method: str, path: str, query: str, resource: Json | None) -> Answered:
        asked = [one for one in pairs(query) if one[0] not in _OF_FORM]
        json = b"application/fhir+json"
        scope: dict[str, Any] = {
            **{name: one for name, one in request.scope.items() if name not in _OF_ROUTE},
            _MARK: True,
            "method": method,
            "path": f"{door}/{path}",
            "raw_path": f"{door}/{path}".encode(),
            "query_string": urlencode(asked).encode(),
            "headers": [
                *(one for one in request.scope["headers"] if one[0] not in _OF_BUNDLE),
                *((b"accept", json), (b"content-type", json)),
            ],
        }
        content = b"" if resource is None else json_format.serialize(resource)
        for route in routes:
            within = {"type": "http", "method": method, "path": f"/{path}", "root_path": ""}
            match, found = route.matches(within)
            if match is Match.FULL and isinstance(route, APIRoute):
                given = dict(found["path_params"])
                if "content" in inspect.signature(route.endpoint).parameters:
                    given["content"] = content
                answer = route.endpoint(Request(scope), **given)
                return Answered(status=answer.status_code, content=bytes(answer.body))
        name = path.rpartition("/")[2][:64]
        raise Problem(405, "not-supported", f"{name} is not asked for by {method} on this")

    return operate


_OF_ROUTE = frozenset({"endpoint", "path_params", "route"})
