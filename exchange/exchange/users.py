"""Users: registering them, and knowing them by name and password (argon2id, RFC 9106)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from exchange import organizations, registry
from exchange.access import Access
from exchange.errors import Invalid, NotAuthenticated, NotFound
from exchange.policy import Action, Role
from exchange_storage.prepared import Prepared
from exchange_storage.records import Organization, User, UserSession
from exchange_storage.rows import Columns

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
    sees_rejected: bool = False,
) -> User:
    """Register a user; `organization` is a hospital's code, or None for the region's own staff.

    A hospital's administrator registers, and changes, the hospital's own. Who `sees_rejected`
    finds and gets by DICOMweb what the hospital has rejected, and nothing else.

    Raises Refused, NotFound for the hospital, Invalid.
    """
    access.require(Action.ADMINISTER)
    if organization is None:
        access.require_region(detail={"user": name[:64]})
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise Invalid("a user name has 1 to 64 printable characters")
    if role in {Role.EXCHANGE, Role.GUEST}:
        raise Invalid("nobody signs in as the exchange itself, or as a guest")
    if role is not Role.ADMINISTRATOR and organization is None:
        raise Invalid(f"a {role} belongs to an organization")
    if sees_rejected:
        _check_looks(role)
    belongs = organizations.administered(access, organization).id if organization else None
    password_hash = _hash(password)

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
            sees_rejected=sees_rejected,
        )
        session.add(user)
        session.flush()
        detail = {"user": name, "role": role} | ({"rejected": True} if sees_rejected else {})
        access.note(Action.ADMINISTER, reason="user registered", detail=detail)
        return user

    return access.write(unit)


def everyone(access: Access) -> tuple[tuple[User, str], ...]:
    """All users by their names, each with the code of the hospital for which they act, or "".

    A hospital's administrator is told of the hospital's own. Raises Refused.
    """
    access.require(Action.ADMINISTER, detail={"what": "users"})
    statement = (
        select(User, Organization.code)
        .outerjoin(Organization, Organization.id == User.organization_id)
        .order_by(User.name)
    )
    if access.requester.organization is not None:
        statement = statement.where(User.organization_id == access.requester.organization)
    rows = access.session.execute(statement).all()
    access.note(Action.ADMINISTER, reason="users listed", detail={"answered": len(rows)})
    return tuple((row.User, row.code or "") for row in rows)


def deactivate(access: Access, name: str) -> None:
    """Stop a user: no sign-in, and no token or session of theirs is accepted, from this commit on.
    Associations in which they were named end as those of a system that was removed.

    Raises Refused, NotFound.
    """

    def stop(user: User) -> None:
        user.active = False

    _change(access, name, stop, "user deactivated", signs_out=True)


def activate(access: Access, name: str) -> None:
    """Let a user who was deactivated sign in again. Raises Refused, NotFound."""

    def resume(user: User) -> None:
        user.active = True

    _change(access, name, resume, "user activated")


def look_at_rejected(access: Access, name: str, sees_rejected: bool) -> None:
    """Have a user find and get by DICOMweb what their hospital has rejected, instead of what is in
    use, or again what is in use; from this commit on. Raises Refused, NotFound, Invalid.
    """

    def change(user: User) -> None:
        if sees_rejected:
            _check_looks(Role(user.role))
        user.sees_rejected = sees_rejected

    told = "what was rejected" if sees_rejected else "what is in use"
    _change(access, name, change, f"user looks at {told}")


def _check_looks(role: Role) -> None:
    """Raises Invalid for a role that looks at no images."""
    if role not in {Role.CLINICIAN, Role.SYSTEM}:
        raise Invalid(f"a {role} looks at no images, in use or rejected")


def set_password(access: Access, name: str, password: str) -> None:
    """Replace a user's password. Their sessions end; tokens run out by themselves.

    Raises Refused, NotFound, Invalid.
    """
    access.require(Action.ADMINISTER, detail={"user": name})  # before the work of hashing
    password_hash = _hash(password)

    def replace(user: User) -> None:
        user.password_hash = password_hash

    _change(access, name, replace, "password replaced", signs_out=True)


def by_name(session: Session, name: str) -> User | None:
    """The user of this name, active or not."""
    return session.scalars(select(User).where(User.name == name)).one_or_none()


def standing(access: Access, name: str) -> User | None:
    """The user of this name, if they may sign in, as every request asks for it: only to be read."""
    rows = access.glance(_STANDING, {"name": name})
    return _USER.records(rows[0])[0] if rows else None


def may_sign_in(session: Session, user: User) -> bool:
    """Whether the user is active, and their hospital as well."""
    found = select(User.id).where(User.id == user.id, registry.MAY_SIGN_IN)
    return session.scalars(found).one_or_none() is not None


def authenticate(session: Session, name: str, password: str) -> User:
    """The user with this name and password, who may sign in.

    Raises NotAuthenticated; the time taken and the message tell nothing about which was wrong.
    """
    user = by_name(session, name) if name.isprintable() else None
    try:
        _HASHER.verify(user.password_hash if user else _decoy(), password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        user = None
    if user is None or not may_sign_in(session, user):
        raise NotAuthenticated("the user name or the password is wrong")
    return user


def _change(
    access: Access,
    name: str,
    change: Callable[[User], None],
    reason: str,
    *,
    signs_out: bool = False,
) -> None:
    access.require(Action.ADMINISTER, detail={"user": name})

    def unit(session: Session) -> None:
        user = by_name(session, name)
        if user is None or access.requester.organization not in {None, user.organization_id}:
            raise NotFound("no user has this name")
        change(user)
        if signs_out:
            session.execute(delete(UserSession).where(UserSession.user_id == user.id))
            registry.changed(session)
        access.note(Action.ADMINISTER, reason=reason, detail={"user": name})

    access.write(unit)


def _hash(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Invalid(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return _HASHER.hash(password)


@cache
def _decoy() -> str:
    return _HASHER.hash(secrets.token_urlsafe(15))


_USER = Columns(User)
_STANDING = Prepared(
    select(*_USER.selected).where(User.name == bindparam("name"), registry.MAY_SIGN_IN)
)
