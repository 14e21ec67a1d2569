"""In what order matches are told, and what comes behind one, whatever is written then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, bindparam, or_

from exchange.errors import Invalid
from exchange_storage.records import Instance, Patient, Series, Study
from exchange_storage.search import Level

if TYPE_CHECKING:
    from exchange.query import Found

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
        "number": (Patient.patient_id,),
        "owner": (Patient.organization_id,),
        "telephone": (Patient.telephone,),
        "row": (Patient.id,),
    },
    Level.STUDY: {
        "changed": (Study.changed,),
        "started": (Study.study_date, Study.study_time),
        "uid": (Study.study_instance_uid,),
        "patient": (Study.patient_id,),
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


def place(level: Level, order: str, found: Found) -> tuple[Any, ...]:
    """Where a match stands in the order: the values of its columns."""
    record = found.patient if level is Level.PATIENT else found.study
    return tuple(getattr(record, column.key) for column, _ in _keys(level, order))


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
        found += [(column, key.startswith("-")) for column in columns]
    return (*found, (_ROWS[level], order.rpartition(",")[2].startswith("-")))
