"""Entries of a Bundle that are asked as if each had come alone (R4 3.1.0.11.2).

They are served by the door's own routes. Whoever sent the Bundle is identified, decided about and
recorded for each anew. Of what comes piece by piece there is the first page; what is answered later
or on another connection is asked by
itself.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from fastapi import Request

from exchange_fhir import json_format, negotiation, parameters, validation
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import Pairs
from exchange_fhir.datatypes import Json
from exchange_fhir.outcome import Problem
from exchange_fhir.routed import Found, Table

DONE = frozenset(
    {
        "$docref",
        "$document",
        "$everything",
        "$ihe-pix",
        "$lastn",
        "$match",
        "$meta",
        "$meta-add",
        "$meta-delete",
        "$validate",
        "$versions",
    }
)
"""Operations that are answered by one resource at once, a page being one."""

FORM = "application/x-www-form-urlencoded"

QUERY_LENGTH = 64 << 10
"""Characters of the longest query, as of a request that comes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One request, as an entry of a Bundle tells it."""

    found: Found
    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    resource: Json | None = None
    sought: bool = False
    """It is a search by POST, told here as the same one by GET."""


Ask = Callable[[Single], Answered]
"""Asks what is asked for. Raises what the interaction raises."""


def nothing(_: Single) -> Answered:
    """Where nobody is there who could ask."""
    raise Problem(404, "not-supported", "nothing is asked for here")


def single(
    method: str,
    url: str,
    headers: Mapping[str, str],
    resource: Json | None,
    table: Table,
    base: str,
) -> Single:
    """The request for `url` below the server's address. Raises Problem where none is served."""
    address, _, query = url.partition("?")
    if len(query) > QUERY_LENGTH:
        raise Problem(414, "too-long", f"a query has at most {QUERY_LENGTH} characters")
    told = address.removeprefix(base) if f"{address}/".startswith(f"{base}/") else address
    path = f"/{unquote(told.removeprefix('/'))}"
    # HEAD is GET without what it tells (RFC 9110 9.3.2).
    found = table.find("GET" if method == "HEAD" else method, path)
    if method == "POST" and path.endswith("/_search"):
        found = table.find("GET", path.removesuffix("/_search") or "/")
        sought = urlencode(searched(query, resource))
        return Single(
            found=found,
            method="GET",
            path=path.removesuffix("/_search") or "/",
            query=sought,
            headers=headers,
            sought=True,
        )
    return Single(
        found=found, method=method, path=path, query=query, headers=headers, resource=resource
    )


def is_done(asked: Single) -> bool:
    """Whether it is done as an entry of a batch or of a transaction."""
    if name := asked.found.operation:
        return name in DONE
    if asked.sought:
        return True
    return asked.found.writes or (
        asked.method in {"GET", "HEAD"} and not asked.path.startswith("/.")
    )


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
    told = f"a search by POST in a Bundle is sent as Parameters, or as a Binary of {FORM}"
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
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise Problem(400, "structure", "the parameters cannot be read") from None


_OF_BUNDLE = frozenset(
    {
        *(b"accept", b"content-encoding", b"content-length", b"content-type"),
        *(b"if-match", b"if-modified-since", b"if-none-exist", b"if-none-match"),
        b"transfer-encoding",
    }
)
"""Headers that say how the Bundle was sent and is answered; all others are of who asks."""
_OF_FORM = frozenset({"_format", "_pretty"})
_MARK = "exchange.batched"
"""In the scope of a request that is an entry of a batch: nothing that a client sends is a key of
one."""


def asking(request: Request, door: str) -> Ask:
    """What asks on behalf of who sent `request` to the `door`."""

    def ask(asked: Single) -> Answered:
        query = [one for one in pairs(asked.query) if one[0] not in _OF_FORM]
        json = b"application/fhir+json"
        scope: dict[str, Any] = {
            **{name: one for name, one in request.scope.items() if name not in _OF_ROUTE},
            _MARK: True,
            "method": asked.method,
            "path": f"{door}{asked.path}",
            "raw_path": f"{door}{asked.path}".encode(),
            "query_string": urlencode(query).encode(),
            "headers": [
                *(one for one in request.scope["headers"] if one[0] not in _OF_BUNDLE),
                *((b"accept", json), (b"content-type", json)),
                *((name.encode(), one.encode()) for name, one in asked.headers.items()),
            ],
        }
        endpoint, given = asked.found.route.endpoint, dict[str, Any](asked.found.given)
        if "content" in _takes(endpoint):
            given["content"] = (
                b"" if asked.resource is None else json_format.serialize(asked.resource)
            )
        answer = endpoint(Request(scope), **given)
        if not isinstance(answer, negotiation.Written):
            raise Problem(404, "not-supported", "this is asked for by itself")
        content = b"" if asked.method == "HEAD" else bytes(answer.body)
        return replace(answer.answered, status=answer.status_code, content=content)

    return ask


_OF_ROUTE = frozenset({"endpoint", "path_params", "route"})


@lru_cache(256)
def _takes(endpoint: Callable[..., Any]) -> frozenset[str]:
    """The names of what a route's function takes."""
    return frozenset(inspect.signature(endpoint).parameters)
