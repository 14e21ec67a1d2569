"""A client can ask the web door what it serves, and is told what it serves."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import httpx2
import pytest
from fastapi.routing import APIRoute
from region import region
from web_door import IMAGE, SERIES, STUDY, Door

from exchange.errors import NotAuthenticated
from exchange_dicom import web_capabilities
from exchange_dicom.web import dicomweb
from exchange_dicom.web_capabilities import NAMESPACE, TRANSACTIONS, WADL
from exchange_storage.objects import MemoryStore


def options(door: Door, path: str = "/", who: str = "beicheng", **more: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {who}", **more}
    return door.http.request("OPTIONS", f"{door.root}{path}", headers=headers)


def test_every_resource_has_a_row_in_the_table_and_every_row_a_resource(tmp_path: Path) -> None:
    def nobody(_: object) -> None:
        raise NotAuthenticated("sign in first")

    with region(
        f"sqlite:///{tmp_path}/index.sqlite", MemoryStore(), hospitals=("beicheng",)
    ) as city:
        routes = dicomweb(city.exchange, nobody).routes  # type: ignore[arg-type]
    served = {
        (method, route.path.rpartition("/")[2])
        for route in routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert served == set(TRANSACTIONS)
    assert web_capabilities.resources(routes)


@pytest.mark.parametrize("path", ["", "/"])
def test_the_whole_door_is_described_in_wadl(archive: Door, path: str) -> None:
    answer = options(archive, path)

    assert (answer.status_code, answer.headers["content-type"]) == (200, WADL)
    assert {"GET", "POST", "DELETE", "OPTIONS"} <= set(answer.headers["Allow"].split(", "))
    (resources,) = ET.fromstring(answer.content)  # noqa: S314 - our own
    assert resources.get("base") == archive.root
    paths = {one.get("path") for one in resources}
    assert {"studies", "studies/{study}/series/{series}/metadata", "wado"} <= paths
    search = next(one for one in resources if one.get("path") == "instances")
    names = {one.get("name") for one in search.iter(f"{{{NAMESPACE}}}param")}
    assert {"limit", "offset", "includefield", "fuzzymatching"} <= names


def test_the_same_can_be_had_in_json(archive: Door) -> None:
    told = options(archive, Accept="application/json").json()

    assert told["base"] == archive.root
    store = next(one for one in told["resources"] if one["path"] == "/studies")["methods"]["POST"]
    assert store["transaction"] == "Store"
    assert 'multipart/related; type="application/dicom+xml"' in store["sent"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/studies", "GET, OPTIONS, POST"),
        (f"/studies/{STUDY}", "DELETE, GET, OPTIONS, POST"),
        (f"/studies/{STUDY}/series/{SERIES}/instances/{IMAGE}/frames/1", "GET, OPTIONS"),
        ("/changefeed/latest", "GET, OPTIONS"),
    ],
)
def test_of_one_resource_the_methods_are_told(archive: Door, path: str, allowed: str) -> None:
    answer = options(archive, path)

    assert (answer.status_code, answer.headers["Allow"]) == (200, allowed)


def test_what_is_not_there_has_no_capabilities(archive: Door) -> None:
    assert options(archive, "/nonsense").status_code == 404
    assert options(archive, Accept="text/html").status_code == 406
    assert options(archive, who="stranger").status_code == 401
