"""What can be asked of clinical resources (FHIR R4 3.1.1): a tree of values, without SQL.

    Every((
        Indexed(("Observation.code",), (TokenIs("29463-7", "http://loinc.org"),)),
        Leads(("Observation.subject",), "Patient", Native(Level.PATIENT, (NamePart(…),))),
    ))

`form` tells of each what it has in common with all that differ in their values only, see `forms`;
`resource_search` makes SQL of that. Parameters are named as in `resource_index`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exchange_storage import forms
from exchange_storage.criteria import Criterion, Level
from exchange_storage.forms import Form
from exchange_storage.names import fold
from exchange_storage.resource_index import LENGTH

# -- Tests of one value ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenIs:
    """The code, in the system; None for any, "" for none."""

    code: str | None
    system: str | None = None


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The text begins so, once folded (R4 3.1.1.4.8)."""

    text: str


@dataclass(frozen=True, slots=True)
class Holds:
    """The text has it anywhere, once folded: ``:contains``."""

    text: str


@dataclass(frozen=True, slots=True)
class IsExactly:
    """The text, as it was written: ``:exact``."""

    text: str


@dataclass(frozen=True, slots=True)
class RefersTo:
    """A resource of this type with one of the ids, or "" and addresses; no ids: any of the type."""

    kind: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """Of a span, whether its ends lie so; each is inclusive or not, None leaves it open.

    Moments in microseconds since 1970, or numbers.
    """

    low_from: float | None = None
    """It begins there or later."""
    low_before: float | None = None
    low_to: float | None = None
    """It begins there or before."""
    low_after: float | None = None
    high_from: float | None = None
    """It ends there or later."""
    high_after: float | None = None
    high_by: float | None = None
    """It ends there or before."""
    high_before: float | None = None
    code: str = ""
    """Of a quantity, the code or unit in which it is; "" for any."""
    system: str | None = None


@dataclass(frozen=True, slots=True)
class UriIs:
    """One of the URIs."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UriBelow:
    """A URI that begins so: ``:below``."""

    value: str


@dataclass(frozen=True, slots=True)
class RefersBelow:
    """A reference by an address that begins so."""

    value: str


@dataclass(frozen=True, slots=True)
class Present:
    """Any value at all: what ``:missing=false`` asks. `type` is ``token``, ``string``, …"""

    type: str


Test = (
    TokenIs
    | StartsWith
    | Holds
    | IsExactly
    | RefersTo
    | RefersBelow
    | Within
    | UriIs
    | UriBelow
    | Present
)


# -- Criteria -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Every:
    """All of the criteria hold; none at all: every resource."""

    criteria: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of them holds; none at all: no resource."""

    criteria: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """It does not hold."""

    criterion: Asked


@dataclass(frozen=True, slots=True)
class Indexed:
    """Under one of the parameters there is a value that passes one of the tests.

    `type` is the table: ``token``, ``string``, ``reference``, ``date``, ``quantity``, ``uri``.
    """

    type: str
    parameters: tuple[str, ...]
    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Together:
    """Values that belong together each pass: a composite (R4 3.1.1.4.14)."""

    components: tuple[Indexed, ...]


@dataclass(frozen=True, slots=True)
class Leads:
    """A reference leads to one of the selected resources: a chain (R4 3.1.1.4.12).

    Under `names` are the URIs by which the selected are referred to; "" where that is by id alone.
    """

    parameters: tuple[str, ...]
    inner: Selected | Native
    names: str = ""
    in_compartment: bool = False
    """A patient whom they lead to is always one whom the resource is about: `SearchToken` says."""
    named: bool = False
    """Who has the name that is asked for is listed first, which tells of most that they are not
    led to; see `in_compartment`."""


@dataclass(frozen=True, slots=True)
class ReferredBy:
    """One of the selected resources refers to it: ``_has`` (R4 3.1.1.4.13).

    `kind` is the type of what is referred to; `names` as in `Leads`.
    """

    kind: str
    parameters: tuple[str, ...]
    inner: Selected
    names: str = ""


@dataclass(frozen=True, slots=True)
class Ids:
    """The logical id is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """Last changed in the half-open span."""

    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Natively:
    """It is what a hospital wrote of one of these records, which have tables of their own."""

    inner: Native


Asked = Every | Some | Without | Indexed | Together | Leads | ReferredBy | Ids | Changed | Natively


@dataclass(frozen=True, slots=True)
class Selected:
    """The kept resources of a type for which a criterion holds."""

    kind: str
    criterion: Asked


@dataclass(frozen=True, slots=True)
class Native:
    """The patient records, or studies, for which criteria of `exchange_storage.search` hold."""

    level: Level
    criteria: tuple[Criterion, ...]

    @property
    def kind(self) -> str:
        """The resource type as which they are told."""
        return NATIVE[self.level]


NATIVE: Mapping[Level, str] = {Level.PATIENT: "Patient", Level.STUDY: "ImagingStudy"}
"""What has tables of its own, by its level."""


# -- Links of patient records and studies to resources, for `exchange_storage.criteria.Linked` --


@dataclass(frozen=True, slots=True)
class Written:
    """What a hospital wrote of the patient record itself, beside what has columns."""

    criterion: Asked
    frequent: bool = False
    """It holds for many records: each is looked at by itself, instead of all that there are."""

    def form(self, values: list[Any]) -> Form:
        """See `forms.form`."""
        return ("written", form(self.criterion, values), self.frequent)


@dataclass(frozen=True, slots=True)
class Pointed:
    """A kept resource refers to the record: `ReferredBy` for what has tables of its own."""

    kind: str
    parameters: tuple[str, ...]
    inner: Selected
    in_compartment: bool = False
    """As in `Leads`."""

    def form(self, values: list[Any]) -> Form:
        """See `forms.form`."""
        inner = _selected(self.inner, values)
        return ("pointed", self.kind, self.parameters, inner, self.in_compartment)


@dataclass(frozen=True, slots=True)
class OfStudies:
    """The patient record has a study for which the criteria hold."""

    criteria: tuple[Criterion, ...]

    def form(self, values: list[Any]) -> Form:
        """See `forms.form`."""
        return ("of studies", forms.form(self.criteria, values))


@dataclass(frozen=True, slots=True)
class OfPerson:
    """A visible record of the patient record's person fulfils the criteria, this one or another."""

    criteria: tuple[Criterion, ...]

    def form(self, values: list[Any]) -> Form:
        """See `forms.form`."""
        few = forms.selective(self.criteria)
        return ("of person", few, forms.form(self.criteria, values))


@dataclass(frozen=True, slots=True)
class OfSeveral:
    """There are other visible records of the patient record's person."""

    def form(self, _: list[Any]) -> Form:
        """See `forms.form`."""
        return ("of several",)


@dataclass(frozen=True, slots=True)
class IsPerson:
    """The patient record is of one of the persons with these row numbers."""

    persons: tuple[int, ...]

    def form(self, values: list[Any]) -> Form:
        """See `forms.form`."""
        return ("person", _among(self.persons, values))


# -- Forms ----------------------------------------------------------------------------------------


def form(criterion: Asked, values: list[Any]) -> Form:
    """The form of a criterion; its values are added to `values` in the order of the binds."""
    match criterion:
        case Every(criteria):
            return ("every", tuple([form(one, values) for one in criteria]))
        case Some(criteria):
            return ("some", tuple([form(one, values) for one in criteria]))
        case Without(inner):
            return ("without", form(inner, values))
        case Indexed(table, parameters, tests):
            return ("indexed", table, parameters, _tests(tests, values))
        case Together(components):
            return ("together", tuple([form(one, values) for one in components]))
        case Leads(parameters, inner, names, _, named):
            return ("leads", parameters, selection(inner, values), names, named)
        case ReferredBy(kind, parameters, inner, names):
            return ("referred", kind, parameters, _selected(inner, values), names)
        case Ids(ids):
            return ("ids", _among(ids, values))
        case Changed(since, before):
            values += [end for end in (since, before) if end is not None]
            return ("changed", since is not None, before is not None)
        case Natively(inner):
            return ("natively", selection(inner, values))


def _selected(inner: Selected, values: list[Any]) -> Form:
    return ("selected", inner.kind, form(inner.criterion, values))


def selection(inner: Selected | Native, values: list[Any]) -> Form:
    """The form of what a chain leads through, see `form`."""
    if isinstance(inner, Native):
        return ("native", inner.level, forms.form(inner.criteria, values))
    return _selected(inner, values)


def _tests(tests: Sequence[Test], values: list[Any]) -> Form:
    """Tests as alternatives; codes of one system are asked for together."""
    codes: dict[str | None, list[str]] = {}
    references: dict[str, list[str]] = {}
    found: list[Form] = []
    for one in tests:
        match one:
            case TokenIs(str(code), system):
                codes.setdefault(system, []).append(code[:LENGTH])
            case RefersTo(kind, targets) if targets:
                references.setdefault(kind, []).extend(target[:LENGTH] for target in targets)
            case _:
                found.append(_test(one, values))
    for system, wanted in codes.items():
        found.append(("codes", system is not None, _among(wanted, values)))
        values += [] if system is None else [system[:LENGTH]]
    for kind, referred in references.items():
        found.append(("targets", kind, _among(referred, values)))
    return tuple(found)


def _test(test: Test, values: list[Any]) -> Form:
    match test:
        case TokenIs(_, system):
            if system is None:
                return ("present",)
            values.append(system[:LENGTH])
            return ("system",)
        case StartsWith(text):
            return ("starts", _starts(fold(text)[:LENGTH], values))
        case Holds(text):
            values.append(f"%{_escaped(fold(text))}%")
            return ("holds",)
        case IsExactly(text):
            values += [fold(text[:LENGTH])[:LENGTH], text[:LENGTH]]
            return ("exactly",)
        case RefersTo(kind):
            return ("kind", kind)
        case UriIs(wanted):
            return ("uris", _among([one[:LENGTH] for one in wanted], values))
        case UriBelow(value):
            return ("below", _starts(value[:LENGTH], values))
        case RefersBelow(value):
            return ("refers below", _starts(value[:LENGTH], values))
        case Within():
            ends = []
            for name in _ENDS:
                if (end := getattr(test, name)) is not None:
                    values.append(end)
                    ends.append(name)
            if test.code:
                values += [test.code, test.code]
            if test.system is not None:
                values.append(test.system)
            return ("within", tuple(ends), bool(test.code), test.system is not None)
        case Present():
            return ("present",)


_ENDS = (
    *("low_from", "low_before", "low_to", "low_after"),
    *("high_from", "high_after", "high_by", "high_before"),
)


def _among(wanted: Sequence[Any], values: list[Any]) -> int:
    """How many are asked for; lists are filled up so that there are few forms of them."""
    if not wanted:
        return 0
    size: int = 1 << (len(wanted) - 1).bit_length()
    values += [*wanted, *([wanted[-1]] * (size - len(wanted)))]
    return size


def _starts(text: str, values: list[Any]) -> bool:
    """Whether there is anything that it must begin with."""
    if text:
        values += [text, text + "\U0010ffff"]
    return bool(text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
