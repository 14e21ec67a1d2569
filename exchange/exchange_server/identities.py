"""Who somebody is by what they show: access tokens, and user identities of DICOM associations.

A token says who somebody is; role, organization and whether they are still active are the
database's, each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exchange import users
from exchange.access import Exchange
from exchange.errors import NotAuthenticated
from exchange.policy import Person, Purpose, Requester, Role
from exchange_dicom.pdu import UserIdentity, UserIdentityType
from exchange_server.passwords import Passwords
from exchange_server.tokens import Tokens

REJECTED_DOOR = "dicomweb"
"""Where users see what their hospital has rejected; systems by DIMSE are registered each for itself
(see `organizations.Entity`)."""


def bearer(exchange: Exchange, asking: Requester, claims: Mapping[str, Any]) -> Requester:
    """Whom `claims` of a sound token name, as the database knows them. Raises NotAuthenticated."""
    with exchange.on_behalf_of(asking) as access:
        user = users.standing(access, claims["sub"])
    if user is None:
        raise NotAuthenticated("this user is not active any more")
    try:
        stated = claims.get("purpose_of_use")
        purpose = Purpose(stated) if stated is not None else None
        role = Role(user.role)
    except ValueError as error:
        raise NotAuthenticated("the access token is not valid here") from error
    return replace(
        asking,
        name=user.name,
        role=role,
        organization=user.organization_id,
        purpose=purpose,
        rejected=user.sees_rejected and asking.door == REJECTED_DOOR,
    )


class Identities:
    """Verifies user identities of associations (DICOM PS3.7 D.3.3.7): names with a passcode, which
    is the password of a user, and access tokens of ours (JSON Web Token)."""

    def __init__(self, exchange: Exchange, tokens: Tokens) -> None:
        self._exchange = exchange
        self._tokens = tokens
        self._passwords = Passwords(exchange)

    def __call__(self, identity: UserIdentity, system: Requester) -> Person:
        """The user of the hospital's for whom its `system` calls.

        A Kerberos ticket or SAML assertion is another issuer's, whom nobody here knows, and a name
        alone proves nothing. Raises NotAuthenticated, Unavailable.
        """
        nobody = replace(system, organization=None, purpose=None)
        try:
            match identity.kind:
                case UserIdentityType.USERNAME_AND_PASSCODE:
                    named = replace(nobody, name=identity.primary.decode())
                    passcode = identity.secondary.decode()
                    known, _, _ = self._passwords.known(named, passcode, system.purpose)
                case UserIdentityType.JWT:
                    claims = self._tokens.verify(identity.primary.decode().strip())
                    known = bearer(self._exchange, nobody, claims)
                case UserIdentityType.USERNAME:
                    raise NotAuthenticated("a name alone proves nothing: send a passcode or token")
                case _:
                    raise NotAuthenticated("this kind of user identity cannot be verified here")
        except UnicodeDecodeError:
            raise NotAuthenticated("the user identity is not in UTF-8") from None
        if known.organization != system.organization:
            raise NotAuthenticated("the user is not one of the calling hospital's")
        return Person(name=known.name, verified=True)
