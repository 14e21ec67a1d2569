"""How an answer is written, and what of it, is said once and counts on every page of it."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import WEIGHT
from fhir_door import Asker, Door, is_fhir, link

from exchange_fhir import xml_format

DIVISION = '<div xmlns="http://www.w3.org/1999/xhtml">72.5 kg</div>'
WRITTEN = WEIGHT | {"text": {"status": "generated", "div": DIVISION}}


@pytest.fixture(scope="module")
def system(hospital: Door) -> Asker:
    asker = hospital.system("beicheng")
    for number in range(3):
        asker.made(WRITTEN | {"valueQuantity": {"value": number, "unit": "kg"}})
    return asker


@pytest.mark.parametrize(
    "asked",
    [
        "Observation?_count=1&_format=xml",
        "?_type=Observation&_count=1&_format=xml",
        "Observation/_history?_count=1&_format=xml",
        "_history?_count=1&_format=xml",
        "Patient/1/$everything?_count=1&_format=xml",
        "SearchParameter?_count=1&_format=xml",
    ],
)
def test_the_next_page_is_written_as_the_first_one_is(system: Asker, asked: str) -> None:
    following: str | None = asked
    for _ in range(3):
        assert following is not None
        answer = system.get(following)
        assert answer.headers["content-type"].startswith("application/fhir+xml"), following
        page = xml_format.parse(answer.content)
        if following == asked:
            assert "_format=xml" in str(link(page, "self"))
        following = link(page, "next")


def test_a_page_that_is_asked_for_otherwise_is_written_so(system: Asker) -> None:
    first = xml_format.parse(system.get("Observation?_count=1&_format=xml").content)

    second = system.get(f"{link(first, 'next')}&_format=json")

    assert second.headers["content-type"].startswith("application/fhir+json")


def test_pretty_is_pretty_on_the_next_page_too(system: Asker) -> None:
    for asked in ("Observation?_count=1&_pretty=true", "_history?_count=1&_pretty=true"):
        following = link(system.get(asked).json(), "next")
        assert following is not None
        assert b"\n" in system.get(following).content


def resources(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["resource"] for one in bundle["entry"] if "resource" in one]


@pytest.mark.parametrize(
    "address",
    [
        "Observation/_history?_count=1&",
        "_history?_count=1&",
        "Observation/$lastn?patient=1&",
        "Observation?_count=1&",
        "Patient/1/$everything?_count=1&_type=Observation&",
    ],
)
def test_a_part_is_answered_wherever_it_is_asked_for(system: Asker, address: str) -> None:
    for asked, there, gone in (
        ("_elements=code", "code", "valueQuantity"),
        ("_summary=text", "text", "valueQuantity"),
        ("_summary=data", "valueQuantity", "text"),
        ("_summary=true", "code", "text"),
    ):
        page = system.get(address + asked).json()
        for _ in range(2):
            for one in resources(page):
                assert there in one, (asked, one)
                assert gone not in one
                assert [tag["code"] for tag in one["meta"]["tag"]] == ["SUBSETTED"]
            following = link(page, "next")
            if following is not None:
                page = system.get(following).json()


@pytest.mark.parametrize("part", ["_elements=code", "_summary=text", "_summary=data"])
@pytest.mark.parametrize(
    "nothing", ["Observation?code=nothing&", "Patient/none/Observation?", "?_type=Task&"]
)
def test_nothing_shown_in_part_is_a_bundle_too(system: Asker, nothing: str, part: str) -> None:
    told = system.get(nothing + part).json()

    is_fhir(told)
    assert "entry" not in told


def test_a_resource_in_part_is_answered_by_a_read(system: Asker) -> None:
    made = system.made(WRITTEN)
    text = system.get(f"Observation/{made['id']}?_summary=text").json()
    data = system.get(f"Observation/{made['id']}?_summary=data").json()

    assert text.keys() == {"resourceType", "id", "meta", "text", "status", "code"}
    assert data.keys() == made.keys() - {"text"}


@pytest.mark.parametrize(
    "asked",
    [
        "Observation/_history?_summary=count",
        "Observation/_history?_summary=count&_count=2",
        "Observation/$lastn?patient=1&_summary=count",
        "SearchParameter?_summary=count",
        "Subscription/$status?_summary=count",
        "Observation?_summary=count",
    ],
)
def test_how_many_there_are_is_told_without_them(system: Asker, asked: str) -> None:
    told = system.get(asked).json()

    is_fhir(told)
    assert told["total"] == 0 if "$status" in asked else told["total"] > 0
    assert "entry" not in told
    assert [one["relation"] for one in told["link"]] == ["self"]
    assert "_summary=count" in str(link(told, "self")) or "$status" in asked


def test_a_definition_is_shown_in_part(system: Asker) -> None:
    page = system.bundle("SearchParameter?_count=2&_elements=code")

    assert len(page["entry"]) == 2
    for one in resources(page):
        assert "expression" not in one
        assert [tag["code"] for tag in one["meta"]["tag"]] == ["SUBSETTED"]
    assert "_elements=code" in str(link(page, "next"))


def test_an_export_does_not_pass_over_how_it_is_to_be_shown(system: Asker) -> None:
    refused = system.get(
        "Patient/$export?_summary=text", Prefer="respond-async", Accept="application/fhir+json"
    )
    assert refused.status_code == 400


def test_who_is_lenient_is_answered_without_what_is_not_known(system: Asker) -> None:
    for prefer in ("handling=lenient", "return=minimal; handling=lenient"):
        bundle = system.bundle("Observation?no-such=1", Prefer=prefer)
        (told,) = (one for one in bundle["entry"] if one["search"]["mode"] == "outcome")
        assert "no-such" in told["resource"]["issue"][0]["diagnostics"]
        assert "no-such" not in str(link(bundle, "self"))
    system.refused("Observation?no-such=1", 400, "invalid", Prefer="handling=strict")


def test_patches_come_as_merge_patch_and_as_fhirpath_patch_in_xml(system: Asker) -> None:
    named = f"Observation/{system.made(WRITTEN)['id']}"
    by_path = (
        '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
        '<part><name value="type"/><valueCode value="replace"/></part>'
        '<part><name value="path"/><valueString value="Observation.status"/></part>'
        '<part><name value="value"/><valueCode value="amended"/></part>'
        "</parameter></Parameters>"
    )

    merged = system.send(
        "PATCH",
        named,
        {"text": None, "valueQuantity": {"value": 73}},
        Content_Type="application/merge-patch+json",
    )
    patched = system.client.patch(
        f"/fhir/{named}",
        content=by_path,
        headers={**system.headers, "Content-Type": "application/fhir+xml"},
    )

    assert merged.status_code == 200, merged.text
    assert "text" not in merged.json()
    assert merged.json()["valueQuantity"] == {"value": 73, "unit": "kg"}
    assert patched.status_code == 200, patched.text
    assert patched.headers["content-type"].startswith("application/fhir+xml")
    assert xml_format.parse(patched.content) == system.read(named)
    assert system.read(named)["status"] == "amended"
