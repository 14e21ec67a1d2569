"""What a client says in headers, in whatever legal form it is written (RFC 9110, RFC 7240)."""

from __future__ import annotations

import pytest
from fhir_door import Asker, Door, outcome
from httpx2 import Response

JSON = "application/fhir+json"
XML = "application/fhir+xml"


def asked(asker: Asker, method: str, path: str, *told: tuple[str, str]) -> Response:
    """A request whose headers may come on several lines."""
    headers = [*asker.headers.items(), *told]
    return asker.client.request(method, f"/fhir/{path}", headers=headers)


def test_what_a_hospital_prefers_may_come_on_several_lines(hospital: Door) -> None:
    doctor, figures = hospital.clinician("nanhu"), hospital.system("nanhu")
    strict = ("Prefer", "handling=strict")

    told = asked(doctor, "GET", "Patient?nothing=1", ("Prefer", "return=minimal"), strict)
    outcome(told, 400, "invalid")
    exported = asked(figures, "GET", "$export", strict, ("Prefer", "respond-async"))
    assert exported.status_code == 202
    ignoring = ("Prefer", "respond-async"), ("Prefer", "handling=lenient")
    assert asked(figures, "GET", "$export?unknown=1", *ignoring).status_code == 202


@pytest.mark.parametrize(
    "prefer", ['handling="strict"', "Handling = strict", "wait=10; handling=strict"]
)
def test_a_preference_may_be_quoted_and_spaced(hospital: Door, prefer: str) -> None:
    told = asked(hospital.clinician("nanhu"), "GET", "Patient?nothing=1", ("Prefer", prefer))

    outcome(told, 400, "invalid")


def test_of_two_preferences_of_one_name_the_first_is_meant(hospital: Door) -> None:
    doctor = hospital.clinician("nanhu")
    both = ("Prefer", "handling=lenient"), ("Prefer", "handling=strict")

    assert asked(doctor, "GET", "Patient?nothing=1", *both).status_code == 200
    outcome(asked(doctor, "GET", "Patient?nothing=1", *reversed(both)), 400, "invalid")


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (["text/html", XML], XML),
        ([f"{XML};q=0.3", f"{JSON};q=0.2"], XML),
        ([f"{JSON};q=0, */*;q=0.1"], XML),
        ([f"application/json;q=0.1, {XML};q=0.2, */*"], XML),
        ([f"{XML};q=0, application/*"], JSON),
        (["application/json, text/plain, */*"], JSON),
        (["*/*, application/json"], JSON),
        ([f"{JSON}; fhirVersion=5.0, {XML}; fhirVersion=4.0"], XML),
        ([f"{JSON};q=2, {XML};q=nan, application/xml;q=0.001"], XML),
    ],
)
def test_the_format_is_the_one_that_is_wanted_most(
    hospital: Door, accept: list[str], answered: str
) -> None:
    told = asked(
        hospital.clinician("nanhu"), "GET", "Organization", *(("Accept", one) for one in accept)
    )

    assert told.status_code == 200
    assert told.headers["content-type"] == f"{answered}; charset=utf-8"


@pytest.mark.parametrize(
    ("codings", "coding"),
    [
        (["identity", "gzip"], "gzip"),
        (["gzip;q=0, *"], None),
        (["*"], "gzip"),
        (["br, *;q=0"], None),
        (["x-gzip"], "gzip"),
    ],
)
def test_an_answer_is_compressed_for_who_takes_that(
    hospital: Door, codings: list[str], coding: str | None
) -> None:
    lines = [("Accept-Encoding", one) for one in codings]

    told = asked(hospital.clinician("nanhu"), "GET", "Organization", *lines)

    assert told.headers.get("content-encoding") == coding
