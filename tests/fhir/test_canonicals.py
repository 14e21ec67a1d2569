"""Forms that departments publish are followed from their answers by canonical URL, and back.

A URL without a version means all versions of a form; with one it means that one (FHIR R4, canonical
references). Nobody is shown through it what they may not see.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fhir_door import BASE, SHANGHAI, Asker, Door, opened
from region import ADMINISTRATOR, ID_CARD, WORKER, region
from sqlalchemy import delete

from exchange import reindex
from exchange_fhir import writing
from exchange_fhir.definitions import search_parameters
from exchange_storage.records import SearchReference, SearchUri

FORM = "http://forms.example/contrast"
SECRET = "http://forms.example/secret"


def form(url: str, title: str, version: str = "", **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"resourceType": "Questionnaire", "status": "active", "url": url}
    return {**told, "title": title, **({"version": version} if version else {}), **more}


def answers(questionnaire: str, status: str = "completed", patient: str = "1") -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "status": status,
        "questionnaire": questionnaire,
        "subject": {"reference": f"Patient/{patient}"},
    }


@pytest.fixture(scope="module")
def forms(lasting_database_url: str) -> Iterator[Door]:
    """Nanhu asks before contrast, by two versions of its form; beicheng's patients answer."""
    with region(lasting_database_url) as city:
        city.send("beicheng", patient="W1", card=ID_CARD)
        city.send("nanhu", patient="L1", study="1.2.2", instance="1.4.2", PatientName="Li^Na")
        city.identify()
        door = opened(city)
        nanhu, beicheng = door.system("nanhu"), door.system("beicheng")
        for logical_id, made in {
            "first": form(FORM, "Contrast 2025", "1"),
            "second": form(FORM, "Contrast 2026", "2"),
            "here": form(f"{BASE}/Questionnaire/here", "Of this server"),
            # Made for one patient, it is not in the directory: no other hospital sees it.
            "secret": form(
                SECRET,
                "Secret",
                extension=[{"url": "http://a.example/for", "valueReference": {
                    "reference": "Patient/2"}}],
            ),
        }.items():  # fmt: skip
            _put(nanhu, logical_id, made)
        _put(beicheng, "any", answers(FORM))
        _put(beicheng, "one", answers(f"{FORM}|1", "in-progress"))
        _put(beicheng, "two", answers(f"{FORM}|2#p1"))
        _put(beicheng, "three", answers(f"{FORM}|3"))
        _put(beicheng, "literal", answers("Questionnaire/second"))
        _put(beicheng, "address", answers(f"{BASE}/Questionnaire/here"))
        _put(beicheng, "blind", answers(SECRET))
        _put(nanhu, "own", answers(SECRET, patient="2"))
        _put(beicheng, "asked", {
            "resourceType": "Procedure", "status": "completed",
            "subject": {"reference": "Patient/1"}, "instantiatesCanonical": [f"{FORM}|2"],
        })  # fmt: skip
        denies = {
            "resourceType": "Consent",
            "status": "active",
            "scope": {"coding": [{"code": "patient-privacy"}]},
            "category": [{"text": "sharing"}],
            "patient": {"reference": "Patient/2"},
            "policyRule": {"coding": [{"code": "OPTOUT"}]},
        }
        nanhu.made(denies)
        yield door


def _put(asker: Asker, logical_id: str, resource: dict[str, Any]) -> None:
    kind = resource["resourceType"]
    response = asker.send("PUT", f"{kind}/{logical_id}", {**resource, "id": logical_id})
    assert response.status_code == 201, response.text


def responses(*ids: str) -> list[str]:
    return sorted(f"QuestionnaireResponse/{one}" for one in ids)


def questionnaires(*ids: str) -> list[str]:
    return sorted(f"Questionnaire/{one}" for one in ids)


@pytest.mark.parametrize("order", ["", "&_sort=_lastUpdated", "&_sort=_id"])
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("questionnaire.title=contrast 2025", ["any", "one"]),
        ("questionnaire:Questionnaire.title=contrast 2026", ["any", "two", "literal"]),
        ("questionnaire.title=contrast", ["any", "one", "two", "literal"]),
        ("questionnaire.version=2&status=completed", ["any", "two", "literal"]),
        ("questionnaire.title=of this server", ["address"]),
        ("questionnaire.title=secret", []),
        (f"questionnaire={FORM}", ["any", "one", "two", "three"]),
        (f"questionnaire={FORM}|1", ["one"]),
        ("subject:Patient.identifier=W1&questionnaire.title=contrast 2025", ["any", "one"]),
        ("questionnaire._has:QuestionnaireResponse:questionnaire:status=in-progress",
         ["any", "one"]),
    ],
)  # fmt: skip
def test_answers_are_found_by_what_their_form_says(
    forms: Door, asked: str, found: list[str], order: str
) -> None:
    clinician = forms.clinician("beicheng")
    assert sorted(clinician.ids(f"QuestionnaireResponse?{asked}{order}")) == responses(*found)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("status=completed", ["first", "second", "here"]),
        ("status=in-progress", ["first"]),
        ("_id=three", []),
        ("_id=two", ["second"]),
        ("_id=literal", ["second"]),
        ("_id=blind", []),
        ("_id=own", []),
        ("questionnaire.title=contrast 2025", ["first", "second"]),
    ],
)
def test_forms_are_found_by_what_answers_them(forms: Door, asked: str, found: list[str]) -> None:
    clinician = forms.clinician("beicheng")
    path = f"Questionnaire?_has:QuestionnaireResponse:questionnaire:{asked}"
    assert sorted(clinician.ids(path)) == questionnaires(*found)


@pytest.mark.parametrize("include", ["QuestionnaireResponse:questionnaire", "*",
    "QuestionnaireResponse:questionnaire:Questionnaire", "QuestionnaireResponse:*"])  # fmt: skip
@pytest.mark.parametrize(
    ("identity", "found"),
    [("any", ["first", "second"]), ("one", ["first"]), ("two", ["second"]), ("three", []),
     ("literal", ["second"]), ("address", ["here"]), ("blind", [])],
)  # fmt: skip
def test_a_form_comes_along_with_its_answers(
    forms: Door, include: str, identity: str, found: list[str]
) -> None:
    path = f"QuestionnaireResponse?_id={identity}&_include={include}"
    come = forms.clinician("beicheng").ids(path, "include")
    assert sorted(one for one in come if one[:7] != "Patient") == questionnaires(*found)


@pytest.mark.parametrize(
    ("identity", "found"),
    [("first", ["any", "one"]), ("second", ["any", "two", "literal"]), ("here", ["address"])],
)
def test_answers_come_along_with_their_form(forms: Door, identity: str, found: list[str]) -> None:
    path = f"Questionnaire?_id={identity}&_revinclude=QuestionnaireResponse:questionnaire"
    assert sorted(forms.clinician("beicheng").ids(path, "include")) == responses(*found)
    again = "&_include:iterate=QuestionnaireResponse:questionnaire"
    come = forms.clinician("beicheng").ids(path + again, "include")
    others = {"first": ["second"], "second": ["first"], "here": []}[identity]
    assert sorted(come) == questionnaires(*others) + responses(*found)


def test_every_reference_of_the_type_canonical_is_followed(forms: Door) -> None:
    doctor, code = forms.clinician("beicheng"), "instantiates-canonical"
    assert doctor.ids(f"Procedure?{code}.title=contrast 2026") == ["Procedure/asked"]
    assert doctor.ids(f"Procedure?{code}:Questionnaire.version=1") == []
    assert doctor.ids(f"Questionnaire?_has:Procedure:{code}:status=completed") == [
        "Questionnaire/second"
    ]
    path = f"Procedure?_include=Procedure:{code}"
    assert doctor.ids(path, "include") == ["Questionnaire/second"]
    path = f"Questionnaire?_id=second&_revinclude=Procedure:{code}"
    assert doctor.ids(path, "include") == ["Procedure/asked"]


def test_what_was_written_before_is_followed_once_it_is_indexed_anew(door: Door) -> None:
    door.city.send("beicheng")
    beicheng, exchange = door.system("beicheng"), door.city.exchange
    _put(beicheng, "form", form(FORM, "Falls"))
    _put(beicheng, "any", answers(FORM))
    with exchange.database.writing() as session:
        for table in (SearchReference, SearchUri):
            session.execute(delete(table).where(table.parameter.endswith(":canonical")))
    asked = "QuestionnaireResponse?questionnaire.title=falls"
    assert beicheng.ids(asked) == []
    assert beicheng.ids(f"QuestionnaireResponse?questionnaire={FORM}") == responses("any")

    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        reindex.ask(access)
    place = writing.Place(base=BASE, timezone=SHANGHAI)
    until = datetime.now(UTC) + timedelta(days=1)
    with exchange.on_behalf_of(WORKER) as access:
        assert reindex.walk(access, lambda content: writing.said(content, place), until=until)

    assert beicheng.ids(asked) == responses("any")


def test_who_may_see_a_form_is_shown_it_and_finds_through_it(forms: Door) -> None:
    nanhu = forms.clinician("nanhu")
    assert nanhu.ids("QuestionnaireResponse?questionnaire.title=secret&_id=own,blind") == responses(
        "blind", "own"
    )
    path = "QuestionnaireResponse?_id=own&_include=QuestionnaireResponse:questionnaire"
    assert nanhu.ids(path, "include") == ["Questionnaire/secret"]
    path = "Questionnaire?_id=secret&_revinclude=QuestionnaireResponse:questionnaire"
    assert sorted(nanhu.ids(path, "include")) == responses("blind", "own")
    path = "Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=own"
    assert nanhu.ids(path) == ["Questionnaire/secret"]


def test_the_form_of_an_answer_is_among_everything_of_the_patient(forms: Door) -> None:
    bundle = forms.clinician("beicheng").read("Patient/1/$everything")
    found = {f"{one['resource']['resourceType']}/{one['resource']['id']}"
             for one in bundle["entry"]}  # fmt: skip
    assert {*questionnaires("first", "second", "here"), *responses("any")} <= found
    assert "Questionnaire/secret" not in found


def test_a_form_that_is_named_anew_is_followed_by_its_new_name(door: Door) -> None:
    door.city.send("beicheng")
    beicheng = door.system("beicheng")
    _put(beicheng, "form", form("http://forms.example/old", "Falls"))
    made = beicheng.made(answers("http://forms.example/new"))
    asked = "QuestionnaireResponse?questionnaire.title=falls"
    assert beicheng.ids(asked) == []
    named = {**form("http://forms.example/new", "Falls"), "id": "form"}
    assert beicheng.send("PUT", "Questionnaire/form", named).status_code == 200
    assert beicheng.ids(asked) == [f"QuestionnaireResponse/{made['id']}"]
    assert beicheng.send("DELETE", "Questionnaire/form").status_code == 204
    assert beicheng.ids(asked) == []


def test_many_forms_are_followed_within_the_question(door: Door) -> None:
    door.city.send("beicheng")
    beicheng = door.system("beicheng")
    for number in range(20):
        _put(beicheng, f"f{number}", form(f"http://forms.example/{number}", "Falls", "1"))
        _put(beicheng, f"a{number}", answers(f"http://forms.example/{number}|{number % 2}"))
    asked = "QuestionnaireResponse?questionnaire.title=falls&_count=3"
    for order in ("", "&_sort=_lastUpdated", "&status=completed", "&_sort=-_id"):
        pages = list(beicheng.pages(f"{asked}{order}"))
        told = [one["resource"]["id"] for page in pages for one in page["entry"]]
        assert sorted(told) == sorted(f"a{number}" for number in range(20) if number % 2)


def test_what_refers_by_canonical_url_is_what_the_standard_says() -> None:
    parameters = [one for kind in search_parameters.kinds()
                  for one in search_parameters.of(kind).values()]  # fmt: skip
    canonical = {one.name for one in parameters if one.is_canonical and one.target}
    assert canonical == {"QuestionnaireResponse.questionnaire", "Procedure.instantiates-canonical"}
    named = [kind for kind in search_parameters.kinds() if search_parameters.named_under(kind)]
    assert named == ["Questionnaire"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", 6),
        ("|1", 3),
        ("|1.2", 2),
        ("|1.2.3", 1),
        ("|2", 1),
        ("|", 0),
        ("|1.2,{form}|2", 3),
    ],
)
def test_a_form_is_asked_for_with_what_is_a_part_of_its_version(
    door: Door, asked: str, found: int
) -> None:
    door.city.send("beicheng", patient="W1", card=ID_CARD)
    system = door.system("beicheng")
    for version in ("", "|1", "|1.2", "|1.2.3", "|2", "|10"):
        system.made(answers(f"{FORM}{version}"))
    system.made(answers(f"{FORM}-2|1"))

    path = f"QuestionnaireResponse?questionnaire:below={FORM}{asked.format(form=FORM)}"
    assert len(system.ids(path)) == found
    told = system.refused(path.replace(":below", ":above"), 400, "invalid")
    assert told.endswith("there are :Questionnaire, :below, :identifier, :missing")


@pytest.mark.parametrize("modifier", ["text", "not", "exact"])
def test_what_r4_does_not_define_of_references_is_refused_with_what_there_is(
    forms: Door, modifier: str
) -> None:
    asker = forms.clinician("beicheng")
    told = asker.refused(f"Observation?encounter:{modifier}=x", 400, "invalid")
    assert told == (
        f"the modifier :{modifier} is not supported for encounter, of the type reference: "
        "there are :Encounter, :above, :below, :identifier, :missing"
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("url:below=http://forms.example/", 3),
        ("url:below=http://forms.example/con", 2),
        (f"url:below={FORM}/", 0),
        (f"url:above={FORM}/of/the/chest", 2),
        ("url:above=http://forms.example/contr", 0),
    ],
)
def test_addresses_are_found_above_and_below(forms: Door, asked: str, found: int) -> None:
    kinds = forms.system("nanhu").ids(f"Questionnaire?{asked}")
    assert len(kinds) == found
