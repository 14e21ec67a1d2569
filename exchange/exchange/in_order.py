"""In what order matches are told, and what comes behind one, whatever is written then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute

from exchange.access import Access
from exchange.errors import Invalid
from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Patient, PatientIdentifier, Series, Study
from exchange_storage.rows import there_is
from exchange_storage.search import Level

if TYPE_CHECKING:
    from exchange.query import Found


@dataclass(frozen=True, slots=True)
class Several:
    """What a record may have several of: it is put in order by the least, and descending by the
    greatest of them (FHIR R4 3.1.1.5.1). A record that has none is last."""

    least: ColumnElement[str]
    greatest: ColumnElement[str]

    def key(self, *, descending: bool) -> ColumnElement[str]:
        """What a record is put in order by."""
        none = "''" if descending else f"'{chr(0x10FFFF)}'"
        one = self.greatest if descending else self.least
        return func.coalesce(one, literal_column(none, one.type))


def _of_series(value: Any) -> Several:
    """Values of the study's series, as far as an instance of theirs is served: one is looked for,
    since there may be thousands."""
    one = select(literal(1)).where(Instance.series_id == Series.id, Instance.is_primary)
    held = select(value).where(Series.study_id == Study.id, there_is(one.correlate(Series)))
    return _ends(held.correlate(Study), value)


def _of_instances(value: Any) -> Several:
    """Values of the study's instances, as far as they are served."""
    held = select(value).join(Series, Series.id == Instance.series_id)
    served = held.where(Series.study_id == Study.id, Instance.is_primary)
    return _ends(served.correlate(Study), value)


def _ends(values: Any, value: Any) -> Several:
    """The least and the greatest that a SELECT lists."""
    least, greatest = (
        values.with_only_columns(end(value), maintain_column_froms=True).scalar_subquery()
        for end in (func.min, func.max)
    )
    return Several(least, greatest)


def _and_one(one: Any, others: Several) -> Several:
    """A value of the record itself, "" for none, and others beside it."""
    return Several(
        case((or_(one == "", others.least < one), others.least), else_=one),
        case((or_(one == "", others.greatest > one), others.greatest), else_=one),
    )


_UID = literal_column("'urn:oid:'", Study.study_instance_uid.type) + Study.study_instance_uid
_OTHER_NUMBERS = select(PatientIdentifier.value).where(PatientIdentifier.patient_id == Patient.id)

_AS_RECEIVED: Mapping[Level, Sequence[tuple[Any, bool]]] = {
    Level.PATIENT: ((Patient.id, False),),
    Level.STUDY: ((Study.study_date, True), (Study.id, True)),
    Level.SERIES: ((Series.id, False),),
    Level.IMAGE: ((Instance.id, False),),
}
"""The order of a level where none is asked for: columns, and whether they descend."""

SORTED: Mapping[Level, Mapping[str, tuple[Any, ...]]] = {
    Level.PATIENT: {
        "changed": (Patient.changed,),
        "birth": (Patient.birth_date,),
        "name": (Patient.name,),
        "sex": (Patient.sex,),
        "address": (Patient.address,),
        "owner": (Patient.organization_id,),
        "telephone": (Patient.telephone,),
        "row": (Patient.id,),
        "numbers": (
            _and_one(
                Patient.patient_id,
                _ends(_OTHER_NUMBERS.correlate(Patient), PatientIdentifier.value),
            ),
        ),
    },
    Level.STUDY: {
        "changed": (Study.changed,),
        "started": (Study.study_date, Study.study_time),
        "uid": (Study.study_instance_uid,),
        "patient": (Study.patient_id,),
        "identifiers": (_and_one(Study.accession_number, Several(_UID, _UID)),),
        "modality": (_of_series(case((Series.modality == "", "OT"), else_=Series.modality)),),
        "series": (_of_series(Series.series_instance_uid),),
        "instance": (_of_instances(Instance.sop_instance_uid),),
        "class": (_of_instances(Instance.sop_class_uid),),
    },
}
"""Orders that can be asked for instead of the level's own: keys, with commas between."""

_ROWS: Mapping[Level, Any] = {Level.PATIENT: Patient.id, Level.STUDY: Study.id}


def by(level: Level, order: str) -> list[Any]:
    """The columns to order by. Raises Invalid."""
    return [column.desc() if down else column for column, down in _keys(level, order)]


def behind(level: Level, order: str) -> ColumnElement[bool]:
    """What comes behind a place, to be run with `bounds`."""
    keys = _keys(level, order)
    last = [
        bindparam(f"last{number}", type_=column.type) for number, (column, _) in enumerate(keys)
    ]
    found = []
    for number, (column, down) in enumerate(keys):
        same = [keys[before][0] == last[before] for before in range(number)]
        found.append(and_(*same, column < last[number] if down else column > last[number]))
    return or_(*found)


def place(access: Access, level: Level, order: str, found: Found) -> tuple[Any, ...]:
    """Where a match stands in the order: the values of its keys."""
    record: Any = found.patient if level is Level.PATIENT else found.study
    keys = [key for key, _ in _keys(level, order)]
    if all(isinstance(key, InstrumentedAttribute) for key in keys):
        return tuple(getattr(record, key.key) for key in keys)
    return tuple(_place(level, order).first(access.session.connection(), {"row": record.id}))


@lru_cache(256)
def _place(level: Level, order: str) -> Prepared:
    keys = [key.label(f"key{number}") for number, (key, _) in enumerate(_keys(level, order))]
    row = _ROWS[level]
    return Prepared(select(*keys).where(row == bindparam("row", type_=row.type)))


def bounds(level: Level, order: str, after: Sequence[Any]) -> dict[str, Any]:
    """The parameters of `behind` for a place."""
    told = zip(_keys(level, order), after, strict=True)
    return {f"last{number}": value for number, (_, value) in enumerate(told)}


def _keys(level: Level, order: str) -> Sequence[tuple[Any, bool]]:
    if not order:
        return _AS_RECEIVED[level]
    found: list[tuple[Any, bool]] = []
    for key in order.split(","):
        columns = SORTED.get(level, {}).get(key.removeprefix("-"))
        if columns is None:
            raise Invalid("the matches cannot be put in this order")
        down = key.startswith("-")
        found += [
            (one.key(descending=down) if isinstance(one, Several) else one, down) for one in columns
        ]
    return (*found, (_ROWS[level], order.rpartition(",")[2].startswith("-")))
