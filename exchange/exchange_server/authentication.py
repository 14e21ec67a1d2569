"""Who asks over HTTP: access tokens (RFC 6750, RFC 9068) and who issues them (RFC 6749).

An embedded issuer for names and passwords of the exchange's own users. A token says who somebody
is; role, organization and whether they are still active are the database's, at every request.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from exchange.access import Exchange
from exchange.audit import Outcome
from exchange.errors import ExchangeError, NotAuthenticated, TooManyTries, Unavailable
from exchange.policy import Action, Purpose, Requester
from exchange_server.addresses import nobody
from exchange_server.cookies import Cookies
from exchange_server.identities import bearer
from exchange_server.observability import SIGN_IN_REFUSED, SIGNED_IN, observe
from exchange_server.passwords import WINDOW, Passwords, Refusals, source_of
from exchange_server.tokens import Tokens

AUDITED_TOKENS = 10
"""Refused tokens from one address that are audited within `WINDOW`, by each door of a process."""

Identify = Callable[[Request], Requester]


def identify(
    exchange: Exchange, tokens: Tokens, door: str, cookies: Cookies | None = None
) -> Identify:
    """How the door called `door` learns who asks: by the bearer token, or else by a session.

    The function raises NotAuthenticated, and Unavailable when the index does not answer. A token
    that is refused is audited, but of many from one address only the first: see `AUDITED_TOKENS`.
    """
    refused = Refusals()

    def who(request: Request) -> Requester:
        stated = request.headers.get("authorization", "")
        if cookies is not None and not stated and cookies.shown(request):
            return cookies.visitor(request, door).requester
        scheme, _, token = stated.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("an access token is needed: Authorization: Bearer …")
        asking = nobody(request, door)
        claimed = asking
        try:
            claims = tokens.verify(token.strip())
            claimed = replace(asking, name=str(claims["sub"])[:64])
            return bearer(exchange, asking, claims)
        except NotAuthenticated as error:
            source = source_of(asking.address)
            if refused.of_late(source) < AUDITED_TOKENS:
                refused.add(source)
                with exchange.on_behalf_of(claimed) as access:
                    access.note(
                        Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=f"token: {error}"
                    )
            raise

    return who


def sign_in(exchange: Exchange, tokens: Tokens, passwords: Passwords | None = None) -> APIRouter:
    """The token endpoint (RFC 6749 section 3.2) and the keys that verify tokens (RFC 7517)."""
    router = APIRouter(route_class=_TokenRoute)
    known = passwords or Passwords(exchange)

    @router.post("/oauth/token")
    def token(request: Request, asked: Annotated[_Asked, Depends(_asked)]) -> Response:
        claimed = replace(nobody(request, "oauth"), name=asked.name)
        try:
            requester, user, organization = known.known(claimed, asked.password, asked.purpose)
        except TooManyTries as error:
            raise _OAuthError("invalid_client", str(error), 429) from None
        with exchange.on_behalf_of(requester) as access:
            access.require(Action.AUTHENTICATE)
            issued = tokens.issue(user, organization, asked.purpose)
            access.note(
                Action.AUTHENTICATE, reason="access token issued", detail={"token": issued.number}
            )
        observe(SIGNED_IN)
        return JSONResponse(
            {"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.lifetime},
            headers=_NOT_KEPT,
        )

    @router.get("/.well-known/jwks.json")
    def jwks() -> Response:
        return JSONResponse(tokens.keys.public(), headers={"Cache-Control": "max-age=300"})

    return router


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
