"""How the matches of a question on resources are come by: what is looked up first, or walked.

What is looked up costs as much as is found. Where every condition has many rows, and the order of
the answer is an index's, that index is walked instead until the page is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.orm import aliased

from exchange.decided import conditions
from exchange.visibility import Reach
from exchange_storage import resource_leaders
from exchange_storage.forms import Form
from exchange_storage.prepared import Prepared
from exchange_storage.records import Resource
from exchange_storage.resource_criteria import (
    Asked,
    Every,
    Indexed,
    Leads,
    Native,
    RefersTo,
    Selected,
    Some,
    selection,
)
from exchange_storage.search import named, numbered, parameters

FEW = 500
"""Of several conditions the one with the fewest index rows leads; they are counted up to this. What
a chain leads through is looked up by name, where it is less."""

LISTED = 2_000
"""With fewer index rows than this a condition is rather listed than all resources looked through
until a page is full: of so few the next may be far."""

VERY_FEW = 50
"""With fewer index rows than this a condition leads whatever the others have."""

LED = 16
"""Patients of a name, at most, whose numbers are looked up instead."""

NAMED = 20_000
"""Patients of a name, at most, that are listed, so that nobody else's is looked into: a page may be
full after less than it takes to list more."""

NESTED = 2
"""Links of a chain, at most, that SQLite follows one by one, each a statement within another."""

NAMES = 2 * FEW
"""Names that they have: a canonical URL, with a version and without."""


@dataclass(frozen=True, slots=True)
class Way:
    """Which part of a question's form is looked up first, and how."""

    leader: int | None = None
    """None: what it looks like; -1: none, the resources of the type are looked through."""
    walks: bool = False
    """The leader's rows are walked in their order, not listed."""
    one_by_one: bool = False
    """What references lead to is looked at for each row by itself."""

    def links(self, form: Form, dialect: str) -> int:
        """Along how many links that is done: SQLite takes but so many statements within another."""
        if not self.one_by_one:
            return 0
        links = resource_leaders.links(form)
        return links if dialect == "postgresql" or links <= NESTED else 1

    @property
    def to_all(self) -> Way:
        """The way where all matches are wanted, not a page of them."""
        return Way(self.leader)


@dataclass(frozen=True, slots=True)
class Followed:
    """A criterion whose chains were followed as far as they lead to few."""

    criterion: Asked
    lead_to_many: frozenset[int] = field(default=frozenset())
    """The parts of ``every`` that lead through more than are looked up one after another."""
    may_be_listed: frozenset[int] = field(default=frozenset())
    """Those of them that lead through resources, not so many that they could not be listed."""


def followed(
    criterion: Asked, reach: Reach, connection: Connection, given: Mapping[str, Any]
) -> Followed:
    """`criterion` with what its chains lead through in their place; `given` are the policy's."""
    if not isinstance(criterion, Every):
        return Followed(criterion)
    parts: list[Asked] = []
    many: set[int] = set()
    listed: set[int] = set()
    for number, part in enumerate(criterion.criteria):
        if not isinstance(part, Leads):
            parts.append(part)
            continue
        found, through = _through(part, reach, connection, given)
        parts.append(found)
        if through >= FEW:
            many.add(number)
        if FEW < through < LISTED and isinstance(part.inner, Selected):
            listed.add(number)
    criteria = replace(criterion, criteria=tuple(parts))
    return Followed(criteria, frozenset(many), frozenset(listed))


def _through(
    chain: Leads, reach: Reach, connection: Connection, given: Mapping[str, Any]
) -> tuple[Asked, int]:
    """What stands in the place of a chain; and of how many it leads through, as far as that is
    known: FEW for more than that, 0 where they were looked up."""
    if isinstance(chain.inner, Selected):
        chain = replace(chain, inner=_along(chain.inner, reach, connection, given))
    values: list[Any] = []
    inner = selection(chain.inner, values)
    wanted = {**given, **parameters(values)}
    is_native = isinstance(chain.inner, Native)
    # Index rows alone, whoever may see what they are of: to count them takes no time.
    count, most = (_named(inner), NAMED) if is_native else (_selected(inner), LISTED)
    held = None if count is None else count.number(connection, {**wanted, "limit": most})
    limit = FEW if held is None or not is_native else LED + 1
    if held is None or is_native or held < limit:
        rows = _led_to(inner, reach).all(connection, {**wanted, "limit": limit})
        if len(rows) < limit:
            ids = tuple(sorted({row[0] for row in rows}))
            tests = [RefersTo(chain.inner.kind, ids)]
            if chain.names:
                told = _led_to(inner, reach, chain.names).all(connection, wanted | {"limit": NAMES})
                tests += [RefersTo("", tuple(sorted({row[0] for row in told})))] if told else []
            led = Indexed("reference", chain.parameters, tuple(tests))
            return led if ids else Some(()), 0
    if held is None:
        return chain, FEW
    return replace(chain, named=is_native and chain.in_compartment and held < NAMED), held


def _along(
    inner: Selected, reach: Reach, connection: Connection, given: Mapping[str, Any]
) -> Selected:
    """What a chain leads through, its own chains followed first."""
    criterion = inner.criterion
    if isinstance(criterion, Leads):
        criterion = Every((criterion,))
    return replace(inner, criterion=followed(criterion, reach, connection, given).criterion)


def way(
    form: Form,
    lead_to_many: frozenset[int],
    connection: Connection,
    given: Mapping[str, Any],
    *,
    order: str,
    may_be_listed: frozenset[int] = frozenset(),
) -> Way:
    """How to come by the matches of a form in an order: of ``row`` or ``changed``, or another.

    What leads to it by references is not counted: it is taken for few, but not for very few. Of
    chains it is told as `followed` has it.
    """
    found = resource_leaders.candidates(form)
    if not found:
        return Way()
    counted: list[tuple[int, int]] = []
    crowded: list[tuple[int, int]] = []
    uncounted: int | None = None
    for number in found:
        count = _few(form, number)
        if number in lead_to_many:
            continue
        if count is None:
            if counted:
                break
            uncounted = number if uncounted is None else uncounted
        elif uncounted is None or not resource_leaders.is_vague(form, number):
            limit = FEW if uncounted is None else VERY_FEW
            ((rows, last),) = count.all(connection, {**given, "limit": limit})
            if rows < limit:
                counted.append((rows, number))
                if rows < VERY_FEW:
                    break
            else:
                crowded.append((last, number))
    if counted:
        return Way(min(counted)[1], one_by_one=bool(lead_to_many))
    if uncounted is not None:
        return Way(uncounted)
    walkable = resource_leaders.walkable(form)
    # The further it is to the same number of rows, the fewer there are.
    sparse = [(last, number) for last, number in crowded if number in walkable]
    if sparse and order == "row":
        return Way(max(sparse)[1], walks=True, one_by_one=True)
    if order != "changed":
        return Way(found[0])
    if (listed := _listed(form, crowded, connection, given)) is not None:
        return listed
    return Way(min(may_be_listed)) if may_be_listed else Way(-1, one_by_one=True)


def _listed(
    form: Form,
    crowded: Sequence[tuple[int, int]],
    connection: Connection,
    given: Mapping[str, Any],
) -> Way | None:
    """The first of the parts that have not so many index rows that they could not be listed."""
    for _, number in crowded:
        if (count := _few(form, number)) is not None:
            ((rows, _),) = count.all(connection, {**given, "limit": LISTED})
            if rows < LISTED:
                return Way(number)
    return None


@lru_cache(256)
def _led_to(inner: Any, reach: Reach, names: str = "") -> Prepared:
    """The ids of what a chain leads through; or the names."""
    return Prepared(conditions(reach).led_to(inner, numbered(), names).limit(bindparam("limit")))


@lru_cache(256)
def _named(inner: Any) -> Prepared | None:
    """How many have the name that is asked for among other things, up to a limit; None for none."""
    if inner[0] != "native" or (rows := named(inner[1], inner[2], numbered())) is None:
        return None
    held = rows.limit(bindparam("limit")).subquery()
    return Prepared(select(func.count()).select_from(held))


@lru_cache(256)
def _selected(inner: Any) -> Prepared | None:
    """How many index rows there are of what a chain leads through, up to a limit; None where that
    is more than one condition, or none that is looked up."""
    _, _, criterion = inner
    parts = criterion[1] if criterion[0] == "every" else (criterion,)
    if len(parts) != 1 or (rows := conditions(Reach.EVERYTHING).few(parts[0], numbered())) is None:
        return None
    held = rows.limit(bindparam("limit")).subquery()
    return Prepared(select(func.count()).select_from(held))


@lru_cache(1024)
def _few(form: Any, number: int) -> Prepared | None:
    """How many index rows a part of a question has, up to a limit, and the last row number."""
    binds = numbered()
    for part in form[1][:number]:
        conditions(Reach.EVERYTHING).held(part, aliased(Resource), binds)
    rows = conditions(Reach.EVERYTHING).few(form[1][number], binds)
    if rows is None:
        return None
    few = rows.limit(bindparam("limit")).subquery()
    return Prepared(select(func.count(), func.max(few.c.resource_id)).select_from(few))
