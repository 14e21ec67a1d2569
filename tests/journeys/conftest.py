"""The region that the journeys go through: three hospitals on each pair of database and store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import ready
from real_parts import PostgreSQL, S3Address
from running import PASSWORD, RunningExchange
from sample_city import City, generate

from exchange import organizations, users
from exchange.access import Exchange
from exchange.organizations import Entity
from exchange.policy import Requester, Role

ADMINISTRATOR = Requester(
    name="tests", role=Role.ADMINISTRATOR, organization=None, purpose=None, door="cli"
)

PAIRS = ("sqlite+filesystem", "postgresql+s3")


def settings_of(pair: str, request: pytest.FixtureRequest, bucket: str) -> Mapping[str, str]:
    """The settings of an exchange on that pair; the servers are started when first asked for."""
    if pair == "sqlite+filesystem":
        return {}
    database: PostgreSQL = request.getfixturevalue("postgresql_server")
    s3: S3Address = request.getfixturevalue("s3_server")
    return {
        "EXCHANGE_DATABASE_URL": ready.postgresql(database),
        "EXCHANGE_OBJECT_STORE": "s3",
        "EXCHANGE_S3_ENDPOINT": s3.endpoint,
        "EXCHANGE_S3_ACCESS_KEY": s3.access_key,
        "EXCHANGE_S3_SECRET_KEY": s3.secret_key,
        "EXCHANGE_S3_BUCKET": bucket,
        "EXCHANGE_S3_SECURE": "false",
    }


def add_user(exchange: Exchange, name: str, organization: str, role: Role = Role.CLINICIAN) -> None:
    """Register a user of the hospital, with the password of all tests."""
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.add(
            access,
            name=name,
            display_name=name,
            role=role,
            organization=organization,
            password=PASSWORD,
        )


@pytest.fixture(scope="session")
def city_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the small city lie."""
    folder = tmp_path_factory.mktemp("city") / "small"
    generate(folder, "small")
    return folder


@pytest.fixture(scope="session")
def people(city_folder: Path) -> City:
    """Who lives there, and what was made of them."""
    return City.read(city_folder)


@pytest.fixture(scope="session", params=PAIRS)
def region(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, people: City
) -> Iterator[RunningExchange]:
    """A running exchange with the city's hospitals and a clinician at each: dr.bc, dr.nh, dr.ds.

    Dongshan's information system signs in as `ris.ds`, to send by STOW-RS.
    """
    home = tmp_path_factory.mktemp("region")
    made = RunningExchange(home, settings_of(request.param, request, "journeys"))
    with made.opened() as exchange:
        for hospital in people.hospitals:
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                organizations.register(
                    access,
                    code=hospital.code.lower(),
                    name=hospital.name,
                    credit_code=hospital.unified_social_credit_code,
                    issuer=hospital.issuer_oid,
                    entities=[Entity(title=hospital.ae_title, address="127.0.0.1")],
                )
            add_user(exchange, f"dr.{hospital.code.lower()}", hospital.code.lower())
        add_user(exchange, "ris.ds", "ds", Role.SYSTEM)
    made.start()
    try:
        yield made
    finally:
        made.stop()
