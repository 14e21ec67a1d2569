"""Which route a request takes does not depend on how few of them are tried."""

from itertools import product

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.routing import NoMatchFound
from starlette.testclient import TestClient

from exchange_server.shelves import Shelves

PREFIX = "/dicom-web"
ROUTES = (
    ("GET", ""),
    ("GET", "/studies"),
    ("POST", "/studies"),
    ("GET", "/studies/{study}"),
    ("DELETE", "/studies/{study}"),
    ("GET", "/studies/{study}/series"),
    ("GET", "/studies/{study}/series/{series}"),
    ("GET", "/studies/{study}/bulkdata/{path:path}"),
    ("GET", "/wado"),
    ("GET", "/{kind}"),
    ("GET", "/{kind}/{number}"),
    ("PUT", "/{kind}/{number}"),
    ("GET", "/studies/{rest:path}"),
)
SEGMENTS = ("studies", "wado", "series", "bulkdata", "1.2", "{kind}", "")


def routes() -> APIRouter:
    router = APIRouter()
    for method, path in ROUTES:

        def answer(request: Request, told: str = f"{method} {path}") -> PlainTextResponse:
            return PlainTextResponse(f"{told} {sorted(request.path_params.items())}")

        router.add_api_route(path, answer, methods=[method], name=f"{method}{path}")
    return router


@pytest.fixture(scope="module")
def ordinary() -> TestClient:
    app = FastAPI()
    app.include_router(routes(), prefix=PREFIX)
    return TestClient(app, follow_redirects=False)


@pytest.fixture(scope="module")
def shelved() -> TestClient:
    app = FastAPI()
    app.router.routes.append(Shelves(routes(), PREFIX))
    return TestClient(app, follow_redirects=False)


def test_a_request_takes_the_route_that_it_would_take_if_all_were_tried(
    ordinary: TestClient, shelved: TestClient
) -> None:
    found = set()
    for depth in range(4):
        for segments in product(SEGMENTS, repeat=depth):
            path = "/".join((PREFIX, *segments))
            for method in ("GET", "PUT", "DELETE"):
                wanted, got = (one.request(method, path) for one in (ordinary, shelved))
                assert (got.status_code, got.text) == (wanted.status_code, wanted.text), path
                assert got.headers.get("allow") == wanted.headers.get("allow")
                assert got.headers.get("location") == wanted.headers.get("location")
                found.add(wanted.text.partition(" [")[0] if wanted.is_success else "")
    assert len(found) > 9
    assert shelved.get("/elsewhere/studies").status_code == 404


def test_routes_have_addresses() -> None:
    shelves = Shelves(routes(), PREFIX)
    assert shelves.url_path_for("GET/studies/{study}", study="1.2") == f"{PREFIX}/studies/1.2"
    with pytest.raises(NoMatchFound):
        shelves.url_path_for("nothing")
