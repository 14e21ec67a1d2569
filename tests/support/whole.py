"""The whole HTTP application with one hospital, in this process, on a free port of the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from hosting import hosted
from real_parts import PATIENCE
from region import ADMINISTRATOR, credit_code
from web_door import ct
from worklist_door import step

from exchange import organizations, users
from exchange.policy import Role
from exchange_server import composition
from exchange_server.connection import Connection
from exchange_server.keys import make_keys
from exchange_server.settings import Settings

PASSWORD = "a password of many words"
WORKITEM = "2.25.77"
"""A workitem that is there, beside the image `web_door.IMAGE`."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Where it is, and the token of the hospital's system."""

    port: int
    token: str

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def whole(home: Path) -> Iterator[Whole]:
    """It holds an image and a workitem, and is stopped at the end whatever happens."""
    told = Settings(
        data=home, http_documentation=True, fhir_update_creates=True, token_lifetime=3600
    )
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
    application = composition.application(exchange, told)
    with (
        closing(exchange),
        hosted(application, http=Connection, ws="none", log_config=None) as port,
    ):
        form = {"grant_type": "client_credentials"}
        answer = httpx2.post(
            f"http://127.0.0.1:{port}/oauth/token",
            data=form,
            auth=("ris", PASSWORD),
            timeout=PATIENCE,
        )
        made = Whole(port, answer.json()["access_token"])
        _fill(made)
        yield made


def _fill(made: Whole) -> None:
    who = {"Authorization": f"Bearer {made.token}"}
    web = f"{made.root}/dicom-web"
    told = {**who, "Content-Type": "application/dicom"}
    answer = httpx2.post(f"{web}/studies", content=ct(), headers=told, timeout=PATIENCE)
    assert answer.status_code == 200
    told = {**who, "Content-Type": "application/dicom+json"}
    answer = httpx2.post(f"{web}/workitems?{WORKITEM}", json=step(), headers=told, timeout=PATIENCE)
    assert answer.status_code == 201
