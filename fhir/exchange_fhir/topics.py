"""What can be subscribed to, tabulated: topics, what makes an event, and what narrows them.

As the Subscriptions Backport (hl7.fhir.uv.subscriptions-backport 1.1.0) has it for R4: a topic is a
canonical address below our own, named by `Subscription.criteria`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exchange_fhir import elements
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_storage.resource_index import Reference, Token, Value

PATIENT = "patient"
"""The filter that means a person: any of their records, at whichever hospital."""

FINAL = frozenset({"final", "amended", "corrected", "appended"})
"""Statuses of a report that can be relied on (value set diagnostic-report-status)."""

REVOKED = frozenset({"cancelled", "entered-in-error", "registered", "unknown"})

INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
CRITICAL: Mapping[str, frozenset[str]] = {
    INTERPRETATION: frozenset({"AA", "HH", "LL"}),
    "http://radlex.org": frozenset({"RID49480", "RID49481"}),
}
"""Codes that say that a finding is critical: critically abnormal, high or low (HL7 v3); actionable
within minutes or hours (ACR categories 1 and 2 of actionable findings, by their RadLex codes)."""

Whose = Callable[[Json], frozenset[int]]
"""The hospitals, by their row numbers, to which a Reference leads."""

Met = Callable[[Json, int, Whose], bool]
"""Whether a resource is what a topic tells of, to the hospital of this row number, by what tells
whose a place is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A kind of event."""

    name: str
    """The last part of its address."""
    title: str
    told: str
    """When it is told, in words."""
    filters: Mapping[str, tuple[str, ...]]
    """The resource types that it tells of, each with the search parameters that narrow it."""
    met: Met
    anew: bool = True
    """Whether each version that is met is an event; else only one whose last version was not."""

    def url(self, base: str) -> str:
        """Its canonical address."""
        return f"{base}/SubscriptionTopic/{self.name}"


@dataclass(frozen=True, slots=True)
class Filter:
    """What narrows a topic: a search parameter and the values of which one must be there."""

    kind: str
    """The resource type that it is about; others are not narrowed by it."""
    parameter: str
    values: tuple[str, ...]

    def told(self) -> list[Any]:
        """As it is kept."""
        return [self.kind, self.parameter, list(self.values)]


def read(told: Sequence[Any]) -> Filter:
    """A filter as it was kept."""
    kind, parameter, values = told
    return Filter(kind, parameter, tuple(values))


def passes(
    kind: str, held: Callable[[], Sequence[Value]], filters: Sequence[Filter], base: str
) -> bool:
    """Whether a resource of a kind meets all filters but those of patients, known by their rows.

    `held` gives what it is found under; it is asked only if there is such a filter.
    """
    asked = [one for one in filters if one.kind == kind and one.parameter != PATIENT]
    return all(any(_is(one, value, held(), base) for value in one.values) for one in asked)


def _is(asked: Filter, value: str, held: Sequence[Any], base: str) -> bool:
    one = search_parameters.of(asked.kind)[asked.parameter]
    names = {(f"{asked.kind}.{code}", target) for code, target in one.kept_as}
    if one.type == "token":
        system, bar, code = value.rpartition("|")
        return any(
            isinstance(row, Token)
            and (row.parameter, "") in names
            and (not code or row.code == code)
            and (not bar or row.system == system)
            for row in held
        )
    kind, named = elements.target(value, f"{base}/")
    return any(
        isinstance(row, Reference)
        and any(row.parameter == name and target in {"", row.target_kind} for name, target in names)
        and (row.target == value if not kind else (row.target_kind, row.target) == (kind, named))
        for row in held
    )


def _is_final(resource: Json, _: int, __: Whose) -> bool:
    return resource.get("status") in FINAL


def _is_there(resource: Json, _: int, __: Whose) -> bool:
    return resource.get("status") == "available"


def _is_critical(resource: Json, _: int, __: Whose) -> bool:
    if resource.get("status") in REVOKED:
        return False
    return any(
        one.get("code") in CRITICAL.get(str(one.get("system", "")), frozenset())
        for one in _judged(resource)
    )


def _judged(resource: Json) -> Iterator[Json]:
    """The codings that judge what was found."""
    yield from resource.get("meta", {}).get("tag", ())
    concepts = [*resource.get("interpretation", ()), *resource.get("conclusionCode", ())]
    for component in resource.get("component", ()):
        concepts += component.get("interpretation", ())
    for concept in concepts:
        yield from concept.get("coding", ())


_ORDERED: Mapping[str, tuple[frozenset[str], Callable[[Json], Sequence[Json]]]] = {
    "ServiceRequest": (
        frozenset({"active", "on-hold"}),
        lambda one: one.get("performer", ()),
    ),
    "Task": (
        frozenset({"requested", "received", "accepted", "ready", "in-progress", "on-hold"}),
        lambda one: [one["owner"]] if "owner" in one else [],
    ),
    "Appointment": (
        frozenset({"proposed", "pending", "booked", "arrived", "checked-in", "waitlist"}),
        lambda one: [two["actor"] for two in one.get("participant", ()) if "actor" in two],
    ),
}
"""Of what an order is, by type: statuses in which it is open, and who is to do it."""


def _is_for(resource: Json, hospital: int, whose: Whose) -> bool:
    open_, performers = _ORDERED[resource["resourceType"]]
    if resource.get("status") not in open_:
        return False
    return any(hospital in whose(one) for one in performers(resource))


TOPICS: Mapping[str, Topic] = {
    one.name: one
    for one in (
        Topic(
            name="new-study",
            title="New study",
            told="An ImagingStudy is complete for the time being: no image of it came for some "
            "time. Told again when more of it came.",
            filters={"ImagingStudy": ("patient", "modality", "bodysite")},
            met=_is_there,
        ),
        Topic(
            name="report-final",
            title="Report final",
            told="A DiagnosticReport is final, amended, corrected or appended, whether a hospital "
            "wrote it or it came as a structured report. Told for every such version.",
            filters={"DiagnosticReport": ("patient", "code", "category", "performer")},
            met=_is_final,
        ),
        Topic(
            name="critical-finding",
            title="Critical finding",
            told="A DiagnosticReport or Observation says that something critical was found, and "
            "did not say so before. It says so by a code of "
            + "; ".join(f"{system}: {', '.join(sorted(them))}" for system, them in CRITICAL.items())
            + "; in Observation.interpretation (of a component, too), "
            "DiagnosticReport.conclusionCode or meta.tag.",
            filters={
                "DiagnosticReport": ("patient", "code", "category"),
                "Observation": ("patient", "code", "category"),
            },
            met=_is_critical,
            anew=False,
        ),
        Topic(
            name="order-for-us",
            title="Order for the subscriber's hospital",
            told="A ServiceRequest (performer), Task (owner) or Appointment (participant) that is "
            "open names the subscriber's hospital, as Organization/ and its code or by its "
            "credit code, and did not before; or a department, HealthcareService, Location, Device "
            "or PractitionerRole that the directory says is of that hospital (partOf, providedBy, "
            "managingOrganization, organization and so on), or, where it says nothing of that, "
            "that the hospital keeps.",
            filters={
                "ServiceRequest": ("patient", "code", "category", "priority", "requester"),
                "Task": ("patient", "code", "priority", "requester"),
                "Appointment": ("patient", "service-type"),
            },
            met=_is_for,
            anew=False,
        ),
    )
}
"""By their names. Those that tell of what is about patients tell of the subscriber's own hospital's
patients, or with the filter `patient` of that person wherever they were."""
OWN_PATIENTS = frozenset({"new-study", "report-final", "critical-finding"})
"""Topics that without a filter `patient` tell of the subscriber's own hospital's patients only."""
