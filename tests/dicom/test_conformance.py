"""The conformance statement says what the tables say, and nothing that they do not."""

from __future__ import annotations

from pathlib import Path

from exchange_dicom import contexts
from exchange_dicom.conformance import statement
from exchange_dicom.node import SERVICES

KEPT = Path(__file__).parents[2] / "dicom" / "CONFORMANCE.md"


def test_the_statement_that_is_kept_is_the_one_that_the_tables_print() -> None:
    assert KEPT.read_text("utf-8") == statement(), (
        "print it anew: python -m exchange_dicom.conformance > dicom/CONFORMANCE.md"
    )


def test_every_service_and_every_storage_sop_class_is_stated() -> None:
    told = statement()
    assert [uid for uid in (*SERVICES, *contexts.STORAGE) if f"| {uid} |" not in told] == []
