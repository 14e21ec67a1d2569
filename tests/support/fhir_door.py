"""The FHIR door of a small region, asked by its clinicians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

import fhirkit
import orjson
from fastapi import FastAPI
from fastapi.testclient import TestClient
from fhir.resources.R4B import get_fhir_model_class
from httpx2 import Response
from region import ADMINISTRATOR, WORKER, Region
from sqlalchemy import select
from starlette.requests import Request

from exchange import jobs
from exchange.errors import NotAuthenticated
from exchange.policy import Requester
from exchange_fhir.binary import Send, sent
from exchange_fhir.refresh import refresh
from exchange_fhir.rest import fhir
from exchange_fhir.serving import Conduct
from exchange_server.shelves import Shelves
from exchange_storage.records import Job

BASE = "https://exchange.example/fhir"
KEY = b"sixteen bytes or more"
SHANGHAI = ZoneInfo("Asia/Shanghai")


def is_fhir(resource: dict[str, Any]) -> None:
    """Two validators that know nothing of each other find nothing wrong with it."""
    get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    assert [str(issue) for issue in fhirkit.validate(resource)] == []


@dataclass(slots=True)
class Asker:
    """Someone who asks the door."""

    client: TestClient
    token: str

    def get(self, path: str, **headers: str) -> Response:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(self._address(path), headers=self._headers(told))

    def post(self, path: str, content: bytes | str, media_type: str) -> Response:
        told = {"Content-Type": media_type}
        return self.client.post(self._address(path), content=content, headers=self._headers(told))

    def send(
        self, method: str, path: str, resource: dict[str, Any] | None = None, **headers: str
    ) -> Response:
        """A request with a resource as JSON, or without a body."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if resource is not None:
            told.setdefault("Content-Type", "application/fhir+json")
        content = b"" if resource is None else orjson.dumps(resource)
        return self.client.request(
            method, self._address(path), content=content, headers=self._headers(told)
        )

    def made(self, resource: dict[str, Any], status: int = 201, **headers: str) -> dict[str, Any]:
        """The resource as it is after its create."""
        response = self.send("POST", resource["resourceType"], resource, **headers)
        assert response.status_code == status, response.text
        made: dict[str, Any] = response.json()
        is_fhir(made)
        return made

    def read(self, path: str) -> dict[str, Any]:
        """A resource that can be read, and that is FHIR."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        resource: dict[str, Any] = response.json()
        is_fhir(resource)
        return resource

    def bundle(self, path: str, mode_of: str = "searchset", **headers: str) -> dict[str, Any]:
        """A search that succeeds, and whose Bundle is FHIR; or a history."""
        response = self.get(path, **headers)
        assert response.status_code == 200, response.text
        bundle: dict[str, Any] = response.json()
        is_fhir(bundle)
        assert bundle["type"] == mode_of
        return bundle

    def ids(self, path: str, mode: str = "match") -> list[str]:
        """What a search answers, as Type/id, in its order."""
        return [name(entry) for entry in entries(self.bundle(path), mode)]

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """The Bundles of a search from the first page to the last."""
        following: str | None = path
        while following:
            bundle = self.bundle(following)
            yield bundle
            following = link(bundle, "next")

    def refused(self, path: str, status: int, code: str, **headers: str) -> str:
        """A request that fails as it should; returns what the asker is told."""
        return outcome(self.get(path, **headers), status, code)

    def _address(self, path: str) -> str:
        link = path.startswith(BASE)
        return path.removeprefix(BASE.removesuffix("/fhir")) if link else f"/fhir/{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What shows who asks."""
        return self._headers({})

    def _headers(self, told: dict[str, str]) -> dict[str, str]:
        return told | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


def outcome(response: Response, status: int, code: str) -> str:
    """The answer is this OperationOutcome."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/fhir+json")
    told = response.json()
    is_fhir(told)
    assert [issue["code"] for issue in told["issue"]] == [code]
    return str(told["issue"][0]["diagnostics"])


def entries(bundle: dict[str, Any], mode: str = "match") -> list[dict[str, Any]]:
    return [entry for entry in bundle.get("entry", []) if entry["search"]["mode"] == mode]


def name(entry: dict[str, Any]) -> str:
    return f"{entry['resource']['resourceType']}/{entry['resource']['id']}"


def link(bundle: dict[str, Any], relation: str) -> str | None:
    found = [one["url"] for one in bundle["link"] if one["relation"] == relation]
    return found[0] if found else None


@dataclass(slots=True)
class Door:
    """The door of a region, with its worker."""

    city: Region
    client: TestClient
    known: dict[str, Requester] = field(default_factory=dict, repr=False)

    def asker(self, requester: Requester | None) -> Asker:
        token = "" if requester is None else f"t{len(self.known)}"
        if requester is not None:
            self.known[token] = requester
        return Asker(self.client, token)

    def system(self, code: str) -> Asker:
        return self.asker(replace(self.city.system(code), door="fhir"))

    def clinician(self, code: str) -> Asker:
        return self.asker(self.city.clinician(code))

    def administrator(self) -> Asker:
        return self.asker(ADMINISTRATOR)

    def refresh(self) -> int:
        """Do the worker's refreshing, due or not; returns how many studies were done."""
        with self.city.exchange.database.reading() as session:
            studies = session.scalars(select(Job.subject).where(Job.kind == jobs.REFRESH)).all()
        for study in studies:
            self.refresh_study(int(study))
        return len(studies)

    def refresh_study(self, study: int) -> None:
        """Do the worker's refreshing of the study with this row number."""
        with self.city.exchange.on_behalf_of(WORKER) as access:
            refresh(access, [study], timezone=SHANGHAI)


def opened(city: Region, conduct: Conduct | None = None, send: Send = sent) -> Door:
    """The FHIR door of `city`; who asks is known by the token."""
    app = FastAPI()
    door = Door(city, TestClient(app, raise_server_exceptions=False))

    def identify(request: Request) -> Requester:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in door.known:
            raise NotAuthenticated("sign in first")
        return door.known[token]

    routes = fhir(
        city.exchange,
        identify,
        key=KEY,
        base_url=BASE,
        token_endpoint="/oauth/token",
        conduct=conduct,
        send=send,
    )
    app.router.routes.append(Shelves(routes, "/fhir"))  # as the server has them
    return door
