"""Hospitals are registered once, and a caller is the hospital's system or nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from region import ADMINISTRATOR, Region, credit_code, region
from sqlalchemy import select

from exchange import organizations, query
from exchange.access import Access
from exchange.errors import Invalid, NotFound, Refused
from exchange.organizations import Entity, calls_from, credit_code_is_valid
from exchange.policy import Purpose, Role
from exchange_storage.records import Agreement, ApplicationEntity, AuditRecord, Organization
from exchange_storage.search import Level

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
        ("127.1", "127.0.0.1"),
        ("127.0.0.1/99", "127.0.0.1"),
    ],
)
def test_a_system_at_another_address_is_not_it(registered: str, address: str) -> None:
    assert not calls_from(registered, address)


@pytest.fixture(scope="module")
def settled(lasting_database_url: str) -> Iterator[Region]:
    """Three hospitals, on each kind of database, for tests that change nothing."""
    with region(lasting_database_url) as made:
        yield made


def test_a_caller_is_its_hospitals_system_and_treats(settled: Region) -> None:
    caller = organizations.caller(settled.exchange, "NANHU", "::ffff:127.0.0.1")

    assert caller is not None
    assert (caller.role, caller.organization) == (Role.SYSTEM, settled.ids["nanhu"])
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
def test_everybody_else_is_nobody(settled: Region, title: str, address: str) -> None:
    assert organizations.caller(settled.exchange, title, address) is None


def test_an_entity_with_a_certificate_is_known_by_that_alone(city: Region) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        entity = Entity(title="MOBILE", address="127.0.0.1", certificate_fingerprint=FINGERPRINT)
        organizations.add_entity(access, "dongshan", entity)

    assert organizations.caller(city.exchange, "MOBILE", "203.0.113.5", FINGERPRINT) is not None
    for shown in ("", "cd" * 32):
        assert organizations.caller(city.exchange, "MOBILE", "127.0.0.1", shown) is None


AT_HOME = Entity(title="CT1", address="10.0.0.0/8")


def add(city: Region, code: str, *entities: Entity) -> None:
    for entity in entities:
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.add_entity(access, code, entity)


def test_whose_an_entity_is_is_told_to_those_who_run_the_region_alone(city: Region) -> None:
    add(city, "nanhu", AT_HOME)
    with pytest.raises(Invalid, match="/8 is that of nanhu: `exchange organization remove-ae"):
        add(city, "dongshan", AT_HOME)
    own = replace(ADMINISTRATOR, organization=city.ids["dongshan"])
    with (
        city.exchange.on_behalf_of(own) as access,
        pytest.raises(Invalid, match="/8 is another hospital's; ask who runs"),
    ):
        organizations.add_entity(access, "dongshan", AT_HOME)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AT_HOME, Entity(title="CT1", address="10.2.0.0/16")),
        (AT_HOME, Entity(title="CT1", address="10.2.0.5")),
        (AT_HOME, Entity(title="CT1", address="::ffff:10.2.0.0/112")),
        (AT_HOME, Entity(title="CT1", address="10.9.9.9", certificate_fingerprint=FINGERPRINT)),
        (Entity(title="CT1", address="2001:db8::/32"), Entity(title="CT1", address="2001:db8::7")),
        (
            Entity(title="CT1", address="10.1.0.0/16", certificate_fingerprint=FINGERPRINT),
            Entity(title="CT1", address="10.2.0.0/16", certificate_fingerprint=FINGERPRINT),
        ),
    ],
)
def test_two_hospitals_do_not_register_one_system_between_them(
    city: Region, first: Entity, second: Entity
) -> None:
    for one, other in ((first, second), (second, first)):
        add(city, "nanhu", one)
        with pytest.raises(Invalid, match="could not be told from"):
            add(city, "dongshan", other)
        add(city, "nanhu", other)  # whose it is, is not in doubt within one hospital
        for own in (one, other):
            with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
                organizations.remove_entity(access, "nanhu", own)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AT_HOME, Entity(title="CT2", address="10.2.0.0/16")),
        (AT_HOME, Entity(title="CT1", address="11.0.0.0/8")),
        (AT_HOME, Entity(title="CT1", address="2001:db8::/32")),
        (
            Entity(title="CT1", address="10.0.0.0/8", certificate_fingerprint=FINGERPRINT),
            Entity(title="CT1", address="10.2.0.0/16", certificate_fingerprint="cd" * 32),
        ),
    ],
)
def test_two_hospitals_may_use_one_title_where_callers_can_be_told_apart(
    city: Region, first: Entity, second: Entity
) -> None:
    add(city, "nanhu", first)
    add(city, "dongshan", second)


def test_who_could_be_of_two_hospitals_is_nobody_and_that_is_recorded(city: Region) -> None:
    add(city, "nanhu", Entity(title="CT1", address="127.0.0.1"))
    add(city, "dongshan", Entity(title="CT1", address="LOCALHOST"))

    assert organizations.caller(city.exchange, "CT1", "127.0.0.1") is None
    assert trail(city)[-1]["reason"] == "application entities of several hospitals match"

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.remove_entity(access, "nanhu", Entity(title="CT1", address="127.0.0.1"))
    caller = organizations.caller(city.exchange, "CT1", "127.0.0.1")
    assert caller is not None
    assert caller.organization == city.ids["dongshan"]


def test_while_a_host_name_is_resolved_no_connection_to_the_index_is_held(
    city: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(city, "nanhu", Entity(title="CT1", address="ct1.nanhu.example"))
    held = []

    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        held.append(city.exchange.database.in_use)
        return [(0, 0, 0, "", ("10.1.2.3", 0))]

    monkeypatch.setattr("exchange.organizations.socket.getaddrinfo", resolve)

    assert organizations.caller(city.exchange, "CT1", "10.1.2.3") is not None
    assert held == [0]


def test_addresses_are_kept_in_one_form(city: Region) -> None:
    written = {
        "10.2.3.4/16": "10.2.0.0/16",
        "10.2.3.4/32": "10.2.3.4",
        "::ffff:10.4.0.0/112": "10.4.0.0/16",
        "2001:DB8:0:0::7": "2001:db8::7",
        "PACS.Nanhu.Example": "pacs.nanhu.example",
    }
    add(city, "nanhu", *(Entity(title=f"CT{n}", address=one) for n, one in enumerate(written)))

    with city.exchange.database.reading() as session:
        kept = {one.title: one.address for one in organizations.entities(session)}
    assert [kept[f"CT{n}"] for n in range(len(written))] == list(written.values())


@pytest.mark.parametrize(
    "address",
    [
        "10.2.0.0/99",
        "10.2.0.0/",
        "10.2.0.300",
        "10.2",
        "0x7f000001",
        "pacs.example.",
        "-pacs.example",
        "pacs_1.example",
        "pacs..example",
        "a" * 64,
        "a." * 126 + "ab",
        "医院.example",
        "*",
        "",
    ],
)
def test_what_is_neither_address_nor_host_name_is_not_registered(
    city: Region, address: str
) -> None:
    with pytest.raises(Invalid, match="IP address, a network such as"):
        add(city, "nanhu", Entity(title="CT1", address=address))


def test_a_system_that_was_removed_is_nobody(city: Region) -> None:
    gone = Entity(title="NANHU", address="::ffff:127.0.0.1")
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.remove_entity(access, "nanhu", gone)

    assert organizations.caller(city.exchange, "NANHU", "127.0.0.1") is None
    administered = [one for one in trail(city) if one["action"] == "administer"]
    assert administered[-1]["reason"] == "application entity removed"
    assert administered[-1]["detail"]["title"] == "NANHU"
    for code, entity in (
        ("nanhu", gone),
        ("dongshan", Entity(title="BEICHENG", address="127.0.0.1")),
        ("nowhere", gone),
    ):
        with pytest.raises(NotFound), city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            organizations.remove_entity(access, code, entity)


def test_a_hospital_that_ends_its_agreement_neither_shows_nor_sees_until_it_joins_again(
    city: Region,
) -> None:
    city.send("beicheng", study="1.2.1", instance="1.4.1")
    city.send("nanhu", study="1.2.2", instance="1.4.2")

    def seen(code: str) -> int:
        with city.exchange.on_behalf_of(city.clinician(code)) as access:
            return len(query.find(access, Level.STUDY, [], limit=10).found)

    assert (seen("beicheng"), seen("nanhu"), seen("dongshan")) == (2, 2, 2)

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.end_agreement(access, "nanhu")
    assert (seen("beicheng"), seen("nanhu"), seen("dongshan")) == (1, 1, 1)
    with (
        pytest.raises(Invalid, match="not in this agreement"),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        organizations.end_agreement(access, "nanhu")

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.join_agreement(access, "nanhu")
    assert (seen("beicheng"), seen("nanhu"), seen("dongshan")) == (2, 2, 2)
    with (
        pytest.raises(Invalid, match="already"),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        organizations.join_agreement(access, "nanhu")

    reasons = [one["reason"] for one in trail(city) if one["outcome"] == "success"]
    assert reasons.index("sharing agreement ended") < reasons.index("sharing agreement joined")


@pytest.mark.parametrize(
    "verb",
    [
        lambda access: organizations.remove_entity(
            access, "nanhu", Entity(title="NANHU", address="127.0.0.1")
        ),
        lambda access: organizations.replace_entity(
            access, "nanhu", Entity(title="NANHU", address="127.0.0.1", port=104)
        ),
        lambda access: organizations.end_agreement(access, "nanhu"),
        lambda access: organizations.join_agreement(access, "nanhu"),
    ],
)
def test_only_an_administrator_stops_a_system_or_an_agreement(
    city: Region, verb: Callable[[Access], None]
) -> None:
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        verb(access)

    assert (trail(city)[-1]["outcome"], trail(city)[-1]["detail"]["code"]) == ("refused", "nanhu")
    assert organizations.caller(city.exchange, "NANHU", "127.0.0.1") is not None


def trail(city: Region) -> list[dict[str, Any]]:
    with city.exchange.database.reading() as session:
        contents = session.scalars(select(AuditRecord.content).order_by(AuditRecord.sequence))
        return [json.loads(one) for one in contents]


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
        (
            {"entities": [Entity(title="NANHU", address="127.0.0.1")]},
            "that of nanhu: `exchange organization remove-ae nanhu NANHU@127.0.0.1` comes first",
        ),
        ({"entities": [Entity(title="X", address="::1")] * 2}, "registered already"),
        ({"entities": [Entity(title="X", address="10.2.0.0/99")]}, "IP address, a network"),
        ({"entities": [Entity(title="NANHU", address="127.0.0.0/8")]}, "could not be told from"),
    ],
)
def test_what_is_malformed_or_taken_registers_nothing(
    settled: Region, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        register(settled, **changed)

    with settled.exchange.database.reading() as session:
        assert len(organizations.everyone(session)) == 3
        assert len(session.scalars(select(ApplicationEntity)).all()) == 3


def test_only_an_administrator_registers(settled: Region) -> None:
    with (
        pytest.raises(Refused),
        settled.exchange.on_behalf_of(settled.clinician("nanhu")) as access,
    ):
        organizations.add_entity(access, "nanhu", Entity(title="MINE", address="::1"))

    with pytest.raises(NotFound), settled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        organizations.add_entity(access, "nowhere", Entity(title="MINE", address="::1"))
