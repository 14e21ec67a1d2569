"""Whom an act was about, where only the study is at hand: a record of the trail names both."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Series, Study


def of_study(session: Session, study_instance_uid: str) -> dict[str, Any]:
    """The study and its patient, as `Access.note` takes them; none where it has not come."""
    row = _PATIENT.first(session.connection(), {"study": study_instance_uid})
    return {"study": study_instance_uid, "patient": row and row.patient_id}


def of_instance(session: Session, row: int) -> dict[str, Any]:
    """The same of an instance by its row number; nothing for one that is in no study."""
    found = session.execute(
        select(Study.study_instance_uid, Study.patient_id)
        .join(Series, Series.study_id == Study.id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.id == row)
    ).one_or_none()
    return {} if found is None else {"study": found.study_instance_uid, "patient": found.patient_id}


_PATIENT = Prepared(
    select(Study.patient_id).where(
        Study.study_instance_uid == bindparam("study", type_=Study.study_instance_uid.type)
    )
)
