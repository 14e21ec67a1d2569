"""Under which of its own numbers a hospital knows a patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ready

from exchange import own_numbers
from exchange_storage.database import Database


def test_a_hospitals_own_number_of_a_person_is_not_looked_for_among_all_its_numbers(
    tmp_path: Path,
) -> None:
    # PostgreSQL knows how many there are; SQLite takes what its indexes promise.
    database = Database(ready.sqlite(tmp_path / "index.sqlite"))
    with database.reading() as session:
        build: Any = own_numbers._NUMBERS._build
        asked = build("sqlite").compile(session.get_bind())
        values = asked.construct_params({"asker": 1, "persons": "[1]"})
        plan = session.connection().exec_driver_sql(
            f"EXPLAIN QUERY PLAN {asked}", tuple(values[name] for name in asked.positiontup)
        )
        lines = [row.detail for row in plan]
    database.close()
    assert any("person_id=? AND organization_id=?" in line for line in lines), lines
    assert not any("uq_patient_number" in line for line in lines), lines
