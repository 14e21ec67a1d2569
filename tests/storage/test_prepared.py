"""Statements that the driver runs itself convert their values as any other does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import String, bindparam, case, create_engine, literal, select, update

from exchange_storage.database import Database
from exchange_storage.prepared import Prepared
from exchange_storage.records import Study


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
