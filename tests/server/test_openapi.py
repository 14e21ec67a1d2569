"""The OpenAPI description tells the truth: nothing that it allows is answered otherwise.

schemathesis asks what the description says can be asked, and what it says cannot: some questions of
each operation, the same in each run, or many others (`depth.DEEP`) that a person waits for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx2
import pytest
import schemathesis
from depth import DEEP
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from web_door import IMAGE, SERIES, STUDY
from whole import WORKITEM, Whole, whole

from exchange_server import composition
from exchange_server.keys import make_keys
from exchange_server.settings import Settings
from exchange_server.shelves import Shelves

EXAMPLES = 100 if DEEP else 4
OF_A_TYPE = 100 if DEEP else 2
"""What is one function for dozens of types of resources is asked of each of them."""
KNOWN = {"study": STUDY, "series": SERIES, "instance": IMAGE, "workitem": WORKITEM}
FRAMING = frozenset({"transfer-encoding", "content-length", "connection", "upgrade", "expect"})
"""Headers of the connection (RFC 9112): a request that has a wrong one is none of a door's."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


DOORS = ("/dicom-web", "/fhir", "/oauth", "/health", "/ready", "/metrics", "/.well-known")
NOT_DESCRIBED = {
    # The capabilities are the same at every resource.
    ("/dicom-web/{}", "OPTIONS"),
    # Refused as too costly, in words.
    ("/fhir/Patient/$everything", "GET"),
    ("/fhir/Patient/$everything", "POST"),
    # What is answered to any other method.
    *(("/fhir", method) for method in ("DELETE", "HEAD", "OPTIONS", "PATCH", "PUT", "TRACE")),
}


@schemathesis.serializer(
    *("application/dicom", "application/dicom+xml", "multipart/related"),
    *("application/fhir+xml", "application/fhir+ndjson"),
)
def as_it_is(_: Any, value: Any) -> bytes:
    """What no schema describes: any bytes."""
    return value if isinstance(value, bytes) else repr(value).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("described")) as made:
        yield made


@pytest.fixture(scope="module")
def description(served: Whole) -> dict[str, Any]:
    return dict(httpx2.get(f"{served.root}/openapi.json", timeout=180).json())


def test_every_door_is_described(description: dict[str, Any]) -> None:
    paths = description["paths"]

    assert {"/health", "/oauth/token", "/dicom-web/studies", "/fhir/Patient/{id}"} <= set(paths)
    operations = [
        operation["operationId"]
        for item in paths.values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(operations) == len(set(operations))


def test_nothing_is_served_that_is_not_described(
    description: dict[str, Any], tmp_path: Path
) -> None:
    """But for pages, the viewer's own door, what is said to be refused, and aliases."""
    told = Settings(data=tmp_path, http_documentation=True)
    make_keys(told.keys)
    exchange = composition.open_exchange(told)
    try:
        exchange.prepare()
        application = composition.application(exchange, told)
    finally:
        exchange.close()
    described = {
        (re.sub(r"{[^}]*}", "{}", path), method.upper())
        for path, item in description["paths"].items()
        for method in item
        if method != "parameters"
    }
    served = {
        (re.sub(r"{[^}]*}", "{}", path), method)
        for path, methods in _routes(application.routes)
        for method in methods
        if path.startswith(DOORS) and "{path:path}" not in path and not path.endswith("/")
    }

    assert len(served) > 80

    # One path stands for the types that have none of their own, where the door has one for all.
    of_types = {(of_type(path), method) for path, method in described}
    others = served - described - of_types - NOT_DESCRIBED
    assert {one for one in others if (of_type(one[0]), one[1]) not in of_types} == set()


def of_type(path: str) -> str:
    """A path, the same for every type of resource."""
    return re.sub(r"^/fhir/[A-Z][A-Za-z]+(?=/|$)", "/fhir/{}", path)


def bounds(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _routes(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Iterable[str]]]:
    for route in routes:
        if isinstance(route, Shelves):
            yield from _routes(route.routes, prefix)
        elif (within := getattr(route, "original_router", None)) is not None:  # included late
            yield from _routes(within.routes, prefix + route.include_context.prefix)
        elif methods := getattr(route, "methods", None):
            yield prefix + route.path, methods


@pytest.mark.parametrize("mode", GenerationMode)
def test_nothing_that_is_described_is_answered_otherwise(
    served: Whole, description: dict[str, Any], mode: GenerationMode
) -> None:
    """`mode`: what the description allows, and what it does not."""
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=served.root)
    alike = Counter(of_type(path) for path in description["paths"])
    found: list[str] = []
    asked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        signed_in = operation.path != "/oauth/token"
        headers = {"Authorization": f"Bearer {served.token}"} if signed_in else {}

        def ask(case: schemathesis.Case[Any]) -> None:
            nonlocal asked
            asked += 1
            if asked % 2:  # so that half of the questions are about something that is there
                there = {name: KNOWN[name] for name in case.path_parameters if name in KNOWN}
                case.path_parameters.update(there)
            for name in [one for one in case.headers if one.lower() in FRAMING]:
                del case.headers[name]
            answer = case.call(headers=headers, timeout=120)  # noqa: B023 - asked here and now
            case.validate_response(answer, checks=CHECKS)

        asking = given(operation.as_strategy(generation_mode=mode))(ask)
        if not DEEP:  # the same in each run, and others of each type
            asking = seed(crc32(operation.label.encode()))(asking)
        try:
            bounds(OF_A_TYPE if alike[of_type(operation.path)] > 1 else EXAMPLES)(asking)()
        except (FailureGroup, AssertionError) as error:
            found.append(f"{operation.label}: {' '.join(str(error).split())[:600]}")
        except Unsatisfiable:
            continue  # there is nothing that it does not allow
    assert found == []
    assert asked > len(description["paths"])
