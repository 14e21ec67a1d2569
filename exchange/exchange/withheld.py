"""What was withheld, as the trail has it: whose it was, who asked for it, and why not.

The asker is answered as if it were not there. The trail has a refusal for each reason, found by
every patient, and by every study, that was withheld; of much that was, by the first hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from exchange import facts, policy, visibility
from exchange.access import Access
from exchange.audit import Outcome
from exchange.policy import Action, Deny
from exchange_storage.prepared import Prepared
from exchange_storage.records import Compartment, Study
from exchange_storage.rows import as_list, one_of

COUNTED = 100
"""Withheld matches are counted, and told of, up to this many for the audit trail."""

STUDIES = "withheld_studies"
"""What a record calls the studies that were withheld, each with the row number of its patient."""

Match = tuple[int, str]
"""The row number of a patient, and the UID of a study; "" where the patient was looked for."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Of the matches of a question, those that the asker may not see."""

    count: int | None
    """None where nobody looked for all of them: there are more pages."""
    matches: tuple[Match, ...]


def note(
    access: Access,
    action: Action,
    matches: Iterable[Match],
    detail: Mapping[str, Any],
    *,
    whole: bool = False,
) -> None:
    """Record what was withheld as refused; `detail` says of what question.

    `whole` where it was about patients: whoever wants to retrieve one asks for all their studies.
    Only where something was does this ask the index anything.
    """
    found = dict.fromkeys(matches)
    if not found:
        return
    given = visibility.parameters(access.requester, access.now)
    known = facts.of(access.session, given, {patient for patient, _ in found})
    refused: dict[str, list[Match]] = {}
    for patient, study in found:
        if patient not in known:
            continue
        decision = policy.decide(access.requester, action, known[patient])
        if isinstance(decision, Deny):  # what is about several may be withheld for one of them
            refused.setdefault(decision.reason, []).append((patient, study))
    for reason, ones in refused.items():
        patients = sorted({patient for patient, _ in ones})
        studies = {study: patient for patient, study in ones if study}
        if action is Action.RETRIEVE and whole:
            rows = _STUDIES.all(access.session.connection(), {"wanted": as_list(patients)})
            studies |= {row.study_instance_uid: row.patient_id for row in rows}
        access.note(
            action,
            outcome=Outcome.REFUSED,
            reason=reason,
            patient=patients[0] if len(patients) == 1 else None,
            study=next(iter(studies)) if len(studies) == 1 else "",
            detail={
                **detail,
                "withheld": len(ones),
                "patients": patients,
                STUDIES: studies,
            },
        )


def resources(connection: Connection, found: Sequence[Any], *, whole: bool) -> Withheld:
    """Of the rows of resources that are withheld, all patients whom they are about; `whole` where
    these are all that are."""
    count = min(len(found), COUNTED)
    patients: set[int] = set()
    if found:
        wanted = {"wanted": as_list(row.id for row in found[:COUNTED])}
        beside = _BESIDE.all(connection, wanted)
        patients = {row.patient_id for row in (*found[:COUNTED], *beside)} - {None}
    return Withheld(count if whole else None, tuple((patient, "") for patient in sorted(patients)))


_BESIDE = Prepared(
    lambda dialect: select(Compartment.patient_id).where(
        one_of(Compartment.resource_id, "wanted", dialect)
    )
)
_STUDIES = Prepared(
    lambda dialect: (
        select(Study.study_instance_uid, Study.patient_id)
        .where(one_of(Study.patient_id, "wanted", dialect))
        .order_by(Study.id.desc())
        .limit(COUNTED)
    )
)
