"""The OpenAPI description tells the truth: nothing that it allows is answered otherwise.

schemathesis asks what the description says can be asked, and what it says cannot. `SCHEMATHESIS`
says how many requests of each operation (default 6); a longer run is for a person to wait for.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from region import ADMINISTRATOR, credit_code
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from web_door import IMAGE, SERIES, STUDY, ct
from worklist_door import step

from exchange import organizations, users
from exchange.policy import Role
from exchange_server import composition
from exchange_server.connection import Connection
from exchange_server.keys import make_keys
from exchange_server.settings import Settings

EXAMPLES = int(os.environ.get("SCHEMATHESIS", "6"))
PASSWORD = "a password of many words"
BOUNDS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
KNOWN = {"study": STUDY, "series": SERIES, "instance": IMAGE, "workitem": "2.25.77"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


@schemathesis.serializer(
    "application/dicom", "application/dicom+xml", "application/fhir+xml", "multipart/related"
)
def as_it_is(_: Any, value: Any) -> bytes:
    """What no schema describes: any bytes."""
    return value if isinstance(value, bytes) else repr(value).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a whole HTTP application, and the token of a hospital's system."""
    home = tmp_path_factory.mktemp("described")
    told = Settings(data=Path(home), http_documentation=True)
    make_keys(told.keys)
    exchange = composition.open_exchange(told)
    exchange.prepare()
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.register(
            access,
            code="beicheng",
            name="北城医院",
            credit_code=credit_code("12120000123450000"),
            issuer="2.25.101",
            entities=[],
        )
        users.add(
            access,
            name="ris",
            display_name="ris",
            role=Role.SYSTEM,
            organization="beicheng",
            password=PASSWORD,
        )
    config = uvicorn.Config(
        composition.application(exchange, told),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        root = f"http://127.0.0.1:{listening.getsockname()[1]}"
        form = {"grant_type": "client_credentials"}
        answer = httpx2.post(f"{root}/oauth/token", data=form, auth=("ris", PASSWORD))
        token = answer.json()["access_token"]
        keep_something(root, token)
        yield root, token
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
        exchange.close()


def keep_something(root: str, token: str) -> None:
    """An image, and a workitem."""
    who = {"Authorization": f"Bearer {token}"}
    told = {**who, "Content-Type": "application/dicom"}
    assert httpx2.post(f"{root}/dicom-web/studies", content=ct(), headers=told).status_code == 200
    told = {**who, "Content-Type": "application/dicom+json"}
    answer = httpx2.post(f"{root}/dicom-web/workitems?2.25.77", json=step(), headers=told)
    assert answer.status_code == 201


@pytest.fixture(scope="module")
def description(served: tuple[str, str]) -> dict[str, Any]:
    return dict(httpx2.get(f"{served[0]}/openapi.json").json())


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


@pytest.mark.parametrize("mode", GenerationMode)
def test_nothing_that_is_described_is_answered_otherwise(
    served: tuple[str, str], description: dict[str, Any], mode: GenerationMode
) -> None:
    """`mode`: what the description allows, and what it does not."""
    root, token = served
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=root)
    found: list[str] = []
    asked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        signed_in = operation.path != "/oauth/token"
        headers = {"Authorization": f"Bearer {token}"} if signed_in else {}

        def ask(case: schemathesis.Case[Any]) -> None:
            nonlocal asked
            asked += 1
            if asked % 2:  # so that half of the questions are about something that is there
                there = {name: KNOWN[name] for name in case.path_parameters if name in KNOWN}
                case.path_parameters.update(there)
            answer = case.call(headers=headers, timeout=30)  # noqa: B023 - asked here and now
            case.validate_response(answer, checks=CHECKS)

        asking = given(operation.as_strategy(generation_mode=mode))(ask)
        try:
            BOUNDS(asking)()
        except (FailureGroup, AssertionError) as error:
            found.append(f"{operation.label}: {' '.join(str(error).split())[:600]}")
        except Unsatisfiable:
            continue  # there is nothing that it does not allow
    assert found == []
    assert asked > len(description["paths"])
