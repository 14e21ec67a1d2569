"""Search, as FHIR R4 section 3.1.1 defines it: parameters to criteria, by the resources' tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo

from exchange import organizations
from exchange.access import Access
from exchange.errors import Invalid
from exchange_storage import names
from exchange_storage.records import Organization
from exchange_storage.search import (
    AllOf,
    AnyOf,
    Changed,
    Contains,
    Criterion,
    Exact,
    Holds,
    Level,
    Match,
    ModalitiesInStudy,
    Not,
    Number,
    Owned,
    Prefix,
    Range,
    Rows,
    Values,
)

T = TypeVar("T")

COUNT = 50
"""Entries of a page where the asker does not say."""
MAX_COUNT = 500
MAX_PARAMETERS = 100
MAX_VALUES = 100
"""Values of all parameters together: what a statement costs the index grows with each of them."""
MAX_LENGTH = 1024
"""Characters of one value."""
MAX_QUESTION = 1 << 14
"""Characters of all names and values together."""

NOTHING: Criterion = AnyOf(())
EVERYTHING: Criterion = AllOf(())

Condition = Callable[[Organization], bool]
"""What is asked of a hospital. There are some dozens of them: they are sifted in memory."""


class Type(StrEnum):
    """Types of search parameters (SearchParamType) that are used here."""

    TOKEN = "token"  # noqa: S105 - a FHIR code
    STRING = "string"
    DATE = "date"
    REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a question is asked: for whom, under which address, in which zone."""

    access: Access
    base: str
    """The address of this FHIR server, without a slash at its end."""
    dicomweb: str
    """The address of the DICOMweb root: what Endpoints lead to."""
    timezone: ZoneInfo
    """The hospitals' zone: of dates and times that come without one."""

    @cached_property
    def organizations(self) -> tuple[Organization, ...]:
        """The hospitals, which many questions need not know."""
        return tuple(organizations.everyone(self.access.session))

    def organization(self, code: str) -> Organization | None:
        """The hospital with this code."""
        return next((one for one in self.organizations if one.code == code), None)

    def issuer(self, system: str) -> Organization | None:
        """The hospital that issues numbers under this identifier system."""
        oid = system.removeprefix("urn:oid:")
        return next((one for one in self.organizations if one.issuer == oid), None)


@dataclass(frozen=True, slots=True)
class Token:
    """``code``, ``system|code``, ``|code`` or ``system|`` (R4 3.1.1.4.10)."""

    system: str | None
    """None where none was given, "" for ``|code``."""
    code: str


@dataclass(frozen=True, slots=True)
class Span:
    """A date as it was given: all the time from `low` up to, not including, `high`."""

    low: datetime
    high: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Generic[T]):
    """How a search parameter reads one of its values: (scope, value, modifier) to a condition."""

    type: Type
    read: Callable[[Scope, str, str], T]
    documentation: str
    modifiers: frozenset[str] = frozenset()
    there: Criterion = EVERYTHING
    """What the records fulfil that have a value: ``:missing=false``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Generic[T]):
    """All that can be asked of a resource type; the CapabilityStatement is printed from it."""

    documentation: str
    parameters: Mapping[str, Parameter[T]]
    told: Mapping[str, Criterion] = field(default_factory=dict)
    """Which records have a value under a parameter that is not asked of their columns."""
    sorts: Mapping[str, str] = field(default_factory=dict)
    """Sort keys, and what `in_order.SORTED` calls them."""


# -- Parameters by type -------------------------------------------------------------------------


def token(
    read: Callable[[Scope, Token], Criterion],
    documentation: str,
    there: Criterion = EVERYTHING,
    *,
    told: Callable[[str], Criterion] | None = None,
    systems: Sequence[str] = (),
) -> Parameter[Criterion]:
    """A token parameter (R4 3.1.1.4.10); `told` answers ``:text``, if anything is told of it.

    `systems` is what the one system of its codes is called, where there is one: no code is of any
    other, and ``system|`` asks for any of them. "" among them: ``|code`` is one as well.
    """

    def one(scope: Scope, value: str, modifier: str) -> Criterion:
        if modifier == "text" and told is not None:
            return told(unescaped(value))
        parts = [unescaped(part) for part in split(value, "|")]
        match parts:
            case [code]:
                return read(scope, Token(None, code))
            case [system, _] if systems and system not in systems:
                return NOTHING
            case [system, ""] if systems and system:
                return there
            case [system, code]:
                return read(scope, Token(system, code))
            case _:
                raise Invalid("a token is written code, system|code, |code or system|")

    modifiers = frozenset[str]() if told is None else frozenset({"text"})
    return Parameter(
        type=Type.TOKEN, read=one, documentation=documentation, modifiers=modifiers, there=there
    )


def string(
    read: Callable[[Scope, Prefix | Contains | Exact], T],
    documentation: str,
    there: Criterion = EVERYTHING,
) -> Parameter[T]:
    """A string parameter: starts with; ``:contains``, ``:exact`` (R4 3.1.1.4.8)."""
    kinds: Mapping[str, type[Prefix] | type[Contains] | type[Exact]] = {
        "": Prefix,
        "contains": Contains,
        "exact": Exact,
    }

    def one(scope: Scope, value: str, modifier: str) -> T:
        return read(scope, kinds[modifier](unescaped(value)))

    modifiers = frozenset(kinds) - {""}
    return Parameter(
        type=Type.STRING,
        read=one,
        documentation=documentation,
        modifiers=modifiers,
        there=there,
    )


def fits(asked: Prefix | Contains | Exact, value: str) -> bool:
    """Whether a value that is at hand matches a string parameter."""
    match asked:
        case Prefix(text):
            return names.fold(value).startswith(names.fold(text))
        case Contains(text):
            return names.fold(text) in names.fold(value)
        case Exact(text):
            return value == text


def reference(
    kind: str,
    read: Callable[[Scope, str], T],
    documentation: str,
    there: Criterion = EVERYTHING,
) -> Parameter[T]:
    """A reference parameter to resources of `kind`: ``1``, ``Patient/1`` or its full address.

    What refers to anything else is read as the id "", which no resource has.
    """

    def one(scope: Scope, value: str, _: str) -> T:
        told = unescaped(value).removeprefix(f"{scope.base}/")
        head, slash, identity = told.rpartition("/")
        return read(scope, identity if not slash or head == kind else "")

    return Parameter(
        type=Type.REFERENCE,
        read=one,
        documentation=documentation,
        modifiers=frozenset({kind}),
        there=there,
    )


class Target(Protocol):
    """Something with a beginning and an end, to be compared with moments in the scope's zone."""

    def starts_from(self, at: datetime) -> Criterion:
        """It starts at the moment or later."""

    def starts_before(self, at: datetime) -> Criterion:
        """It starts before the moment."""

    def ends_after(self, at: datetime) -> Criterion:
        """It ends later than the moment."""

    def ends_by(self, at: datetime) -> Criterion:
        """It ends at the moment or before."""


def _equal(target: Target, span: Span) -> Criterion:
    return AllOf((target.starts_from(span.low), target.ends_by(span.high)))


PREFIXES: Mapping[str, Callable[[Target, Span], Criterion]] = {
    "eq": _equal,
    "ne": lambda t, s: AnyOf((t.starts_before(s.low), t.ends_after(s.high))),
    "gt": lambda t, s: t.ends_after(s.high),
    "lt": lambda t, s: t.starts_before(s.low),
    "ge": lambda t, s: AnyOf((t.ends_after(s.high), _equal(t, s))),
    "le": lambda t, s: AnyOf((t.starts_before(s.low), _equal(t, s))),
    "sa": lambda t, s: t.starts_from(s.high),
    "eb": lambda t, s: t.ends_by(s.low),
    "ap": lambda t, s: AllOf((t.starts_before(s.high), t.ends_after(s.low))),
}
"""What a prefix asks of a target's span, given the value's own (R4 3.1.1.4.2, 3.1.1.4.7)."""


def date(target: Target, documentation: str, there: Criterion = EVERYTHING) -> Parameter[Criterion]:
    """A date parameter: a prefix, and a value whose precision says what span it means."""

    def one(scope: Scope, value: str, _: str) -> Criterion:
        prefix, span = _span(value, scope.timezone)
        if prefix == "ap":
            # A tenth of the distance from now, to either side (R4 3.1.1.4.2).
            around = abs(scope.access.now - span.low) / 10
            span = Span(_shifted(span.low, -around), _shifted(span.high, around))
        return PREFIXES[prefix](target, span)

    return Parameter(type=Type.DATE, read=one, documentation=documentation, there=there)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A DICOM date, and its time where one is kept, by keyword: the day, or that second of it."""

    date: str
    time: str | None = None
    partial: bool = False
    """Whether only the year may be kept of it, or year and month: ``1962``, ``196207``."""

    def starts_from(self, at: datetime) -> Criterion:
        """A day without a time starts at midnight."""
        return self._from(_next_second(at), whole_day=False)

    def starts_before(self, at: datetime) -> Criterion:
        """The complement of `starts_from` among what has a date."""
        at = _next_second(at)
        before = self._before(at, whole_day=True)
        begun = _beginning(_da(at))[1:] if self.partial and _clock(at) else ()
        return AnyOf((before, Match(self.date, Values(begun)))) if begun else before

    def ends_after(self, at: datetime) -> Criterion:
        """A day without a time ends at the next midnight."""
        at = at.replace(microsecond=0)
        after = self._from(at, whole_day=True)
        return AnyOf((after, self._around(at))) if self.partial else after

    def ends_by(self, at: datetime) -> Criterion:
        """The complement of `ends_after` among what has a date."""
        at = at.replace(microsecond=0)
        by = self._before(at, whole_day=False)
        return AllOf((by, Not(self._around(at)))) if self.partial else by

    def _around(self, at: datetime) -> Criterion:
        """The year and the month in which a moment is."""
        return Match(self.date, Values((_da(at)[:6], _da(at)[:4])))

    def _from(self, at: datetime, *, whole_day: bool) -> Criterion:
        first = _da(at + _DAY if _clock(at) else at)
        later = Match(self.date, Range(_beginning(first)[-1] if self.partial else first, None))
        if not _clock(at):
            return later
        return AnyOf((later, self._on(at, Range(_clock(at), None), whole_day)))

    def _before(self, at: datetime, *, whole_day: bool) -> Criterion:
        earlier = Match(self.date, Range(None, _da(at - _DAY)))
        if not _clock(at):
            return earlier
        until = Range(None, f"{at - timedelta(seconds=1):%H%M%S}")
        return AnyOf((earlier, self._on(at, until, whole_day)))

    def _on(self, at: datetime, times: Range, whole_day: bool) -> Criterion:
        """On the day of `at`, at one of the times; with `whole_day` also what has no time."""
        on_day = Match(self.date, Values((_da(at),)))
        if self.time is None:
            return on_day if whole_day else NOTHING
        timed: Criterion = Match(self.time, times)
        if whole_day:
            timed = AnyOf((timed, Match(self.time, Values(("",)))))
        return AllOf((on_day, timed))


@dataclass(frozen=True, slots=True)
class LastChanged:
    """When the exchange last changed the record of that level: a point in time."""

    level: Level

    def starts_from(self, at: datetime) -> Criterion:
        """Changed at the moment or later."""
        return Changed(self.level, since=at)

    def starts_before(self, at: datetime) -> Criterion:
        """Changed before it."""
        return Changed(self.level, before=at)

    ends_after = starts_from
    ends_by = starts_before


# -- Conditions -----------------------------------------------------------------------------------


def any_of(criteria: Iterable[Criterion]) -> Criterion:
    """At least one of `criteria`, with what is asked of the same place asked there at once.

    A statement of a hundred conditions takes long to be put together; a list of values does not.
    """
    places: dict[tuple[object, ...], tuple[Callable[[tuple[Any, ...]], Criterion], list[Any]]] = {}
    for criterion in _flat(criteria):
        place, together, asked = _asked(criterion)
        places.setdefault(place, (together, []))[1].extend(asked)
    folded = tuple(
        together(tuple(dict.fromkeys(asked))) for together, asked in places.values() if asked
    )
    return folded[0] if len(folded) == 1 else AnyOf(folded)


def _flat(criteria: Iterable[Criterion]) -> Iterator[Criterion]:
    for criterion in criteria:
        if isinstance(criterion, AnyOf):
            yield from _flat(criterion.criteria)
        else:
            yield criterion


def _asked(
    criterion: Criterion,
) -> tuple[tuple[object, ...], Callable[[tuple[Any, ...]], Criterion], tuple[Any, ...]]:
    """Where a criterion asks, how all that is asked there is written as one, and what it asks."""
    match criterion:
        case Match(keyword, Values(values)):
            return (Match, keyword), lambda all_: Match(keyword, Values(all_)), values
        case ModalitiesInStudy(Values(values)):
            return (ModalitiesInStudy,), lambda all_: ModalitiesInStudy(Values(all_)), values
        case Number(organization, Values(values)):
            return (Number, organization), lambda all_: Number(organization, Values(all_)), values
        case Owned(organizations):
            return (Owned,), Owned, organizations
        case Rows(level, ids):
            return (Rows, level), lambda all_: Rows(level, all_), ids
        case Holds((one,)):
            return (Holds,), lambda all_: Holds((any_of(all_),)), (one,)
        case AllOf((first, second)):
            return (AllOf, first), lambda all_: AllOf((first, any_of(all_))), (second,)
        case _:
            return (criterion,), lambda all_: all_[0], (criterion,)


# -- Parsing --------------------------------------------------------------------------------------

_VALUE = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb|ap)?"
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_DAY = timedelta(days=1)


def _span(value: str, timezone: ZoneInfo) -> tuple[str, Span]:
    # An offset's "+" that nobody escaped arrives as a space.
    found = _VALUE.fullmatch(unescaped(value).replace(" ", "+"))
    if not found:
        raise Invalid("a date is written [prefix]YYYY[-MM[-DD[Thh:mm[:ss[.fff]][zone]]]]")
    part = found.groupdict()
    if part["second"] == "60":  # a leap second, as `moments` reads it
        part["second"] = "59"
    fraction = (part["fraction"] or "")[:6]
    try:
        low = datetime.fromisoformat(
            f"{part['year']}-{part['month'] or '01'}-{part['day'] or '01'}"
            f"T{part['hour'] or '00'}:{part['minute'] or '00'}:{part['second'] or '00'}"
            f".{fraction or '0':0<6}{part['zone'] or ''}"
        )
    except ValueError:
        raise Invalid("there is no such date or time") from None
    if part["zone"] is not None:
        low = _shifted(low, timedelta(0)).astimezone(timezone)
    low = _shifted(low.replace(tzinfo=timezone), timedelta(0))
    if part["month"] is None:
        high = _shifted(low.replace(month=12, day=31), _DAY)
    elif part["day"] is None:
        high = _shifted(low.replace(day=28), timedelta(days=4)).replace(day=1)
    else:
        steps = {"hour": _DAY, "second": timedelta(minutes=1), "fraction": timedelta(seconds=1)}
        step = next((size for name, size in steps.items() if part[name] is None), None)
        high = _shifted(low, step or timedelta(microseconds=10 ** (6 - len(fraction))))
    return part["prefix"] or "eq", Span(low, high)


def _shifted(at: datetime, by: timedelta) -> datetime:
    """`at` later `by`, never so near to an end of the calendar that another zone has no date."""
    first = datetime(1, 1, 3, tzinfo=at.tzinfo)
    last = datetime(9999, 12, 29, tzinfo=at.tzinfo)
    try:
        return min(max(at + by, first), last)
    except OverflowError:
        return last if by > timedelta(0) else first


def _da(at: datetime) -> str:
    return at.date().isoformat().replace("-", "")


def _beginning(day: str) -> tuple[str, ...]:
    """A day, and the month and the year that begin on it: ``19620101``, ``196201``, ``1962``.

    As a text the last of them comes before all that begins later.
    """
    ends = (end for end in ("01", "0101") if day.endswith(end))
    return (day, *(day.removesuffix(end) for end in ends))


def _clock(at: datetime) -> str:
    """The time of `at` as a TM without trailing zeros, "" at midnight: ``10`` for 10:00:00.

    So that a time kept in less detail, which is the beginning of its span, sorts as that.
    """
    return re.sub(r"(00)+$", "", f"{at:%H%M%S}")


def _next_second(at: datetime) -> datetime:
    return at + timedelta(microseconds=-at.microsecond % 1_000_000)


def split(value: str, separator: str) -> list[str]:
    """Split at each `separator` that no backslash stands before; escapes stay (R4 3.1.1.4.4)."""
    parts = [""]
    for piece in re.findall(r"\\.|.", value, re.DOTALL):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def unescaped(value: str) -> str:
    """A value without its escapes."""
    return re.sub(r"\\([\\,|$])", r"\1", value)
