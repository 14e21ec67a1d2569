"""Operations as entries of a batch (R4 3.1.0.11.2): each asked as if it had come alone.

Whoever sent the Bundle is identified, decided about and recorded for each anew. What is answered
piece by piece, later or on another connection is asked by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match

from exchange_fhir import json_format
from exchange_fhir.answers import Answered
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

QUERY_LENGTH = 64 << 10
"""Characters of the longest query, as of a request that comes alone."""

Operate = Callable[[str, str, str, Json | None], Answered]
"""Asks for an operation by method, path below the server's address, query and resource."""


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


def operating(request: Request, routes: Sequence[BaseRoute], door: str) -> Operate:
    """What asks for operations of `routes` on behalf of who sent `request` to the `door`."""

    def operate(method: str, path: str, query: str, resource: Json | None) -> Answered:
        if len(query) > QUERY_LENGTH:
            raise Problem(414, "too-long", f"a query has at most {QUERY_LENGTH} characters")
        asked = [one for one in parse_qsl(query, keep_blank_values=True) if one[0] not in _OF_FORM]
        json = b"application/fhir+json"
        scope: dict[str, Any] = {
            **{name: one for name, one in request.scope.items() if name not in _OF_ROUTE},
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
