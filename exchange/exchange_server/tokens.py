"""Access tokens: signed JWTs (RFC 7519, RFC 9068), issued for minutes and verified strictly."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import GuestProtocol
from joserfc.jws import JWSRegistry

from exchange.errors import Invalid, NotAuthenticated
from exchange.policy import Purpose
from exchange_server.keys import ALGORITHM, LONGEST_LIFETIME, TokenKeys
from exchange_storage.records import Organization, User

AUDIENCE = "imaging-exchange"
"""Whom our tokens are for."""

TOKEN_TYPE = "at+jwt"  # noqa: S105 - the media type of RFC 9068 section 2.1
LEEWAY = 10
"""Seconds by which the clocks of two nodes may differ."""

TOKEN_LENGTH = 4096
"""Characters of the longest token that is looked at."""

KNOWN = 1024
"""Tokens whose signatures are remembered, in each process: somebody who works asks often."""


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token and how long it is accepted, in seconds."""

    token: str
    number: str
    """Its `jti`: what the audit trail calls it."""
    lifetime: int


class Tokens:
    """Issues access tokens, and verifies them strictly."""

    def __init__(self, keys: TokenKeys, *, issuer: str, lifetime: int) -> None:
        """`lifetime` in seconds."""
        self.keys = keys
        self._issuer = issuer
        self._lifetime = lifetime
        self._known: dict[bytes, tuple[object, Mapping[str, Any]]] = {}
        """By digest, what a token with a good signature says, and the keys of which one made it."""
        self._headers = JWSRegistry(algorithms=[ALGORITHM])
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            iat={"essential": True},
            nbf={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        )

    def issue(
        self,
        user: User,
        organization: Organization | None,
        purpose: Purpose | None,
        lifetime: int | None = None,
    ) -> Issued:
        """A token for `user`, for `lifetime` seconds (default: as set). Raises Invalid."""
        seconds = self._lifetime if lifetime is None else lifetime
        if not 0 < seconds <= LONGEST_LIFETIME.total_seconds():
            raise Invalid(f"a token lives up to {LONGEST_LIFETIME.total_seconds():.0f} seconds")
        kid, key = self.keys.signing()
        now = int(time.time())
        number = secrets.token_urlsafe(16)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": user.name,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": number,
            "role": user.role,
        }
        if organization is not None:
            claims["organization"] = organization.code
        if purpose is not None:
            claims["purpose_of_use"] = purpose
        header = {"alg": ALGORITHM, "kid": kid, "typ": TOKEN_TYPE}
        token = jwt.encode(header, claims, key, algorithms=[ALGORITHM])
        return Issued(token, number, seconds)

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of `token`. Raises NotAuthenticated, saying what is wrong with it."""
        if len(token) > TOKEN_LENGTH:
            raise NotAuthenticated("the access token is too long")
        try:
            claims = self._signed(token)
            self._claims.validate(dict(claims))
        except ExpiredTokenError as error:
            raise NotAuthenticated("the access token has expired; ask for another") from error
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise NotAuthenticated("the access token is not valid here") from error
        return claims

    def _signed(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that one of our keys signed, valid or not; checked once."""
        keys = self.keys.present()
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        signed_with, claims = self._known.get(digest, (None, {}))
        if signed_with is not keys:
            read = jwt.decode(token, self._key, registry=self._headers)
            if read.header.get("typ") != TOKEN_TYPE:
                raise NotAuthenticated("this is not an access token")
            claims = read.claims
            if len(self._known) >= KNOWN:
                self._known = {}
            self._known[digest] = keys, claims
        return claims

    def _key(self, header: GuestProtocol) -> Any:
        key = self.keys.verifying(header.headers().get("kid"))
        if key is None:
            raise NotAuthenticated("the access token is signed with a key that is not ours")
        return key
