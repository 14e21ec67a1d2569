"""Hospitals are registered once, and a caller is the hospital's system or nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from region import ADMINISTRATOR, Region, credit_code
from sqlalchemy import select

from exchange import organizations
from exchange.errors import Invalid, NotFound, Refused
from exchange.organizations import Entity, calls_from, credit_code_is_valid
from exchange.policy import Purpose, Role
from exchange_storage.records import Agreement, ApplicationEntity, Organization

FINGERPRINT = "ab" * 32


@pytest.mark.parametrize("code", ["91350100M000100Y43", "123502004266007916"])
def test_a_credit_code_with_its_check_digit_is_valid(code: str) -> None:
    assert credit_code_is_valid(code)


@pytest.mark.parametrize("code", ["", "9135", "91350100M000100Y44", "91350100m000100Y43", "I" * 18])
def test_what_is_no_credit_code_is_not_valid(code: str) -> None:
    assert not credit_code_is_valid(code)


@given(
    st.text(st.sampled_from(organizations._CREDIT_ALPHABET), min_size=17, max_size=17),
    st.integers(0, 17),
    st.sampled_from(organizations._CREDIT_ALPHABET),
)
def test_one_wrong_character_of_a_credit_code_is_always_noticed(
    stem: str, place: int, other: str
) -> None:
    code = credit_code(stem)
    assume(code[place] != other)

    assert not credit_code_is_valid(code[:place] + other + code[place + 1 :])


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("CT1@10.1.2.3", Entity(title="CT1", address="10.1.2.3")),
        ("CT1@10.1.2.3:104", Entity(title="CT1", address="10.1.2.3", port=104)),
        ("CT1@10.1.0.0/16", Entity(title="CT1", address="10.1.0.0/16")),
        ("CT 1@pacs.example", Entity(title="CT 1", address="pacs.example")),
        ("CT1@[2001:db8::7]:104", Entity(title="CT1", address="2001:db8::7", port=104)),
        ("CT1@2001:db8::7", Entity(title="CT1", address="2001:db8::7")),
        (
            f"CT1@::1#{FINGERPRINT.upper()}",
            Entity(title="CT1", address="::1", certificate_fingerprint=FINGERPRINT),
        ),
    ],
)
def test_an_application_entity_is_read_as_it_is_written(text: str, entity: Entity) -> None:
    assert Entity.parse(text) == entity


@pytest.mark.parametrize("text", ["", "CT1", "@10.0.0.1", "CT1@", "CT1@a:0", "CT1@a:65536"])
def test_what_is_no_application_entity_is_refused_with_the_form_expected(text: str) -> None:
    with pytest.raises(Invalid, match="TITLE@address"):
        Entity.parse(text)


@pytest.mark.parametrize(
    ("registered", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "::ffff:10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.1.0.0/16", "10.1.9.9"),
        ("2001:db8::/32", "2001:db8::7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("fe80::1", "fe80::1%eth0"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_a_system_calls_from_its_address_however_it_is_written(
    registered: str, address: str
) -> None:
    assert calls_from(registered, address)


@pytest.mark.parametrize(
    ("registered", "address"),
    [
        ("10.1.2.3", "10.1.2.4"),
        ("10.1.0.0/16", "10.2.0.1"),
        ("2001:db8::/32", "10.1.2.3"),
        ("0.0.0.0/0", "::1"),
        ("no-such-host.invalid", "10.1.2.3"),
        ("localhost", "10.1.2.3"),
    ],
)
def test_a_system_at_another_address_is_not_it(registered: str, address: str) -> None:
    assert not calls_from(registered, address)


def test_a_caller_is_its_hospitals_system_and_treats(city: Region) -> None:
    caller = organizations.caller(city.exchange, "NANHU", "::ffff:127.0.0.1")

    assert caller is not None
    assert (caller.role, caller.organization) == (Role.SYSTEM, city.ids["nanhu"])
    assert (caller.purpose, caller.address, caller.door) == (
        Purpose.TREATMENT,
        "127.0.0.1",
        "dimse",
    )


@pytest.mark.parametrize(
    ("title", "address"),
    [
        ("NANHU", "10.0.0.9"),
        ("nanhu", "127.0.0.1"),
        ("NOBODY", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("NAN%", "127.0.0.1"),
        ("NANHU\0", "127.0.0.1"),
        ("\ud800", "127.0.0.1"),
    ],
)
def test_everybody_else_is_nobody(city: Region, title: str, address: str) -> None:
    assert organizations.caller(city.exchange, title, address) is None


def test_an_entity_with_a_certificate_is_known_by_that_alone(city: Region) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title="MOBILE", address="127.0.0.1", certificate_fingerprint=FINGERPRINT)
        organizations.add_entity(access, "dongshan", entity)

    assert organizations.caller(city.exchange, "MOBILE", "203.0.113.5", FINGERPRINT) is not None
    for shown in ("", "cd" * 32):
        assert organizations.caller(city.exchange, "MOBILE", "127.0.0.1", shown) is None


def register(city: Region, **changed: object) -> Organization:
    told = {
        "code": "xihu",
        "name": "西湖医院",
        "credit_code": credit_code("12120000123450999"),
        "issuer": "2.25.199",
        "entities": [Entity(title="XIHU", address="10.0.0.0/8", port=104)],
    }
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return organizations.register(access, **(told | changed))  # type: ignore[arg-type]


def test_a_hospital_is_registered_with_its_systems_and_agreement(city: Region) -> None:
    made = register(city)

    now = datetime.now(UTC)
    with city.exchange.database.reading() as session:
        assert organizations.by_code(session, "xihu").name == "西湖医院"
        assert organizations.by_issuer(session, "urn:oid:2.25.199") is not None
        assert organizations.by_issuer(session, "2.25.404") is None
        assert [one.code for one in organizations.everyone(session)] == [
            "beicheng",
            "dongshan",
            "nanhu",
            "xihu",
        ]
        assert made.id in organizations.agreements(session, now)
        assert made.id not in organizations.agreements(session, now - timedelta(days=1))
        assert "XIHU" in [one.title for one in organizations.entities(session)]


def test_a_hospital_may_be_registered_without_sharing(city: Region) -> None:
    made = register(city, sharing=False)

    with city.exchange.database.reading() as session:
        shared = select(Agreement).where(Agreement.organization_id == made.id)
        assert session.scalars(shared).all() == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"code": "nanhu"}, "that of nanhu"),
        ({"issuer": "2.25.101"}, "that of beicheng"),
        ({"code": "Xi Hu"}, "a code has"),
        ({"name": " "}, "needs a name"),
        ({"credit_code": "121200001234509990"}, "credit code"),
        ({"issuer": "2.25.01"}, "must be an OID"),
        ({"issuer": "1." + "2" * 63}, "must be an OID"),
        ({"entities": [Entity(title="A" * 17, address="::1")]}, "AE title"),
        ({"entities": [Entity(title="A\\B", address="::1")]}, "AE title"),
        (
            {"entities": [Entity(title="A", address="::1", certificate_fingerprint="xy")]},
            "fingerprint",
        ),
        ({"entities": [Entity(title="NANHU", address="127.0.0.1")]}, "registered already"),
        ({"entities": [Entity(title="X", address="::1")] * 2}, "registered already"),
    ],
)
def test_what_is_malformed_or_taken_registers_nothing(
    city: Region, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        register(city, **changed)

    with city.exchange.database.reading() as session:
        assert len(organizations.everyone(session)) == 3
        assert len(session.scalars(select(ApplicationEntity)).all()) == 3


def test_only_an_administrator_registers(city: Region) -> None:
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        organizations.add_entity(access, "nanhu", Entity(title="MINE", address="::1"))

    with pytest.raises(NotFound), city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(access, "nowhere", Entity(title="MINE", address="::1"))
