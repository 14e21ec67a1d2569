"""Among how many records what has no selective key is looked for one by one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, func, select

from exchange.access import Access
from exchange.errors import TooBroad
from exchange_storage.prepared import Prepared
from exchange_storage.records import Instance, Patient, Series, Study
from exchange_storage.search import Level

UNSELECTIVE_ROWS = 100_000
"""Records of a level among which a question without a selective key is looked for one by one."""


def bounded(access: Access, level: Level, too_broad: str) -> None:
    """Raise TooBroad when the archive is larger than may be looked through row by row."""
    held = _HELD[level].number(access.session.connection(), {"limit": UNSELECTIVE_ROWS + 1})
    if held > UNSELECTIVE_ROWS:
        raise TooBroad(too_broad)


_HELD: Mapping[Level, Prepared] = {
    level: Prepared(
        select(func.count()).select_from(
            select(record.id).limit(bindparam("limit")).subquery()  # type: ignore[attr-defined]
        )
    )
    for level, record in zip(Level, (Patient, Study, Series, Instance), strict=True)
}
"""How many records of a level there are, up to a limit."""
