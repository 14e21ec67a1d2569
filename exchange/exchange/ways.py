"""How the matches of a question on resources are come by: what is looked up first, or walked.

What is looked up costs as much as is found. Where every condition has many rows, and the order of
the answer is an index's, that index is walked instead until the page is full.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    RefersTo,
    Some,
    selection,
)
from exchange_storage.search import numbered, parameters

FEW = 500
"""Of several conditions the one with the fewest index rows leads; they are counted up to this."""

VERY_FEW = 50
"""With fewer index rows than this a condition leads whatever the others have."""

LED = 16
"""Where a chain leads through no more than this, those are looked up by name."""

NAMES = 2 * LED
"""Names that these have: a canonical URL, with a version and without."""


@dataclass(frozen=True, slots=True)
class Way:
    """Which part of a question's form is looked up first, and how."""

    leader: int | None = None
    """None: what it looks like; -1: none, the resources of the type are looked through."""
    walks: bool = False
    """The leader's rows are walked in their order, not listed."""
    one_by_one: bool = False
    """What references lead to is looked at for each row by itself."""

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


def followed(
    criterion: Asked, reach: Reach, connection: Connection, given: Mapping[str, Any]
) -> Followed:
    """`criterion` with what its chains lead through in their place; `given` are the policy's."""
    if not isinstance(criterion, Every):
        return Followed(criterion)
    parts: list[Asked] = []
    many: set[int] = set()
    for number, part in enumerate(criterion.criteria):
        if not isinstance(part, Leads):
            parts.append(part)
            continue
        values: list[Any] = []
        inner = selection(part.inner, values)
        wanted = {**given, **parameters(values), "limit": FEW}
        rows = _led_to(inner, reach).all(connection, wanted)
        if len(rows) <= LED:
            ids = tuple(sorted({row[0] for row in rows}))
            tests = [RefersTo(part.inner.kind, ids)]
            if part.names:
                told = _led_to(inner, reach, part.names).all(connection, wanted | {"limit": NAMES})
                tests += [RefersTo("", tuple(sorted({row[0] for row in told})))] if told else []
            parts.append(Indexed("reference", part.parameters, tuple(tests)) if ids else Some(()))
            continue
        parts.append(part)
        if len(rows) == FEW:
            many.add(number)
    return Followed(replace(criterion, criteria=tuple(parts)), frozenset(many))


def way(
    form: Form,
    lead_to_many: frozenset[int],
    connection: Connection,
    given: Mapping[str, Any],
    *,
    order: str,
) -> Way:
    """How to come by the matches of a form in an order: of ``row`` or ``changed``, or another.

    What leads to it by references is not counted: it is taken for few, but not for very few.
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
        return Way(min(counted)[1])
    if uncounted is not None:
        return Way(uncounted)
    walkable = resource_leaders.walkable(form)
    # The further it is to the same number of rows, the fewer there are.
    sparse = [(last, number) for last, number in crowded if number in walkable]
    if sparse and order == "row":
        return Way(max(sparse)[1], walks=True, one_by_one=True)
    if order == "changed":
        return Way(-1, one_by_one=True)
    return Way(found[0])


@lru_cache(256)
def _led_to(inner: Any, reach: Reach, names: str = "") -> Prepared:
    """The ids of what a chain leads through; or the names."""
    return Prepared(conditions(reach).led_to(inner, numbered(), names).limit(bindparam("limit")))


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
