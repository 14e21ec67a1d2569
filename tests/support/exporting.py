"""Exports as somebody asks for them, with the worker that does them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
from fhir_door import KEY, SHANGHAI, Asker, Door
from httpx2 import Response
from region import WORKER

from exchange import jobs
from exchange.access import Exchange
from exchange_fhir.bulk import go_on
from exchange_fhir.bundle import Pages
from exchange_fhir.serving import Conduct, Serving
from exchange_server.worker import Worker

NDJSON = "application/fhir+ndjson"
ASYNC = "respond-async"


def worker(exchange: Exchange) -> Worker:
    """One that knows exports and imports."""

    def refused(_: object) -> Any:
        raise AssertionError

    serving = Serving(
        exchange=exchange,
        identify=refused,
        pages=Pages(KEY),
        base_url=None,
        dicomweb="/dicom-web",
        timezone=SHANGHAI,
        conduct=Conduct(),
    )
    handlers = {jobs.BULK: lambda exchange, number: go_on(exchange, WORKER, int(number), serving)}
    return Worker(exchange, handlers)


def going_on(exchange: Exchange, number: int = 1) -> None:
    """An export or import goes on, again and again, taken by nobody else."""
    handler = worker(exchange)._handlers[jobs.BULK]
    while True:
        with suppress(jobs.Later):
            handler(exchange, str(number))
            return


def work(door: Door) -> int:
    """Let the worker do what there is; how many times it was asked."""
    times = 0
    while worker(door.city.exchange).run_once():
        times += 1
    return times


def kicked_off(response: Response) -> str:
    """The address at which it is followed."""
    assert response.status_code == 202, response.text
    return str(response.headers["content-location"])


def manifest(asker: Asker, address: str) -> dict[str, Any]:
    response = asker.get(address)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert "expires" in response.headers
    told: dict[str, Any] = response.json()
    assert told["requiresAccessToken"] is True
    return told


def lines(asker: Asker, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in files:
        response = asker.get(one["url"])
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == NDJSON
        resources = [orjson.loads(line) for line in response.content.splitlines()]
        assert len(resources) == one["count"]
        assert {resource["resourceType"] for resource in resources} == {one["type"]}
        found += resources
    return found


def exported(door: Door, asker: Asker, path: str, **headers: str) -> list[str]:
    """What an export holds, as Type/id."""
    address = kicked_off(asker.get(path, Prefer=ASYNC, **headers))
    work(door)
    return named(lines(asker, manifest(asker, address)["output"]))


def named(resources: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{one['resourceType']}/{one['id']}" for one in resources)


def of(kind: str, names: list[str]) -> list[str]:
    return [one for one in names if one.startswith(f"{kind}/")]
