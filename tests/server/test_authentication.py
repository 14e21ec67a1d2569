"""Who gets a token, which tokens are believed, and what the audit trail says of it."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ready
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import update
from starlette.testclient import TestClient

from exchange import audit, organizations, users
from exchange.access import Exchange
from exchange.errors import Invalid, NotAuthenticated
from exchange.policy import Purpose, Requester, Role
from exchange_server.authentication import AUDITED_TOKENS, identify, sign_in
from exchange_server.identities import bearer
from exchange_server.keys import TokenKeys, audit_key, make_keys, page_key
from exchange_server.passwords import ADDRESS_FAILURES, FAILURES
from exchange_server.tokens import AUDIENCE, TOKEN_TYPE, Tokens
from exchange_storage.database import Database
from exchange_storage.objects import MemoryStore
from exchange_storage.records import User

ISSUER = "https://images.example.cn"
PASSWORD = "correct horse battery"
ADMINISTRATOR = Requester(name="admin", role=Role.ADMINISTRATOR, organization=None, purpose=None)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    """An exchange with hospital `north` and its clinician `zhang`."""
    opened = Exchange(
        Database(ready.sqlite(tmp_path / "index.sqlite")),
        MemoryStore(),
        Ed25519PrivateKey.generate(),
    )
    opened.prepare()
    with opened.on_behalf_of(ADMINISTRATOR) as access:
        organizations.register(
            access, code="north", name="北城医院", credit_code="123502004266007916", issuer="2.25.1"
        )
    with opened.on_behalf_of(ADMINISTRATOR) as access:
        users.add(
            access,
            name="zhang",
            display_name="张医生",
            role=Role.CLINICIAN,
            organization="north",
            password=PASSWORD,
        )
    yield opened
    opened.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    make_keys(tmp_path / "keys")
    return Tokens(TokenKeys(tmp_path / "keys/tokens"), issuer=ISSUER, lifetime=900)


@pytest.fixture
def client(exchange: Exchange, tokens: Tokens) -> TestClient:
    """The token endpoint, and a door /who that tells who was identified."""
    who = identify(exchange, tokens, "test")
    router = APIRouter()

    @router.get("/who")
    def answer(request: Request) -> PlainTextResponse:
        try:
            one = who(request)
        except NotAuthenticated as error:
            return PlainTextResponse(str(error), status_code=401)
        return PlainTextResponse(
            f"{one.name} {one.role} {one.organization} {one.purpose} {one.address} {one.door}"
        )

    app = FastAPI()
    app.include_router(sign_in(exchange, tokens))
    app.include_router(router)
    return TestClient(app, client=("::ffff:192.0.2.7", 50000))


def ask(client: TestClient, form: Mapping[str, str] | None = None, **more: Any) -> Any:
    return client.post(
        "/oauth/token", data={"grant_type": "client_credentials", **(form or {})}, **more
    )


def who(client: TestClient, token: str) -> Any:
    return client.get("/who", headers={"Authorization": f"Bearer {token}"})


def trail(exchange: Exchange) -> list[dict[str, Any]]:
    with exchange.database.reading() as session:
        assert not [
            one
            for one in audit.verify(session, exchange.signing_key, exchange.objects)
            if isinstance(one, audit.Finding)
        ]
        return [json.loads(record.content) for record in audit.latest(session)]


# -- Asking for a token ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["basic", "form"])
def test_a_clinician_signs_in_and_is_known_by_the_token(client: TestClient, way: str) -> None:
    answer = (
        ask(client, auth=("zhang", PASSWORD.replace(" ", "+")))
        if way == "basic"
        else ask(client, {"client_id": "zhang", "client_secret": PASSWORD})
    )
    told = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 900)
    assert who(client, told["access_token"]).text == "zhang clinician 1 TREAT 192.0.2.7 test"


def test_a_purpose_can_be_stated(client: TestClient) -> None:
    form = {"client_id": "zhang", "client_secret": PASSWORD, "purpose_of_use": "HOPERAT"}
    assert " HOPERAT " in who(client, ask(client, form).json()["access_token"]).text


@pytest.mark.parametrize("name", ["zhang", "nobody", "nul\0"])
def test_a_wrong_password_and_an_unknown_name_are_refused_alike(
    client: TestClient, name: str
) -> None:
    answer = ask(client, {"client_id": name, "client_secret": "wrong wrong wrong"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert answer.json() == {
        "error": "invalid_client",
        "error_description": "the user name or the password is wrong",
    }


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "invalid_request"),
        ("client_id=zhang", "invalid_request"),
        ("grant_type=password", "unsupported_grant_type"),
        ("grant_type=client_credentials", "invalid_client"),
        ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        ("grant_type=client_credentials&scope=all", "invalid_scope"),
        ("grant_type=client_credentials&purpose_of_use=FUN", "invalid_request"),
        ("grant_type=client_credentials&client_id=%FF", "invalid_request"),
        ("&".join(f"a{number}=1" for number in range(40)), "invalid_request"),
    ],
)
def test_what_is_not_served_is_refused_in_the_words_of_rfc_6749(
    client: TestClient, body: str, error: str
) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/oauth/token", content=body, headers=form)
    assert answer.status_code in {400, 401}
    assert answer.json()["error"] == error


def test_json_and_credentials_given_twice_are_refused(client: TestClient) -> None:
    assert client.post("/oauth/token", json={}).json()["error"] == "invalid_request"
    form = {"client_id": "zhang", "client_secret": PASSWORD}
    assert ask(client, form, auth=("zhang", PASSWORD)).json()["error"] == "invalid_request"


def test_who_guesses_has_to_wait_while_others_do_not(client: TestClient) -> None:
    wrong = {"client_id": "zhang", "client_secret": "wrong wrong wrong"}
    for _ in range(FAILURES):
        assert ask(client, wrong).status_code == 401
    answer = ask(client, {"client_id": "zhang", "client_secret": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert FAILURES < ADDRESS_FAILURES
    assert ask(client, {"client_id": "li", "client_secret": "wrong wrong"}).status_code == 401


def test_who_guesses_from_many_addresses_of_one_network_has_to_wait_as_well(
    client: TestClient,
) -> None:
    def tried(address: str) -> int:
        one = TestClient(client.app, client=(address, 50000))
        wrong = {"client_id": "zhang", "client_secret": "wrong wrong wrong"}
        return int(ask(one, wrong).status_code)

    for number in range(FAILURES):
        assert tried(f"2001:db8:1:2::{number:x}") == 401
    assert tried("2001:db8:1:2:ffff::1") == 429
    assert tried("2001:db8:1:3::1") == 401


def test_success_and_failure_are_audited_without_the_password(
    client: TestClient, exchange: Exchange
) -> None:
    ask(client, {"client_id": "zhang", "client_secret": "wrong wrong wrong"})
    ask(client, {"client_id": "zhang", "client_secret": PASSWORD})
    given, refused = trail(exchange)[:2]
    assert (refused["action"], refused["outcome"], refused["requester"]) == (
        "authenticate",
        "refused",
        "zhang",
    )
    assert (given["outcome"], given["role"], given["organization"]) == ("success", "clinician", 1)
    assert given["address"] == refused["address"] == "192.0.2.7"
    assert "wrong wrong" not in json.dumps(refused)
    assert PASSWORD not in json.dumps(given)


# -- Being known by a token -----------------------------------------------------------------------


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": ISSUER, "sub": "zhang", "aud": AUDIENCE, "iat": now, "nbf": now, "jti": "1"}
    told = whole | {"exp": now + 60, "purpose_of_use": "TREAT"} | changed
    return {name: value for name, value in told.items() if value is not None}


def signed(tokens: Tokens, changed: Mapping[str, Any], **header: Any) -> str:
    kid, key = tokens.keys.signing()
    headers = {"alg": "ES256", "kid": kid, "typ": TOKEN_TYPE} | header
    return jwt.encode(
        {name: value for name, value in headers.items() if value is not None},
        claims(**changed),
        key,
        algorithms=["ES256"],
    )


def part(told: Mapping[str, Any] | bytes) -> str:
    raw = told if isinstance(told, bytes) else json.dumps(told).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(tokens: Tokens) -> str:
    kid, _ = tokens.keys.signing()
    return f"{part({'alg': 'none', 'kid': kid, 'typ': TOKEN_TYPE})}.{part(claims())}."


def by_another_key(tokens: Tokens) -> str:
    kid, _ = tokens.keys.signing()
    header = {"alg": "ES256", "kid": kid, "typ": TOKEN_TYPE}
    return jwt.encode(header, claims(), ECKey.generate_key("P-256"), algorithms=["ES256"])


def by_the_public_key_as_a_password(tokens: Tokens) -> str:
    kid, key = tokens.keys.signing()
    told = f"{part({'alg': 'HS256', 'kid': kid, 'typ': TOKEN_TYPE})}.{part(claims())}"
    return f"{told}.{part(hmac.digest(key.as_pem(private=False), told.encode(), 'sha256'))}"


def nested(_: Tokens) -> str:
    return f"{part(b'[' * 2400)}.e30.e30"


def test_a_token_of_ours_is_believed(client: TestClient, tokens: Tokens) -> None:
    assert who(client, signed(tokens, {})).status_code == 200


@pytest.mark.parametrize(
    "forged",
    [
        lambda tokens: signed(tokens, {"exp": int(time.time()) - 3600}),
        lambda tokens: signed(tokens, {"nbf": int(time.time()) + 3600}),
        lambda tokens: signed(tokens, {"iat": int(time.time()) + 3600}),
        lambda tokens: signed(tokens, {"aud": "another"}),
        lambda tokens: signed(tokens, {"iss": "https://elsewhere.example"}),
        lambda tokens: signed(tokens, {"sub": "nobody"}),
        lambda tokens: signed(tokens, {"purpose_of_use": "FUN"}),
        *(
            lambda tokens, name=name: signed(tokens, {name: None})
            for name in ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")
        ),
        lambda tokens: signed(tokens, {}, typ="JWT"),
        lambda tokens: signed(tokens, {}, typ=None),
        lambda tokens: signed(tokens, {}, kid=None),
        lambda tokens: signed(tokens, {}, kid="../../audit"),
        unsigned,
        by_another_key,
        by_the_public_key_as_a_password,
        nested,
        lambda tokens: f"{signed(tokens, {})[:-4]}AAAA",
        lambda _: "nonsense",
        lambda _: "a.b.c",
        lambda _: "x" * 5000,
    ],
)
def test_any_other_token_is_not(
    client: TestClient, tokens: Tokens, forged: Callable[[Tokens], str]
) -> None:
    assert who(client, forged(tokens)).status_code == 401


def test_refused_tokens_are_audited_but_do_not_flood_the_trail(
    client: TestClient, tokens: Tokens, exchange: Exchange
) -> None:
    before = len(trail(exchange))
    who(client, by_another_key(tokens))
    assert client.get("/who").status_code == 401  # nothing was claimed: nothing to tell
    (refused,) = trail(exchange)[: len(trail(exchange)) - before]
    assert (refused["action"], refused["outcome"], refused["requester"], refused["address"]) == (
        "authenticate",
        "refused",
        "",
        "192.0.2.7",
    )
    expired = signed(tokens, {"exp": int(time.time()) - 3600})
    for _ in range(AUDITED_TOKENS + 5):
        assert who(client, expired).status_code == 401
    assert len(trail(exchange)) - before == AUDITED_TOKENS
    assert who(client, signed(tokens, {})).status_code == 200


def test_a_token_of_somebody_who_has_left_is_audited_under_the_name(
    client: TestClient, tokens: Tokens, exchange: Exchange
) -> None:
    with exchange.database.writing() as session:
        session.execute(update(User).values(active=False))
    assert who(client, signed(tokens, {})).status_code == 401
    refused = trail(exchange)[0]
    assert (refused["requester"], refused["outcome"]) == ("zhang", "refused")
    assert "not active any more" in refused["reason"]


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}]
)
def test_without_a_token_nobody_is_known(client: TestClient, header: dict[str, str]) -> None:
    assert client.get("/who", headers=header).status_code == 401


def test_what_somebody_is_now_counts_and_not_what_the_token_says(
    client: TestClient, tokens: Tokens, exchange: Exchange
) -> None:
    token = signed(tokens, {"role": "administrator"})
    assert who(client, token).text.startswith("zhang clinician")
    with exchange.database.writing() as session:
        session.execute(update(User).values(active=False))
    assert who(client, token).status_code == 401


@pytest.mark.parametrize(("door", "rejected"), [("dicomweb", True), ("fhir", False)])
def test_who_looks_at_what_was_rejected_does_so_by_dicomweb(
    exchange: Exchange, door: str, rejected: bool
) -> None:
    asking = Requester(
        name="", role=Role.SYSTEM, organization=None, purpose=None, address="192.0.2.7", door=door
    )
    assert not bearer(exchange, asking, {"sub": "zhang"}).rejected
    with exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.look_at_rejected(access, "zhang", True)
    assert bearer(exchange, asking, {"sub": "zhang"}).rejected is rejected


def test_a_token_that_was_believed_is_not_once_it_has_expired(
    client: TestClient, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signed(tokens, {})
    assert [who(client, token).status_code for _ in range(2)] == [200, 200]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert who(client, token).text == "the access token has expired; ask for another"


def test_a_token_that_was_believed_is_not_once_its_key_is_gone(
    client: TestClient, tokens: Tokens, tmp_path: Path
) -> None:
    token = signed(tokens, {})
    assert [who(client, token).status_code for _ in range(2)] == [200, 200]
    kid, _ = tokens.keys.signing()
    TokenKeys(tmp_path / "keys/tokens").rotate()
    (tmp_path / f"keys/tokens/{kid}.jwk").unlink()  # it was stolen, say
    assert who(client, token).status_code == 401
    assert who(client, signed(tokens, {})).status_code == 200


# -- Keys -----------------------------------------------------------------------------------------


def test_a_new_key_signs_while_the_old_one_still_verifies(
    client: TestClient, tokens: Tokens, tmp_path: Path
) -> None:
    old = signed(tokens, {})
    kid = TokenKeys(tmp_path / "keys/tokens").rotate()  # as another process does
    assert tokens.keys.signing()[0] == kid
    assert who(client, old).status_code == who(client, signed(tokens, {})).status_code == 200
    published = client.get("/.well-known/jwks.json").json()["keys"]
    assert len(published) == 2
    assert published[0]["kid"] == kid
    assert not [key for key in published if "d" in key]


def test_a_key_goes_when_every_token_of_it_has_expired(tmp_path: Path) -> None:
    keys = TokenKeys(tmp_path / "tokens")
    keys.ensure()
    for days in (9, 8, 0):
        made = datetime.now(UTC) - timedelta(days=days)
        kid, _ = keys.signing()
        aged = tmp_path / f"tokens/{made:%Y%m%dT%H%M%S.%f}-{days}.jwk"
        (tmp_path / f"tokens/{kid}.jwk").rename(aged)
        keys.rotate()
    kept = [path.stem[-2:] for path in sorted((tmp_path / "tokens").glob("*.jwk"))]
    # The first was followed a week ago and is gone; the others were followed only now.
    assert "-9" not in kept
    assert "-0" in kept


def test_keys_are_for_their_owner_only_and_are_never_replaced(tmp_path: Path) -> None:
    make_keys(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    held = [path.read_bytes() for path in files]
    make_keys(tmp_path)
    assert [path.read_bytes() for path in files] == held
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert len(page_key(tmp_path)) == 32


def test_missing_and_spoiled_keys_are_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="exchange init"):
        audit_key(tmp_path)
    with pytest.raises(Invalid, match="exchange init"):
        TokenKeys(tmp_path / "tokens").signing()
    make_keys(tmp_path)
    (tmp_path / "audit.pem").write_text("not a key")
    with pytest.raises(Invalid, match="cannot be read"):
        audit_key(tmp_path)


def test_no_token_outlives_its_key(tokens: Tokens) -> None:
    somebody = User(
        name="zhang",
        display_name="",
        role=Role.CLINICIAN,
        organization_id=None,
        password_hash="",
        created=datetime.now(UTC),
    )
    assert tokens.issue(somebody, None, Purpose.TREATMENT, 3600).lifetime == 3600
    with pytest.raises(Invalid, match="86400"):
        tokens.issue(somebody, None, Purpose.TREATMENT, 86401)
