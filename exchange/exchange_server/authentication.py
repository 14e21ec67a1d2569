"""Who asks over HTTP: access tokens (RFC 6750, RFC 9068) and who issues them (RFC 6749).

An embedded issuer for names and passwords of the exchange's own users. A token says who somebody
is; role, organization and whether they are still active are the database's, at every request.
"""

import binascii
import threading
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from exchange import users
from exchange.access import Exchange
from exchange.audit import Outcome
from exchange.errors import ExchangeError, NotAuthenticated, Unavailable
from exchange.organizations import normal
from exchange.policy import Action, Purpose, Requester, Role
from exchange_server.observability import SIGN_IN_REFUSED, SIGNED_IN, observe
from exchange_server.tokens import Issued, Tokens
from exchange_storage.records import Organization, User

FAILURES = 10
"""Wrong passwords for one name from one address within `WINDOW`; then it has to wait."""
ADDRESS_FAILURES = 60
"""The same for all names together from one address."""
AUDITED_TOKENS = 10
"""Refused tokens from one address that are audited within `WINDOW`, by each door of a process."""
WINDOW = 60.0
REMEMBERED = 10_000
"""Names and addresses whose failures are counted at a time."""

HASHES = 4
"""Passwords verified at a time: argon2 takes 64 MiB for each."""
PATIENCE = 5.0
"""Seconds that a request waits for its turn with a password."""

Identify = Callable[[Request], Requester]


def identify(exchange: Exchange, tokens: Tokens, door: str) -> Identify:
    """How the door called `door` learns who asks: by the bearer token of the request.

    The function raises NotAuthenticated, and Unavailable when the index does not answer. A token
    that is refused is audited, but of many from one address only the first: see `AUDITED_TOKENS`.
    """
    refused = _Refusals()

    def who(request: Request) -> Requester:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("an access token is needed: Authorization: Bearer …")
        nobody = _nobody(request, door)
        claimed = nobody
        try:
            claims = tokens.verify(token.strip())
            claimed = replace(nobody, name=str(claims["sub"])[:64])
            return _bearer(exchange, nobody, claims)
        except NotAuthenticated as error:
            source = _source(nobody.address)
            if refused.of_late(source) < AUDITED_TOKENS:
                refused.add(source)
                with exchange.on_behalf_of(claimed) as access:
                    access.note(
                        Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=f"token: {error}"
                    )
            raise

    return who


def _bearer(exchange: Exchange, nobody: Requester, claims: Mapping[str, Any]) -> Requester:
    """Whom `claims` of a sound token name, as the database knows them. Raises NotAuthenticated."""
    with exchange.on_behalf_of(nobody) as access:
        user = users.by_name(access.session, claims["sub"])
    if user is None or not user.active:
        raise NotAuthenticated("this user is not active any more")
    try:
        stated = claims.get("purpose_of_use")
        purpose = Purpose(stated) if stated is not None else None
        role = Role(user.role)
    except ValueError as error:
        raise NotAuthenticated("the access token is not valid here") from error
    return replace(
        nobody, name=user.name, role=role, organization=user.organization_id, purpose=purpose
    )


def sign_in(exchange: Exchange, tokens: Tokens) -> APIRouter:
    """The token endpoint (RFC 6749 section 3.2) and the keys that verify tokens (RFC 7517)."""
    router = APIRouter(route_class=_TokenRoute)
    failures = _Refusals()
    turns = threading.BoundedSemaphore(HASHES)

    @router.post("/oauth/token")
    def token(request: Request, asked: Annotated[_Asked, Depends(_asked)]) -> Response:
        claimed = replace(_nobody(request, "oauth"), name=asked.name[:64])
        source = _source(claimed.address)
        if failures.of_late(source, asked.name) >= FAILURES or (
            failures.of_late(source) >= ADDRESS_FAILURES
        ):
            raise _OAuthError("invalid_client", "too many wrong passwords; wait a minute", 429)
        if not turns.acquire(timeout=PATIENCE):
            raise Unavailable("too many are signing in; try again in a moment")
        try:
            issued = _sign_in(exchange, tokens, claimed, asked)
        except NotAuthenticated:
            failures.add(source, asked.name)
            raise
        finally:
            turns.release()
        observe(SIGNED_IN)
        return JSONResponse(
            {"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.lifetime},
            headers=_NOT_KEPT,
        )

    @router.get("/.well-known/jwks.json")
    def jwks() -> Response:
        return JSONResponse(tokens.keys.public(), headers={"Cache-Control": "max-age=300"})

    return router


def _sign_in(exchange: Exchange, tokens: Tokens, claimed: Requester, asked: "_Asked") -> Issued:
    """A token for who gives a name and its password; audited, whether given or refused."""
    user: User | None = None
    organization: Organization | None = None
    with exchange.on_behalf_of(claimed) as access:
        try:
            user = users.authenticate(access.session, asked.name, asked.password)
        except NotAuthenticated as error:
            access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=str(error))
        else:
            if user.organization_id is not None:
                organization = access.session.get(Organization, user.organization_id)
    if user is None:
        raise NotAuthenticated("the user name or the password is wrong")
    known = replace(
        claimed, role=Role(user.role), organization=user.organization_id, purpose=asked.purpose
    )
    with exchange.on_behalf_of(known) as access:
        access.require(Action.AUTHENTICATE)
        issued = tokens.issue(user, organization, asked.purpose)
        access.note(
            Action.AUTHENTICATE, reason="access token issued", detail={"token": issued.number}
        )
    return issued


@dataclass(frozen=True, slots=True)
class _Asked:
    """A client credentials request (RFC 6749 section 4.4.2)."""

    name: str
    password: str
    purpose: Purpose | None


class _OAuthError(Exception):
    """An error response of RFC 6749 section 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.status = status


async def _asked(request: Request) -> _Asked:
    """Read the request strictly: a parameter that we do not serve is refused, not ignored."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise _OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    try:
        body = (await request.body()).decode()
        pairs = parse_qsl(body, strict_parsing=True, max_num_fields=16, errors="strict")
    except ValueError:
        raise _OAuthError("invalid_request", "the form cannot be read") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _OAuthError("invalid_request", "a parameter is given twice")
    if "grant_type" not in form:
        raise _OAuthError("invalid_request", "grant_type is missing")
    if form["grant_type"] != "client_credentials":
        raise _OAuthError("unsupported_grant_type", "grant_type must be client_credentials")
    if "scope" in form:
        raise _OAuthError("invalid_scope", "scopes are not served: a token is for all its user may")
    purpose = form.get("purpose_of_use", Purpose.TREATMENT)
    if purpose not in set(Purpose):
        raise _OAuthError("invalid_request", f"purpose_of_use is one of {', '.join(Purpose)}")
    name, password = _credentials(request, form)
    if not name.isprintable():
        raise _OAuthError("invalid_client", "the user name or the password is wrong", 401)
    return _Asked(name, password, Purpose(purpose))


def _credentials(request: Request, form: Mapping[str, str]) -> tuple[str, str]:
    """Name and password, from HTTP Basic or the form but not both (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    in_form = "client_id" in form or "client_secret" in form
    if not scheme:
        if not form.get("client_id") or not form.get("client_secret"):
            raise _OAuthError("invalid_client", "a name and a password are needed", 401)
        return form["client_id"], form["client_secret"]
    if in_form:
        raise _OAuthError("invalid_request", "name and password are given in two ways")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        name, colon, password = b64decode(encoded, validate=True).decode().partition(":")
        if not colon:
            raise ValueError
        return unquote_plus(name, errors="strict"), unquote_plus(password, errors="strict")
    except (binascii.Error, ValueError):
        raise _OAuthError("invalid_client", "HTTP Basic authentication is needed", 401) from None


class _Refusals:
    """Wrong passwords and refused tokens of late, by their source, and by source and name.

    Counted in each process by itself: with n processes somebody has n times as many tries. What is
    beyond the limits is not audited again, so that nobody can flood the trail.
    """

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, str | None], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def of_late(self, source: str, name: str | None = None) -> int:
        """How many there were within `WINDOW` from `source`: for `name`, or for all together."""
        with self._lock:
            return len(self._within((source, name)))

    def add(self, source: str, name: str | None = None) -> None:
        """One more."""
        now = time.monotonic()
        with self._lock:
            for who in {(source, name), (source, None)}:
                self._at[who] = [*self._within(who), now]
                self._at.move_to_end(who)
            while len(self._at) > REMEMBERED:
                self._at.popitem(last=False)

    def _within(self, who: tuple[str, str | None]) -> list[float]:
        since = time.monotonic() - WINDOW
        return [at for at in self._at.get(who, ()) if at > since]


def _source(address: str) -> str:
    """As what an address is counted: of IPv6 its /64, all of which one host has (RFC 6177)."""
    if ":" not in address:
        return address
    return str(IPv6Network((address.partition("%")[0], 64), strict=False))


_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class _TokenRoute(APIRoute):
    """Answers every error as RFC 6749 section 5.2 wants it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except _OAuthError as error:
                refusal = error
            except NotAuthenticated as error:
                refusal = _OAuthError("invalid_client", str(error), 401)
            except Unavailable as error:
                refusal = _OAuthError("temporarily_unavailable", str(error), 503)
            except ExchangeError as error:
                refusal = _OAuthError("invalid_request", str(error))
            observe(SIGN_IN_REFUSED, reason=refusal.error)
            headers = dict(_NOT_KEPT)
            if refusal.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="imaging-exchange", charset="UTF-8"'
            if refusal.status in {429, 503}:
                headers["Retry-After"] = f"{WINDOW:.0f}"
            return JSONResponse(
                {"error": refusal.error, "error_description": str(refusal)},
                status_code=refusal.status,
                headers=headers,
            )

        return answered


def _nobody(request: Request, door: str) -> Requester:
    """Who asks, before it is known who that is."""
    return Requester(
        name="",
        role=Role.SYSTEM,
        organization=None,
        purpose=None,
        address=address(request),
        door=door,
    )


def address(request: Request) -> str:
    """The address of the other end, as RFC 5952 writes it; "" where it has none."""
    host = request.client.host if request.client else ""
    try:
        return str(normal(host))
    except ValueError:
        return ""
