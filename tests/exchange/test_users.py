"""Users sign in with a name and a password, and nothing tells which of the two was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import hashing
import pytest
from region import ADMINISTRATOR, Region, region
from sqlalchemy import select

from exchange import users
from exchange.errors import Invalid, NotAuthenticated, NotFound, Refused
from exchange.policy import Role
from exchange_storage.records import AuditRecord, User

PASSWORD = "correct horse 电池"


def add(city: Region, **changed: object) -> User:
    told = {
        "name": "dr.wang",
        "display_name": "王医生",
        "role": Role.CLINICIAN,
        "organization": "nanhu",
        "password": PASSWORD,
    }
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        return users.add(access, **(told | changed))  # type: ignore[arg-type]


@pytest.fixture
def released() -> Iterator[None]:
    """Passwords are hashed as released."""
    with hashing.as_released():
        yield


@pytest.fixture(scope="module")
def settled(lasting_database_url: str) -> Iterator[Region]:
    """Three hospitals and a clinician, on each kind of database, for tests that change nothing."""
    with region(lasting_database_url) as made:
        add(made)
        yield made


def sign_in(city: Region, name: str, password: str) -> User:
    with city.exchange.database.reading() as session:
        return users.authenticate(session, name, password)


@pytest.mark.usefixtures("released")
def test_a_registered_user_signs_in(city: Region) -> None:
    add(city)

    user = sign_in(city, "dr.wang", PASSWORD)
    assert (user.display_name, user.organization_id) == ("王医生", city.ids["nanhu"])
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # RFC 9106, 4


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("dr.wang", PASSWORD + " "),
        ("dr.wang", ""),
        ("dr.wang", "x" * 100_000),
        ("dr.wang", "\ud800"),
        ("DR.WANG", PASSWORD),
        ("dr.li", PASSWORD),
        ("dr.wang\0", PASSWORD),
        ("\ud800", PASSWORD),
        ("' OR '1'='1", PASSWORD),
        ("", ""),
    ],
)
def test_whatever_is_wrong_the_answer_is_the_same(
    settled: Region, name: str, password: str
) -> None:
    with pytest.raises(NotAuthenticated, match=r"^the user name or the password is wrong$"):
        sign_in(settled, name, password)


def administer(city: Region, verb: Callable[..., None], *arguments: str) -> None:
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        verb(access, *arguments)


def test_a_user_who_was_deactivated_does_not_sign_in_until_activated_again(city: Region) -> None:
    add(city)
    administer(city, users.deactivate, "dr.wang")

    with pytest.raises(NotAuthenticated):
        sign_in(city, "dr.wang", PASSWORD)

    administer(city, users.activate, "dr.wang")
    sign_in(city, "dr.wang", PASSWORD)


def test_a_password_that_was_replaced_is_accepted_no_longer(city: Region) -> None:
    add(city)
    administer(city, users.set_password, "dr.wang", "another one 密码")

    sign_in(city, "dr.wang", "another one 密码")
    with pytest.raises(NotAuthenticated):
        sign_in(city, "dr.wang", PASSWORD)
    with pytest.raises(Invalid, match="10 to 256"):
        administer(city, users.set_password, "dr.wang", "short")
    sign_in(city, "dr.wang", "another one 密码")


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        (users.deactivate, "user deactivated"),
        (users.activate, "user activated"),
        (partial(users.set_password, password="another one"), "password replaced"),
    ],
)
def test_only_an_administrator_changes_a_user_and_the_trail_says_whom(
    city: Region, verb: Callable[..., None], reason: str
) -> None:
    add(city)
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        verb(access, "dr.wang")
    sign_in(city, "dr.wang", PASSWORD)
    with pytest.raises(NotFound):
        administer(city, verb, "dr.nobody")

    administer(city, verb, "dr.wang")

    with city.exchange.database.reading() as session:
        order = AuditRecord.sequence.desc()
        done, failed, refused = session.scalars(select(AuditRecord).order_by(order).limit(3))
    assert [one.outcome for one in (refused, failed, done)] == ["refused", "failed", "success"]
    assert f'"reason":"{reason}"' in done.content
    assert '"user":"dr.wang"' in done.content
    assert '"user":"dr.wang"' in refused.content
    assert "another one" not in done.content


@pytest.mark.usefixtures("released")
def test_a_password_as_long_as_allowed_is_not_cut(city: Region) -> None:
    longest = "x" * users.MAX_PASSWORD
    add(city, password=longest)

    sign_in(city, "dr.wang", longest)
    with pytest.raises(NotAuthenticated):
        sign_in(city, "dr.wang", longest + "x")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"name": ""}, Invalid),
        ({"name": "a\nb"}, Invalid),
        ({"name": " dr"}, Invalid),
        ({"name": "x" * 65}, Invalid),
        ({"role": Role.EXCHANGE}, Invalid),
        ({"organization": None}, Invalid),
        ({"organization": "nowhere"}, NotFound),
        ({"password": "short"}, Invalid),
        ({"password": "x" * 257}, Invalid),
    ],
)
def test_a_user_who_makes_no_sense_is_not_registered(
    settled: Region, changed: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        add(settled, **changed)

    with settled.exchange.database.reading() as session:
        assert session.scalars(select(User.name)).all() == ["dr.wang"]


def test_a_name_is_given_once(settled: Region) -> None:
    with pytest.raises(Invalid, match="taken"):
        add(settled, display_name="另一位")


def test_only_an_administrator_registers_users_and_passwords_are_in_no_trail(
    city: Region,
) -> None:
    add(city)
    mine = partial(
        users.add,
        name="me",
        display_name="",
        role=Role.ADMINISTRATOR,
        organization=None,
        password=PASSWORD,
    )
    with (
        pytest.raises(Refused),
        city.exchange.on_behalf_of(city.clinician("nanhu")) as access,
    ):
        mine(access)

    with city.exchange.database.reading() as session:
        recorded = "".join(session.scalars(select(AuditRecord.content)))
    assert "dr.wang" in recorded
    assert PASSWORD not in recorded
    assert "argon2" not in recorded


def test_generated_passwords_are_long_enough_and_differ() -> None:
    made = {users.generated_password() for _ in range(20)}

    assert len(made) == 20
    assert all(users.MIN_PASSWORD <= len(one) <= users.MAX_PASSWORD for one in made)


def test_who_looks_at_what_was_rejected_is_registered_so_and_the_trail_says_it(
    city: Region,
) -> None:
    add(city, name="dr.quality", sees_rejected=True)
    add(city)
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.look_at_rejected(access, "dr.wang", True)
        users.look_at_rejected(access, "dr.quality", False)

    with city.exchange.database.reading() as session:
        told = {one.name: one.sees_rejected for one in session.scalars(select(User))}
        trail = session.scalars(select(AuditRecord.content)).all()
    assert told == {"dr.wang": True, "dr.quality": False}
    assert any('"rejected":true' in one and "user registered" in one for one in trail)
    assert any("user looks at what was rejected" in one and "dr.wang" in one for one in trail)


def test_who_looks_at_no_images_looks_at_no_rejected_ones(city: Region) -> None:
    with pytest.raises(Invalid, match="looks at no images"):
        add(city, role=Role.ADMINISTRATOR, sees_rejected=True)
    add(city, role=Role.ADMINISTRATOR)
    with (
        pytest.raises(Invalid, match="looks at no images"),
        city.exchange.on_behalf_of(ADMINISTRATOR) as access,
    ):
        users.look_at_rejected(access, "dr.wang", True)


def test_a_hospitals_administrator_is_told_of_its_own_users_and_a_clinician_of_none(
    city: Region,
) -> None:
    add(city)
    add(city, name="dr.li", organization="beicheng")
    add(city, name="root", role=Role.ADMINISTRATOR, organization=None)

    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        told = [(user.name, code) for user, code in users.everyone(access)]
    assert told == [("dr.li", "beicheng"), ("dr.wang", "nanhu"), ("root", "")]
    own = replace(ADMINISTRATOR, organization=city.ids["nanhu"])
    with city.exchange.on_behalf_of(own) as access:
        assert [user.name for user, _ in users.everyone(access)] == ["dr.wang"]
    clinician = replace(own, role=Role.CLINICIAN)
    with city.exchange.on_behalf_of(clinician) as access, pytest.raises(Refused):
        users.everyone(access)
    with city.exchange.database.reading() as session:
        reasons = session.scalars(select(AuditRecord.content)).all()
    assert sum("users listed" in one for one in reasons) == 2
