"""What the web door serves, told to whoever asks with OPTIONS (PS3.18 sections 8.9 and H).

The description is made from the routes themselves, in WADL or JSON; the table here says of each
kind of resource what is sent and answered, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import compile_path

from exchange.errors import NotFound
from exchange_dicom import media_types, web_composed, web_frames, web_rendered
from exchange_dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    OCTET_STREAM,
    ZIP,
    MediaType,
)
from exchange_dicom.resources import Root

WADL = "application/vnd.sun.wadl+xml"
NAMESPACE = "http://wadl.dev.java.net/2009/02"


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is sent to a kind of resource, and what is answered."""

    name: str
    answered: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    """Of the query, beside `accept` and the attributes that a search matches."""
    sent: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)


def _in_parts(*names: str) -> tuple[str, ...]:
    return tuple(f'{MULTIPART}; type="{name}"' for name in names)


_MODELS = (DICOM_JSON, JSON, DICOM_XML)
_SENT = (*_MODELS, *_in_parts(DICOM_XML))
_SEARCH = Transaction(
    "Search",
    (DICOM_JSON, JSON, *_in_parts(DICOM_XML)),
    (
        "includefield",
        "limit",
        "offset",
        "fuzzymatching",
        "emptyvaluematching",
        "multiplevaluematching",
    ),
    statuses=(200, 204),
)
_RETRIEVE = Transaction("Retrieve", (*_in_parts(DICOM), DICOM, ZIP), statuses=(200, 206))
_PICTURES = tuple(web_rendered.MEDIA_TYPES)
_STORE = Transaction(
    "Store",
    _MODELS,
    sent=(*_in_parts(DICOM, *web_composed.METADATA), DICOM),
    statuses=(200, 202, 409),
)
_BULK = Transaction(
    "RetrieveBulkData",
    (OCTET_STREAM, *_in_parts(*web_frames.TRANSFER_SYNTAXES)),
    statuses=(200, 206, 304),
)
_ALL_BULK = Transaction(
    "RetrieveAllBulkData", _in_parts(*web_frames.TRANSFER_SYNTAXES), statuses=(200, 206)
)
_DELETE = Transaction("Delete", statuses=(204, 202))

TRANSACTIONS: Mapping[tuple[str, str], Transaction] = {
    ("GET", "studies"): _SEARCH,
    ("GET", "series"): _SEARCH,
    ("GET", "instances"): _SEARCH,
    ("POST", "studies"): _STORE,
    ("POST", "{study}"): _STORE,
    ("GET", "{study}"): _RETRIEVE,
    ("GET", "{series}"): _RETRIEVE,
    ("GET", "{instance}"): _RETRIEVE,
    ("GET", "metadata"): Transaction(
        "RetrieveMetadata", (DICOM_JSON, JSON, *_in_parts(DICOM_XML)), statuses=(200, 206, 304)
    ),
    ("GET", "{listed}"): Transaction(
        "RetrieveFrames",
        (*_in_parts(*web_frames.TRANSFER_SYNTAXES), *web_frames.TRANSFER_SYNTAXES),
        statuses=(200, 206, 304),
    ),
    ("GET", "{path:path}"): _BULK,
    ("GET", "bulkdata"): _ALL_BULK,
    ("GET", "pixeldata"): _BULK,
    ("GET", "rendered"): Transaction(
        "RetrieveRendered",
        (*_PICTURES, *_in_parts(*_PICTURES), web_rendered.PDF, *web_rendered.VIDEO_TYPES),
        ("window", "viewport", "quality", "iccprofile", "annotation"),
        statuses=(200, 206, 304),
    ),
    ("GET", "thumbnail"): Transaction(
        "RetrieveThumbnail", _PICTURES, ("viewport",), statuses=(200, 304)
    ),
    ("GET", "wado"): Transaction(
        "RetrieveByUri",
        (DICOM, *_PICTURES),
        (
            *("requestType", "studyUID", "seriesUID", "objectUID", "contentType"),
            *("presentationSeriesUID", "presentationUID", "annotation"),
        ),
    ),
    ("POST", "{code}"): Transaction("Reject", (JSON,)),
    ("DELETE", "{study}"): _DELETE,
    ("DELETE", "{series}"): _DELETE,
    ("DELETE", "{instance}"): _DELETE,
    ("GET", "{day}"): Transaction("ReadLedger", (JSON,)),
    ("PUT", "{day}"): Transaction("TellLedger", sent=(JSON,), statuses=(204,)),
    ("POST", "{transaction}"): Transaction(
        "RequestCommitment", _MODELS, sent=_MODELS, statuses=(200, 202, 409)
    ),
    ("GET", "{transaction}"): Transaction("CheckCommitment", _MODELS, statuses=(200, 202)),
    ("POST", "workitems"): Transaction(
        "CreateWorkitem", sent=_SENT, parameters=("workitem",), statuses=(201, 409)
    ),
    ("GET", "workitems"): _SEARCH,
    ("GET", "{workitem}"): Transaction(
        "RetrieveWorkitem", (DICOM_JSON, JSON, *_in_parts(DICOM_XML)), statuses=(200, 410)
    ),
    ("POST", "{workitem}"): Transaction(
        "UpdateWorkitem", sent=_SENT, parameters=("transaction-uid",), statuses=(200, 409, 410)
    ),
    ("PUT", "state"): Transaction("ChangeWorkitemState", sent=_SENT, statuses=(200, 409, 410)),
    ("POST", "cancelrequest"): Transaction(
        "RequestCancellation", sent=_SENT, statuses=(202, 409, 410)
    ),
    ("POST", "{subscriber}"): Transaction(
        "Subscribe", parameters=("deletionlock", "filter"), statuses=(201,)
    ),
    ("DELETE", "{subscriber}"): Transaction("Unsubscribe"),
    ("POST", "suspend"): Transaction("SuspendGlobalSubscription"),
    ("GET", "changefeed"): Transaction(
        "ReadChanges", (JSON,), ("after", "since", "before", "limit")
    ),
    ("GET", "latest"): Transaction("ReadLatestChange", (JSON,)),
}
"""By method and the last part of a resource's path."""

Resource = tuple[str, Mapping[str, Transaction]]
"""A path, and what can be done with it, by method."""


def resources(routes: Iterable[object]) -> Sequence[Resource]:
    """The resources of the door. Raises KeyError for one that the table does not have."""
    found: dict[str, dict[str, Transaction]] = {}
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in sorted(route.methods or ()):
                last = route.path.rpartition("/")[2]
                found.setdefault(route.path, {})[method] = TRANSACTIONS[method, last]
    return sorted(found.items())


def capabilities(
    root: Root, routes: Iterable[object], path: str, *, accept: Sequence[MediaType]
) -> Response:
    """What is served at `path`, or, of "", everything. Raises NotFound, NotAcceptable."""
    kind = media_types.choose(accept, (WADL, JSON))
    served = resources(routes)
    if path.strip("/"):
        here = "/" + path.strip("/")
        served = [one for one in served if compile_path(one[0])[0].match(here)][:1]
        if not served:
            raise NotFound("there is no such resource")
    allowed = sorted({method for _, methods in served for method in methods} | {"OPTIONS"})
    body = _wadl(root, served) if kind == WADL else orjson.dumps(_json(root, served))
    return Response(body, headers={"Allow": ", ".join(allowed)}, media_type=kind)


def _json(root: Root, served: Sequence[Resource]) -> dict[str, Any]:
    return {
        "base": root.url,
        "resources": [
            {
                "path": _template(path),
                "methods": {
                    method: {
                        "transaction": one.name,
                        "parameters": ["accept", *one.parameters],
                        "sent": one.sent,
                        "answered": one.answered,
                        "statuses": one.statuses,
                    }
                    for method, one in methods.items()
                },
            }
            for path, methods in served
        ],
    }


def _wadl(root: Root, served: Sequence[Resource]) -> bytes:
    return "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<application xmlns="{NAMESPACE}"><resources base={quoteattr(root.url)}>',
            *(part for path, methods in served for part in _resource(path, methods)),
            "</resources></application>",
        )
    ).encode()


def _resource(path: str, methods: Mapping[str, Transaction]) -> Iterator[str]:
    yield f"<resource path={quoteattr(_template(path).removeprefix('/'))}>"
    for method, one in methods.items():
        yield f'<method name="{method}" id={quoteattr(one.name)}><request>'
        yield '<param name="Accept" style="header"/>'
        for name in ("accept", *one.parameters):
            yield f'<param name="{name}" style="query"/>'
        for kind in one.sent:
            yield f"<representation mediaType={quoteattr(kind)}/>"
        statuses = " ".join(map(str, one.statuses))
        yield f'</request><response status="{statuses}">'
        for kind in one.answered:
            yield f"<representation mediaType={quoteattr(kind)}/>"
        yield "</response></method>"
    yield "</resource>"


def _template(path: str) -> str:
    """The path as a URI template (RFC 6570)."""
    return path.replace("{path:path}", "{+path}")
