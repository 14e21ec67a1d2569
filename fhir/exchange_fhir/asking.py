"""Parameters to criteria, for every resource type: values, modifiers, chains and `_has`.

What a parameter is and where its values are kept is said by the standard's own definitions (FHIR R4
3.1.1); what the exchange keeps in records of its own is asked by the tables in `resources`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exchange import clinical_search, query, related, trail
from exchange.errors import Invalid, TooBroad
from exchange_fhir import indexing, moments, prefixes, registered, tokens
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import SearchParameter
from exchange_fhir.outcome import Problem
from exchange_fhir.resources import imaging_study, patient, person
from exchange_fhir.search import (
    MAX_LENGTH,
    MAX_VALUES,
    Scope,
    Table,
    Type,
    any_of,
    split,
    unescaped,
)
from exchange_storage.criteria import (
    AllOf,
    AnyOf,
    Criterion,
    Level,
    Linked,
    Match,
    Not,
    Owned,
    Pattern,
    Rows,
    SamePerson,
    Values,
)
from exchange_storage.resource_criteria import (
    Asked,
    Holds,
    Ids,
    Indexed,
    IsExactly,
    Leads,
    Native,
    Natively,
    OfStudies,
    Pointed,
    Present,
    ReferredBy,
    RefersTo,
    Selected,
    Some,
    StartsWith,
    Test,
    Together,
    TokenIs,
    Without,
    Written,
)

MAX_DEPTH = 4
"""Links of a chain, forwards and backwards together."""

PARTS: Mapping[str, str] = {
    "Encounter": "part-of",
    "Location": "partof",
    "Organization": "partof",
    "Procedure": "part-of",
    "Task": "part-of",
}
"""What has parts of its own type, and by which parameter (``:above``, ``:below``)."""

MAX_LEVELS = 10
"""Levels of such parts that are followed."""

MAX_TARGETS = 500
"""Hospitals' own entries of the directory that one condition may lead to."""

NATIVE: Mapping[str, Level] = {"Patient": Level.PATIENT, "ImagingStudy": Level.STUDY}
"""What is kept in tables of its own, and at which level."""

TABLES: Mapping[str, Table[Criterion]] = {
    "Patient": patient.SEARCH,
    "ImagingStudy": imaging_study.SEARCH,
    "Person": person.SEARCH,
}
"""What is asked of tables, not of index rows; a Person of the patient records that are theirs."""

ALONE = frozenset({"AuditEvent", "Person"})
"""What is searched alone: no chain and no `_has` leads through it, and no search of all types."""

SEARCHED = search_parameters.kinds()
"""What is found by parameters."""

TOGETHER = tuple(kind for kind in SEARCHED if kind not in ALONE)
"""What a search of all types finds."""

COMPARTMENT = tuple(
    kind for kind in SEARCHED if kind == "Patient" or search_parameters.compartment(kind)
)
"""What is in the compartments of Patients."""

NOTHING: Asked = Some(())
NONE: Criterion = AnyOf(())
ALL: Criterion = AllOf(())

_REFUSED = {
    "_filter": "use the parameters, chains and _has",
    "_text": "use the parameters of the type, with :text where they are tokens",
    "_content": "use the parameters of the type, with :text where they are tokens",
    "_query": "no named queries are defined",
    "near": "use address, or partof",
}
"""What is never ignored, since the answer would be another than was asked for."""

_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"missing", "not", "text", "in", "not-in", "of-type", "above", "below"}),
    "string": frozenset({"missing", "exact", "contains"}),
    "reference": frozenset({"missing", "identifier", "above", "below"}),
    "uri": frozenset({"missing", "below", "above"}),
    "date": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
}


class Unknown(Exception):
    """No such parameter: it is ignored, or refused if the asker wants that."""


@dataclass(slots=True)
class Asking:
    """One question, as it is read: what it may ask for altogether is limited."""

    scope: Scope
    values: int = 0

    def criterion(self, kind: str, name: str, value: str, depth: int = 0) -> Any:
        """What a parameter asks: a criterion on resources, or on records of `NATIVE` kinds.

        Raises Unknown, Invalid for what cannot be read, TooBroad, Problem for what is refused.
        """
        if depth > MAX_DEPTH:
            raise TooBroad(f"chains have at most {MAX_DEPTH} links")
        if kind in ALONE and (name == "_list" or name.startswith("_has:")):
            raise Invalid(f"{name[:64]} is not supported for {kind}")
        if name.startswith("_has:"):
            return self._has(kind, name, value, depth)
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        if kind == "AuditEvent" and dot:
            return self._of_patients_numbered(name, value)
        if dot and code in _codes(kind):
            return self._chain(kind, code, modifier, rest, value, depth)
        if name.partition(":")[0] in _REFUSED:
            told = _REFUSED[name.partition(":")[0]]
            raise Problem(400, "not-supported", f"{name} is not supported: {told}")
        if name == "_list":
            inner = Selected("List", Ids(tuple(self._split(name, value))))
            return self._referred(kind, ("List.item",), inner)
        if kind in TABLES:
            return self._native(kind, code, modifier, value)
        parameter = search_parameters.of(kind).get(code)
        if parameter is None:
            raise Unknown(name)
        return self.indexed(parameter, modifier, value)

    # -- Kept resources ---------------------------------------------------------------------------

    def indexed(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        """What a parameter asks of the index rows. Raises Invalid, TooBroad, Problem."""
        name = parameter.code
        if name == "_id":
            return self._turned(modifier, Ids(tuple(self._split(name, value))), name)
        if name == "_lastUpdated":
            spans = [prefixes.changed(*self._span(one)) for one in self._split(name, value)]
            return self._turned(modifier, Some(tuple(spans)), name)
        if parameter.type == "composite":
            if modifier:
                raise Invalid(f"the modifier :{modifier[:64]} is not supported for {name}")
            return self._composite(parameter, value)
        if parameter.type == "reference" and modifier in parameter.target:
            return self._references(parameter, modifier, value)
        if modifier and modifier not in _MODIFIERS.get(parameter.type, ()):
            raise Invalid(f"the modifier :{modifier[:64]} is not supported for {name}")
        match modifier:
            case "missing":
                return _missing(parameter, _boolean(name, value))
            case "not":
                return Without(self._positive(parameter, "", value))
            case "not-in":
                return Without(self._positive(parameter, "in", value))
        return self._positive(parameter, modifier, value)

    def _positive(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        names = _names(parameter)
        if parameter.type == "reference":
            if modifier == "identifier":
                told = self._read(parameter.code, value, tokens.token)
                return Indexed("token", _beside(names, "identifier"), tuple(told))
            if modifier:
                return self._levels(parameter, modifier, value)
            return self._references(parameter, "", value)
        match modifier:
            case "text":
                texts = [StartsWith(unescaped(one)) for one in self._split(parameter.code, value)]
                return Indexed("string", _beside(names, "text"), tuple(texts))
            case "of-type":
                typed = self._read(parameter.code, value, tokens.of_type)
                return Indexed("token", _beside(names, "of-type"), tuple(typed))
            case "in":
                return Indexed("token", names, tokens.value_set(value))
            case "above" | "below" if parameter.type == "token":
                told = self._read(parameter.code, value, tokens.token)
                tests = [one for token in told for one in tokens.subsumed(token, modifier)]
                return Indexed("token", names, tuple(tests)) if tests else NOTHING
        tests = []
        for one in self._read(parameter.code, value, lambda text: text):
            tests += self._tests(parameter.type, parameter, modifier, one)
        return Indexed(parameter.type, names, tuple(tests)) if tests else NOTHING

    def _tests(
        self, type_: str, parameter: SearchParameter | None, modifier: str, value: str
    ) -> list[Test]:
        """The tests, each of which will do, that one value stands for."""
        match type_:
            case "token":
                asked = tokens.token(value)
                implicit = parameter is not None and any(path.system for path in parameter.paths)
                return [TokenIs(asked.code)] if implicit and asked.system == "" else [asked]
            case "string":
                text = unescaped(value)
                match modifier:
                    case "exact":
                        return [IsExactly(text)]
                    case "contains":
                        return [Holds(text)]
                return [StartsWith(text)]
            case "date":
                return prefixes.in_time(*self._span(value))
            case "quantity" | "number":
                return prefixes.quantity(value)
            case "uri":
                return [tokens.uri(unescaped(value), modifier)]
        raise Invalid("a value of this type cannot be asked for here")

    def _span(self, value: str) -> tuple[str, int, int]:
        """Prefix, and first and last moment of a date; of ``ap`` widened (R4 3.1.1.4.2)."""
        # An offset's "+" that nobody escaped arrives as a space.
        match = prefixes.PREFIXED.fullmatch(unescaped(value).replace(" ", "+"))
        span = moments.span(match[2], self.scope.timezone) if match else None
        if match is None or span is None:
            raise Invalid("a date is written [prefix]YYYY[-MM[-DD[Thh:mm[:ss[.fff]][zone]]]]")
        low, high = span
        if match[1] == "ap":
            around = abs(moments.since_epoch(self.scope.access.now) - low) // 10
            return "ap", low - around, high + around
        return match[1] or "eq", low, high

    def _references(self, parameter: SearchParameter, kind: str, value: str) -> Asked:
        """References to what is named; a Patient means all records of that person."""
        wanted = kind or next((target for _, target in parameter.kept_as if target), "")
        tests: list[Test] = []
        for one in self._split(parameter.code, value):
            told = unescaped(one)
            found, identity = indexing.target(told, f"{self.scope.base}/")
            bare = not found and re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", told, re.ASCII)
            if found:
                kinds: Sequence[str] = [found] if wanted in {"", found} else []
            elif bare:
                kinds, identity = [wanted] if wanted else parameter.target, told
            else:
                tests.append(RefersTo("", (identity,)))
                continue
            for target in kinds:
                ids = self._persons(parameter, identity) if target == "Patient" else (identity,)
                if ids:
                    tests.append(RefersTo(target, ids))
        return Indexed("reference", _names(parameter), tuple(tests)) if tests else NOTHING

    def _levels(self, parameter: SearchParameter, modifier: str, value: str) -> Asked:
        """References to what is named, and to all that is part of it, or of which it is part."""
        tests: list[Test] = []
        for one in self._split(parameter.code, value):
            kind, identity = indexing.target(unescaped(one), f"{self.scope.base}/")
            kinds = [part for part in PARTS if part in parameter.target and kind in {"", part}]
            if len(kinds) != 1:
                told = f"{parameter.code}:{modifier} is asked for one of {', '.join(PARTS)}"
                raise Invalid(f"{told}, written with its type")
            identity = identity if kind else unescaped(one)
            tests.append(RefersTo(kinds[0], self._within(kinds[0], identity, modifier)))
        return Indexed("reference", _names(parameter), tuple(tests)) if tests else NOTHING

    def _within(self, kind: str, identity: str, modifier: str) -> tuple[str, ...]:
        """A resource with all that is part of it, or of which it is part, as far as visible."""
        access = self.scope.access
        names = _names(search_parameters.of(kind)[PARTS[kind]])
        found, front = {identity}, [identity]
        for _ in range(MAX_LEVELS):
            if not front:
                break
            if modifier == "below":
                hits = clinical_search.referring(
                    access, kind, names, kind, front, limit=MAX_TARGETS + 1
                )
                reached = {one.logical_id for one in hits}
            else:
                held = clinical_search.named(access, kind, front, limit=MAX_TARGETS + 1)
                rows = [one.row for one in held]
                led = clinical_search.referred(access, rows, names) if rows else ()
                reached = {target for _, target_kind, target in led if target_kind == kind}
            front = sorted(reached - found)
            found |= reached
            if len(found) > MAX_TARGETS:
                raise TooBroad("too many are part of it: ask for fewer of them")
        return tuple(sorted(found))

    def _persons(self, parameter: SearchParameter, identity: str) -> tuple[str, ...]:
        rows = patient.rows(identity)
        same = trail.same_patient if parameter.kind == "AuditEvent" else related.same_person
        return tuple(str(row) for one in rows for row in same(self.scope.access, one))

    def _of_patients_numbered(self, name: str, value: str) -> Asked:
        """Acts on the records of patients with a number (ITI-81): the trail leads no further."""
        if name not in {"patient.identifier", "patient:Patient.identifier"}:
            raise Invalid("of AuditEvents only patient.identifier is chained")
        wanted = []
        for token in self._read("identifier", value, tokens.token):
            if not token.code:
                raise Invalid("patient.identifier has a value")
            owner = self.scope.issuer(token.system or "")
            system = (token.system or "").removeprefix("urn:oid:")
            wanted.append((owner.id if owner else None, system, token.code))
        rows = trail.patients(self.scope.access, wanted) if wanted else ()
        found = RefersTo("Patient", tuple(str(row) for row in rows))
        return Indexed("reference", ("AuditEvent.patient",), (found,)) if rows else NOTHING

    def _composite(self, parameter: SearchParameter, value: str) -> Asked:
        wanted: list[Asked] = []
        for one in self._split(parameter.code, value):
            parts = split(one, "$")
            if len(parts) != len(parameter.components):
                count = len(parameter.components)
                raise Invalid(f"{parameter.code}: a composite has {count} parts, with $ between")
            tests = [
                self._component(component.type, part)
                for component, part in zip(parameter.components, parts, strict=True)
            ]
            for code, _ in parameter.kept_as:
                names = [f"{parameter.kind}.{code}${number}" for number in range(len(tests))]
                components = zip(parameter.components, names, tests, strict=True)
                wanted.append(
                    Together(
                        tuple(
                            Indexed(component.type, (name,), tuple(test))
                            for component, name, test in components
                        )
                    )
                )
        return wanted[0] if len(wanted) == 1 else Some(tuple(wanted))

    def _component(self, type_: str, value: str) -> list[Test]:
        if type_ != "reference":
            return self._tests(type_, None, "", value)
        kind, identity = indexing.target(unescaped(value), f"{self.scope.base}/")
        return [RefersTo(kind, (identity,))]

    def _turned(self, modifier: str, criterion: Asked, name: str) -> Asked:
        match modifier:
            case "":
                return criterion
            case "not" if name == "_id":
                return Without(criterion)
        raise Invalid(f"the modifier :{modifier[:64]} is not supported for {name}")

    # -- Values -----------------------------------------------------------------------------------

    def _split(self, name: str, value: str) -> list[str]:
        """The alternatives of a value, each once, still escaped."""
        found = [one for one in dict.fromkeys(split(value, ",")) if one]
        self.count(len(found))
        if any(len(one) > MAX_LENGTH for one in found):
            raise Invalid(f"a value of {name} has at most {MAX_LENGTH} characters")
        return found

    def count(self, values: int) -> None:
        """Count values that are asked for. Raises TooBroad where there are too many."""
        self.values += values
        if self.values > MAX_VALUES:
            raise TooBroad(f"a search asks for at most {MAX_VALUES} values; ask in several")

    def _read(self, name: str, value: str, read: Callable[[str], Any]) -> list[Any]:
        try:
            return [read(one) for one in self._split(name, value)]
        except Invalid as error:
            raise Invalid(f"{name}: {error}") from error

    # -- Records with tables of their own ---------------------------------------------------------

    def _native(self, kind: str, code: str, modifier: str, value: str) -> Criterion:
        parameter = TABLES[kind].parameters.get(code)
        known = search_parameters.of(kind).get(code)
        if parameter is None and known is None:
            raise Unknown(code)
        match modifier:
            case "not" if known is not None and known.type == "token":
                return Not(self._native(kind, code, "", value))
            case "missing":
                missing = _boolean(code, value)
                present = self._there(kind, code)
                return Not(present) if missing else present
            case "in" | "not-in" if parameter is not None and parameter.type == Type.TOKEN:
                codes = [one.code for one in tokens.value_set(value) if isinstance(one, TokenIs)]
                among = any_of(parameter.read(self.scope, code or "", "") for code in codes)
                return Not(among) if modifier == "not-in" else among
            case "above" | "below" if parameter is not None:
                raise Invalid(f"the modifier :{modifier} is not supported for {code}")
        if parameter is not None and (not modifier or modifier in parameter.modifiers):
            read = parameter.read
            found = self._read(code, value, lambda one: read(self.scope, one, modifier))
            return any_of(found)
        if kind == "Person" and code in {"email", "phonetic", "address-use"}:
            return person.any_record(self._native("Patient", code, modifier, value))
        if known is None or kind != "Patient":
            if known is not None and modifier in {"", *_MODIFIERS.get(known.type, ())}:
                return ALL if modifier == "not-in" else NONE  # no image ever says such a thing
            raise Invalid(f"the modifier :{modifier[:64]} is not supported for {code}")
        return self._written(known, modifier, value)

    def _written(self, known: SearchParameter, modifier: str, value: str) -> Criterion:
        """What only a hospital that wrote the Patient itself said of it."""
        if known.code == "phonetic" and modifier in {"", "exact", "contains"}:
            return self._native("Patient", "name", modifier, value)
        if known.code == "link":
            return self._linked(value)
        if known.code == "deceased" and not modifier:
            # Of whom nothing is said are not known to have died.
            told = Linked(Level.PATIENT, Written(self.indexed(known, "", "true")))
            wanted = {unescaped(one) for one in self._split("deceased", value)}
            found: list[Criterion] = [told] if "true" in wanted else []
            return AnyOf((*found, Not(told)) if "false" in wanted else tuple(found))
        return Linked(Level.PATIENT, Written(self.indexed(known, modifier, value)))

    def _linked(self, value: str) -> Criterion:
        """The other records of the person of a Patient."""
        found: list[Criterion] = []
        for one in self._split("link", value):
            kind, identity = indexing.target(unescaped(one), f"{self.scope.base}/")
            if kind in {"", "Patient"}:
                for row in query.seen(self.scope.access, patient.rows(identity)):
                    others = Not(Rows(Level.PATIENT, (row,)))
                    found.append(AllOf((SamePerson(row), others)))
        return AnyOf(tuple(found))

    def _there(self, kind: str, code: str) -> Criterion:
        """Whether a record has any value under a parameter."""
        if kind == "Person":
            if code in {"email", "phonetic", *person.AS_OF_PATIENTS}:
                return person.any_record(self._there("Patient", code))
            return ALL if code in TABLES[kind].parameters else NONE
        keywords = _COLUMNS.get((kind, code))
        if keywords is not None:
            return AnyOf(tuple(Not(Match(one, Values(("",)))) for one in keywords))
        if code in TABLES[kind].parameters:
            if (kind, code) == ("Patient", "identifier"):
                return Not(Match("PatientID", Values(("",))))
            if (kind, code) in {("Patient", one) for one in ("name", "family", "given")}:
                return Match("PatientName", Pattern("?*"))
            return ALL
        known = search_parameters.of(kind).get(code)
        if kind == "Patient" and known is not None and known.kept_as:
            return Linked(Level.PATIENT, Written(_missing(known, missing=False)))
        return NONE

    # -- Chains -----------------------------------------------------------------------------------

    def _chain(self, kind: str, code: str, modifier: str, rest: str, value: str, depth: int) -> Any:
        table = TABLES[kind].parameters if kind in TABLES else {}
        if not modifier and f"{code}.{rest}" in table:  # a chain that means the person
            return self._native(kind, f"{code}.{rest}", "", value)
        parameter = search_parameters.of(kind)[code]
        if parameter.type != "reference":
            raise Invalid(f"{code} is no reference: nothing is chained to it")
        if modifier and modifier not in parameter.target:
            raise Invalid(f"{code} does not refer to a {modifier[:64]}")
        only = next((target for _, target in parameter.kept_as if target), "")
        found = []
        for target in [modifier or only] if modifier or only else parameter.target:
            if target in ALONE:
                continue
            try:
                inner = self.criterion(target, rest, value, depth + 1)
            except Unknown:
                continue
            found.append(self._leading(kind, parameter, target, inner))
        if not found:
            raise Unknown(f"{code}.{rest}")
        if kind in TABLES:
            return found[0] if len(found) == 1 else AnyOf(tuple(found))
        return found[0] if len(found) == 1 else Some(tuple(found))

    def _leading(self, kind: str, parameter: SearchParameter, target: str, inner: Any) -> Any:
        match kind, parameter.code:
            case "Patient", "organization":
                owners = tuple(one.id for one in registered.found(self.scope, target, inner))
                return Owned(owners)
            case "ImagingStudy", "endpoint":
                owners = tuple(one.id for one in registered.found(self.scope, target, inner))
                return Owned(owners)
            case "ImagingStudy", "basedon" if target == "ServiceRequest":
                led = clinical_search.ids(self.scope.access, target, inner, limit=MAX_TARGETS)
                return imaging_study.based_on(self.scope, led)
            case "ImagingStudy", "patient" | "subject":
                return inner if target == "Patient" else NONE
            case "Person", "patient" | "link" if target == "Patient":
                return person.any_record(query.decided(self.scope.access, inner))
            case "ImagingStudy" | "Person", _:
                return NONE
            case "Patient", "link":
                raise Invalid("link cannot be chained: ask for the other record itself")
        found = self._leads(parameter, target, inner)
        return Linked(Level.PATIENT, Written(found)) if kind == "Patient" else found

    def _leads(self, parameter: SearchParameter, target: str, inner: Any) -> Asked:
        names = _names(parameter)
        if target in NATIVE:
            return Leads(names, Native(NATIVE[target], (query.decided(self.scope.access, inner),)))
        kept = Leads(names, Selected(target, inner))
        if target not in registered.KINDS:
            return kept
        ids = tuple(
            registered.identity(target, one) for one in registered.found(self.scope, target, inner)
        )
        if not ids:
            return kept
        return Some((kept, Indexed("reference", names, (RefersTo(target, ids),))))

    def _has(self, kind: str, name: str, value: str, depth: int) -> Any:
        parts = name.split(":", 3)
        if len(parts) != 4:
            raise Invalid("_has is written _has:[type]:[reference]:[parameter]")
        _, source, code, rest = parts
        parameter = search_parameters.of(source).get(code)
        if source in ALONE or parameter is None or parameter.type != "reference":
            raise Unknown(name[:64])
        if kind not in parameter.target:
            raise Invalid(f"{source[:64]}.{code[:64]} does not refer to a {kind}")
        inner = self.criterion(source, rest, value, depth + 1)
        if source == "ImagingStudy":
            return self._of_studies(kind, code, inner)
        if source == "Patient":
            return self._of_patients(kind, parameter, inner)
        found = self._referred(kind, _names(parameter), Selected(source, inner))
        if source in registered.KINDS and kind in registered.KINDS:
            # A hospital's Endpoint is its own Organization's, and the other way round.
            owners = registered.found(self.scope, source, inner)
            ids = tuple(registered.identity(kind, one) for one in owners)
            return Some((found, Ids(ids)))
        return found

    def _referred(self, kind: str, names: tuple[str, ...], inner: Selected) -> Any:
        if kind in NATIVE:
            return Linked(NATIVE[kind], Pointed(kind, names, inner))
        referred = ReferredBy(kind, names, inner)
        if kind not in registered.KINDS:
            return referred
        access = self.scope.access
        ids = clinical_search.targets(access, names, kind, inner, limit=MAX_TARGETS)
        return Some((referred, Ids(ids)))

    def _of_studies(self, kind: str, code: str, inner: Criterion) -> Any:
        if kind == "Patient" and code in {"patient", "subject"}:
            return Linked(Level.PATIENT, OfStudies((inner,)))
        if kind == "Endpoint" and code == "endpoint":
            return Ids(self._owned(kind, Level.STUDY, inner))
        if kind == "ServiceRequest" and code == "basedon":
            return Ids(related.requested(self.scope.access, inner, limit=MAX_TARGETS))
        return NONE if kind in NATIVE else NOTHING

    def _of_patients(self, kind: str, parameter: SearchParameter, inner: Criterion) -> Any:
        if parameter.code == "link":
            raise Invalid("link cannot be followed backwards: ask for the record itself")
        one = Native(Level.PATIENT, (query.decided(self.scope.access, inner),))
        found = ReferredBy(kind, _names(parameter), Selected("Patient", Natively(one)))
        if parameter.code == "organization" and kind == "Organization":
            return Some((found, Ids(self._owned(kind, Level.PATIENT, inner))))
        return found

    def _owned(self, kind: str, level: Level, inner: Criterion) -> tuple[str, ...]:
        rows = related.owners(self.scope.access, level, inner)
        return tuple(
            registered.identity(kind, one) for one in self.scope.organizations if one.id in rows
        )


_COLUMNS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Patient", "birthdate"): ("PatientBirthDate",),
    ("Patient", "telecom"): ("PatientTelephoneNumbers",),
    ("Patient", "phone"): ("PatientTelephoneNumbers",),
    **{
        ("Patient", one): ("PatientAddress",)
        for one in patient.SEARCH.parameters
        if one.startswith("address")
    },
    ("Patient", "mothersMaidenName"): ("PatientMotherBirthName",),
    ("ImagingStudy", "started"): ("StudyDate",),
}
"""What is empty where a record has no value."""


def _codes(kind: str) -> Mapping[str, SearchParameter]:
    return search_parameters.of(kind)


def _names(parameter: SearchParameter) -> tuple[str, ...]:
    if not parameter.kept_as:
        raise Problem(400, "not-supported", f"{parameter.code} is not supported")
    return tuple(f"{parameter.kind}.{code}" for code, _ in parameter.kept_as)


def _beside(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    return tuple(f"{name}:{what}" for name in names)


def _missing(parameter: SearchParameter, missing: bool) -> Asked:
    names = _names(parameter)
    target = next((target for _, target in parameter.kept_as if target), "")
    test: Test = RefersTo(target) if target else Present(parameter.type)
    present = Indexed(parameter.type, names, (test,))
    return Without(present) if missing else present


def _boolean(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise Invalid(f"{name}:missing is true or false")
    return value == "true"


def compartment(asking: Asking, kind: str, identity: str) -> Any:
    """What is in the compartment of a Patient (R4 3.1.1.7): of all records of that person."""
    if kind in TABLES:
        if kind in {"ImagingStudy", "Person"}:
            return asking.criterion(kind, "patient", identity)
        rows = query.seen(asking.scope.access, patient.rows(identity))
        return AnyOf(tuple(SamePerson(row) for row in sorted(rows)))
    parameters = search_parameters.of(kind)
    found = [
        asking.indexed(parameters[code], "Patient", identity)
        for code in search_parameters.compartment(kind)
        if "Patient" in parameters[code].target
    ]
    return Some(tuple(found))
