"""What the server works by, as resources: search parameters, structures and operations.

Made from the same data that the work is done by (FHIR R4 2.12, 2.3, 3.2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from exchange_fhir.datatypes import Json, present
from exchange_fhir.definitions import elements, search_parameters
from exchange_fhir.definitions.elements import Element
from exchange_fhir.definitions.search_parameters import SearchParameter

_PROFILE = "http://hl7.org/fhir/StructureDefinition/"
_VERSION = "4.0.1"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the standard that is done here."""

    name: str
    code: str
    kinds: tuple[str, ...] = ("Resource",)
    """None where it is done of the whole system only."""
    on_type: bool = False
    on_instance: bool = True
    on_system: bool = False
    changes: bool = False
    address: str = ""
    """Its canonical address, where it is not one of FHIR's own."""
    own: bool = False
    """Whether it is this server's own, and is known by its address here."""
    parameters: tuple[tuple[str, str, int, str, str], ...] = ()
    """Name, in or out, least, most, type."""

    @property
    def id(self) -> str:
        """Its logical id here, and the last part of its canonical address."""
        return "-".join((*self.kinds[:1], self.code))

    def is_on(self, kind: str) -> bool:
        """Whether it is done on resources of this type."""
        return kind in self.kinds or self.kinds == ("Resource",)

    def canonical(self, base: str) -> str:
        """Its canonical address, as the server at `base` tells of it."""
        return f"{base}/OperationDefinition/{self.id}" if self.own else self.url

    @property
    def url(self) -> str:
        """Its canonical address; "" where that depends on the server's."""
        return (
            "" if self.own else self.address or f"http://hl7.org/fhir/OperationDefinition/{self.id}"
        )


_EXPORT = (
    ("_outputFormat", "in", 0, "1", "string"),
    ("_since", "in", 0, "1", "instant"),
    ("_until", "in", 0, "1", "instant"),
    ("_type", "in", 0, "*", "string"),
    ("_elements", "in", 0, "*", "string"),
    ("_typeFilter", "in", 0, "*", "string"),
)
_BULK_DATA = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
_SUBSCRIPTIONS = (
    "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-"
)
_OUTCOME = ("return", "out", 1, "1", "OperationOutcome")
_BUNDLE = ("return", "out", 1, "1", "Bundle")
_META = ("return", "out", 1, "1", "Meta")
OPERATIONS = (
    Operation(
        "Validate",
        "validate",
        on_type=True,
        parameters=(
            ("resource", "in", 0, "1", "Resource"),
            ("mode", "in", 0, "1", "code"),
            ("profile", "in", 0, "1", "uri"),
            _OUTCOME,
        ),
    ),
    Operation("Meta", "meta", on_type=True, on_system=True, parameters=(_META,)),
    Operation(
        "MetaAdd", "meta-add", changes=True, parameters=(("meta", "in", 1, "1", "Meta"), _META)
    ),
    Operation(
        "MetaDelete",
        "meta-delete",
        changes=True,
        parameters=(("meta", "in", 1, "1", "Meta"), _META),
    ),
    Operation(
        "Everything",
        "everything",
        ("Patient",),
        parameters=(
            ("start", "in", 0, "1", "date"),
            ("end", "in", 0, "1", "date"),
            ("_since", "in", 0, "1", "instant"),
            ("_type", "in", 0, "*", "code"),
            ("_count", "in", 0, "1", "integer"),
            _BUNDLE,
        ),
    ),
    Operation(
        "Document",
        "document",
        ("Composition",),
        on_type=True,
        parameters=(
            ("id", "in", 0, "1", "uri"),
            ("persist", "in", 0, "1", "boolean"),
            _BUNDLE,
        ),
    ),
    Operation(
        "Match",
        "match",
        ("Patient",),
        on_type=True,
        on_instance=False,
        parameters=(
            ("resource", "in", 1, "1", "Resource"),
            ("onlyCertainMatches", "in", 0, "1", "boolean"),
            ("count", "in", 0, "1", "integer"),
            _BUNDLE,
        ),
    ),
    Operation(
        "IhePix",
        "ihe-pix",
        ("Patient",),
        on_type=True,
        on_instance=False,
        address="https://profiles.ihe.net/ITI/PIXm/OperationDefinition/IHE.PIXm.pix",
        parameters=(
            ("sourceIdentifier", "in", 1, "1", "Identifier"),
            ("targetSystem", "in", 0, "*", "uri"),
            ("targetIdentifier", "out", 0, "*", "Identifier"),
            ("targetId", "out", 0, "*", "Reference"),
        ),
    ),
    Operation(
        "LastN",
        "lastn",
        ("Observation",),
        on_type=True,
        on_instance=False,
        parameters=(
            ("patient", "in", 0, "1", "string"),
            ("subject", "in", 0, "1", "string"),
            ("category", "in", 0, "*", "string"),
            ("code", "in", 0, "*", "string"),
            ("max", "in", 0, "1", "positiveInt"),
            _BUNDLE,
        ),
    ),
    Operation(
        "DocRef",
        "docref",
        ("DocumentReference",),
        on_type=True,
        on_instance=False,
        address="http://hl7.org/fhir/uv/ipa/OperationDefinition/docref",
        parameters=(
            ("patient", "in", 1, "1", "id"),
            ("start", "in", 0, "1", "date"),
            ("end", "in", 0, "1", "date"),
            ("type", "in", 0, "*", "CodeableConcept"),
            ("on-demand", "in", 0, "1", "boolean"),
            ("profile", "in", 0, "*", "canonical"),
            _BUNDLE,
        ),
    ),
    Operation(
        "Export",
        "export",
        (),
        on_instance=False,
        on_system=True,
        address=f"{_BULK_DATA}export",
        parameters=_EXPORT,
    ),
    Operation("Import", "import", (), on_instance=False, on_system=True, changes=True, own=True),
    Operation(
        "PatientExport",
        "export",
        ("Patient",),
        on_type=True,
        on_instance=False,
        address=f"{_BULK_DATA}patient-export",
        parameters=_EXPORT,
    ),
    Operation(
        "GroupExport",
        "export",
        ("Group",),
        address=f"{_BULK_DATA}group-export",
        parameters=_EXPORT,
    ),
    Operation(
        "SubscriptionStatus",
        "status",
        ("Subscription",),
        on_type=True,
        address=f"{_SUBSCRIPTIONS}status",
        parameters=(("id", "in", 0, "*", "id"), ("status", "in", 0, "*", "code"), _BUNDLE),
    ),
    Operation(
        "SubscriptionEvents",
        "events",
        ("Subscription",),
        address=f"{_SUBSCRIPTIONS}events",
        parameters=(
            ("eventsSinceNumber", "in", 0, "1", "string"),
            ("eventsUntilNumber", "in", 0, "1", "string"),
            ("content", "in", 0, "1", "code"),
            _BUNDLE,
        ),
    ),
    Operation(
        "SubscriptionGetWsBindingToken",
        "get-ws-binding-token",
        ("Subscription",),
        on_type=True,
        address=f"{_SUBSCRIPTIONS}get-ws-binding-token",
        parameters=(
            ("id", "in", 0, "*", "id"),
            ("token", "out", 1, "1", "string"),
            ("expiration", "out", 1, "1", "dateTime"),
            ("subscription", "out", 0, "*", "string"),
            ("websocket-url", "out", 1, "1", "url"),
        ),
    ),
)
"""The operations on any resource, and those of one type."""


@cache
def every() -> Mapping[str, Mapping[str, Json]]:
    """The resources by type and logical id."""
    return {
        kind: {one["id"]: one for one in made()}
        for kind, made in (
            ("OperationDefinition", _operations),
            ("SearchParameter", _search_parameters),
            ("StructureDefinition", _structures),
        )
    }


def at(base: str, kind: str) -> Mapping[str, Json]:
    """Those of a type by logical id, as the server at `base` tells of them: what is its own has its
    address here for its canonical one."""
    return {
        name: one if "url" in one else one | {"url": f"{base}/{kind}/{name}"}
        for name, one in every()[kind].items()
    }


KINDS = ("OperationDefinition", "SearchParameter", "StructureDefinition")
PARAMETERS: Mapping[str, Callable[[Json], Sequence[object]]] = {
    "_id": lambda one: [one["id"]],
    "base": lambda one: one.get("base", []),
    "code": lambda one: [one.get("code")],
    "kind": lambda one: [one.get("kind")],
    "name": lambda one: [one["name"]],
    "status": lambda one: [one["status"]],
    "type": lambda one: [one.get("type")],
    "url": lambda one: [one.get("url")],
}
"""What can be asked of them; each is met by an equal value."""


def _search_parameters() -> Iterator[Json]:
    told: dict[str, tuple[SearchParameter, list[str]]] = {}
    for kind in search_parameters.kinds():
        for one in search_parameters.of(kind).values():
            told.setdefault(one.url, (one, []))[1].append(kind)
    for url, (one, bases) in told.items():
        every = set(bases) == set(search_parameters.kinds())
        yield present(
            resourceType="SearchParameter",
            id=url.rpartition("/")[2],
            url=url,
            version=_VERSION,
            name=one.code,
            status="active",
            description=one.description or one.code,
            code=one.code,
            base=["Resource"] if every else bases,
            type=one.type,
            expression=one.expression,
            target=list(one.target),
        )


def _operations() -> Iterator[Json]:
    for one in OPERATIONS:
        yield {
            "resourceType": "OperationDefinition",
            "id": one.id,
            **present(url=one.url),
            "version": _VERSION,
            "name": one.name,
            "status": "active",
            "kind": "operation",
            "affectsState": one.changes,
            "code": one.code,
            **present(resource=list(one.kinds)),
            "system": one.on_system,
            "type": one.on_type,
            "instance": one.on_instance,
            **present(
                parameter=[
                    {"name": name, "use": use, "min": least, "max": most, "type": kind}
                    for name, use, least, most, kind in one.parameters
                ]
            ),
        }


def _structures() -> Iterator[Json]:
    for kind in search_parameters.kinds():
        listed = [{"id": kind, "path": kind, "min": 0, "max": "*"}, *_elements(kind, kind)]
        yield {
            "resourceType": "StructureDefinition",
            "id": kind,
            "url": _PROFILE + kind,
            "version": _VERSION,
            "name": kind,
            "status": "active",
            "fhirVersion": _VERSION,
            "kind": "resource",
            "abstract": False,
            "type": kind,
            "baseDefinition": _PROFILE + ("Resource" if kind == "Binary" else "DomainResource"),
            "derivation": "specialization",
            "snapshot": {"element": listed},
        }


def _elements(name: str, path: str) -> Iterator[Json]:
    for one in elements.structure(name).elements:
        here = f"{path}.{one.name}"
        inside = one.types[0] if len(one.types) == 1 and "." in one.types[0] else ""
        yield _element(one, here, inside)
        if inside == here:
            yield from _elements(inside, here)


def _element(one: Element, path: str, inside: str) -> Json:
    types: list[Json] = []
    for kind in one.types:
        told = "BackboneElement" if "." in kind else kind
        targets = [_PROFILE + target for target in sorted(one.targets)]
        types.append(present(code=told, targetProfile=targets if kind == "Reference" else None))
    elsewhere = bool(inside) and inside != path
    return {
        "id": path,
        "path": path,
        "min": one.least,
        "max": "*" if one.most is None else str(one.most),
    } | present(
        contentReference=f"#{inside}" if elsewhere else None,
        type=None if elsewhere else types,
        isSummary=True if one.in_summary else None,
        binding={"strength": "required", "valueSet": f"{one.value_set}|{_VERSION}"}
        if one.value_set
        else None,
    )
