"""Facts: what the decisions on patient records depend on, as it is in the index now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange import policy, visibility
from exchange.policy import Facts
from exchange_storage.prepared import Prepared
from exchange_storage.records import Patient
from exchange_storage.rows import one_of


def of(session: Session, given: Mapping[str, Any], patients: Iterable[int]) -> dict[int, Facts]:
    """What decisions on patient records depend on, by row number; unknown ones are left out.

    `given` are the parameters of `visibility.visible`.
    """
    wanted = {"wanted": f"[{','.join(map(str, sorted(set(patients))))}]"}
    rows = _FACTS.all(session.connection(), {**given, **wanted})
    return {row.id: told(row) for row in rows}


def told(row: Any) -> Facts:
    """Those that a row with the columns `TOLD` tells."""
    return Facts(
        owner=row.owner,
        owner_shares=bool(row.owner_shares),
        asker_shares=bool(row.asker_shares),
        opted_out=bool(row.opted_out),
        owner_reports=bool(row.owner_reports),
        asker_reports=bool(row.asker_reports),
    )


TOLD = (
    Patient.organization_id.label("owner"),
    visibility.shares(Patient.organization_id).label("owner_shares"),
    visibility.asker_shares().label("asker_shares"),
    visibility.opted_out().label("opted_out"),
    visibility.shares(Patient.organization_id, policy.REPORTING).label("owner_reports"),
    visibility.asker_shares(policy.REPORTING).label("asker_reports"),
)
"""What decisions on a patient record depend on, where a statement selects it beside the record."""

_FACTS = Prepared(
    lambda dialect: select(Patient.id, *TOLD).where(one_of(Patient.id, "wanted", dialect))
)
