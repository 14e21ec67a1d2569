"""Operations on any resource: $validate, $meta, $meta-add and $meta-delete (FHIR R4 3.2, 3.1.0)."""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes made below.

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from exchange import labels
from exchange.errors import ExchangeError
from exchange.labels import Label
from exchange_fhir import (
    interactions,
    json_format,
    metas,
    negotiation,
    outcome,
    profiled,
    validation,
    writing,
)
from exchange_fhir.answers import Answered
from exchange_fhir.datatypes import Json, present
from exchange_fhir.definitions import elements, search_parameters
from exchange_fhir.interactions import Asked, Here
from exchange_fhir.outcome import Issue, Problem, of_issues
from exchange_fhir.rest_interactions import body
from exchange_fhir.serving import Serving

MODES = frozenset({"create", "update", "delete", "profile"})
"""What $validate may be asked to be about (value set resource-validation-mode)."""

_TOKENS, _URIS = ("_security", "_tag"), ("_profile",)
"""The search parameters of what is a label in a meta."""

_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def operating(serving: Serving, route_class: type[APIRoute]) -> APIRouter:
    """The routes of the operations of `serving`."""
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Body = Annotated[bytes, Depends(body(serving.conduct.body_limit))]  # noqa: N806 - a type

    def validated(request: Request, kind: str, logical_id: str, content: bytes) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        if kind not in elements.resources():
            writing.served(kind)
        resource, mode, profile = _asked(request, content)
        known = profiled.KNOWN.get(profile.partition("|")[0]) == kind
        if profile and not known and not _is_base(profile, kind):
            looked_at = ", ".join(one for one, of in profiled.KNOWN.items() if of == kind)
            told = f"this profile of {kind} is not known here: R4's own definition is"
            raise Problem(400, "not-supported", f"{told}, {looked_at}" if looked_at else told)
        with serving.asked(request, requester) as here:
            found = _found(here, kind, logical_id, resource, mode, profile if known else "")
        ok = [Issue("informational", "nothing is wrong with it", severity="information")]
        content = json_format.serialize(of_issues(found or ok))
        return negotiation.response(Answered(status=200, content=content), written)

    @router.post("/{kind}/$validate")
    def validate_type(request: Request, kind: str, content: Body) -> Response:
        return validated(request, kind, "", content)

    @router.post("/{kind}/{logical_id}/$validate")
    def validate_instance(request: Request, kind: str, logical_id: str, content: Body) -> Response:
        return validated(request, kind, logical_id, content)

    @router.get("/{kind}/{logical_id}/$validate")
    def validate_held(request: Request, kind: str, logical_id: str) -> Response:
        return validated(request, kind, logical_id, b"")

    def in_use(request: Request, kind: str) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        if kind:
            writing.served(kind)
        kinds = (kind,) if kind else search_parameters.kinds()
        with serving.asked(request, requester) as here:
            found = labels.in_use(
                here.access, kinds, tokens=_TOKENS, uris=_URIS, asked=kind or "all types"
            )
        return negotiation.response(metas.told(_of_labels(found)), written)

    @router.get("/$meta")
    def meta_of_all(request: Request) -> Response:
        return in_use(request, "")

    @router.get("/{kind}/$meta")
    def meta_of_type(request: Request, kind: str) -> Response:
        return in_use(request, kind)

    @router.get("/{kind}/{logical_id}/$meta")
    def meta(request: Request, kind: str, logical_id: str) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        with serving.asked(request, requester) as here:
            answered = interactions.read(here, Asked(kind=kind, logical_id=logical_id))
        return negotiation.response(metas.answer(answered.content), written)

    @router.get("/{kind}/{logical_id}/_history/{version}/$meta")
    def meta_of_version(request: Request, kind: str, logical_id: str, version: str) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        asked = Asked(kind=kind, logical_id=logical_id, version=version)
        with serving.asked(request, requester) as here:
            answered = interactions.vread(here, asked)
        return negotiation.response(metas.answer(answered.content), written)

    @router.post("/{kind}/{logical_id}/$meta-add")
    def meta_add(request: Request, kind: str, logical_id: str, content: Body) -> Response:
        return changed(request, kind, logical_id, content, "$meta-add")

    @router.post("/{kind}/{logical_id}/$meta-delete")
    def meta_delete(request: Request, kind: str, logical_id: str, content: Body) -> Response:
        return changed(request, kind, logical_id, content, "$meta-delete")

    def changed(
        request: Request,
        kind: str,
        logical_id: str,
        content: bytes,
        operation: str,
    ) -> Response:
        requester = serving.identify(request)
        written = negotiation.negotiated(request)
        parameters = negotiation.resource(content, request.headers.get("content-type", ""))
        change = metas.change(operation, parameters)
        headers = negotiation.headers(request)
        asked = Asked(kind=kind, logical_id=logical_id, headers=headers, change=lambda: change)
        with serving.asked(request, requester) as here:
            answered = interactions.done(here, interactions.patch(here, asked))
        return negotiation.response(metas.answer(answered.content), written)

    return router


# -- $validate ------------------------------------------------------------------------------------


def _asked(request: Request, content: bytes) -> tuple[Json | None, str, str]:
    """The resource that is to be validated, for what, and against which profile."""
    mode = request.query_params.get("mode", "")
    profile = request.query_params.get("profile", "")
    resource: Json | None = None
    if content.strip():
        resource = negotiation.resource(content, request.headers.get("content-type", ""))
        if resource.get("resourceType") == "Parameters":
            listed = resource.get("parameter")
            given = [one for one in listed if isinstance(one, dict)] if listed else []
            named = {one.get("name"): one for one in given}
            told = named.get("resource", {}).get("resource")
            mode = str(named.get("mode", {}).get("valueCode", mode))
            named_profile = named.get("profile", {})
            profile = str(
                named_profile.get("valueUri", named_profile.get("valueCanonical", profile))
            )
            resource = told if isinstance(told, dict) else None
    if mode and mode not in MODES:
        raise Problem(400, "invalid", f"mode is one of {', '.join(sorted(MODES))}")
    return resource, mode, profile


def _is_base(profile: str, kind: str) -> bool:
    """Whether a profile is R4's own definition of the type, by which everything is checked."""
    told, _, version = profile.partition("|")
    base = told.removeprefix("http://hl7.org/fhir/StructureDefinition/")
    return base in {kind, "Resource"} and version in {"", "4.0", "4.0.1"} and base != told


def _found(
    here: Here, kind: str, logical_id: str, resource: Json | None, mode: str, profile: str
) -> list[Issue]:
    """What would be wrong with the interaction, or with what is to be of a profile."""
    try:
        if mode == "delete":
            writing.writable(kind)
            interactions.read(here, Asked(kind=kind, logical_id=logical_id))
            return []
        if resource is None:
            if not logical_id:
                raise Problem(400, "required", "a resource is expected")
            answered = interactions.read(here, Asked(kind=kind, logical_id=logical_id))
            resource = json_format.parse(answered.content)
        elif mode == "update" or logical_id:
            told = logical_id or str(resource.get("id", ""))
            interactions.read(here, Asked(kind=kind, logical_id=told))
        validation.check(resource, kind)
        if profile and (lacking := list(profiled.missing(resource, profile))):
            at = f"{kind}.extension"
            issues = [Issue("business-rule", one, at) for one in lacking]
            raise Problem(422, "business-rule", lacking[0], issues=issues)
        if mode in {"create", "update"}:
            writing.writable(kind)
            writing.resolved(resource)
            writing.validated(resource, here.place, str(resource.get("id", "validated")))
    except Problem as problem:
        if problem.answer.code == "required" and not problem.issues[0].expression:
            raise
        return list(problem.issues)
    except ExchangeError as error:
        return [Issue(outcome.HTTP[type(error)].code, str(error))]
    stated = resource.get("meta", {}).get("profile", ())
    unknown = (one for one in stated if profiled.KNOWN.get(one.partition("|")[0]) != kind)
    if profiles := [one for one in unknown if not _is_base(one, kind)]:
        told = f"the profiles of the resource are not looked at: {len(profiles)}"
        return [Issue("not-supported", told, f"{kind}.meta.profile", severity="warning")]
    return []


# -- $meta ----------------------------------------------------------------------------------------


def _of_labels(found: Sequence[Label]) -> Json:
    """The labels in use, as the meta of a resource that bears all of them."""
    told: dict[str, list[Json | str]] = {}
    for one in found:
        code = one.parameter.removeprefix("_")
        coding = present(system=one.system, code=one.value)
        if one.parameter in _URIS or coding:
            told.setdefault(code, []).append(one.value if one.parameter in _URIS else coding)
    # No element of FHIR is empty, and a parameter has a value (ele-1, inv-1).
    return dict(told) or {"extension": [{"url": _ABSENT, "valueCode": "not-applicable"}]}
