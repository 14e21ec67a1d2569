"""Users: registering them, and knowing them by name and password (argon2id, RFC 9106)."""

from __future__ import annotations

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange import organizations
from exchange.access import Access
from exchange.errors import Invalid, NotAuthenticated
from exchange.policy import Action, Role
from exchange_storage.records import User

MIN_PASSWORD = 10
MAX_PASSWORD = 256

_HASHER = PasswordHasher()


def generated_password() -> str:
    """A password of 120 random bits, to be shown once."""
    return secrets.token_urlsafe(15)


def add(
    access: Access,
    *,
    name: str,
    display_name: str,
    role: Role,
    organization: str | None,
    password: str,
) -> User:
    """Register a user; `organization` is a hospital's code, or None for the region's own staff.

    Raises Refused, NotFound for the hospital, Invalid.
    """
    access.require(Action.ADMINISTER)
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise Invalid("a user name has 1 to 64 printable characters")
    if role is Role.EXCHANGE:
        raise Invalid("nobody signs in as the exchange itself")
    if role is not Role.ADMINISTRATOR and organization is None:
        raise Invalid(f"a {role} belongs to an organization")
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Invalid(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    belongs = organizations.by_code(access.session, organization).id if organization else None
    password_hash = _HASHER.hash(password)

    def unit(session: Session) -> User:
        if by_name(session, name) is not None:
            raise Invalid("this user name is taken")
        user = User(
            name=name,
            display_name=display_name or name,
            role=role,
            organization_id=belongs,
            password_hash=password_hash,
            created=access.now,
        )
        session.add(user)
        session.flush()
        access.note(
            Action.ADMINISTER, reason="user registered", detail={"user": name, "role": role}
        )
        return user

    return access.write(unit)


def by_name(session: Session, name: str) -> User | None:
    """The user of this name, active or not."""
    return session.scalars(select(User).where(User.name == name)).one_or_none()


def authenticate(session: Session, name: str, password: str) -> User:
    """The active user with this name and password.

    Raises NotAuthenticated; the time taken and the message tell nothing about which was wrong.
    """
    user = by_name(session, name) if name.isprintable() else None
    try:
        _HASHER.verify(user.password_hash if user else _decoy(), password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        user = None
    if user is None or not user.active:
        raise NotAuthenticated("the user name or the password is wrong")
    return user


@cache
def _decoy() -> str:
    return _HASHER.hash(secrets.token_urlsafe(15))
