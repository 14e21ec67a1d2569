"""User Identity Negotiation (PS3.7 D.3.3.7): who uses the system that calls, said and proved."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from caller import SUCCESS
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from region import ADMINISTRATOR
from rejections import Rejections
from retrieving import asked
from serving import Served, serving

from exchange import admission, audit, users
from exchange.access import Exchange
from exchange.admission import UserIdentity
from exchange.policy import Role
from exchange_dicom.contexts import STUDY_ROOT_FIND, VERIFICATION
from exchange_server.identities import Identities
from exchange_server.keys import TokenKeys, make_keys
from exchange_server.passwords import FAILURES
from exchange_server.tokens import Tokens
from exchange_storage.records import Organization

PASSCODE = "correct horse battery"
NAME, NAME_AND_PASSCODE, KERBEROS, SAML, JWT = range(1, 6)


@dataclass(slots=True)
class Staffed:
    """A node whose hospitals have users, and who issues their tokens."""

    served: Served
    tokens: Tokens
    rejections: Rejections = field(default_factory=Rejections)
    """Of the last call."""

    @property
    def exchange(self) -> Exchange:
        """Whose node it is."""
        return self.served.city.exchange

    def rule(self, rule: UserIdentity, code: str = "beicheng") -> None:
        """What is done with the users whom the hospital's associations name."""
        with self.exchange.on_behalf_of(ADMINISTRATOR) as access:
            admission.name_users(access, code, rule)

    def token(self, name: str, lifetime: int = 60) -> str:
        """An access token of a user's."""
        with self.exchange.database.reading() as session:
            user = users.by_name(session, name)
            assert user is not None
            hospital = session.get(Organization, user.organization_id)
        return self.tokens.issue(user, hospital, None, lifetime).token

    def calls(
        self, kind: int | None = None, primary: str | bytes = "", secondary: str = ""
    ) -> Association:
        """BEICHENG asks for an association for this user, echoes where it gets one, and leaves."""
        entity = AE("BEICHENG")
        entity.add_requested_context(VERIFICATION)
        named: list[Any] = []
        if kind is not None:
            identity = UserIdentityNegotiation()
            identity.user_identity_type = kind
            identity.positive_response_requested = True
            identity.primary_field = primary if isinstance(primary, bytes) else primary.encode()
            if secondary:
                identity.secondary_field = secondary.encode()
            named = [identity]
        self.rejections = Rejections()
        association = entity.associate(
            "127.0.0.1",
            self.served.port,
            ae_title="EXCHANGE",
            ext_neg=named,
            evt_handlers=self.rejections.handlers,
        )
        if association.is_established:
            assert association.send_c_echo().Status == SUCCESS
            association.release()
        return association

    def last(self) -> dict[str, Any]:
        """The last record of the audit trail."""
        with self.exchange.database.reading() as session:
            (record,) = audit.latest(session, 1)
        told: dict[str, Any] = json.loads(record.content)
        return told


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staffed]:
    folder: Path = tmp_path_factory.mktemp("staffed")
    make_keys(folder / "keys")
    tokens = Tokens(TokenKeys(folder / "keys" / "tokens"), issuer="http://here", lifetime=60)
    with serving(folder, verifying=lambda one: Identities(one, tokens)) as served:
        with served.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            for name, code in (("dr.wang", "beicheng"), ("dr.li", "nanhu"), ("dr.old", "beicheng")):
                users.add(
                    access,
                    name=name,
                    display_name="",
                    role=Role.CLINICIAN,
                    organization=code,
                    password=PASSCODE,
                )
            users.deactivate(access, "dr.old")
        yield Staffed(served, tokens)


@pytest.mark.parametrize(("kind", "shown"), [(1, "dr.wang"), (2, "dr.wang"), (5, "type 5")])
def test_a_user_that_is_named_is_logged_and_what_proves_them_is_not(
    staffed: Staffed, caplog: pytest.LogCaptureFixture, kind: int, shown: str
) -> None:
    staffed.rule(UserIdentity.LOG)
    with caplog.at_level(logging.INFO, "exchange_dicom"):
        called = staffed.calls(
            kind, "dr.wang" if kind < JWT else "secret.token", "secret passcode" * (kind == 2)
        )
    assert called.is_released
    (line,) = [one.getMessage() for one in caplog.records if "user" in one.getMessage()]
    assert shown in line
    assert "secret" not in "".join(one.getMessage() for one in caplog.records)


def test_the_trail_says_for_whom_a_system_asked_and_that_it_only_says_so(staffed: Staffed) -> None:
    staffed.rule(UserIdentity.LOG)
    asker = AE("BEICHENG")
    asker.add_requested_context(STUDY_ROOT_FIND)
    identity = UserIdentityNegotiation()
    identity.user_identity_type = NAME
    identity.primary_field = "王医生".encode()
    association = asker.associate(
        "127.0.0.1", staffed.served.port, ae_title="EXCHANGE", ext_neg=[identity]
    )
    wanted = asked("STUDY", PatientName="Wang*", StudyDate="20261101")
    answers = list(association.send_c_find(wanted, STUDY_ROOT_FIND))
    assert answers[-1][0].Status == SUCCESS
    association.release()
    record = staffed.last()
    assert (record["action"], record["requester"]) == ("search", "BEICHENG")
    assert record["person"] == {"name": "王医生", "verified": False}


@pytest.mark.parametrize("by", ["passcode", "token"])
def test_who_has_proved_who_they_are_is_let_in_and_named_in_the_trail(
    staffed: Staffed, by: str
) -> None:
    staffed.rule(UserIdentity.REQUIRE)
    if by == "passcode":
        called = staffed.calls(NAME_AND_PASSCODE, "dr.wang", PASSCODE)
    else:
        called = staffed.calls(JWT, staffed.token("dr.wang"))
    assert called.is_released
    record = staffed.last()
    assert (record["outcome"], record["requester"]) == ("success", "BEICHENG")
    assert record["person"] == {"name": "dr.wang", "verified": True}


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("nobody", "names no user"),
        ("a name alone", "a name alone proves nothing"),
        ("a wrong passcode", "the user name or the password is wrong"),
        ("a user who was deactivated", "the user name or the password is wrong"),
        ("another hospital's user", "not one of the calling hospital's"),
        ("another hospital's token", "not one of the calling hospital's"),
        ("a token that was altered", "the access token is not valid here"),
        ("a Kerberos ticket", "cannot be verified here"),
        ("a SAML assertion", "cannot be verified here"),
        ("bytes that are no text", "not in UTF-8"),
    ],
)
def test_who_has_not_proved_who_they_are_is_refused_where_the_hospital_wants_it(
    staffed: Staffed, shown: str, why: str
) -> None:
    staffed.rule(UserIdentity.REQUIRE)
    match shown:
        case "nobody":
            staffed.calls()
        case "a name alone":
            staffed.calls(NAME, "dr.wang")
        case "a wrong passcode":
            staffed.calls(NAME_AND_PASSCODE, "dr.wang", "a guess of somebody")
        case "a user who was deactivated":
            staffed.calls(NAME_AND_PASSCODE, "dr.old", PASSCODE)
        case "another hospital's user":
            staffed.calls(NAME_AND_PASSCODE, "dr.li", PASSCODE)
        case "another hospital's token":
            staffed.calls(JWT, staffed.token("dr.li"))
        case "a token that was altered":
            staffed.calls(JWT, staffed.token("dr.wang")[:-3] + "AAA")
        case "a Kerberos ticket":
            staffed.calls(KERBEROS, "ticket")
        case "a SAML assertion":
            staffed.calls(SAML, "<Assertion/>")
        case _:
            staffed.calls(JWT, b"\xff\xfe")
    assert staffed.rejections.last() == (1, 1, 1)
    assert any(why in one for one in _refusals(staffed))


def test_after_too_many_wrong_passcodes_the_right_one_is_to_be_tried_later(
    staffed: Staffed,
) -> None:
    staffed.rule(UserIdentity.REQUIRE)
    for _ in range(FAILURES):
        staffed.calls(NAME_AND_PASSCODE, "dr.lee", "a guess of somebody")
        assert staffed.rejections.last() == (1, 1, 1)
    staffed.calls(NAME_AND_PASSCODE, "dr.lee", PASSCODE)
    assert staffed.rejections.last() == (2, 1, 1)
    assert any("too many wrong passwords" in one for one in _refusals(staffed))


def test_a_hospital_that_wants_no_user_named_has_none_in_its_trail(staffed: Staffed) -> None:
    staffed.rule(UserIdentity.OFF)
    assert staffed.calls(NAME_AND_PASSCODE, "dr.wang", "a guess of somebody").is_released
    assert "person" not in staffed.last()


def _refusals(staffed: Staffed) -> list[str]:
    with staffed.exchange.database.reading() as session:
        return [one.content for one in audit.latest(session, 3) if one.outcome == "refused"]
