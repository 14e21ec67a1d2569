"""The conformance statement says what the tables say, and nothing that they do not."""

from __future__ import annotations

import re
from pathlib import Path

from exchange import commitment, rejection
from exchange_dicom import contexts, status, transport_security
from exchange_dicom.conformance import statement
from exchange_dicom.conformance_dimse import EXTENDED_WORDS
from exchange_dicom.node import EXTENDED, SERVICES
from exchange_server.settings import Settings

KEPT = Path(__file__).parents[2] / "dicom" / "CONFORMANCE.md"


def test_the_statement_that_is_kept_is_the_one_that_the_tables_print() -> None:
    assert KEPT.read_text("utf-8") == statement(), (
        "print it anew: python -m exchange_dicom.conformance > dicom/CONFORMANCE.md"
    )


def test_every_service_and_every_storage_sop_class_is_stated() -> None:
    told = statement()
    assert [uid for uid in (*SERVICES, *contexts.STORAGE) if f"| {uid} |" not in told] == []


SECTIONS = (
    "1 Conformance statement overview",
    "2 Table of contents",
    "3 Introduction",
    "4 Networking",
    "4.1 Implementation model",
    "4.1.1 Application data flow",
    "4.1.2 Functional definition of application entities",
    "4.1.3 Sequencing of real-world activities",
    "4.2 Application entity specifications",
    "4.2.1.1 SOP classes",
    "4.2.1.2 Association policies",
    "4.2.1.3 Association initiation policy",
    "4.2.1.4 Association acceptance policy",
    "4.3 Network interfaces",
    "4.4 Configuration",
    "5 Media interchange",
    "6 Support of character sets",
    "7 Security",
    "8 Annexes",
)
"""Of PS3.2 annex A, in its order."""


def test_the_statement_has_the_sections_of_the_standards_template_in_their_order() -> None:
    headings = re.findall(r"^#+ (\d.*)$", statement(), re.MULTILINE)
    assert [one for one in headings if one in SECTIONS] == list(SECTIONS)
    numbers = [tuple(map(int, one.split(" ")[0].split("."))) for one in headings]
    assert numbers == sorted(set(numbers))


def test_every_status_reason_and_behaviour_of_the_tables_is_stated() -> None:
    told = statement()
    cells = set(re.findall(r"[^|\n]+", told.replace(" | ", "|").replace("| ", "|")))
    codes = {
        *(code for one in status.DIMSE.values() for code in (one.store, one.find, one.retrieve)),
        *status.N_SERVICE.values(),
        *(one.failure_reason for one in status.WEB.values()),
        *commitment.FAILURES,
        status.SUCCESS,
        status.PENDING,
        status.PENDING_UNSUPPORTED,
        status.CANCEL,
        status.SUB_OPERATIONS_FAILED,
        status.CANNOT_PERFORM_SUB_OPERATIONS,
        status.DESTINATION_UNKNOWN,
    }
    stated = {one.strip() for one in cells}
    assert [f"{code:04X}" for code in codes if f"{code:04X}" not in stated] == []
    for suite in transport_security.SUITES:
        assert f"| {suite} |" in told
    for code in rejection.CODES:
        assert f"| {code} |" in told
    for level in EXTENDED_WORDS[: max(EXTENDED.values())]:
        assert level in told


def test_every_setting_of_the_node_is_named_with_its_default() -> None:
    fields = Settings.model_fields
    named = {
        name.lower(): default
        for name, default in re.findall(r"\| `EXCHANGE_([A-Z_]+)` \| ([^|]+) \|", statement())
    }
    elsewhere = {"dimse_addresses", "dimse_tls_certificate", "dimse_tls_key", "dimse_tls_client_ca"}
    of_the_node = {name for name in fields if name.startswith("dimse_")} - elsewhere
    assert of_the_node <= named.keys() <= fields.keys()
    for name, default in named.items():
        expected = fields[name].default
        written = f"{expected:.0f}" if isinstance(expected, float) else str(expected)
        assert default == ("none" if expected is None else written), name
