"""AuditEvent (FHIR R4 6.4) of a record of the trail, shaped as IHE BALP does: who did what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from exchange import trail
from exchange.audit import Outcome
from exchange.policy import Action
from exchange.retrieval import SENT
from exchange_fhir.datatypes import DCM, DICOM_UID, Json, coding, concept, present, reference
from exchange_fhir.datatypes import text as _text

REST = "audit-event-type"
INTERACTIONS = "http://hl7.org/fhir/restful-interaction"

ACTS: Mapping[Action, tuple[str, str, str]] = {
    Action.AUTHENTICATE: ("110114", "User Authentication", "E"),
    Action.STORE: ("110104", "DICOM Instances Transferred", "C"),
    Action.SEARCH: ("110112", "Query", "E"),
    Action.RETRIEVE: ("110103", "DICOM Instances Accessed", "R"),
    Action.AUDIT: ("110101", "Audit Log Used", "R"),
    Action.ADMINISTER: ("110100", "Application Activity", "U"),
    Action.LINK: ("110110", "Patient Record", "U"),
    Action.COMMIT: ("110103", "DICOM Instances Accessed", "R"),
    Action.ORDER: ("110109", "Order Record", "U"),
    Action.PERFORM: ("110111", "Procedure Record", "U"),
    Action.FORWARD: ("110106", "Export", "R"),
    Action.REJECT: ("110105", "DICOM Study Deleted", "D"),
    Action.DESTROY: ("110105", "DICOM Study Deleted", "D"),
    Action.VERIFY: ("110100", "Application Activity", "E"),
    Action.REVIEW: ("110110", "Patient Record", "U"),
    Action.SHARE: ("110106", "Export", "E"),
    Action.HAND_OUT: ("110106", "Export", "E"),
    Action.RECORD: ("110110", "Patient Record", "U"),
    Action.LOOK_UP: ("110112", "Query", "E"),
    Action.PUBLISH: ("110100", "Application Activity", "U"),
    Action.SCHEDULE: ("110111", "Procedure Record", "C"),
    Action.WORK: ("110111", "Procedure Record", "U"),
    Action.EXPORT: ("110106", "Export", "R"),
    Action.EXPORT_GROUP: ("110106", "Export", "R"),
    Action.SUBSCRIBE: ("110100", "Application Activity", "E"),
}
"""Event ID (PS3.16 CID 400), its meaning, and what is done: C, R, U, D or E(xecute)."""

TRANSFERRED = ("110104", "DICOM Instances Transferred", "C")
"""How a retrieval, route or prior ended: what arrived (PS3.15 A.5.3.7)."""

OUTCOMES: Mapping[Outcome, str] = {
    Outcome.SUCCESS: "0",
    Outcome.REFUSED: "4",
    Outcome.FAILED: "8",
}
_LETTERS = {"create": "C", "update": "U", "patch": "U", "delete": "D", "search-type": "E"}
_NAMED = re.compile(r"([A-Z][A-Za-z]{2,40})/([A-Za-z0-9\-.]{1,64})", re.ASCII)


def to_fhir(told: Mapping[str, Any], hospitals: Mapping[int, str]) -> Json:
    """The AuditEvent of a record, as `audit.Entry.content` wrote it.

    `hospitals` are the codes of organizations by row number.
    """
    action = Action(told["action"])
    number, meaning, letter = TRANSFERRED if _is_transfer(told) else ACTS[action]
    interaction = _interaction(action, told)
    rest = interaction and action is not Action.AUDIT
    return present(
        resourceType="AuditEvent",
        id=str(told["sequence"]),
        meta={"lastUpdated": _instant(told)},
        type=coding(REST, "rest", "RESTful Operation") if rest else coding(DCM, number, meaning),
        subtype=[
            *([coding(INTERACTIONS, interaction)] if interaction else []),
            {"code": action.replace(" ", "-")},
        ],
        action=_LETTERS.get(interaction, "R") if interaction else letter,
        recorded=_instant(told),
        outcome=OUTCOMES[Outcome(told["outcome"])],
        outcomeDesc=_plain(told["reason"]),
        purposeOfEvent=[concept("v3-ActReason", told["purpose"])] if told["purpose"] else None,
        agent=_agents(told, hospitals),
        source=present(
            site=_plain(told["door"]),
            observer={
                "identifier": {"value": "imaging-exchange"},
                "display": "The imaging exchange",
            },
            type=[coding("security-source-type", "4", "Application Server")],
        ),
        entity=_entities(told),
    )


def _is_transfer(told: Mapping[str, Any]) -> bool:
    return bool(told["detail"].get("what") == SENT)


def _plain(value: str) -> str:
    """As a FHIR string; whoever gave a name may have put half of a surrogate pair into it."""
    return _text(value.encode(errors="replace").decode())


def _instant(told: Mapping[str, Any]) -> str:
    return str(told["recorded"]).replace("+00:00", "Z")


def _interaction(action: Action, told: Mapping[str, Any]) -> str:
    """Of what came by the RESTful API, which interaction it was, or ""."""
    if told["door"] != "fhir":
        return ""
    detail = told["detail"]
    if "interaction" in detail:
        return str(detail["interaction"])
    if action is Action.SEARCH or (action is Action.AUDIT and "asked" in detail):
        return "search-type"
    if action in {Action.RETRIEVE, Action.LOOK_UP, Action.AUDIT}:
        if "asked" in detail:
            return "search-type"
        return "vread" if "version" in detail else "read"
    return ""


def _agents(told: Mapping[str, Any], hospitals: Mapping[int, str]) -> list[Json]:
    name = _plain(told["requester"])
    user = present(
        type=concept("v3-ParticipationType", "IRCP", "information recipient"),
        role=[{"coding": [{"code": told["role"]}]}],
        who=present(identifier={"value": name}, display=name) if name else None,
        altId=name,
        name=name,
        requestor=True,
        network=_network(_plain(told["address"])),
    )
    found = [user]
    if person := told.get("person"):
        named = _plain(person["name"])
        found.append(
            present(
                type=concept("v3-ParticipationType", "IRCP", "information recipient"),
                role=[{"text": "verified" if person["verified"] else "as the system says"}],
                who={"identifier": {"value": named}, "display": named},
                altId=named,
                name=named,
                requestor=False,
            )
        )
    if hospital := hospitals.get(told["organization"], ""):
        own = {"text": "the organization for which it was asked"}
        found.append({"type": own, "who": reference("Organization", hospital), "requestor": False})
    return found


def _network(address: str) -> Json:
    if not address:
        return {}
    try:
        ip_address(address)
    except ValueError:
        return {"address": address, "type": "1"}
    return {"address": address, "type": "2"}


def _entities(told: Mapping[str, Any]) -> list[Json]:
    found: list[Json] = []
    detail = told["detail"]
    named: set[tuple[str, str]] = set()
    for patient in trail.of_patients(told):
        named.add(("Patient", str(patient)))
        found.append(
            {
                "what": reference("Patient", patient),
                "type": coding("audit-entity-type", "1", "Person"),
                "role": coding("object-role", "1", "Patient"),
            }
        )
    for study in filter(None, map(_plain, trail.studies(told))):
        named.add(("ImagingStudy", study))
        number = {"system": DICOM_UID, "value": f"urn:oid:{study}"}
        found.append(_resource(reference("ImagingStudy", study) | {"identifier": number}))
    what = _NAMED.fullmatch(str(detail.get("what", "")))
    if what and (what[1], what[2]) not in named:
        found.append(_resource(reference(what[1], what[2])))
    if asked := str(detail.get("asked", "")):
        query: Json = {
            "type": coding("audit-entity-type", "2", "System Object"),
            "role": coding("object-role", "24", "Query"),
        }
        digest = asked.startswith("sha256:")  # of a question too long to be kept
        found.append(
            query
            | ({"detail": [{"type": "digest", "valueString": asked}]} if digest else {})
            | ({} if digest else {"query": asked})
        )
    return found


def _resource(what: Json) -> Json:
    return {
        "what": what,
        "type": coding("audit-entity-type", "2", "System Object"),
        "role": coding("object-role", "4", "Domain Resource"),
    }
