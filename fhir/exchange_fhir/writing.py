"""What a client sends becomes an act of the exchange (FHIR R4 3.1.0.4 to 3.1.0.9).

A resource is validated, gets its id, and the values under which it is found; how the exchange
keeps it, and whether it may, is `exchange.recording`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from exchange import attachments, clinical
from exchange.attachments import Attachment
from exchange.errors import Invalid
from exchange.recording import (
    Act,
    Create,
    Delete,
    Draft,
    Expected,
    Finder,
    Patch,
    Update,
    new_id,
)
from exchange.reindex import Said
from exchange.subscriptions import Terms
from exchange_fhir import (
    consenting,
    elements,
    indexing,
    json_format,
    links,
    ordering,
    patching,
    subscribing,
    subset,
    validation,
)
from exchange_fhir.datatypes import Json, instant
from exchange_fhir.definitions import search_parameters
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.resources import patient

DERIVED: Mapping[str, str] = {
    "ImagingStudy": "an ImagingStudy comes of the images: store them by C-STORE or STOW-RS; of its "
    "versions the current one is there, by vread and in history, earlier ones are not kept",
    "AuditEvent": "an AuditEvent is the exchange's own record of what was done; administrators "
    "read them, those of a hospital what its people did and what was done with its patients",
    "Person": "a Person is what the exchange knows of who the patients of several hospitals are, "
    "as far as the asker may see their records",
}
"""What is not written by clients, and how it comes about."""

CURRENT = frozenset({"ImagingStudy"})
"""What of it changes, so that it has versions, of which the current one alone is there."""

NATIVE = frozenset({"Patient", *DERIVED})
"""What the exchange keeps in records of its own, not as versions of JSON."""


ABOUT: Mapping[str, str] = {"Provenance": "target"}
"""Kinds that are about other resources, whoever those are about, and the element that says so."""

_TAG = re.compile(r'(?:W/)?(?:"([A-Za-z0-9\-.]{1,64})"|([A-Za-z0-9\-.]{1,64}))', re.ASCII)
_OF_PATIENT = re.compile(r"(?:^|/)Patient/")

Unknown = Callable[[frozenset[tuple[str, str]]], frozenset[tuple[str, str]]]
"""Those of some resources, by type and logical id, that the asker cannot read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where resources are written: the server's address, the hospitals' zone, and its customs."""

    base: str
    """The address of this FHIR server, without a slash at its end."""
    timezone: ZoneInfo
    update_creates: bool = True
    """Whether a PUT to an id that is not known creates the resource."""
    unknown: Unknown | None = None
    """Which of the resources that are referred to are not here; None where any are taken."""
    plain_http: bool = False
    """Whether subscribers may be notified without encryption."""


def writable(kind: str) -> None:
    """Raise Problem unless clients write resources of this kind."""
    if kind in DERIVED:
        raise Problem(405, "not-supported", DERIVED[kind], allow="GET")
    served(kind)


def served(kind: str) -> None:
    """Raise Problem unless resources of this kind are served."""
    if kind not in search_parameters.kinds():
        known = ", ".join(search_parameters.kinds())
        told = f"this resource type is not served; there are {known}"
        raise Problem(404, "not-supported", told)


def create(resource: Json, place: Place, *, unless: Finder | None = None) -> Act:
    """The act of a create. Raises Problem with every issue of the resource."""
    return Create(draft(resource, place, new_id()), unless)


def attaching(act: Act, attachment: Attachment) -> Act:
    """The act of a create or update, with the content for which something stands in its draft."""
    if not isinstance(act, Create | Update):
        raise TypeError("only what is created or updated has content of its own")
    return replace(act, draft=replace(act.draft, attachment=attachment))


def update(resource: Json, place: Place, logical_id: str, headers: Mapping[str, str]) -> Act:
    """The act of an update. Raises Problem."""
    told = resource.get("id")
    if told != logical_id:
        wrong = "the id of the resource is to be that in the address"
        kind = resource.get("resourceType")
        raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, f"{kind}.id")])
    return Update(
        draft(resource, place, logical_id),
        if_match=if_match(headers),
        if_none=headers.get("if-none-match", "").strip() == "*",
        may_create=place.update_creates,
    )


def update_matching(
    resource: Json, place: Place, matching: Finder, headers: Mapping[str, str]
) -> Act:
    """The act of a conditional update. Raises Problem."""
    named = resource.get("id")
    made = draft(resource, place, named if isinstance(named, str) else new_id())
    return Update(made, matching=of_id(matching, named), if_match=if_match(headers))


def of_id(matching: Finder, named: Any) -> Finder:
    """What `matching` finds, which is to be what was sent, if that has an id (R4 3.1.0.4.3)."""

    def found(session: Any) -> Sequence[str]:
        ids = matching(session)
        if named is not None and len(ids) == 1 and ids[0] != named:
            raise Invalid("the resource that matches has another id than the one that was sent")
        return ids

    return found


def patch(
    kind: str,
    logical_id: str,
    change: patching.Change,
    place: Place,
    headers: Mapping[str, str],
    *,
    matching: Finder | None = None,
) -> Act:
    """The act of a patch; what it makes of the resource is validated. Raises Problem."""

    def changed(content: bytes) -> Draft:
        held = json_format.parse(content)
        made = change(held)
        if made.get("id") != held["id"] or made.get("resourceType") != kind:
            told = "a patch changes neither the type of a resource nor its id"
            raise Problem(422, "processing", told)
        return draft(made, place, held["id"])

    return Patch(kind, logical_id, changed, matching=matching, if_match=if_match(headers))


def delete(
    kind: str, logical_id: str, headers: Mapping[str, str], *, matching: Finder | None = None
) -> Act:
    """The act of a delete. Raises Problem."""
    return Delete(kind, logical_id, matching=matching, if_match=if_match(headers))


def draft(resource: Json, place: Place, logical_id: str) -> Draft:
    """The draft of a resource under a logical id. Raises Problem with every issue."""
    kind = resource.get("resourceType")
    validation.check(resource, kind if isinstance(kind, str) else "Resource")
    resolved(resource)
    return validated(resource, place, logical_id)


def resolved(resource: Json) -> None:
    """Raise Problem where a valid resource has a link that a transaction would resolve, and that
    nobody could follow as it stands (R4 3.1.0.11.2)."""
    told = "outside a transaction nothing is found by a condition, urn:uuid or urn:oid: name it"
    found = sorted(links.unresolved(resource))
    issues = [Issue("invalid", told, links.place(resource, link)) for link in found]
    if issues:
        raise Problem(400, "invalid", told, issues=issues)


def validated(resource: Json, place: Place, logical_id: str) -> Draft:
    """The draft of a resource that is valid. Raises Problem."""
    kind: str = resource["resourceType"]
    if subset.is_part(resource):
        told = "a resource that is tagged SUBSETTED is but a part: read the whole, and change that"
        place_of = f"{kind}.meta.tag"
        raise Problem(422, "business-rule", told, issues=[Issue("business-rule", told, place_of)])
    if place.unknown is not None and (missing := place.unknown(links.local(resource, place.base))):
        raise Problem(422, "not-found", "", issues=_dangling(resource, place.base, missing))
    terms: Terms | None = None
    if kind == clinical.SUBSCRIPTION:
        resource, terms = subscribing.read(resource, place.base, plain_http=place.plain_http)
    return replace(plain(resource, place, logical_id), terms=terms)


def plain(resource: Json, place: Place, logical_id: str) -> Draft:
    """The draft of a resource as it is. Raises Problem for a patient who is not known."""
    kind: str = resource["resourceType"]
    meta, rest = settled(resource)
    patients = _patients(resource, place)
    sharing = consenting.statements(resource, place.timezone) if kind == "Consent" else ()
    if sharing and not patients:
        told = "whoever decides on sharing is referred to as a Patient of this server"
        issues = [Issue("business-rule", told, "Consent.patient")]
        raise Problem(422, "business-rule", told, issues=issues)

    def render(named: str, version: int, at: datetime) -> bytes:
        stamp = {"versionId": str(version), "lastUpdated": instant(at)}
        head = {"resourceType": kind, "id": named, "meta": stamp | meta}
        return json_format.serialize(head | rest)

    return Draft(
        kind=kind,
        logical_id=logical_id,
        patients=patients,
        targets=_targets(resource, place),
        values=indexing.values(resource, place.timezone, place.base),
        sharing=sharing,
        order=ordering.order(resource, place.base, place.timezone),
        attachment=attachments.attachment(resource.get("data", "")) if kind == "Binary" else None,
        render=render,
    )


def said(content: bytes, place: Place) -> Said:
    """What a resource that is kept says of itself: under what it is found, and whom it is about."""
    resource = json_format.parse(content)
    try:
        patients = (
            patient.rows(resource["id"])
            if resource["resourceType"] == "Patient"
            else _patients(resource, place)
        )
    except Problem:
        patients = None
    values = indexing.values(resource, place.timezone, place.base)
    return Said(values, patients, _targets(resource, place))


def settled(resource: Json) -> tuple[Json, Json]:
    """The meta that a client settles, and all of a resource but its type, id and meta."""
    meta = {
        name: value
        for name, value in resource.get("meta", {}).items()
        if name.lstrip("_") not in {"versionId", "lastUpdated"}
    }
    told = {"resourceType", "id", "meta"}
    return meta, {name: value for name, value in resource.items() if name not in told}


def _dangling(resource: Json, base: str, missing: frozenset[tuple[str, str]]) -> Sequence[Issue]:
    told = "a reference leads to nothing that is here: "
    found = links.places(resource, base)
    return [
        Issue("not-found", f"{told}{'/'.join(named)}", found.get(named, ""))
        for named in sorted(missing)
    ]


def _patients(resource: Json, place: Place) -> tuple[int, ...]:
    if resource["resourceType"] in clinical.DIRECTORY:
        # In no compartment by the standard, such as a Device with its patient: but whoever names
        # a patient anywhere tells of them, and that is not for the whole region.
        if any(one.get("resourceType") == "Patient" for one in resource.get("contained", ())):
            told = "a patient is referred to, not contained, in what the directory may show"
            raise Problem(422, "business-rule", told)
        if _names_a_stranger(resource, f"{place.base}/"):
            told = "a patient is referred to as Patient/id of this server in what the directory may"
            raise Problem(422, "business-rule", f"{told} show")
        links_here = sorted(links.local(resource, place.base))
        named: tuple[str, ...] = tuple(one for kind, one in links_here if kind == "Patient")
    elif resource["resourceType"] == "Binary":
        # In no compartment by the standard: a patient is its security context, or nobody.
        context = resource.get("securityContext", {}).get("reference", "")
        kind, logical_id = elements.target(context, f"{place.base}/")
        named = (logical_id,) if kind == "Patient" else ()
    else:
        named = indexing.patients(resource, place.base)
    rows = [patient.rows(one) for one in named]
    if not all(rows):
        told = "a patient that it refers to is not known"
        where = links.places(resource, place.base)
        at = next(where.get(("Patient", one), "") for one in named if not patient.rows(one))
        raise Problem(422, "not-found", told, issues=[Issue("not-found", told, at)])
    return tuple(row for found in rows for row in found)


def _targets(resource: Json, place: Place) -> tuple[tuple[str, str], ...]:
    """What a resource is about that is no Patient."""
    element = ABOUT.get(resource["resourceType"], "")
    told = (
        elements.target(str(one.get("reference", "")), f"{place.base}/")
        for one in resource.get(element, ())
    )
    return tuple((kind, named) for kind, named in told if kind not in {"", "Patient"})


def _names_a_stranger(value: Any, base: str) -> bool:
    """Whether something refers to a patient otherwise than to a Patient of this server."""
    if isinstance(value, list):
        return any(_names_a_stranger(one, base) for one in value)
    if not isinstance(value, dict):
        return False
    address = str(value.get("reference", ""))
    if elements.target(address, base)[0] != "Patient" and (
        _OF_PATIENT.search(address) or str(value.get("type", "")).endswith("Patient")
    ):
        return True
    for name, one in value.items():
        # Of the kinds in the directory only a Device has an element for a patient (R4 8.4).
        if name == "patient" and isinstance(one, dict):
            one = {"type": "Patient"} | one
        if _names_a_stranger(one, base):
            return True
    return False


def if_match(headers: Mapping[str, str]) -> Expected | None:
    """Which version is to be the current one, by If-Match (RFC 9110 13.1.1). Raises Problem.

    FHIR's tags are weak, and compared as such all the same (R4 3.1.0.1.3).
    """
    told = headers.get("if-match", "").strip()
    if not told:
        return None
    if told == "*":
        return Expected()
    listed = [one.strip() for one in told.split(",") if one.strip()]
    found = [_TAG.fullmatch(one) for one in listed]
    if not listed or not all(found):
        raise Problem(400, "invalid", 'If-Match is *, or versions with commas between: W/"3"')
    tags = [one[1] or one[2] for one in found if one]
    # Of any other tag there is no version.
    return Expected(frozenset(int(tag) for tag in tags if tag.isdecimal() and len(tag) <= 18))
