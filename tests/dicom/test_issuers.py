"""A PACS asks with the issuer that its own images have: that means its hospital, and no other's
patient who has the same number there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import web_door
from asking import ask
from region import ADMINISTRATOR
from serving import Served, serving

from exchange import issuers
from exchange.errors import Invalid, NotFound, Refused


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """P1 is one patient at nanhu and another at beicheng; both call what numbers patients HIS."""
    with serving(tmp_path) as made:
        made.city.send("nanhu", study="1.2.1", instance="1")
        made.city.send("beicheng", study="1.2.2", instance="2")
        called(made, "nanhu", "HIS", "南湖 PACS")
        called(made, "beicheng", "HIS")
        yield made


def called(served: Served, code: str, *names: str) -> None:
    with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        issuers.names(access, code, names)


def found(served: Served, calling: str, issuer: str) -> list[str]:
    keys = {"PatientID": "P1", "IssuerOfPatientID": issuer, "StudyInstanceUID": ""}
    return ask(served.port, "STUDY", keys, calling=calling).studies


@pytest.mark.parametrize(
    "issuer",
    ["", "2.25.102", "urn:oid:2.25.102", "NANHU", "nanhu", "HIS", "南湖 PACS", "南湖*", "NAN?U"],
)
def test_a_hospital_means_itself_by_what_its_own_systems_call_it(
    served: Served, issuer: str
) -> None:
    assert found(served, "NANHU", issuer) == ["1.2.1"]
    with web_door.opened(served.city) as door:
        (study,) = door.found(f"studies?PatientID=P1&IssuerOfPatientID={issuer}", "nanhu")
        assert study["0020000D"]["Value"] == ["1.2.1"]
        assert study["00100021"]["Value"] == ["2.25.102"]


def test_a_local_name_means_whoever_asks_and_nobody_elses_patient(served: Served) -> None:
    assert found(served, "BEICHENG", "HIS") == ["1.2.2"]
    assert found(served, "DONGSHAN", "HIS") == []
    for foreign in ("BEICHENG", "beicheng", "RIS", "his", "2.25.404", "RIS*"):
        assert found(served, "NANHU", foreign) == []
    assert found(served, "NANHU", "2.25.101") == ["1.2.2"]  # an OID is the same to everybody


def test_names_of_issuers_are_replaced_and_taken_back(served: Served) -> None:
    called(served, "nanhu", "RIS")
    assert (found(served, "NANHU", "RIS"), found(served, "NANHU", "HIS")) == (["1.2.1"], [])
    called(served, "nanhu")
    assert found(served, "NANHU", "RIS") == []


@pytest.mark.parametrize(
    "name", ["", "H*S", "H?S", "A\\B", "x" * 65, "line\n", "2.25.101", "Beicheng"]
)
def test_what_could_be_another_hospital_or_no_name_is_refused(served: Served, name: str) -> None:
    with pytest.raises(Invalid):
        called(served, "nanhu", "RIS", name)
    assert found(served, "NANHU", "HIS") == ["1.2.1"]


def test_only_who_administers_a_hospital_names_its_issuers(served: Served) -> None:
    with (
        pytest.raises(Refused),
        served.city.exchange.on_behalf_of(served.city.system("nanhu")) as access,
    ):
        issuers.names(access, "nanhu", ["RIS"])
    with pytest.raises(NotFound):
        called(served, "nowhere", "RIS")
