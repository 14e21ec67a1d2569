"""A hospital's own feed of its patients: Patients that are written (IHE PIXm ITI-104, R4 8.1).

What has a column of the patient's record goes there, since images, orders and the search of people
live by it; the whole is kept as it came, and comes back on read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from exchange import clinical, identity, registration
from exchange.access import Access
from exchange.errors import NotFound
from exchange.recording import Act, Finder
from exchange.registration import Register, Registration, Withdraw
from exchange.writing import expect
from exchange_fhir import (
    elements,
    indexing,
    json_format,
    patching,
    validation,
)
from exchange_fhir.datatypes import HAN, REPRESENTATION, Json, instant
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.resources import patient
from exchange_fhir.writing import Place, if_match, of_id, resolved, settled
from exchange_storage import names

_SEXES: Mapping[str, str] = {gender: sex for sex, gender in patient.GENDERS.items()}
_GROUPS = ("ABC", "IDE", "SYL")
"""The component groups of PN in their order (PS3.5 section 6.2), by EN-representation's codes."""


def create(access: Access, resource: Json, place: Place, *, unless: Finder | None = None) -> Act:
    """The act of a create: the hospital tells of a patient for the first time."""
    validation.check(resource, "Patient")
    return Register(_registration(access, resource, place), unless=unless, new=True)


def update(
    access: Access,
    resource: Json,
    place: Place,
    logical_id: str,
    headers: Mapping[str, str],
    *,
    matching: Finder | None = None,
) -> Act:
    """The act of an update, of the record that is named or that `matching` finds."""
    validation.check(resource, "Patient")
    told = resource.get("id")
    if logical_id and told != logical_id:
        wrong = "the id of the resource is to be that in the address"
        raise Problem(400, "invalid", wrong, issues=[Issue("invalid", wrong, "Patient.id")])
    return Register(
        _registration(access, resource, place),
        patient=_row(logical_id) if logical_id else None,
        matching=of_id(matching, told) if matching else None,
        if_match=if_match(headers),
        if_none=headers.get("if-none-match", "").strip() == "*",
    )


def patch(
    access: Access,
    current: Callable[[str], Json],
    change: patching.Change,
    place: Place,
    logical_id: str,
    headers: Mapping[str, str],
    *,
    matching: Finder | None = None,
) -> Act:
    """The act of a patch of the record as it is served; `current` reads it. With `matching` it is
    to be the one that is found."""
    held = current(logical_id)
    made = change(held)
    if made.get("id") != held["id"] or made.get("resourceType") != "Patient":
        told = "a patch changes neither the type of a resource nor its id"
        raise Problem(422, "processing", told)
    if held.get("active") is made.get("active") is False:
        made = _as_active_as_written(access, made, logical_id)
    version = int(held.get("meta", {}).get("versionId", 0))
    expect(if_match(headers), version)
    of_version = {**headers, "if-match": f'W/"{version}"'}
    return update(access, made, place, logical_id, of_version, matching=matching)


def _as_active_as_written(access: Access, made: Json, logical_id: str) -> Json:
    """A patched Patient that says of being active what the hospital wrote.

    A merged record is served as not active (R4 8.1.5): once no other stands in its place, it is
    what it was. Who sends the whole Patient says by that whether it is active.
    """
    kept = clinical.changeable(access, "Patient", logical_id)
    written = {} if kept is None else json_format.parse(kept.content)
    rest = {name: value for name, value in made.items() if name != "active"}
    return rest | ({"active": written["active"]} if "active" in written else {})


def delete(logical_id: str, headers: Mapping[str, str], *, matching: Finder | None = None) -> Act:
    """The act of a delete: a record of which nothing is held is taken back."""
    row = next(iter(patient.rows(logical_id)), 0)  # no record has this number
    return Withdraw(row, matching=matching, if_match=if_match(headers))


def completed(derived: Json, written: bytes | None) -> Json:
    """A Patient as it is served: what the hospital wrote, and what only the exchange knows.

    That is its links to the same person's records, whose record it is, that it was merged, and
    identifiers that came with images.
    """
    if written is None:
        return derived
    told = json_format.parse(written)
    known = {(one.get("system"), one.get("value")) for one in told.get("identifier", ())}
    brought = [
        one
        for one in derived.get("identifier", ())
        if (one.get("system"), one.get("value")) not in known
    ]
    written_links = [_led(one, derived) for one in told.get("link", ())]
    linked = {_named(one) for one in written_links}
    others = [one for one in derived.get("link", ()) if _named(one) not in linked]
    links = [*written_links, *others]
    return (
        told
        | ({} if derived["active"] else {"active": False})
        | {"identifier": [*told.get("identifier", ()), *brought]}
        | {"managingOrganization": derived["managingOrganization"]}
        | ({"link": links} if links else {})
    )


def _led(link: Json, derived: Json) -> Json:
    """A link that was told by a number, with the reference to the record of that number."""
    if link["type"] != "replaced-by" or "reference" in link["other"]:
        return link
    for one in derived.get("link", ()):
        if one["type"] == "replaced-by":
            return link | {"other": link["other"] | {"reference": one["other"]["reference"]}}
    return link


def _named(link: Json) -> str:
    """The record that a link leads to, however its address was written."""
    address = str(link.get("other", {}).get("reference", "")).partition("/_history/")[0]
    return "/".join(address.rsplit("/", 2)[-2:])


def _row(logical_id: str) -> int:
    for row in patient.rows(logical_id):
        return row
    raise NotFound("no such patient record: the exchange numbers them; create it by POST")


def _registration(access: Access, resource: Json, place: Place) -> Registration:
    resolved(resource)
    identifiers = [
        (str(one.get("system", "")), str(one["value"]))
        for one in resource.get("identifier", ())
        if one.get("value")
    ]
    number = registration.own_number(access, identifiers)
    name, further = names_of(resource.get("name", ()))
    meta, rest = settled(resource)
    # Whom else the person is at other hospitals is for the exchange to tell, each time anew.
    links = [one for one in rest.pop("link", ()) if not _sees_patient(one, place)]
    rest |= {"link": links} if links else {}

    def render(named: str, version: int, at: datetime) -> bytes:
        stamp = {"versionId": str(version), "lastUpdated": instant(at)}
        head = {"resourceType": "Patient", "id": named, "meta": stamp | meta}
        return json_format.serialize(head | rest)

    return Registration(
        number=number,
        name=name,
        further_names=further,
        birth_date=str(resource.get("birthDate", "")).replace("-", ""),
        sex=_SEXES.get(resource.get("gender", ""), ""),
        address=_address(resource.get("address", ())),
        telephone="\\".join(
            _plain(one["value"])
            for one in resource.get("telecom", ())
            if one.get("system") in {"phone", "sms"} and one.get("value")
        ),
        mothers_birth_name=next(
            (
                str(one["valueString"])
                for one in resource.get("extension", ())
                if one["url"] == patient.MOTHERS_MAIDEN_NAME and "valueString" in one
            ),
            "",
        ),
        identifiers=tuple(
            (_issuer(system), value) for system, value in identifiers if value != number
        ),
        **_replaced_by(access, resource, place),
        values=indexing.values({**resource, "link": links}, place.timezone, place.base),
        render=render,
    )


def _issuer(system: str) -> str:
    return (
        identity.RESIDENT_ID if system == patient.RESIDENT_ID else system.removeprefix("urn:oid:")
    )


def _sees_patient(link: Json, place: Place) -> bool:
    """Whether it leads to another record of the person, rather than to a RelatedPerson."""
    told = link["other"].get("reference", "")
    kind = elements.target(told, f"{place.base}/")[0] or link["other"].get("type")
    return link["type"] == "seealso" and kind != "RelatedPerson"


def _replaced_by(access: Access, resource: Json, place: Place) -> dict[str, Any]:
    """Which record stands in its place: by its address here, or by the hospital's own number.

    IHE PIXm ITI-104 (2:3.104.4.2.2) tells the surviving patient's identifier.
    """
    for one in resource.get("link", ()):
        if one["type"] != "replaced-by":
            continue
        other = one["other"]
        kind, logical_id = elements.target(other.get("reference", ""), f"{place.base}/")
        if kind == "Patient":
            return {"replaced_by": _row(logical_id)}
        told = other.get("identifier", {})
        if "reference" not in other and told.get("value"):
            pair = (str(told.get("system", "")), str(told["value"]))
            return {"replaced_by_number": registration.own_number(access, [pair])}
        wrong = "a patient is replaced by a Patient of this server, or by a number of the hospital"
        raise Problem(422, "invalid", wrong, issues=[Issue("invalid", wrong, "Patient.link")])
    return {}


def names_of(told: Sequence[Json]) -> tuple[str, tuple[str, ...]]:
    """The name as PN, its writings in its groups, and the other names likewise."""
    groups: dict[str, str] = {}
    further: list[str] = []
    first = next((one for one in told if one.get("use") == "official"), None)
    first = first or next(iter(told), None)
    for one in told:
        representation, group = _group(one)
        same = first is not None and one.get("use") == first.get("use")
        if group and same and representation not in groups and one.get("use") != "old":
            groups[representation] = group
        elif group:
            alone = {representation: group}
            further.append("=".join(alone.get(kind, "") for kind in _GROUPS).rstrip("="))
    return "=".join(groups.get(kind, "") for kind in _GROUPS).rstrip("="), tuple(further)


def _group(name: Json) -> tuple[str, str]:
    """How a name is written, and its component group."""
    given = [_plain(one) for one in name.get("given", ()) if one]
    family, text = _plain(name.get("family", "")), _plain(name.get("text", ""))
    if not family and not given:
        family = text
        if HAN.search(text):
            family, first = names.split_hanzi("".join(text.split()))
            given = [first]
    components = [
        family,
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(_plain(one) for one in name.get("prefix", ()) if one),
        " ".join(_plain(one) for one in name.get("suffix", ()) if one),
    ]
    group = "^".join(components).rstrip("^")
    said = {
        one.get("valueCode") for one in name.get("extension", ()) if one["url"] == REPRESENTATION
    }
    representation = next((kind for kind in _GROUPS if kind in said), "")
    return representation or ("IDE" if HAN.search(group) else "ABC"), group


def _plain(text: Any) -> str:
    """A text without what separates parts of a DICOM value."""
    return re.sub(r"[\\^=]", " ", str(text)).strip()


def _address(told: Sequence[Json]) -> str:
    for one in told:
        if one.get("text"):
            return str(one["text"])
        parts = [one.get(part, "") for part in ("state", "city", "district")]
        parts += [*one.get("line", ()), one.get("postalCode", ""), one.get("country", "")]
        return " ".join(str(part) for part in parts if part)
    return ""
