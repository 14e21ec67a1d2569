"""Somebody who means harm: in what hospitals send, in addresses, and from pages of other sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from lxml import html
from region import ADMINISTRATOR, Region, region
from starlette.testclient import TestClient

from exchange import consent, users
from exchange.policy import Role
from exchange_server import composition
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_server.shelves import Shelves

PASSWORD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin"}
ELSEWHERE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
STUDY = "1.2.66"


@dataclass(slots=True)
class Site:
    """An application with people of two hospitals, one of which sends what means harm."""

    app: FastAPI
    city: Region
    named: dict[str, str] = field(default_factory=dict)
    """Kinds of records, with the logical id of one."""

    def reader(self, name: str) -> TestClient:
        """The browser of somebody who has signed in."""
        client = TestClient(self.app, base_url="http://testserver", follow_redirects=False)
        answer = client.post(
            "/portal/sign-in", data={"name": name, "password": PASSWORD}, headers=SAME
        )
        assert answer.status_code == 303
        client.headers.update(SAME)
        return client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    with region(f"sqlite:///{folder / 'index.sqlite'}") as city:
        make_keys(folder / "keys")
        made = Site(composition.application(city.exchange, Settings(data=folder)), city)
        for name, role, code in (
            ("zhang", Role.CLINICIAN, "nanhu"),
            ("wang", Role.CLINICIAN, "dongshan"),
            ("admin", Role.ADMINISTRATOR, "nanhu"),
            ("pacs", Role.SYSTEM, "beicheng"),
        ):
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                users.add(
                    access,
                    name=name,
                    display_name=EVIL[:64],
                    role=role,
                    organization=code,
                    password=PASSWORD,
                )
        city.send(
            "beicheng",
            study=STUDY,
            PatientName=f"{EVIL[:60]}^x",
            StudyDescription=EVIL,
            SeriesDescription=EVIL,
            BodyPartExamined=EVIL[:16],
            AccessionNumber=EVIL[:16],
        )
        _write(made)
        yield made


def _write(site: Site) -> None:
    """Beicheng's system writes records that mean harm in every text."""
    client = TestClient(site.app, base_url="http://testserver")
    token = client.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, auth=("pacs", PASSWORD)
    ).json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    subject = {"reference": "Patient/1", "display": EVIL}
    records: list[dict[str, Any]] = [
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "urn:x", "code": "y", "display": EVIL}]},
            "valueQuantity": {"value": 1, "unit": EVIL},
            "referenceRange": [{"text": EVIL}],
            "interpretation": [{"text": EVIL}],
            "note": [{"text": EVIL, "authorString": EVIL}],
            "effectiveDateTime": f"2026-11-0{day}",
            "derivedFrom": [{"reference": "ImagingStudy/..", "display": EVIL}],
        }
        for day in (1, 2)
    ]
    records.append(
        {
            "resourceType": "DocumentReference",
            "status": "current",
            "type": {"text": EVIL},
            "content": [
                {"attachment": {"contentType": "text/plain", "data": "PGI+", "title": EVIL}},
                {"attachment": {"contentType": "image/svg+xml", "data": "PHN2Zz48L3N2Zz4="}},
                {"attachment": {"contentType": "application/pdf", "data": "PGh0bWw+"}},
                {"attachment": {"contentType": EVIL, "url": "javascript:alert(1)"}},
            ],
        }
    )
    for record in records:
        answer = client.post("/fhir/" + record["resourceType"], json={**record, "subject": subject})
        assert answer.status_code in {201, 422}, answer.text
        if answer.status_code == 201:
            site.named[record["resourceType"]] = answer.json()["id"]
    assert site.named.keys() == {"Observation", "DocumentReference"}


def harmless(text: str) -> None:
    """No script of theirs, no attribute that acts, no address of another site."""
    for element in html.fromstring(text).iter():
        if not isinstance(element.tag, str):
            continue
        if element.tag == "script":
            assert re.fullmatch(r"/portal/static/[\w.\-]+\?v=\w+", element.get("src", "")), text
            assert not (element.text or "").strip()
        assert element.tag not in {"object", "embed", "base", "style"}
        for name, value in element.attrib.items():
            assert not name.startswith("on"), name
            assert name not in {"style", "srcdoc", "formaction"}
            if name in {"href", "src", "action", "hx-get"}:
                assert re.match(r"(/(?!/)|#)", value), value


@pytest.mark.parametrize(
    "path",
    [
        "/portal/people/1",
        f"/portal/studies/{STUDY}",
        f"/portal/studies/{STUDY}/share?colleague=script",
        "/portal/records/Observation/{Observation}",
        "/portal/records/DocumentReference/{DocumentReference}",
        "/portal/shares",
        "/iid?requestType=PATIENT&patientID=P1",
        "/portal/people/1?hospital=%22%3E%3Cscript%3E&modality=%3Cimg%20onerror=x%3E",
        "/portal/sign-in?next=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/portal/studies/%3Cscript%3E",
    ],
)
def test_whatever_hospitals_and_addresses_say_is_text(site: Site, path: str) -> None:
    answer = site.reader("zhang").get(path.format_map(site.named))

    assert answer.status_code in {200, 303, 400, 404}
    if answer.status_code == 200:
        harmless(answer.text)


def test_who_looks_for_harm_is_answered_in_text(site: Site) -> None:
    answer = site.reader("zhang").post("/portal/search", data={"text": EVIL[:40]}, headers=SAME)

    harmless(answer.text)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_document_is_never_a_page_of_ours(site: Site, number: int) -> None:
    place = f"/portal/records/DocumentReference/{site.named['DocumentReference']}/documents"
    answer = site.reader("zhang").get(f"{place}/{number}")

    assert answer.status_code == (404 if number == 3 else 200)
    if answer.status_code == 200:  # none of them is a PDF or a picture, whatever it claims
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy


def routes(app: FastAPI, method: str) -> list[str]:
    """The portal's addresses for a method, with something in each place."""
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [("", one) for one in app.routes]
    while waiting:
        prefix, one = waiting.pop()
        if isinstance(one, Shelves):
            waiting += [(prefix, inner) for inner in one.routes]
        elif (within := getattr(one, "original_router", None)) is not None:  # included late
            waiting += [(prefix + one.include_context.prefix, inner) for inner in within.routes]
        elif isinstance(one, APIRoute) and method in (one.methods or ()):
            found.append(prefix + one.path)
    pages = [path for path in found if path.startswith("/portal")]
    filled = [re.sub(r"\{(number|version)[^}]*\}", "1", path) for path in pages]
    filled = [re.sub(r"\{study[^}]*\}", STUDY, path) for path in filled]
    return [re.sub(r"\{[^}]*\}", "x", path) for path in filled]


def test_no_form_is_filled_in_by_a_page_of_another_site(site: Site) -> None:
    paths = routes(site.app, "POST")
    assert len(paths) > 8
    for name in ("zhang", "admin"):
        reader = site.reader(name)
        for path in paths:
            answer = reader.post(path, data={"how": "discard"}, headers=ELSEWHERE)
            assert answer.status_code in {303, 403}, (path, answer.status_code)
            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/portal/sign-in"), path
            nobody = reader.post(path, data={}, headers={"Sec-Fetch-Site": "none"})
            assert nobody.status_code in {303, 403}, path


def test_every_page_says_that_it_is_kept_nowhere_and_framed_nowhere(site: Site) -> None:
    reader = site.reader("zhang")
    for path in [*routes(site.app, "GET"), "/portal/none", f"/portal/studies/{STUDY}"]:
        if "static" in path:
            continue
        answer = reader.get(path)
        assert answer.status_code < 500, path
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors" in answer.headers["content-security-policy"], path
        assert answer.headers["referrer-policy"] in {"same-origin", "no-referrer"}, path


def test_nobody_comes_to_what_is_not_theirs_by_changing_an_address(site: Site) -> None:
    with site.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "beicheng", "P1")
    try:
        zhang, admin = site.reader("zhang"), site.reader("admin")
        for reader, path, statuses in (
            (zhang, "/portal/people/1", {404}),
            (zhang, f"/portal/studies/{STUDY}", {404}),
            (zhang, f"/portal/studies/{STUDY}/share", {404}),
            (zhang, "/portal/records/Observation/{Observation}", {404}),
            (zhang, "/portal/records/DocumentReference/{DocumentReference}/documents/0", {404}),
            (zhang, "/portal/exports/1", {404}),
            (zhang, "/portal/hospital", {403}),
            (zhang, "/portal/operation", {403}),
            (admin, "/portal/operation", {403}),
            (admin, "/portal/hospital?hospital=beicheng", {403, 404}),
            (admin, "/portal/people/1", {403}),
            (admin, f"/portal/studies/{STUDY}", {403}),
            (admin, "/portal/records/Observation/{Observation}", {403}),
        ):
            answer = reader.get(path.format_map(site.named))
            assert answer.status_code in statuses, (path, answer.status_code)
            assert "P1" not in answer.text, path
            assert "alert(1)" not in re.sub(
                "<header.*?</header>", "", answer.text, flags=re.DOTALL
            ), path
        assert zhang.post(f"/portal/studies/{STUDY}/exports", data={"a": "b"}).status_code == 404
        told = {"recipient": "2", "days": "1", "openings": "1"}
        assert zhang.post(f"/portal/studies/{STUDY}/shares", data=told).status_code == 404
    finally:
        with site.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            consent.opt_in(access, "beicheng", "P1")
