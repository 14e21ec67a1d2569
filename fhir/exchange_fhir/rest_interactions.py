"""The routes of the interactions that read, write and look back (FHIR R4 3.1.0.1 to 3.1.0.11)."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange.attachments import Arriving, Attachment
from exchange.errors import TooLarge
from exchange.policy import Action
from exchange_fhir import (
    binary,
    interactions,
    json_format,
    negotiation,
    patching,
    validation,
    writing,
)
from exchange_fhir.answers import Answered
from exchange_fhir.bundle import SHOWN
from exchange_fhir.datatypes import Json
from exchange_fhir.interactions import Asked, Pairs
from exchange_fhir.moments import span
from exchange_fhir.negotiation import Return
from exchange_fhir.outcome import Problem
from exchange_fhir.primitives import moment
from exchange_fhir.serving import Serving

PIECE = 256 << 10
"""Bytes of content that go into the store at once, each time with a change of threads."""


def body(limit: int) -> Callable[[Request], Awaitable[bytes]]:
    """What reads a request's body, of `limit` bytes at most, without its content coding."""

    async def read(request: Request) -> bytes:
        if int(request.headers.get("content-length", "0")) > limit:
            raise TooLarge(f"a body may have at most {limit} bytes")
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > limit:
                raise TooLarge(f"a body may have at most {limit} bytes")
        return negotiation.unpacked(bytes(content), request, limit)

    return read


def sent(serving: Serving) -> Callable[[Request], AsyncIterator[bytes | Attachment]]:
    """What reads a request's body, or has the content of a Binary that comes as itself go into the
    store as it comes: of whoever may record something."""
    whole = body(serving.conduct.body_limit)

    def may_record(request: Request) -> None:
        with serving.exchange.on_behalf_of(serving.identify(request)) as access:
            access.require(Action.RECORD)

    async def read(request: Request) -> AsyncIterator[bytes | Attachment]:
        if not _as_itself(request):
            yield await whole(request)
            return
        await to_thread.run_sync(may_record, request)
        with Arriving(serving.exchange.objects, serving.conduct.binary_limit) as arriving:
            gathered = bytearray()
            async for piece in request.stream():
                gathered += piece
                if len(gathered) >= PIECE:
                    await to_thread.run_sync(arriving.write, bytes(gathered))
                    gathered.clear()
            await to_thread.run_sync(arriving.write, bytes(gathered))
            yield arriving.arrived()

    return read


def _as_itself(request: Request) -> bool:
    """Whether the content of a Binary comes in its own type, and as it is."""
    return (
        request.path_params.get("kind") == "Binary"
        and not negotiation.is_fhir(request.headers.get("content-type", ""))
        and (negotiation.header(request, "content-encoding") or "identity").strip().lower()
        == "identity"
    )


def interacting(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    whole = body(serving.conduct.body_limit)
    Body = Annotated[bytes, Depends(whole)]  # noqa: N806 - a type
    Sent = Annotated[bytes | Attachment, Depends(sent(serving))]  # noqa: N806 - a type

    def looked_back(request: Request, kind: str = "", logical_id: str = "") -> Response:
        requester = serving.identify(request)
        asked = Asked(kind=kind, logical_id=logical_id)
        address = "/".join(part for part in (kind, logical_id, "_history") if part)
        given: Pairs = request.query_params.multi_items()
        after: Any = None
        if token := request.query_params.get("_page"):
            given, after = serving.pages.unseal(requester, address, token)
        written = negotiation.negotiated(request, [*given, *request.query_params.multi_items()])
        past = _past(given, serving)

        def following(after: Any) -> str:
            page = serving.pages.seal(requester, address, past.used, after)
            return f"{serving.base(request)}/{address}?_page={page}"

        with serving.asked(request, requester) as here:
            content = interactions.history(here, asked, past, after, following)
        return negotiation.response(Answered(status=200, content=content), written)

    def changed(
        request: Request, method: str, asked: Asked, content: bytes | Attachment = b""
    ) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        asked = replace(
            asked,
            query=request.query_params.multi_items(),
            headers=negotiation.headers(request),
        )
        with serving.asked(request, requester) as here:
            act = interactions.ACTS[method](here, asked)
            if isinstance(content, Attachment):
                act = writing.attaching(act, content)
            answered = interactions.done(here, act, asked.body)
        prefer = negotiation.returning(request)
        if prefer is Return.REPRESENTATION and answered.lying is not None:
            if answered.lying.size > serving.conduct.body_limit:
                prefer = Return.MINIMAL  # it was just sent, and would be a third more text
            else:
                answered = binary.whole(answered)
        return negotiation.response(answered, written, prefer=prefer)

    @router.get("/$versions")
    def versions(request: Request) -> Response:
        written = negotiation.negotiated(request)
        return negotiation.response(interactions.versions(), written)

    @router.get("/_history")
    def system_history(request: Request) -> Response:
        return looked_back(request)

    @router.get("/{kind}/_history")
    def type_history(request: Request, kind: str) -> Response:
        return looked_back(request, kind)

    @router.get("/{kind}/{logical_id}/_history")
    def instance_history(request: Request, kind: str, logical_id: str) -> Response:
        return looked_back(request, kind, logical_id)

    @router.get("/{kind}/{logical_id}/_history/{version}")
    def vread(request: Request, kind: str, logical_id: str, version: str) -> Response:
        requester = serving.identify(request)
        asked = Asked(kind=kind, logical_id=logical_id, version=version, apart=True)
        with serving.asked(request, requester) as here:
            answered = interactions.vread(here, asked)
        return _read(request, kind, answered, serving.sent)

    @router.get("/{kind}/{logical_id}")
    def read(request: Request, kind: str, logical_id: str) -> Response:
        requester = serving.identify(request)
        headers = negotiation.headers(request)
        asked = Asked(kind=kind, logical_id=logical_id, headers=headers, apart=True)
        with serving.asked(request, requester) as here:
            answered = interactions.read(here, asked)
        return _read(request, kind, answered, serving.sent)

    @router.post("/{kind}")
    def create(request: Request, kind: str, content: Sent) -> Response:
        asked = Asked(kind=kind, body=_resource(request, kind, content))
        return changed(request, "POST", asked, content)

    @router.put("/{kind}")
    def conditional_update(request: Request, kind: str, content: Sent) -> Response:
        asked = Asked(kind=kind, body=_resource(request, kind, content))
        return changed(request, "PUT", asked, content)

    @router.put("/{kind}/{logical_id}")
    def update(request: Request, kind: str, logical_id: str, content: Sent) -> Response:
        resource = _resource(request, kind, content, logical_id)
        asked = Asked(kind=kind, logical_id=logical_id, body=resource)
        return changed(request, "PUT", asked, content)

    @router.patch("/{kind}")
    def conditional_patch(request: Request, kind: str, content: Body) -> Response:
        return changed(request, "PATCH", Asked(kind=kind, change=_change(request, content)))

    @router.patch("/{kind}/{logical_id}")
    def patch(request: Request, kind: str, logical_id: str, content: Body) -> Response:
        change = _change(request, content)
        return changed(request, "PATCH", Asked(kind=kind, logical_id=logical_id, change=change))

    @router.delete("/{kind}")
    def conditional_delete(request: Request, kind: str) -> Response:
        return changed(request, "DELETE", Asked(kind=kind))

    @router.delete("/{kind}/{logical_id}")
    def delete(request: Request, kind: str, logical_id: str) -> Response:
        return changed(request, "DELETE", Asked(kind=kind, logical_id=logical_id))

    return router


def _read(request: Request, kind: str, answered: Answered, send: binary.Send) -> Response:
    if kind == "Binary":
        content = binary.response(request, answered, send)
        if content is not None:
            return content
        return binary.as_fhir(answered, negotiation.negotiated(request))
    return negotiation.response(answered, negotiation.negotiated(request))


def _resource(
    request: Request, kind: str, content: bytes | Attachment, logical_id: str = ""
) -> Callable[[], Json]:
    told = request.headers.get("content-type", "")

    def parsed() -> Json:
        if isinstance(content, Attachment) or (kind == "Binary" and not negotiation.is_fhir(told)):
            return binary.resource(request, content, logical_id)
        return negotiation.resource(content, told)

    return parsed


def _change(request: Request, content: bytes) -> Callable[[], patching.Change]:
    def read() -> patching.Change:
        if not content.strip():
            raise Problem(400, "structure", "the body is empty: a patch is expected")
        if negotiation.media_type(request) == patching.MEDIA_TYPE:
            return patching.json_patch(content)
        told = request.headers.get("content-type", "")
        if negotiation.media_type(request) == patching.MERGE:
            return patching.merge_patch(json_format.parse(content))
        if not negotiation.is_fhir(told):
            allowed = f"a patch is {patching.MEDIA_TYPE}, {patching.MERGE}, or Parameters"
            raise Problem(415, "not-supported", allowed)
        parameters = negotiation.resource(content, told)
        plain = negotiation.media_type(request) == "application/json"
        if plain and parameters.get("resourceType") != "Parameters":
            return patching.merge_patch(parameters)
        validation.check(parameters, "Parameters")
        return patching.fhirpath_patch(parameters)

    return read


def _past(given: Pairs, serving: Serving) -> interactions.Past:
    """The question that the parameters of a history ask. Raises Problem."""
    count, since, at = interactions.HISTORY, None, None
    used: list[tuple[str, str]] = []
    for name, value in given:
        match name:
            case "_count":
                if not (value.isdecimal() and value.isascii() and len(value) < 10):
                    raise Problem(400, "invalid", "_count is a number of entries")
                count = min(int(value), interactions.MOST_HISTORY)
                value = str(count)
            case "_since":
                try:
                    since = moment(value.replace(" ", "+")).astimezone(UTC)
                except (ValueError, OverflowError):
                    raise Problem(400, "invalid", "_since is an instant") from None
            case "_at":
                at = interactions.span_of(span(value.replace(" ", "+"), serving.timezone))
            case "_page":
                continue
            case _ if name in SHOWN:
                pass
            case _:
                # Unlike those of a search, what is left out here would show too much.
                told = "of a history there are _count, _since, _at, _summary and _elements"
                raise Problem(400, "not-supported", told)
        used.append((name, value))
    if ("_summary", "count") in used:
        count = 0
    return interactions.Past(count=count, since=since, at=at, used=used)
