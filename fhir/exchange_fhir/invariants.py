"""The invariants of R4's own definitions (ElementDefinition.constraint), by the type they are of.

Each is its key, what it asks for, and whether it holds; a test holds them to the FHIRPath that the
standard writes. What concerns references, extensions and narratives is `validation`'s own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exchange_fhir.datatypes import Json

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
CONDITION_VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
ALLERGY_VERIFIED = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Invariant:
    """What must hold of an object."""

    key: str
    told: str
    holds: Callable[[Json], bool]


def broken(structure: str, told: Json) -> Iterator[Invariant]:
    """The invariants of a type that do not hold of an object."""
    for one in INVARIANTS.get(structure, ()):
        try:
            holds = one.holds(told)
        except (AttributeError, ArithmeticError, KeyError, TypeError, ValueError):
            continue  # it is not of that type at all, which is told already
        if not holds:
            yield one


# -- What the invariants ask of an object ---------------------------------------------------------


def _has(told: Json, *names: str) -> bool:
    """Whether an element, any of them, has a value or extensions."""
    return any(name in told or f"_{name}" in told for name in names)


def _chosen(told: Json, stem: str) -> bool:
    """Whether an element of several types (``value[x]``) is there."""
    keys = (key.removeprefix("_") for key in told)
    return any(key.startswith(stem) and key[len(stem) : len(stem) + 1].isupper() for key in keys)


def _coded(told: Json, name: str, system: str, *codes: str) -> bool:
    return any(
        one.get("system") == system and one.get("code") in codes
        for one in told.get(name, {}).get("coding", ())
    )


def _in_order(first: Any, last: Any) -> bool:
    """Whether a date or time is not after another, as far as both are precise (FHIRPath 6.2)."""
    if first is None or last is None:
        return True
    if "T" in first and "T" in last:
        return datetime.fromisoformat(first) <= datetime.fromisoformat(last)
    shared = min(len(first.partition("T")[0]), len(last.partition("T")[0]))
    return bool(first[:shared] <= last[:shared])


def _range(told: Json) -> bool:
    low, high = told.get("low", {}), told.get("high", {})
    units = [(one.get("system"), one.get("code"), one.get("unit")) for one in (low, high)]
    known = "value" in low and "value" in high and units[0] == units[1]
    return not known or bool(low["value"] <= high["value"])


def _codings(concept: Json) -> set[tuple[Any, ...]]:
    return {
        tuple(one.get(name) for name in ("system", "version", "code", "display", "userSelected"))
        for one in concept.get("coding", ())
    }


def _value_of_its_own(told: Json) -> bool:
    if not _chosen(told, "value"):
        return True
    own = _codings(told.get("code", {}))
    return not any(own & _codings(one.get("code", {})) for one in told.get("component", ()))


def _unlike_events(told: Json) -> bool:
    events = told.get("when", ())
    return not _has(told, "offset") or (bool(events) and not {"C", "CM", "CD", "CV"} & set(events))


def _link_ids(told: Json) -> Iterator[str]:
    for one in told.get("item", ()):
        yield one.get("linkId", "")
        yield from _link_ids(one)


_LISTED = frozenset(
    {"choice", "open-choice", "decimal", "integer", "date", "dateTime", "time", "string"}
    | {"quantity"}
)
_LONG = frozenset({"boolean", "decimal", "integer", "string", "text", "url", "open-choice"})

_UNIT = Invariant(
    "qty-3",
    "a unit's code has its system",
    lambda one: not _has(one, "code") or _has(one, "system"),
)


def _measured(key: str, holds: Callable[[Json], bool], told: str) -> tuple[Invariant, ...]:
    return (_UNIT, Invariant(key, told, holds))


def _in_ucum(one: Json) -> bool:
    return (_has(one, "code") or not _has(one, "value")) and one.get("system", UCUM) == UCUM


INVARIANTS: Mapping[str, Sequence[Invariant]] = {
    # Datatypes.
    "Quantity": (_UNIT,),
    "Age": _measured(
        "age-1",
        lambda one: _in_ucum(one) and one.get("value", 1) > 0,
        "an age is positive, in UCUM",
    ),
    "Distance": _measured("dis-1", _in_ucum, "a distance has a unit of UCUM"),
    "Duration": _measured(
        "drt-1",
        lambda one: not _has(one, "code") or (one.get("system") == UCUM and _has(one, "value")),
        "a duration's unit is of UCUM, and has a value",
    ),
    "Count": _measured(
        "cnt-3",
        lambda one: (
            _in_ucum(one) and one.get("code", "1") == "1" and "." not in str(one["value"])
            if "value" in one
            else _in_ucum(one) and one.get("code", "1") == "1"
        ),
        "a count is a whole number, in 1",
    ),
    "Attachment": (
        Invariant(
            "att-1",
            "what is inside an attachment has a contentType",
            lambda one: not _has(one, "data") or _has(one, "contentType"),
        ),
    ),
    "ContactPoint": (
        Invariant(
            "cpt-2",
            "a contact's value has its system",
            lambda one: not _has(one, "value") or _has(one, "system"),
        ),
    ),
    "Expression": (
        Invariant(
            "exp-1",
            "an expression or a reference",
            lambda one: _has(one, "expression", "reference"),
        ),
    ),
    "Period": (
        Invariant(
            "per-1",
            "a period starts before it ends",
            lambda one: _in_order(one.get("start"), one.get("end")),
        ),
    ),
    "Range": (Invariant("rng-2", "low is not above high", _range),),
    "Ratio": (
        Invariant(
            "rat-1",
            "numerator and denominator, or neither with an extension",
            lambda one: (
                ("numerator" in one) == ("denominator" in one)
                and ("numerator" in one or "extension" in one)
            ),
        ),
    ),
    "Timing.repeat": (
        Invariant(
            "tim-1",
            "a duration has a unit",
            lambda one: not _has(one, "duration") or _has(one, "durationUnit"),
        ),
        Invariant(
            "tim-2",
            "a period has a unit",
            lambda one: not _has(one, "period") or _has(one, "periodUnit"),
        ),
        Invariant("tim-4", "a duration is not negative", lambda one: one.get("duration", 0) >= 0),
        Invariant("tim-5", "a period is not negative", lambda one: one.get("period", 0) >= 0),
        Invariant(
            "tim-6",
            "periodMax goes with a period",
            lambda one: not _has(one, "periodMax") or _has(one, "period"),
        ),
        Invariant(
            "tim-7",
            "durationMax goes with a duration",
            lambda one: not _has(one, "durationMax") or _has(one, "duration"),
        ),
        Invariant(
            "tim-8",
            "countMax goes with a count",
            lambda one: not _has(one, "countMax") or _has(one, "count"),
        ),
        Invariant("tim-9", "an offset goes with when, not with a meal", _unlike_events),
        Invariant(
            "tim-10",
            "timeOfDay or when",
            lambda one: not (_has(one, "timeOfDay") and _has(one, "when")),
        ),
    ),
    # Resources.
    "AllergyIntolerance": (
        Invariant(
            "ait-1",
            "clinicalStatus is needed unless it was entered in error",
            lambda one: (
                _coded(one, "verificationStatus", ALLERGY_VERIFIED, "entered-in-error")
                or _has(one, "clinicalStatus")
            ),
        ),
        Invariant(
            "ait-2",
            "what was entered in error has no clinicalStatus",
            lambda one: (
                not _coded(one, "verificationStatus", ALLERGY_VERIFIED, "entered-in-error")
                or not _has(one, "clinicalStatus")
            ),
        ),
    ),
    "Appointment": (
        Invariant(
            "app-2", "start and end, or neither", lambda one: _has(one, "start") == _has(one, "end")
        ),
        Invariant(
            "app-3",
            "only what is proposed, cancelled or waits has no start and end",
            lambda one: (
                (_has(one, "start") and _has(one, "end"))
                or one.get("status") in {"proposed", "cancelled", "waitlist"}
            ),
        ),
        Invariant(
            "app-4",
            "only what is cancelled has a cancelationReason",
            lambda one: (
                not _has(one, "cancelationReason") or one.get("status") in {"noshow", "cancelled"}
            ),
        ),
    ),
    "Appointment.participant": (
        Invariant(
            "app-1", "a participant is a type or an actor", lambda one: _has(one, "type", "actor")
        ),
    ),
    "Composition.section": (
        Invariant(
            "cmp-1",
            "a section has text, entries or sections",
            lambda one: _has(one, "text", "entry", "section"),
        ),
        Invariant(
            "cmp-2",
            "only an empty section says why",
            lambda one: not (_has(one, "emptyReason") and _has(one, "entry")),
        ),
    ),
    "Condition": (
        Invariant(
            "con-4",
            "what has abated is inactive, resolved or in remission",
            lambda one: (
                not _chosen(one, "abatement")
                or _coded(one, "clinicalStatus", CLINICAL, "resolved", "remission", "inactive")
            ),
        ),
        Invariant(
            "con-5",
            "what was entered in error has no clinicalStatus",
            lambda one: (
                not _coded(one, "verificationStatus", CONDITION_VERIFIED, "entered-in-error")
                or not _has(one, "clinicalStatus")
            ),
        ),
    ),
    "Condition.stage": (
        Invariant(
            "con-1", "a summary or an assessment", lambda one: _has(one, "summary", "assessment")
        ),
    ),
    "Condition.evidence": (
        Invariant("con-2", "a code or details", lambda one: _has(one, "code", "detail")),
    ),
    "Consent": (
        Invariant(
            "ppc-1", "a policy or a policyRule", lambda one: _has(one, "policy", "policyRule")
        ),
    ),
    "Group": (
        Invariant(
            "grp-1",
            "only an actual group has members",
            lambda one: not _has(one, "member") or one.get("actual") is True,
        ),
    ),
    "Immunization.education": (
        Invariant(
            "imm-1",
            "a documentType or a reference",
            lambda one: _has(one, "documentType", "reference"),
        ),
    ),
    "List": (
        Invariant(
            "lst-1",
            "only an empty list says why",
            lambda one: not (_has(one, "emptyReason") and _has(one, "entry")),
        ),
        Invariant(
            "lst-2",
            "only a list of changes has deleted entries",
            lambda one: (
                one.get("mode") == "changes"
                or not any(_has(part, "deleted") for part in one.get("entry", ()))
            ),
        ),
        Invariant(
            "lst-3",
            "only a working list has dated entries",
            lambda one: (
                one.get("mode") == "working"
                or not any(_has(part, "date") for part in one.get("entry", ()))
            ),
        ),
    ),
    "MeasureReport": (
        Invariant(
            "mrp-1",
            "collected data have no groups",
            lambda one: one.get("type") != "data-collection" or not _has(one, "group"),
        ),
        Invariant(
            "mrp-2",
            "a stratum has a value or components",
            lambda one: all(
                _has(stratum, "value") != _has(stratum, "component")
                for group in one.get("group", ())
                for stratifier in group.get("stratifier", ())
                for stratum in stratifier.get("stratum", ())
            ),
        ),
    ),
    "Observation": (
        Invariant(
            "obs-6",
            "a value, or why there is none",
            lambda one: not (_has(one, "dataAbsentReason") and _chosen(one, "value")),
        ),
        Invariant(
            "obs-7",
            "a component of the observation's own code leaves no value beside it",
            _value_of_its_own,
        ),
    ),
    "Observation.referenceRange": (
        Invariant("obs-3", "low, high or text", lambda one: _has(one, "low", "high", "text")),
    ),
    "Organization": (
        Invariant("org-1", "a name or an identifier", lambda one: _has(one, "identifier", "name")),
        Invariant(
            "org-2",
            "an organization has no home address",
            lambda one: all(part.get("use") != "home" for part in one.get("address", ())),
        ),
        Invariant(
            "org-3",
            "an organization has no home telephone",
            lambda one: all(part.get("use") != "home" for part in one.get("telecom", ())),
        ),
    ),
    "Patient.contact": (
        Invariant(
            "pat-1",
            "a contact has a name, telecom, address or organization",
            lambda one: _has(one, "name", "telecom", "address", "organization"),
        ),
    ),
    "Questionnaire": (
        Invariant(
            "que-2",
            "each linkId is used once",
            lambda one: max(Counter(_link_ids(one)).values(), default=0) <= 1,
        ),
    ),
    "Questionnaire.item": (
        Invariant(
            "que-1",
            "a group has items, what is displayed has none",
            lambda one: (
                (one["type"] != "group" or _has(one, "item"))
                and (one["type"] != "display" or not _has(one, "item"))
            ),
        ),
        Invariant(
            "que-3",
            "what is displayed has no code",
            lambda one: one["type"] != "display" or not _has(one, "code"),
        ),
        Invariant(
            "que-4",
            "answerOption or answerValueSet",
            lambda one: not (_has(one, "answerOption") and _has(one, "answerValueSet")),
        ),
        Invariant(
            "que-5",
            "this type has no list of answers",
            lambda one: one["type"] in _LISTED or not _has(one, "answerOption", "answerValueSet"),
        ),
        Invariant(
            "que-6",
            "what is displayed is neither required nor repeated",
            lambda one: one["type"] != "display" or not _has(one, "required", "repeats"),
        ),
        Invariant(
            "que-8",
            "what is no question has no initial value",
            lambda one: one["type"] not in {"group", "display"} or not _has(one, "initial"),
        ),
        Invariant(
            "que-9",
            "what is displayed is not readOnly",
            lambda one: one["type"] != "display" or not _has(one, "readOnly"),
        ),
        Invariant(
            "que-10",
            "this type has no maxLength",
            lambda one: one["type"] in _LONG or not _has(one, "maxLength"),
        ),
        Invariant(
            "que-11",
            "initial or answerOption",
            lambda one: not (_has(one, "answerOption") and _has(one, "initial")),
        ),
        Invariant(
            "que-12",
            "several conditions need enableBehavior",
            lambda one: len(one.get("enableWhen", ())) <= 2 or _has(one, "enableBehavior"),
        ),
        Invariant(
            "que-13",
            "only what repeats has several initial values",
            lambda one: one.get("repeats") is True or len(one.get("initial", ())) <= 1,
        ),
    ),
    "Questionnaire.item.enableWhen": (
        Invariant(
            "que-7",
            "whether an answer exists is true or false",
            lambda one: one.get("operator") != "exists" or "answerBoolean" in one,
        ),
    ),
    "QuestionnaireResponse.item": (
        Invariant(
            "qrs-1", "answers or items", lambda one: not (_has(one, "answer") and _has(one, "item"))
        ),
    ),
    "ServiceRequest": (
        Invariant(
            "prr-1",
            "details of an order go with a code",
            lambda one: not _has(one, "orderDetail") or _has(one, "code"),
        ),
    ),
    "Task": (
        Invariant(
            "inv-1",
            "it was authored before it was modified",
            lambda one: _in_order(one.get("authoredOn"), one.get("lastModified")),
        ),
    ),
}
"""By the name of a type, or of what stands inside one; in the standard's words, shortened."""
