"""Questions in which every level is decided: what the storage floor searches, within a reach.

Nothing withheld is found through what refers to it, or what it refers to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, literal, select

from exchange import visibility
from exchange.visibility import Reach
from exchange_storage.records import (
    Damage,
    Instance,
    Organization,
    Patient,
    Rejection,
    Resource,
    Series,
    Study,
)
from exchange_storage.resource_search import Conditions
from exchange_storage.rows import there_is
from exchange_storage.search import Level

CHAIN: Sequence[tuple[Level, Any, Any]] = (
    (Level.STUDY, Study, Study.patient_id == Patient.id),
    (Level.SERIES, Series, Series.study_id == Study.id),
    (Level.IMAGE, Instance, Instance.series_id == Series.id),
)
"""Each level below the patient, its records, and how they hang on those above."""

DAMAGED = exists().where(Damage.instance_id == Instance.id)
"""Whether a scrub has found other bytes of an instance than were received, or none."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The policy within a reach, as `exchange_storage.resource_search.Decided`."""

    reach: Reach

    def resource(self, resource: type[Resource]) -> ColumnElement[bool]:
        """Whether the asker may see the resource (an alias)."""
        return visibility.clinical_within(self.reach, resource)

    def native(self, level: Level, column: Any, condition: ColumnElement[bool]) -> Select[Any]:
        """`column` of the records of a level that are served, and that the asker may see."""
        found = joined(select(column), level).where(condition, visibility.within(self.reach))
        return found.correlate(None)


@cache
def conditions(reach: Reach, *, one_by_one: int = 0) -> Conditions:
    """What makes conditions of forms, within a reach; `one_by_one` see `Conditions`."""
    return Conditions(Decided(reach), one_by_one=one_by_one)


def reached(reach: Reach, level: Level) -> ColumnElement[bool]:
    """`visibility.within` on the tables of a level and above, as `joined` has them."""
    if reach is Reach.LINKED and level >= Level.STUDY:
        return visibility.linked(series=level >= Level.SERIES)
    return visibility.within(reach)


def joined(
    statement: Select[*tuple[Any, ...]], level: Level, *, rejected: bool = False
) -> Select[*tuple[Any, ...]]:
    """The tables of a level and above; of studies, series and instances those that are served.

    Or those that the asker's hospital has `rejected`, for who may look at them.
    """
    statement = statement.select_from(Patient).join(
        Organization, Organization.id == Patient.organization_id
    )
    for at, record, on in CHAIN:
        if at <= level:
            statement = statement.join(record, on)
    return statement.where(*(_REJECTED if rejected else _SERVED).get(level, ()))


def served(level: Level) -> ColumnElement[bool]:
    """Whether a patient record or study is served, whoever asks."""
    return and_(*_SERVED[level])


def shown(*, rejected: bool) -> ColumnElement[bool]:
    """Whether an instance is served, or `rejected` by the asker's hospital (bind `asker`)."""
    return _BY_ASKER if rejected else and_(Instance.is_primary)


def _holding(
    instance: ColumnElement[bool],
) -> dict[Level, tuple[ColumnElement[bool], ...]]:
    """Whether there is such an instance, in a study, series or as such."""
    return {
        Level.STUDY: (
            there_is(
                select(literal(1))
                .select_from(Series)
                .join(Instance, Instance.series_id == Series.id)
                .where(Series.study_id == Study.id, instance)
                .correlate(Study)
            ),
        ),
        Level.SERIES: (
            there_is(
                select(literal(1))
                .select_from(Instance)
                .where(Instance.series_id == Series.id, instance)
                .correlate(Series)
            ),
        ),
        Level.IMAGE: (instance,),
    }


_BY_ASKER = Instance.id.in_(
    select(Rejection.instance_id).where(
        Rejection.organization_id == bindparam("asker", type_=Patient.organization_id.type),
        Rejection.withdrawn.is_(None),
        Rejection.instance_id.is_not(None),
    )
)
_REJECTED: Mapping[Level, tuple[ColumnElement[bool], ...]] = {
    Level.PATIENT: (
        there_is(
            select(literal(1))
            .select_from(Study)
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(Study.patient_id == Patient.id, _BY_ASKER)
            .correlate(Patient)
        ),
    ),
    **_holding(_BY_ASKER),
}
_SERVED: Mapping[Level, tuple[ColumnElement[bool], ...]] = {
    Level.PATIENT: (~Patient.withdrawn,),
    **_holding(and_(Instance.is_primary)),
}
"""Without primary instances there is nothing that could be retrieved; and a patient record that
its hospital took back is not told of."""
