"""A resource is found under exactly what it was kept under, in both databases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

import pytest
from ready import Lender
from sqlalchemy import select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from exchange_storage import resource_index
from exchange_storage.database import Database
from exchange_storage.records import Organization, Patient, Resource, SearchToken
from exchange_storage.resource_index import Date, Quantity, Reference, String, Token, Uri, Value

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def kept(database: Database, *values: Value) -> set[Value]:
    """Under what a resource with these values is found."""
    with database.writing() as session:
        row = Resource(
            kind="Observation", logical_id="a", version=1, organization_id=None,
            patient_id=None, changed=NOW, is_directory=False,
        )  # fmt: skip
        session.add(row)
        session.flush()
        resource_index.add(session, row.id, values, ())
        number = row.id
    with database.reading() as session:
        return resource_index.held(session, [number]).get(number, set())


def test_whatever_a_hospital_wrote_is_what_its_resource_is_found_under(database: Database) -> None:
    hostile = 'a "quoted" \\ {}[],\'%s\u2028 王小明 🩻'
    values: set[Value] = {
        Token("Observation.code", hostile, "urn:a|b", 3),
        Token("Observation.code", "", ""),
        String("Observation.code:text", hostile, hostile.upper()),
        Reference("Observation.subject", "Patient", "17"),
        Reference("Observation.subject", "", "https://elsewhere.example/Patient/ü"),
        Date("Observation.date", -(2**62), 2**62),
        Quantity("Observation.value-quantity", -math.inf, 0.1 + 0.2, "mg", hostile, "毫克"),
        Quantity("Observation.value-quantity", 5e-324, math.inf),
        Uri("ValueSet.url", "urn:oid:1.2.3"),
    }
    assert kept(database, *values, *values) == values


def test_what_is_too_long_is_found_by_its_beginning(database: Database) -> None:
    long = "长" * (resource_index.LENGTH + 1)
    assert kept(database, Token("Observation.code", long)) == {
        Token("Observation.code", long[: resource_index.LENGTH])
    }


def test_what_is_found_under_nothing_is_kept_all_the_same(database: Database) -> None:
    assert kept(database) == set()


def test_a_token_says_whose_the_resource_is_where_it_is_one_patients_alone(
    database: Database,
) -> None:
    with database.writing() as session:
        session.add(Organization(code="a", name="A", credit_code="C", issuer="1.2", registered=NOW))
        session.flush()
        session.add_all(
            Patient(
                organization_id=1, patient_id=number, name="", birth_date="", sex="", address="",
                telephone="", mothers_birth_name="", created=NOW, changed=NOW,
            )
            for number in ("P1", "P2")
        )  # fmt: skip
        session.flush()
        about = [_about(session, patients) for patients in ((), (1,), (1, 2))]

        def told() -> list[int | None]:
            rows = select(SearchToken.patient_id).order_by(SearchToken.resource_id)
            return list(session.scalars(rows.where(SearchToken.resource_id.in_(about))))

        assert told() == [None, 1, None]
        assert resource_index.misplaced(session, about) == set()

        resource_index.place(session, about[0], [2])
        resource_index.place(session, about[1], [2, 1])

        assert told() == [2, None, None]
        assert resource_index.misplaced(session, about) == set(about[:2])


def _about(session: Session, patients: Sequence[int]) -> int:
    """A resource that is about patients; its row number."""
    row = Resource(
        kind="Observation", logical_id=f"about-{len(patients)}", version=1, organization_id=None,
        patient_id=patients[0] if patients else None, changed=NOW, is_directory=False,
        has_others=len(patients) > 1,
    )  # fmt: skip
    session.add(row)
    session.flush()
    resource_index.add(session, row.id, [Token("Observation.code", "a")], patients)
    return row.id


@pytest.mark.parametrize("code", ["a\0b", "a\ud800b"])
def test_postgresql_refuses_as_data_what_it_cannot_keep(lender: Lender, code: str) -> None:
    with lender.lent() as url, closing(Database(url)) as database, pytest.raises(DataError):
        kept(database, Token("Observation.code", code))
