"""Rows of an index, as tests of the storage keep them."""

from __future__ import annotations

from datetime import UTC, datetime

from exchange_storage.records import Job, Patient


def a_job(**told: object) -> Job:
    now = datetime.now(UTC)
    return Job(**{"kind": "test", "subject": "1", "due": now} | told)  # type: ignore[arg-type]


def a_patient(number: str, organization: int = 1) -> Patient:
    now = datetime.now(UTC)
    return Patient(
        organization_id=organization,
        patient_id=number,
        name="",
        birth_date="",
        sex="",
        address="",
        telephone="",
        mothers_birth_name="",
        created=now,
        changed=now,
    )
