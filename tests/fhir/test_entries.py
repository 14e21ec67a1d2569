"""An entry of a Bundle does what the same request does alone, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT, answered, entry, sent, statuses
from fhir_door import Asker, Door
from hypothesis import given, settings
from hypothesis import strategies as st

SUBSETTED = "SUBSETTED"
DIVISION = '<div xmlns="http://www.w3.org/1999/xhtml">72.5 kg</div>'


def weighed(system: Asker, named: str) -> dict[str, Any]:
    """An Observation of the patient of beicheng, as it is now."""
    told = WEIGHT | {"id": named, "text": {"status": "generated", "div": DIVISION}}
    response = system.send("PUT", f"Observation/{named}", told)
    assert response.status_code in {200, 201}, response.text
    made: dict[str, Any] = response.json()
    return made


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("DELETE", "_history/1"),
        ("DELETE", "_history"),
        ("PUT", "_history/1"),
        ("PUT", "_history"),
        ("PATCH", "_history/1"),
        ("POST", "_history"),
    ],
)
def test_nobody_changes_a_resource_by_the_address_of_its_history(
    hospital: Door, kind: str, method: str, rest: str
) -> None:
    system = hospital.system("beicheng")
    before = weighed(system, "kept")
    told = WEIGHT | {"id": "kept", "status": "amended"}
    alone = system.send(method, f"Observation/kept/{rest}", told)

    response = sent(system, kind, entry(method, f"Observation/kept/{rest}", told))

    assert alone.status_code == 405
    if kind == "batch":
        assert statuses(response) == ["405"]
    else:
        assert response.status_code == 405
        assert response.json()["issue"][0]["expression"] == ["Bundle.entry[0].request"]
    assert system.read("Observation/kept") == before


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    "url",
    [
        "Observation/seen/_history",
        "Observation/_history?_count=2",
        "_history?_count=1",
        "Observation/seen/_history/1",
        "Observation/seen?_elements=status",
        "Observation/seen?_summary=text",
        "Observation/seen?_summary=data",
        "Observation?_id=seen&_elements=status",
        "Patient/1/Observation?_id=seen",
        "?_type=Observation&_id=seen",
        "SearchParameter?code=gender",
        "metadata",
        "/Observation/seen",
        "https://exchange.example/fhir/Observation/seen",
        "Observation%2Fseen",
    ],
)
def test_what_is_read_in_a_bundle_is_what_is_read_alone(
    hospital: Door, kind: str, url: str
) -> None:
    system = hospital.system("beicheng")
    if system.get("Observation/seen").status_code == 404:
        weighed(system, "seen")
    alone = system.get(url.removeprefix("/"))

    (one,) = answered(sent(system, kind, entry("GET", url)))

    assert one["response"]["status"].startswith(str(alone.status_code))
    # Each link to a next page is sealed anew.
    assert one["resource"] | {"link": []} == alone.json() | {"link": []}
    assert one["response"].get("etag") == alone.headers.get("etag")


def test_an_entry_that_shows_a_part_says_so(hospital: Door) -> None:
    system = hospital.system("beicheng")
    weighed(system, "part")

    (one,) = answered(sent(system, "batch", entry("GET", "Observation/part?_elements=code")))

    assert "valueQuantity" not in one["resource"]
    assert [tag["code"] for tag in one["resource"]["meta"]["tag"]] == [SUBSETTED]


def test_an_entry_that_is_strict_alone_is_strict_in_a_batch(hospital: Door) -> None:
    system = hospital.system("beicheng")
    asked = "Observation?no-such=1"

    assert statuses(sent(system, "batch", entry("GET", asked))) == ["200"]
    strict = sent(system, "batch", entry("GET", asked), Prefer="handling=strict")
    assert statuses(strict) == ["400"]


def test_head_in_a_bundle_answers_without_the_resource(hospital: Door) -> None:
    system = hospital.system("beicheng")
    made = weighed(system, "headed")

    (one,) = answered(sent(system, "batch", entry("HEAD", "Observation/headed")))

    assert "resource" not in one
    assert one["response"]["etag"] == f'W/"{made["meta"]["versionId"]}"'


def test_what_an_entry_knows_already_is_not_told_again(hospital: Door) -> None:
    system = hospital.system("beicheng")
    version = weighed(system, "known")["meta"]["versionId"]
    known = entry("GET", "Observation/known", ifNoneMatch=f'W/"{version}"')

    assert statuses(sent(system, "batch", known)) == ["304"]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    "url", ["$bulk-status/x", "$bulk-file/x/1", ".well-known/smart-configuration"]
)
def test_what_is_no_resource_is_no_entry(hospital: Door, kind: str, url: str) -> None:
    response = sent(hospital.system("beicheng"), kind, entry("GET", url))

    told = response.json()
    if kind == "batch":
        told = told["entry"][0]["response"]["outcome"]
    assert "ask it by itself" in told["issue"][0]["diagnostics"]


_PARTS = st.sampled_from(
    [
        *("Observation", "Patient", "ImagingStudy", "Nothing", "any", "never", "1", "_history"),
        *("metadata", "$meta", "$validate", "$never", "SearchParameter", ""),
    ]
)
_URLS = st.builds(
    "{}{}".format,
    st.lists(_PARTS, min_size=1, max_size=5).map("/".join).filter(lambda one: "//" not in one),
    st.sampled_from(["", "?_summary=text", "?_elements=code", "?_id=any", "?status=", "?x", "?"]),
).filter(lambda one: one[:1] not in {"", "/"})
_PATCH = {"resourceType": "Parameters"}


@given(
    url=_URLS,
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    kind=st.sampled_from(["batch", "transaction"]),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_asked_an_entry_fares_as_the_request_alone(
    hospital: Door, url: str, method: str, kind: str
) -> None:
    system = hospital.system("beicheng")
    told = {"GET": None, "DELETE": None, "PATCH": _PATCH}.get(method, WEIGHT | {"id": "any"})
    weighed(system, "any")
    alone = system.send(method, url, told)
    weighed(system, "any")

    response = sent(system, kind, entry(method, url, told))

    if response.status_code != 200:  # of a transaction
        status, outcome = response.status_code, response.json()
    else:
        (one,) = answered(response)
        status = int(one["response"]["status"].partition(" ")[0])
        outcome = one["response"].get("outcome")
    if outcome and "ask it by itself" in outcome["issue"][0]["diagnostics"]:
        return
    assert status // 100 == alone.status_code // 100, (status, alone.status_code, outcome)
