"""Questions to criteria, for every resource type: parameters, chains, `_has` and compartments.

The values of what is kept as JSON are read by `values` (FHIR R4 3.1.1); what the exchange keeps in
records of its own is asked by the tables in `resources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exchange import clinical_search, query, related, trail
from exchange.errors import Invalid, TooBroad
from exchange_fhir import (
    contained,
    elements,
    registered,
    tokens,
)
from exchange_fhir.definitions import search_parameters
from exchange_fhir.definitions.search_parameters import SearchParameter
from exchange_fhir.outcome import Problem
from exchange_fhir.resources import imaging_study, patient, person
from exchange_fhir.search import Table, Type, any_of, unescaped
from exchange_fhir.values import (
    MAX_TARGETS,
    MODIFIERS,
    NOTHING,
    ParameterValues,
    boolean,
    followed_by,
    kept_under,
    missing_value,
)
from exchange_storage.criteria import (
    AllOf,
    AnyOf,
    Criterion,
    Level,
    Linked,
    Not,
    Owned,
    Rows,
    SamePerson,
)
from exchange_storage.resource_criteria import (
    Asked,
    Ids,
    Indexed,
    Leads,
    Native,
    Natively,
    OfStudies,
    Pointed,
    ReferredBy,
    RefersTo,
    Selected,
    Some,
    TokenIs,
    Written,
)

MAX_DEPTH = 4
"""Links of a chain, forwards and backwards together."""

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

NONE: Criterion = AnyOf(())
ALL: Criterion = AllOf(())

_REFUSED = {
    "_filter": "use the parameters, chains and _has",
    "_text": "use the parameters of the type, with :text where they are tokens",
    "_content": "use the parameters of the type, with :text where they are tokens",
    "_query": "no named queries are defined",
}
"""What is never ignored, since the answer would be another than was asked for."""


class Unknown(Exception):
    """No such parameter: it is ignored, or refused if the asker wants that."""


class Asking(ParameterValues):
    """One question, as it is read."""

    __slots__ = ()

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
            return self._referred(kind, search_parameters.of("List")["item"], inner)
        if kind in TABLES:
            return self._native(kind, code, modifier, value)
        parameter = search_parameters.of(kind).get(code)
        if parameter is None:
            raise Unknown(name)
        return self.indexed(parameter, modifier, value)

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
                missing = boolean(code, value)
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
        typed = code == "identifier" and modifier == "of-type"
        if kind == "ImagingStudy" and typed:
            asked = self._read(code, value, tokens.of_type)
            found = [imaging_study.typed(one.code or "", one.system) for one in asked]
            return any_of(one for each in found for one in each)
        if kind == "Person" and (typed or code in {"email", "phonetic", "address-use"}):
            return person.any_record(self._native("Patient", code, modifier, value))
        if known is None or kind != "Patient":
            if known is not None and modifier in {"", *MODIFIERS.get(known.type, ())}:
                return ALL if modifier == "not-in" else NONE  # no image ever says such a thing
            raise Invalid(f"the modifier :{modifier[:64]} is not supported for {code}")
        return self._written(known, modifier, value)

    def _written(self, known: SearchParameter, modifier: str, value: str) -> Criterion:
        """What only a hospital that wrote the Patient itself said of it."""
        if known.code == "phonetic" and modifier in {"", "exact", "contains"}:
            return self._native("Patient", "name", modifier, value)
        if known.code == "link":
            return self._linked(value)
        if modifier == "of-type":
            return self._typed(known, value)
        if known.code == "deceased" and not modifier:
            # Of whom nothing is said are not known to have died.
            told = Linked(Level.PATIENT, Written(self.indexed(known, "", "true")))
            wanted = {unescaped(one) for one in self._split("deceased", value)}
            found: list[Criterion] = [told] if "true" in wanted else []
            return AnyOf((*found, Not(told)) if "false" in wanted else tuple(found))
        return Linked(Level.PATIENT, Written(self.indexed(known, modifier, value)))

    def _typed(self, known: SearchParameter, value: str) -> Criterion:
        """The records that have an identifier of a type, whether written so or told of images."""
        found: list[Criterion] = []
        for one in self._split(known.code, value):
            typed = tokens.of_type(one)
            found += patient.typed(typed.code or "", typed.system)
        of_images = AllOf((AnyOf(tuple(found)), Not(patient.WRITTEN)))
        written = Linked(Level.PATIENT, Written(self.indexed(known, "of-type", value)))
        return AnyOf((of_images, written))

    def _linked(self, value: str) -> Criterion:
        """The other records of the person of a Patient."""
        found: list[Criterion] = []
        for one in self._split("link", value):
            kind, identity = elements.target(unescaped(one), f"{self.scope.base}/")
            if kind in {"", "Patient"}:
                for row in query.seen(self.scope.access, patient.rows(identity)):
                    others = Not(Rows(Level.PATIENT, (row,)))
                    found.append(AllOf((SamePerson(row), others)))
        return AnyOf(tuple(found))

    def _there(self, kind: str, code: str) -> Criterion:
        """Whether a record has any value under a parameter."""
        table = TABLES[kind]
        if code in table.parameters:
            return table.parameters[code].there
        if code in table.told:
            return table.told[code]
        known = search_parameters.of(kind).get(code)
        if kind == "Patient" and known is not None and known.kept_as:
            return Linked(Level.PATIENT, Written(missing_value(known, missing=False)))
        return NONE

    # -- Chains -----------------------------------------------------------------------------------

    def _chain(self, kind: str, code: str, modifier: str, rest: str, value: str, depth: int) -> Any:
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
                if (target, rest) == ("Patient", "identifier"):
                    inner = self._person(value)
                else:
                    inner = self.criterion(target, rest, value, depth + 1)
            except Unknown:
                continue
            found.append(self._leading(kind, parameter, target, inner))
            found += self._contained(kind, parameter, target, rest, value)
        if not found:
            raise Unknown(f"{code}.{rest}")
        if kind in TABLES:
            return found[0] if len(found) == 1 else AnyOf(tuple(found))
        return found[0] if len(found) == 1 else Some(tuple(found))

    def _person(self, value: str) -> Criterion:
        """Whom an identifier means that is chained to: as ``patient=`` means all records."""
        read = patient.OF_PERSON.read
        found = self._read("identifier", value, lambda one: read(self.scope, one, ""))
        return any_of(found)

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

    def _contained(
        self, kind: str, parameter: SearchParameter, target: str, rest: str, value: str
    ) -> list[Any]:
        """The same of what is contained (R4 3.1.1.5.6), where anything is: by a parameter of its
        own, as what it refers to is not inside."""
        code, _, modifier = rest.partition(":")
        known = search_parameters.of(target).get(code) if target in SEARCHED else None
        if known is None or not parameter.kept_as or kind in {"ImagingStudy", "Person"}:
            return []
        names = [
            name
            for name in kept_under(parameter)
            if clinical_search.is_kept(self.scope.access, contained.under(name), target)
        ]
        if not names:
            return []
        counted = self.values
        try:
            asked = contained.inside(names, target, self.indexed(known, modifier, value))
        except (Invalid, Problem):
            return []  # a record here can be asked so, and nothing that is written
        finally:
            self.values = counted
        return [Linked(Level.PATIENT, Written(asked)) if kind == "Patient" else asked]

    def _leads(self, parameter: SearchParameter, target: str, inner: Any) -> Asked:
        names = followed_by(parameter)
        if target in NATIVE:
            native = Native(NATIVE[target], (query.decided(self.scope.access, inner),))
            return Leads(names, native, in_compartment=_says_whose(parameter, target))
        kept = Leads(names, Selected(target, inner), _named(parameter, target))
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
        found = self._referred(kind, parameter, Selected(source, inner))
        if source in registered.KINDS and kind in registered.KINDS:
            # A hospital's Endpoint is its own Organization's, and the other way round.
            owners = registered.found(self.scope, source, inner)
            ids = tuple(registered.identity(kind, one) for one in owners)
            return Some((found, Ids(ids)))
        return found

    def _referred(self, kind: str, parameter: SearchParameter, inner: Selected) -> Any:
        names = followed_by(parameter)
        if kind in NATIVE:
            whose = _says_whose(parameter, kind)
            return Linked(NATIVE[kind], Pointed(kind, names, inner, whose))
        referred = ReferredBy(kind, names, inner, _named(parameter, kind))
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
        found = ReferredBy(kind, kept_under(parameter), Selected("Patient", Natively(one)))
        if parameter.code == "organization" and kind == "Organization":
            return Some((found, Ids(self._owned(kind, Level.PATIENT, inner))))
        return found

    def _owned(self, kind: str, level: Level, inner: Criterion) -> tuple[str, ...]:
        rows = related.owners(self.scope.access, level, inner)
        return tuple(
            registered.identity(kind, one) for one in self.scope.organizations if one.id in rows
        )


def _codes(kind: str) -> Mapping[str, SearchParameter]:
    return search_parameters.of(kind)


def _named(parameter: SearchParameter, target: str) -> str:
    """Under what the index keeps the names by which a parameter refers to resources of a type."""
    return search_parameters.named_under(target) if parameter.is_canonical else ""


def _says_whose(parameter: SearchParameter, kind: str) -> bool:
    """Whether all to whom a parameter refers as resources of a type, are those whom the resource is
    about: a Task is about its patient, and not about the study that it is for."""
    return kind == "Patient" and search_parameters.is_in_compartment(parameter)


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
