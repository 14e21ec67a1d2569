"""In which order the entries of a transaction are done (R4 3.1.0.11.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from exchange_fhir import links, writing
from exchange_fhir.outcome import Issue, Problem

if TYPE_CHECKING:
    from exchange_fhir.transaction import Entry

ORDER: Mapping[str, int] = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
"""First what deletes, last what reads."""


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """What changes something, in the order in which it is done.

    Patients come first of what is written: a record gets its number when it is registered, and so
    after those to which it refers. What is about other resources comes last. Raises Problem where
    Patients that are all new refer to each other in a circle.
    """
    changing = [one for one in entries if ORDER[one.method] < 3]
    ranks = _ranks([one for one in changing if one.asked.kind == "Patient" and ORDER[one.method]])

    def place(entry: Entry) -> tuple[Any, ...]:
        order = ORDER[entry.method]
        if entry.asked.kind in writing.ABOUT and order:
            return (3, 1, 0, _waits(entry))
        if entry.asked.kind == "Patient" and order:
            return (1, 0, ranks.get(entry.number, 0), _waits(entry))
        return (order, 1, 0, _waits(entry))

    return sorted(changing, key=place)


def _ranks(patients: Sequence[Entry]) -> dict[int, int]:
    """The places of Patients whose ids are not known before they are registered."""
    new = [one for one in patients if not one.asked.logical_id and isinstance(one.resource, dict)]
    numbers = {name: one.number for one in new for name in _names(one)}
    graph = {
        one.number: {numbers[name] for name in links.among(one.resource or {}, numbers)}
        - {one.number}
        for one in new
    }
    try:
        return {number: at for at, number in enumerate(TopologicalSorter(graph).static_order())}
    except CycleError as error:
        wrong = (
            "Patients that are made together cannot refer to each other in a circle: "
            "leave one reference out, and add it by an update"
        )
        at = min(error.args[1])
        issue = Issue("not-supported", wrong, f"Bundle.entry[{at}]")
        raise Problem(422, "not-supported", wrong, issues=[issue]) from None


def _names(entry: Entry) -> tuple[str, ...]:
    """What others in the Bundle call its resource."""
    if not entry.full_url:
        return ()
    base, _, own = entry.full_url.rpartition("/Patient/")
    return (entry.full_url, f"Patient/{own}") if base and own else (entry.full_url,)


def _waits(entry: Entry) -> bool:
    """Whether an entry must be done after what it might refer to by a condition."""
    return isinstance(entry.resource, dict) and bool(links.conditional(entry.resource))
