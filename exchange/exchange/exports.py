"""Exports: a study that somebody takes along as files, decided once, and how far it has come.

Who treats the patient, and the patient, get the files under the patient's name; anybody else, and
who wants it so, gets them without anything that says who it is.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from exchange import query
from exchange.access import Access
from exchange.errors import NotFound
from exchange.policy import Action, Purpose
from exchange_storage.records import Export

FOLLOWED = timedelta(days=1)
"""For so long an export can be followed; then it is forgotten."""

_WITH_NAMES = frozenset({Purpose.TREATMENT, Purpose.PATIENT_REQUEST})


class State(StrEnum):
    """How far an export has come."""

    ASKED = "asked"
    SENDING = "sending"
    COMPLETE = "complete"
    BROKEN = "broken"
    """The receiver went away, or something failed; it can be fetched again."""


def ask(access: Access, study_instance_uid: str, *, without_names: bool) -> Export:
    """Ask for the files of a study that the asker may retrieve. Raises NotFound, Refused."""
    found = query.study(access, study_instance_uid)
    nameless = without_names or access.requester.purpose not in _WITH_NAMES

    def unit(session: Session) -> Export:
        session.execute(delete(Export).where(Export.asked < access.now - FOLLOWED))
        export = Export(
            requester=access.requester.name,
            study_instance_uid=study_instance_uid,
            without_names=nameless,
            asked=access.now,
        )
        session.add(export)
        session.flush()
        access.note(
            Action.RETRIEVE,
            patient=found.patient.id,
            study=study_instance_uid,
            reason="files asked for",
            detail={"export": export.id, "without names": nameless},
        )
        return export

    return access.write(unit)


def of(access: Access, number: int) -> Export:
    """An export of the asker's own. Raises Refused, and NotFound for anybody else's."""
    access.require(Action.RETRIEVE, narrowed=True, detail={"export": number})
    export = access.session.scalars(
        select(Export).where(Export.id == number, Export.requester == access.requester.name)
    ).one_or_none()
    if export is None:
        raise NotFound("you have asked for no such files")
    return export


def came_to(access: Access, number: int, state: State, *, sent: int, instances: int) -> None:
    """How far the asker's own export has come now. Raises Refused."""
    access.require(Action.RETRIEVE, narrowed=True, detail={"export": number})
    come = (
        update(Export)
        .where(Export.id == number, Export.requester == access.requester.name)
        .values(state=state, sent=sent, instances=instances)
    )
    access.write(lambda session: session.execute(come))
