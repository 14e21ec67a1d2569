"""CapabilityStatement (FHIR R4 5.1): what this server does, printed from the tables it works by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from exchange.clinical import SUBSCRIPTION
from exchange_fhir import (
    consenting,
    described,
    near,
    patching,
    question,
    reads,
    special,
    subscribing,
    writing,
)
from exchange_fhir.asking import MAX_DEPTH, SEARCHED, TABLES
from exchange_fhir.datatypes import Json, concept, present
from exchange_fhir.definitions import search_parameters
from exchange_fhir.negotiation import JSON, XML
from exchange_fhir.search import MAX_VALUES
from exchange_fhir.serving import Conduct
from exchange_fhir.topics import TOPICS

FHIR_VERSION = "4.0.1"
DATE = "2026-11-28"
"""When what is stated last changed."""

_SECURITY = (
    "OAuth 2.0 bearer tokens. What a token's holder may see is decided for each record: agreement "
    "of both hospitals, purpose of use, the patient's consent; every access is recorded."
)
_SEARCHING = (
    "Search by GET or by POST to _search. _count (default 50, at most 500; 0 for the total only), "
    "_sort, _include and _revinclude (also :iterate, or :recurse), chains and _has, at most "
    f"{MAX_DEPTH} links of them, by canonical URLs too. The matches are counted with "
    "_total=accurate (or estimate) or _summary=count; else total is told "
    "only where the last match is on the page. A page of large "
    f"resources may hold fewer than _count; a search takes at most {MAX_VALUES} values. "
    "Quantities in a unit of UCUM (system|code) are found in whatever unit they were written; "
    "arbitrary units ([IU]) are units of their own, and what has no straight scale ([pH]) is "
    "compared as it was written. Of references R4 defines neither :text nor :not; of canonical "
    "ones :below asks for a version and what is a part of it (|1.2 for |1). What is contained is "
    "never a match of its own (_contained=false), but chains go into it, one link far, where its "
    "type is one that is served. Patient/[id]/*?… searches all types of a "
    "compartment. Matches of Patients and ImagingStudies are put in order by what a record has one "
    "of; what else is asked is refused with the keys there are. "
    f"Location?near is {near.DOCUMENTATION} Parameters that are not supported are named in an "
    "OperationOutcome among the entries, or refused with Prefer: handling=strict."
)


_WEBSOCKET = "http://hl7.org/fhir/StructureDefinition/capabilitystatement-websocket"
_TOPICS_GUIDE = f"{subscribing.GUIDE}/ImplementationGuide/hl7.fhir.uv.subscriptions-backport|1.1.0"
_TOPIC = f"{subscribing.GUIDE}/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
CHANGED = ("create", "update", "patch", "delete")
LOOKED_BACK = ("vread", "history-instance", "history-type")


def statement(base: str, token_endpoint: str = "", conduct: Conduct | None = None) -> Json:
    """The CapabilityStatement of the server at the address `base`.

    `token_endpoint` is the address where access tokens are issued, if it is known.
    """
    issued = f" Tokens are issued at {token_endpoint} (.well-known/smart-configuration)."
    conduct = conduct or Conduct()
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": DATE,
        "kind": "instance",
        "instantiates": [
            f"{subscribing.GUIDE}/CapabilityStatement/backport-subscription-server-r4"
        ],
        "software": {"name": "imaging-exchange", "version": version("imaging-exchange")},
        "implementation": {"description": "Regional imaging exchange", "url": base},
        "fhirVersion": FHIR_VERSION,
        "format": [JSON, XML, "json", "xml"],
        "patchFormat": [patching.MEDIA_TYPE, JSON, XML, patching.MERGE],
        "implementationGuide": [_TOPICS_GUIDE],
        "rest": [
            {
                "extension": [{"url": _WEBSOCKET, "valueUri": f"ws{base.removeprefix('http')}/ws"}],
                "mode": "server",
                "documentation": _SEARCHING,
                "security": {
                    "cors": conduct.cross_origin,
                    "service": [concept("restful-security-service", "OAuth")],
                    "description": _SECURITY + (issued if token_endpoint else ""),
                },
                "resource": [
                    *(_resource(kind, conduct, base) for kind in served()),
                    *(_described(kind) for kind in described.KINDS),
                ],
                "interaction": [
                    {"code": code}
                    for code in ("transaction", "batch", "history-system", "search-system")
                ],
                "operation": [
                    {"name": one.code, "definition": one.canonical(base)}
                    for one in described.OPERATIONS
                    if one.on_system
                ],
            }
        ],
    }


def served() -> tuple[str, ...]:
    """The resource types of patients, hospitals and the directory that can be read."""
    return tuple(
        kind
        for kind in search_parameters.kinds()
        if kind not in writing.DERIVED or kind in reads.READS
    )


def interactions(kind: str) -> tuple[str, ...]:
    """What is done with resources of a type (TypeRestfulInteraction)."""
    search = ("search-type",) if kind in SEARCHED else ()
    if kind in writing.DERIVED:
        return ("read", *(LOOKED_BACK if kind in writing.CURRENT else ()), *search)
    return ("read", *CHANGED, *LOOKED_BACK, *search)


def _resource(kind: str, conduct: Conduct, base: str) -> Json:
    done = interactions(kind)
    policies = ["literal", "logical", "local", *([] if conduct.dangling else ["enforced"])]
    told: Json = {
        "type": kind,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{kind}",
        "documentation": consenting.TOLD if kind == "Consent" else writing.DERIVED.get(kind, ""),
        "interaction": [{"code": code} for code in done],
        "versioning": _versioning(done),
        "conditionalRead": "full-support",
        "referencePolicy": policies,
    }
    if "create" in done:
        told |= {
            "readHistory": True,
            "updateCreate": conduct.update_creates and kind != "Patient",
            "conditionalCreate": True,
            "conditionalUpdate": True,
            "conditionalDelete": "single",
        }
    if kind in SEARCHED:
        told |= _searched(kind)
    operations = [
        {"name": one.code, "definition": one.canonical(base)}
        for one in described.OPERATIONS
        if one.is_on(kind) and ("create" in done or not one.changes)
    ]
    if kind in writing.CURRENT:
        told["readHistory"] = False
    if kind == SUBSCRIPTION:
        told |= _subscribed(base)
    return present(**told, operation=operations)


def _versioning(done: Sequence[str]) -> str:
    if "vread" not in done:
        return "no-version"
    return "versioned-update" if "create" in done else "versioned"


def _subscribed(base: str) -> Json:
    """The topics, as the Subscriptions Backport tells of them in R4."""
    return {
        "extension": [
            {"url": _TOPIC, "valueCanonical": topic.url(base)} for topic in TOPICS.values()
        ],
        "supportedProfile": [subscribing.PROFILE],
        "documentation": "Topic-based, as hl7.fhir.uv.subscriptions-backport 1.1.0 has it for R4. "
        "What could not be delivered is not accepted. It is its owner's, and their hospital's "
        "administrators'.",
    }


def _searched(kind: str) -> Json:
    documentation = {"documentation": TABLES[kind].documentation} if kind in TABLES else {}
    return documentation | {
        "searchInclude": ["*", *question.includes(kind)],
        "searchRevInclude": list(question.revincludes(kind)),
        "searchParam": list(searched(kind)),
    }


def searched(kind: str) -> Iterator[Json]:
    """The standard's parameters, in our words where they mean more than it says."""
    table = TABLES[kind].parameters if kind in TABLES else {}
    known = search_parameters.of(kind)
    for code, one in known.items():
        if code in question.UNANSWERED:
            continue
        own = table.get(code)
        told = {"name": code, "definition": one.url, "type": one.type}
        words = own or special.SPECIAL.get(one.name)
        yield told | ({"documentation": words.documentation} if words else {})
    for code, own in table.items():
        if code not in known:
            yield {"name": code, "type": own.type, "documentation": own.documentation}


def _described(kind: str) -> Json:
    return {
        "type": kind,
        "documentation": "What the server works by; every asker may read it.",
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [
            {"name": name, "type": "uri" if name == "url" else "token"}
            for name in described.PARAMETERS
            if name not in {"base", "kind"}
        ],
    }
