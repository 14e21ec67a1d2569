"""Statements that the driver runs itself convert their values as any other does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import String, bindparam, case, create_engine, literal, select, update

from exchange_storage.database import Database
from exchange_storage.prepared import Prepared
from exchange_storage.records import Patient, Study
from exchange_storage.rows import shared


def test_a_value_that_stands_in_two_places_is_converted_in_both_or_refused() -> None:
    later = case((Study.changed > bindparam("at"), Study.changed), else_=bindparam("at"))
    touch = Prepared(update(Study).values(changed=later))
    with (
        create_engine("sqlite://").connect() as connection,
        pytest.raises(TypeError, match="at of a prepared statement is of two types"),
    ):
        touch.run(connection, {"at": datetime.now(UTC)})


def test_what_is_given_goes_where_it_is_named_however_often_beside_signs_of_per_cent(
    database_url: str,
) -> None:
    one, other = bindparam("one", type_=String()), bindparam("other", type_=String())
    told = Prepared(
        select(
            (one + literal("%s") + other).label("first"),
            (other + literal("%(one)s%%") + one).label("second"),
            literal("50%").like("%0\\%", escape="\\").label("third"),
        )
    )
    database = Database(database_url)
    with database.reading() as session:
        row = told.first(session.connection(), {"other": "B", "one": "A"})
    database.close()
    assert (row.first, row.second, bool(row.third)) == ("A%sB", "B%(one)s%%A", True)


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_who_may_see_a_patient_is_asked_of_that_patient_whichever_threads_ask_first() -> None:
    together = Barrier(8)

    def asked(one: Any) -> set[str]:
        together.wait()
        return {str(one.organization_id == 1), str(one.person_id == 1)}

    with ThreadPoolExecutor(8) as threads:
        for _ in range(50):
            told = threads.map(asked, [shared(Patient)] * 8)
            assert set().union(*told) == {
                "patient_1.organization_id = :organization_id_1",
                "patient_1.person_id = :person_id_1",
            }
