"""Patients to whom many resources point, looked for among those who are next (FHIR R4 3.1.1.4.13).

All that points to somebody would be listed, and it grows with what is held, where a page is full
after a few patients: so each of a stretch of them is looked at by itself first. Where that does not
fill the page nothing is said, and all are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam

from exchange import ways
from exchange.access import Access
from exchange.decided import conditions
from exchange.visibility import Reach
from exchange_storage.records import Patient
from exchange_storage.search import Level, numbered

STRETCH = 4_000
"""Row numbers of patients that are looked at: to list what is rarer among them takes no longer."""


def is_frequent(form: Any, access: Access, given: Mapping[str, Any]) -> bool:
    """Whether criteria on patients are one alone, of what many resources fulfil."""
    match form:
        case ("all", (("linked", Level.PATIENT, ("pointed", _, _, (_, _, pointing), _)),)):
            every = pointing if pointing[0] == "every" else ("every", (pointing,))
            connection = access.session.connection()
            return ways.way(every, frozenset(), connection, given, order="row").walks
    return False


def within(form: Any, reach: Reach) -> ColumnElement[bool]:
    """Whether a patient is of the stretch, and fulfils the criteria of an `is_frequent` form."""
    ((_, level, pointed),) = form[1]
    made = conditions(reach, one_by_one=2)
    return and_(
        Patient.id > bindparam("behind", type_=Patient.id.type),
        Patient.id <= bindparam("until", type_=Patient.id.type),
        made.pointed_at(level, pointed, numbered()),
    )


def bounds(after: Sequence[Any] | None) -> dict[str, Any]:
    """The parameters of `within` for the stretch behind a place."""
    behind = 0 if after is None else after[0]
    return {"behind": behind, "until": behind + STRETCH}
