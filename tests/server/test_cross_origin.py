"""A SMART app in a browser asks FHIR and DICOMweb from its own origin, where it is let."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ready
from httpx2 import Response
from starlette.testclient import TestClient

from exchange.errors import Invalid
from exchange_server import composition, settings
from exchange_server.keys import make_keys
from exchange_server.settings import Settings

APP = "https://app.example.cn"
DOORS = ("/fhir/Patient/1", "/fhir", "/dicom-web/studies")


def served(data: Path, *origins: str) -> Iterator[TestClient]:
    told = Settings(data=data, web_origins=origins)
    make_keys(told.keys)
    ready.sqlite(data / "index.sqlite")
    exchange = composition.open_exchange(told)
    try:
        exchange.prepare()
        yield TestClient(composition.application(exchange, told))
    finally:
        exchange.close()


@pytest.fixture
def known(tmp_path: Path) -> Iterator[TestClient]:
    """An exchange that knows the app."""
    yield from served(tmp_path, APP)


@pytest.fixture
def unasked(tmp_path: Path) -> Iterator[TestClient]:
    """One of which nobody set anything."""
    yield from served(tmp_path)


def preflight(client: TestClient, path: str, origin: str = APP) -> Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, content-type, if-match",
    }
    answer: Response = client.options(path, headers=asked)
    return answer


@pytest.mark.parametrize("path", DOORS)
def test_an_app_that_is_known_may_ask_with_its_token_and_without_cookies(
    known: TestClient, path: str
) -> None:
    told = preflight(known, path)
    answer = known.get(path, headers={"Origin": APP})

    assert told.status_code == 200
    assert told.headers["access-control-allow-origin"] == APP
    assert "PUT" in told.headers["access-control-allow-methods"]
    allowed = told.headers["access-control-allow-headers"].lower()
    assert all(one in allowed for one in ("authorization", "if-match", "prefer"))
    assert answer.status_code == 401  # it has no token yet, and can read so
    assert answer.headers["access-control-allow-origin"] == APP
    shown = answer.headers["access-control-expose-headers"].lower()
    for name in ("etag", "location", "content-location", "last-modified", "content-range"):
        assert name in shown
    assert "origin" in answer.headers["vary"].lower()
    for one in (told, answer):
        assert "access-control-allow-credentials" not in one.headers


@pytest.mark.parametrize("path", ["/portal/", "/oauth/token", "/health", "/fhirs", "/viewer/"])
def test_nothing_else_is_asked_from_elsewhere(known: TestClient, path: str) -> None:
    for answer in (preflight(known, path), known.get(path, headers={"Origin": APP})):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", DOORS)
def test_an_app_that_is_not_known_may_not_ask(
    known: TestClient, unasked: TestClient, path: str
) -> None:
    for client, origin in ((known, "https://evil.example"), (unasked, APP)):
        assert "access-control-allow-origin" not in preflight(client, path, origin).headers
        answer = client.get(path, headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("wrong", ["*", "app.example.cn", f"{APP}/", "null", "https://A.example"])
def test_what_is_no_origin_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    monkeypatch.setenv("EXCHANGE_DATA", str(tmp_path))
    monkeypatch.setenv("EXCHANGE_WEB_ORIGINS", f"{APP}, {wrong}")
    with pytest.raises(Invalid, match="EXCHANGE_WEB_ORIGINS"):
        settings.load()


def test_the_capabilities_say_whether_apps_of_other_origins_are_let_ask(
    known: TestClient, tmp_path: Path
) -> None:
    def said(client: TestClient) -> bool:
        security = client.get("/fhir/metadata").json()["rest"][0]["security"]
        return bool(security["cors"])

    assert said(known)
    (tmp_path / "another").mkdir()
    for unasked in served(tmp_path / "another"):
        assert not said(unasked)
