"""The RESTful API as clients meet it: negotiation, searches and their pages, and every error."""

from __future__ import annotations

import re
from datetime import date
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from fhir_door import KEY, Asker, Door, entries, is_fhir, link, name, outcome
from region import ADMINISTRATOR, ID_CARD, Region
from sample_city.identifiers import resident_id
from sqlalchemy import select

from exchange import consent, errors, membership, query
from exchange.errors import ExchangeError
from exchange_fhir import reading
from exchange_fhir.outcome import HTTP, response
from exchange_fhir.rest import fhir
from exchange_storage.records import AuditRecord

FORM = "application/x-www-form-urlencoded"


def three_hospitals(door: Door) -> Asker:
    """Wang was at three hospitals, with a study at each; Li only at nanhu."""
    for at, code in enumerate(("beicheng", "nanhu", "dongshan"), 1):
        door.city.send(
            code,
            patient=f"W{at}",
            study=f"1.2.{at}",
            instance=f"1.4.{at}",
            card=ID_CARD,
            StudyDate=f"2026110{at}",
        )
    door.city.send("nanhu", patient="L", study="1.2.9", instance="1.4.9", PatientName="Li^Na")
    door.city.identify()
    return door.clinician("dongshan")


def test_a_person_is_found_once_and_seen_as_one_timeline_over_three_hospitals(door: Door) -> None:
    asker = three_hospitals(door)

    for number in ("1", "2", "3"):
        bundle = asker.bundle(
            f"ImagingStudy?patient={number}&_sort=started&_include=ImagingStudy:patient"
            "&_include=ImagingStudy:endpoint"
        )
        assert bundle["total"] == 3
        assert [entry["resource"]["id"] for entry in entries(bundle)] == ["1.2.1", "1.2.2", "1.2.3"]
        assert [name(entry) for entry in entries(bundle, "include")] == [
            "Patient/1",
            "Patient/2",
            "Patient/3",
            "Endpoint/dicomweb-beicheng",
            "Endpoint/dicomweb-nanhu",
            "Endpoint/dicomweb-dongshan",
        ]
    by_card = f"patient.identifier=urn:oid:2.16.156.10011.1.3|{ID_CARD}"
    assert len(asker.ids(f"ImagingStudy?{by_card}")) == 3
    assert len(asker.ids("ImagingStudy?patient.identifier=urn:oid:2.25.102|W2")) == 3


def test_a_patient_comes_with_the_studies_of_that_record(door: Door) -> None:
    asker = three_hospitals(door)

    bundle = asker.bundle("Patient?name=li&_revinclude=ImagingStudy:patient&_include=*")

    assert bundle["total"] == 1
    assert [name(entry) for entry in entries(bundle, "include")] == [
        "Organization/nanhu",
        "ImagingStudy/1.2.9",
    ]


def test_a_search_by_form_is_the_same_search_and_leaves_no_number_in_an_address(
    door: Door,
) -> None:
    asker = three_hospitals(door)
    form = f"identifier={ID_CARD}&_count=2"

    answer = asker.post("Patient/_search", form, FORM)

    assert answer.status_code == 200
    is_fhir(answer.json())
    assert answer.json() | {"link": []} == asker.bundle(f"Patient?{form}") | {"link": []}
    following = link(answer.json(), "next")
    assert following is not None
    assert ID_CARD not in following
    assert [name(entry) for entry in entries(asker.bundle(following))] == ["Patient/3"]


def test_pages_hold_every_study_once_whatever_their_size(door: Door) -> None:
    for at in range(7):
        door.city.send("beicheng", study=f"1.2.{at}", instance=f"1.4.{at}")
    asker = door.clinician("nanhu")
    whole = asker.ids("ImagingStudy")

    for count in (1, 2, 3, 7, 8):
        pages = list(asker.pages(f"ImagingStudy?_count={count}&modality=CT&_total=accurate"))
        assert [page["total"] for page in pages] == [7] * len(pages)
        assert [name(entry) for page in pages for entry in entries(page)] == whole
        assert len(pages) == -(-7 // count)


def test_a_page_ends_where_it_grows_too_large_and_the_next_one_goes_on(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(7):
        code = ("beicheng", "nanhu")[at % 2]
        door.city.send(code, patient=f"P{at}", study=f"1.2.{at}", instance=f"1.4.{at}")
    asker = door.clinician("nanhu")
    whole = asker.ids("ImagingStudy")
    (one, *_) = entries(asker.bundle("ImagingStudy"))
    monkeypatch.setattr(reading, "PAGE_BYTES", 3 * len(orjson.dumps(one["resource"])) + 100)

    pages = list(asker.pages("ImagingStudy?_include=ImagingStudy:patient"))

    assert [len(entries(page)) for page in pages] == [3, 3, 1]
    assert [name(entry) for page in pages for entry in entries(page)] == whole
    for page in pages:
        subjects = {entry["resource"]["subject"]["reference"] for entry in entries(page)}
        assert {name(entry) for entry in entries(page, "include")} == subjects
    monkeypatch.setattr(reading, "PAGE_BYTES", 1)
    assert [len(entries(page)) for page in asker.pages("ImagingStudy")] == [1] * 7
    bundle = asker.bundle("Patient?_revinclude=ImagingStudy:patient")
    assert len(entries(bundle)) == 7
    assert len(entries(bundle, "include")) == 1
    (told,) = entries(bundle, "outcome")
    assert "only 1 resources are included" in told["resource"]["issue"][0]["diagnostics"]


def test_the_total_is_told_where_it_is_asked_or_the_last_match_is_at_hand(door: Door) -> None:
    asker = three_hospitals(door)

    assert asker.bundle("ImagingStudy")["total"] == 4
    told = [page.get("total") for page in asker.pages("ImagingStudy?_count=2")]
    assert told == [None, 4]
    counted = [page["total"] for page in asker.pages("ImagingStudy?_count=3&_total=accurate")]
    assert counted == [4, 4]
    assert asker.bundle("Patient?name=nobody")["total"] == 0


def test_who_would_do_with_an_estimate_is_told_the_accurate_total(door: Door) -> None:
    """R4 3.1.1.5.3: a server may tell more exactly than was asked; the self link says so."""
    asker = three_hospitals(door)

    for asked in ("ImagingStudy?_count=3", "Patient?_count=1", "Organization?_count=1"):
        accurate = [page["total"] for page in asker.pages(f"{asked}&_total=accurate")]
        pages = list(asker.pages(f"{asked}&_total=estimate"))
        assert [page["total"] for page in pages] == accurate
        assert len(pages) > 1
        assert "_total=accurate" in str(link(pages[0], "self"))
        assert asker.bundle(f"{asked}&_total=estimate&_count=0")["total"] == accurate[0]


def test_the_last_page_tells_the_total_of_whatever_is_asked_for(door: Door) -> None:
    asker = three_hospitals(door)
    card = resident_id("219901", date(1970, 2, 3), 100)
    door.city.send(
        "nanhu", patient="N9", study="1.2.8", instance="1.4.8", card=card,
        PatientName="Chen^Min=陈^敏", PatientBirthDate="19700203",
    )  # fmt: skip
    door.city.identify()
    system = door.system("beicheng")
    for row in range(3):
        one = {"resourceType": "Practitioner", "name": [{"text": f"医生{row}"}]}
        assert system.send("POST", "Practitioner", one).status_code == 201

    for asked in ("Patient", "Person", "ImagingStudy", "Organization", "Practitioner"):
        pages = list(asker.pages(f"{asked}?_count=1"))
        assert len(pages) > 1, asked
        totals = [page.get("total") for page in pages]
        assert totals == [None] * (len(pages) - 1) + [len(pages)], asked


def test_a_hospital_that_was_deactivated_stays_in_the_directory_and_is_told_to_be_so(
    door: Door, city: Region
) -> None:
    asker = door.clinician("beicheng")
    before = asker.read("Organization/nanhu")
    assert before["active"] is True
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.deactivate(access, "nanhu")

    after = asker.read("Organization/nanhu")
    assert after["active"] is False
    assert after["meta"]["lastUpdated"] > before["meta"]["lastUpdated"]
    since = after["meta"]["lastUpdated"]
    assert asker.ids("Organization?active=false") == ["Organization/nanhu"]
    assert asker.ids(f"Organization?_lastUpdated=ge{since}") == ["Organization/nanhu"]
    others = ["Organization/beicheng", "Organization/dongshan"]
    assert asker.ids("Organization?active=true") == others
    assert asker.read("Endpoint/dicomweb-nanhu")["status"] == "active"

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        membership.activate(access, "nanhu")
    assert asker.read("Organization/nanhu")["active"] is True


def test_the_next_page_is_for_the_one_who_asked(door: Door) -> None:
    for at in range(3):
        door.city.send("beicheng", study=f"1.2.{at}", instance=f"1.4.{at}")
    asker, other = door.clinician("nanhu"), door.clinician("dongshan")
    following = link(asker.bundle("ImagingStudy?_count=2"), "next")
    assert following is not None

    assert len(entries(asker.bundle(following))) == 1
    other.refused(following, 403, "forbidden")
    asker.refused(following.replace("ImagingStudy", "Patient"), 400, "invalid")
    asker.refused(f"{following}&modality=CT", 400, "invalid")
    asker.refused(following[:-2] + "xx", 400, "invalid")
    asker.refused("ImagingStudy?_page=", 400, "invalid")


def test_a_page_asked_for_later_shows_nothing_that_was_withdrawn_meanwhile(door: Door) -> None:

    for at in range(3):
        door.city.send("beicheng", study=f"1.2.{at}", instance=f"1.4.{at}")
    asker = door.clinician("nanhu")
    following = link(asker.bundle("ImagingStudy?_count=2&_total=accurate"), "next")
    assert following is not None

    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    bundle = asker.bundle(following)
    assert (bundle["total"], entries(bundle)) == (0, [])


def test_the_self_link_shows_what_was_used(door: Door) -> None:
    bundle = door.clinician("nanhu").bundle("Patient?name=wang&favourite=colour&_count=9999")

    used = link(bundle, "self")
    assert used is not None
    assert parse_qsl(urlsplit(used).query) == [("name", "wang"), ("_count", "500")]
    (told,) = entries(bundle, "outcome")
    (issue,) = told["resource"]["issue"]
    assert (issue["severity"], issue["code"]) == ("warning", "not-supported")
    assert "favourite" in issue["diagnostics"]
    assert "colour" not in issue["diagnostics"]


@pytest.mark.parametrize(
    "asked", ["favourite=colour", "name=", "_include=Patient:links", "_total=no"]
)
def test_what_is_not_supported_is_told_or_refused_never_passed_over(door: Door, asked: str) -> None:
    asker = door.clinician("nanhu")

    assert len(entries(asker.bundle(f"Patient?{asked}"), "outcome")) == 1
    asker.refused(f"Patient?{asked}", 400, "invalid", Prefer="handling=strict")
    asker.bundle("Patient?name=wang", Prefer="handling=strict")


def test_only_the_number_of_matches_is_told_where_only_that_is_asked(door: Door) -> None:
    asker = three_hospitals(door)

    for asked in ("_summary=count", "_count=0", "_summary=count&_count=10&_total=none"):
        bundle = asker.bundle(f"ImagingStudy?{asked}&_include=*")
        assert (bundle["total"], entries(bundle), link(bundle, "next")) == (4, [], None)
    assert "total" not in asker.bundle("ImagingStudy?_total=none")


def test_studies_are_put_in_the_order_that_is_asked(door: Door) -> None:
    asker = three_hospitals(door)
    door.city.send("beicheng", study="1.2.10", instance="1.4.10", StudyDate="", StudyTime="")

    oldest = ["ImagingStudy/1.2.10", *(f"ImagingStudy/1.2.{at}" for at in (1, 9, 2, 3))]
    assert asker.ids("ImagingStudy?_sort=started") == oldest
    assert asker.ids("ImagingStudy?_sort=-started") == oldest[::-1]
    changed = [f"ImagingStudy/1.2.{at}" for at in (1, 2, 3, 9, 10)]
    assert asker.ids("ImagingStudy?_sort=_lastUpdated") == changed
    assert asker.ids("ImagingStudy?_sort=-_lastUpdated") == changed[::-1]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "application/fhir+json"},
        {"Accept": "application/fhir+json; fhirVersion=4.0"},
        {"Accept": "application/json"},
        {"Accept": "text/html, application/xhtml+xml, */*;q=0.8"},
        {"Accept": "application/fhir+xml;q=0.4, application/fhir+json;q=0.5"},
    ],
)
def test_json_is_answered_to_whoever_takes_it(door: Door, headers: dict[str, str]) -> None:
    asker = door.clinician("nanhu")
    answer = asker.get("Organization", **headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    as_json = asker.get("Organization?_format=json", Accept="application/xml")
    assert as_json.headers["content-type"] == "application/fhir+json; charset=utf-8"


@pytest.mark.parametrize(
    "accept",
    [
        "text/turtle",
        "text/html",
        "application/fhir+json; fhirVersion=5.0",
        "application/fhir+json;q=0",
    ],
)
def test_what_is_neither_json_nor_xml_is_not_acceptable(door: Door, accept: str) -> None:
    asker = door.clinician("nanhu")
    for path in ("metadata", "Patient", "Organization/nanhu"):
        asker.refused(path, 406, "not-supported", Accept=accept)
    asker.refused("Patient?_format=ttl", 406, "not-supported")


def test_nobody_unknown_is_told_anything_but_the_capabilities(door: Door) -> None:
    stranger = door.asker(None)

    for path in ("Patient", "Patient/1", "ImagingStudy/1.2.1", "Organization", "Nothing", "a/b/c"):
        stranger.refused(path, 401, "login")
        assert stranger.get(path).headers["www-authenticate"].startswith("Bearer")
    assert stranger.get("metadata").status_code == 200


def test_whoever_asks_learns_in_json_where_tokens_are_issued(door: Door, city: Region) -> None:
    answer = door.asker(None).get(".well-known/smart-configuration", Accept="application/xml")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "token_endpoint": "https://exchange.example/oauth/token",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "capabilities": ["smart-imaging-access"],
    }
    (rest,) = door.asker(None).read("metadata")["rest"]
    assert answer.json()["token_endpoint"] in rest["security"]["description"]

    elsewhere = FastAPI()
    elsewhere.include_router(fhir(city.exchange, lambda _: ADMINISTRATOR, key=KEY), prefix="/r4")
    client = TestClient(elsewhere)
    outcome(client.get("/r4/.well-known/smart-configuration"), 404, "not-found")


@pytest.mark.parametrize(
    "query",
    [
        "ImagingStudy?_count=2",
        "ImagingStudy?_count=2&_sort=-_lastUpdated",
        "Patient?_count=2&_sort=-birthdate,-_lastUpdated",
        "Patient?_count=2&_sort=-_id",
    ],
)
def test_pages_do_not_shift_while_hospitals_send(door: Door, query: str) -> None:
    for number in range(5):
        sent_on(door, number)
    asker = door.clinician("nanhu")
    pages = asker.pages(query)
    first = next(pages)
    before = set(asker.ids(f"{query.partition('?')[0]}?_count=500"))

    sent_on(door, 9)  # which stands before all others

    told = [name(one) for page in [first, *pages] for one in entries(page)]
    assert len(told) == len(set(told))
    assert set(told) == before


def sent_on(door: Door, number: int) -> None:
    """Another patient's study, later than those with lower numbers."""
    door.city.send(
        "beicheng",
        patient=f"P{number}",
        study=f"1.2.{number}",
        instance=f"1.4.{number}",
        StudyDate=f"2026110{number}",
        PatientBirthDate=f"1950010{number or 1}",
    )


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("Patient/999", "not-found"),
        ("Patient/x", "not-found"),
        ("Patient/99999999999999999999", "not-found"),
        ("ImagingStudy/1.2.999", "not-found"),
        ("Organization/x", "not-found"),
        ("Endpoint/beicheng", "not-found"),
        ("Medication", "not-supported"),
        ("Observation/1", "not-found"),
        ("Patient/1/_history", "not-found"),
        ("Patient/1/_history/1", "not-found"),
        ("ImagingStudy/1.2.1/_history", "not-found"),
        ("ImagingStudy/1.2.1/_history/1", "not-found"),
        ("Patient/1/$everything", "not-found"),
    ],
)
def test_what_is_not_there_is_not_found(door: Door, path: str, code: str) -> None:
    door.clinician("nanhu").refused(path, 404, code)


def test_who_does_not_share_is_as_if_they_and_their_study_were_not_there(
    door: Door,
) -> None:
    door.city.send("beicheng", card=ID_CARD)
    asker, owner = door.clinician("nanhu"), door.clinician("beicheng")
    for path in ("Patient/1", "ImagingStudy/1.2.1"):
        asker.read(path)

    with door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")

    assert asker.refused("Patient/1", 404, "not-found") == asker.refused(
        "Patient/2", 404, "not-found"
    )
    told = asker.refused("ImagingStudy/1.2.1", 404, "not-found")
    assert told.replace("1.2.1", "1.2.2") == asker.refused("ImagingStudy/1.2.2", 404, "not-found")
    for path in ("Patient/1", "ImagingStudy/1.2.1"):
        owner.read(path)
    for path in ("Patient", "ImagingStudy", f"Patient?identifier={ID_CARD}"):
        assert asker.bundle(path)["total"] == 0
        assert owner.bundle(path)["total"] == 1
    assert "role" in door.administrator().refused("Patient", 403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "ImagingStudy", "GET, HEAD"),
        ("PUT", "Person/1", "GET, HEAD"),
        ("DELETE", "ImagingStudy/1.2.1", "GET, HEAD"),
        ("PATCH", "Organization/nanhu", "GET, HEAD"),
        ("DELETE", "AuditEvent", "GET, HEAD"),
        ("POST", "Location/1/_history", "GET, HEAD"),
        ("PUT", "", "GET, HEAD, POST"),
        ("GET", "Patient/$match", "POST"),
        ("GET", "Patient/$validate", "POST"),
        ("POST", "Patient/1/$meta", "GET, HEAD"),
        ("DELETE", "Patient/1/$everything", "GET, HEAD, POST"),
    ],
)
def test_what_is_not_allowed_is_told_with_what_is(
    door: Door, method: str, path: str, allow: str
) -> None:
    asker = door.clinician("nanhu")
    headers = {"Authorization": f"Bearer {asker.token}"}

    answer = door.client.request(method, f"/fhir/{path}", headers=headers)

    outcome(answer, 405, "not-supported")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "Patient/1/$bogus", "$bogus"),
        ("GET", "Patient/$bogus", "$bogus"),
        ("GET", "Observation/1/$bogus", "$bogus"),
        ("GET", "Patient/1/$export", "$export"),
        ("POST", "$validate", "$validate"),
        ("GET", "$bogus", "$bogus"),
        ("PUT", "Patient/$bogus", "$bogus"),
    ],
)
def test_an_operation_that_is_not_there_is_named(
    door: Door, method: str, path: str, operation: str
) -> None:
    told = outcome(door.system("nanhu").send(method, path), 404, "not-supported")
    assert told == f"the operation {operation} is not supported here; see metadata"
    assert outcome(door.asker(None).send(method, path), 401, "login")


@pytest.mark.parametrize("media_type", ["application/json-patch+json", "application/fhir+json"])
def test_a_patch_without_a_body_is_told_that_it_is_empty(door: Door, media_type: str) -> None:
    refused = door.system("nanhu").send("PATCH", "Location/1", Content_Type=media_type)
    assert "the body is empty" in outcome(refused, 400, "structure")


def test_a_body_that_is_not_fhir_is_told_apart_from_one_that_is_not_wanted(door: Door) -> None:
    asker = door.clinician("nanhu")

    for body in ("{", "[]", "{}", '{"resourceType": 7}'):
        outcome(asker.post("Location", body, "application/fhir+json"), 400, "structure")
    study = orjson.dumps({"resourceType": "ImagingStudy"})
    outcome(asker.post("ImagingStudy", study, "application/fhir+json"), 405, "not-supported")
    outcome(asker.post("Patient/_search", "{}", "application/json"), 415, "not-supported")
    outcome(asker.post("Patient/_search", b"\xff=1", FORM), 400, "structure")
    outcome(asker.post("Patient/_search", "a" * 70000, FORM), 413, "too-long")


def test_every_error_of_the_exchange_has_its_answer() -> None:
    assert set(HTTP) == {*ExchangeError.__subclasses__(), errors.Gone, errors.UnknownPatient}
    for error in HTTP:
        told = orjson.loads(bytes(response(error("the next step")).body))
        is_fhir(told)
        assert told["issue"][0]["diagnostics"] == "the next step"
    assert response(errors.Unavailable("later")).headers["retry-after"]


def test_what_nobody_expected_tells_and_logs_no_patient(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("王小东")

    asker = door.clinician("nanhu")
    monkeypatch.setattr(query, "find", fails)

    told = asker.refused("Patient?name=王小东", 500, "exception")

    assert "王" not in told + caplog.text
    assert re.search(r"unexpected KeyError at test_rest\.py:\d+ < searching\.py:\d+", caplog.text)


def test_addresses_are_those_that_the_client_uses_unless_one_is_set(city: Region) -> None:
    city.send("beicheng")
    app = FastAPI()
    routes = fhir(city.exchange, lambda _: city.clinician("nanhu"), key=KEY)
    app.include_router(routes, prefix="/r4")
    client = TestClient(app, base_url="http://[::1]:8080")

    (entry,) = client.get("/r4/ImagingStudy").json()["entry"]
    endpoint = client.get("/r4/Endpoint/dicomweb-nanhu").json()

    assert entry["fullUrl"] == "http://[::1]:8080/r4/ImagingStudy/1.2.1"
    assert endpoint["address"] == "http://[::1]:8080/dicom-web"


def test_who_looked_up_a_hospital_is_in_the_trail(door: Door) -> None:
    asker = door.clinician("nanhu")
    asker.read("Organization/beicheng")
    asker.bundle("Endpoint")

    with door.city.exchange.database.reading() as session:
        last = session.scalars(
            select(AuditRecord.action).order_by(AuditRecord.sequence.desc()).limit(2)
        ).all()
    assert last == ["search", "look up"]
