"""Statements that the driver runs itself convert their values as any other does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, case, create_engine, update

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
