"""Hospitals: registering them, their application entities and agreements; who a caller is."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from exchange.access import Access, Exchange
from exchange.audit import Outcome
from exchange.errors import Invalid, NotFound
from exchange.policy import SHARING, Action, Purpose, Requester, Role, shares
from exchange_storage.records import Agreement, ApplicationEntity, Organization

_CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An application entity to be registered (PS3.8 section 7)."""

    title: str
    address: str
    """An IP address, a network such as 10.1.0.0/16, or a host name."""
    port: int | None = None
    certificate_fingerprint: str = ""

    @classmethod
    def parse(cls, text: str) -> Entity:
        """Read ``TITLE@address[:port][#fingerprint]``; an IPv6 address with a port in brackets.

        Raises Invalid with the form that is expected.
        """
        form = "an application entity is written TITLE@address[:port][#certificate SHA-256]"
        body, _, fingerprint = text.partition("#")
        title, at, address = body.partition("@")
        bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", address)
        plain = re.fullmatch(r"([^:]+)(?::(\d+))?", address)
        if not at or not title:
            raise Invalid(form)
        if bracketed or plain:
            host, port = (bracketed or plain).groups()  # type: ignore[union-attr]
        else:
            host, port = address, None
        if not host or (port is not None and not 0 < int(port) < 65536):
            raise Invalid(form)
        return cls(
            title=title.strip(),
            address=host,
            port=int(port) if port else None,
            certificate_fingerprint=fingerprint.replace(":", "").lower(),
        )


def credit_code_is_valid(code: str) -> bool:
    """Whether `code` is a unified social credit code: 18 characters, check digit by GB 32100."""
    if len(code) != 18 or any(character not in _CREDIT_ALPHABET for character in code):
        return False
    total = sum(
        _CREDIT_ALPHABET.index(character) * weight
        for character, weight in zip(code, _CREDIT_WEIGHTS, strict=False)
    )
    return _CREDIT_ALPHABET[(31 - total % 31) % 31] == code[17]


def register(
    access: Access,
    *,
    code: str,
    name: str,
    credit_code: str,
    issuer: str,
    entities: Sequence[Entity] = (),
    sharing: bool = True,
) -> Organization:
    """Register a hospital, and with `sharing` its agreement to share from now on.

    Raises Refused, or Invalid when a code is malformed or already taken.
    """
    access.require(Action.ADMINISTER)
    if not _CODE.fullmatch(code):
        raise Invalid("a code has 1 to 32 lower-case letters, digits and hyphens")
    if not name.strip():
        raise Invalid("an organization needs a name")
    if not credit_code_is_valid(credit_code):
        raise Invalid("not a unified social credit code: 18 characters with a check digit")
    if not _OID.fullmatch(issuer) or len(issuer) > 64:
        raise Invalid("the issuer of patient numbers must be an OID of at most 64 characters")
    for entity in entities:
        _check(entity)

    def unit(session: Session) -> Organization:
        taken = session.scalars(
            select(Organization).where(
                (Organization.code == code)
                | (Organization.credit_code == credit_code)
                | (Organization.issuer == issuer)
            )
        ).first()
        if taken is not None:
            raise Invalid(f"the code, credit code or issuer is that of {taken.code}")
        organization = Organization(
            code=code, name=name, credit_code=credit_code, issuer=issuer, registered=access.now
        )
        session.add(organization)
        session.flush()
        for entity in entities:
            _add(session, organization.id, entity)
        if sharing:
            session.add(Agreement(organization_id=organization.id, kind=SHARING, since=access.now))
        access.note(Action.ADMINISTER, reason="organization registered", detail={"code": code})
        return organization

    return access.write(unit)


def add_entity(access: Access, code: str, entity: Entity) -> None:
    """Register another application entity of a hospital. Raises Refused, NotFound, Invalid."""
    access.require(Action.ADMINISTER)
    _check(entity)
    organization = by_code(access.session, code)

    def unit(session: Session) -> None:
        _add(session, organization.id, entity)
        access.note(
            Action.ADMINISTER,
            reason="application entity registered",
            detail={"code": code, "title": entity.title},
        )

    access.write(unit)


def by_code(session: Session, code: str) -> Organization:
    """The hospital with this code. Raises NotFound."""
    found = session.scalars(select(Organization).where(Organization.code == code)).one_or_none()
    if found is None:
        raise NotFound("no organization has this code; `exchange organization list` shows them")
    return found


def by_issuer(session: Session, issuer: str) -> Organization | None:
    """The hospital that issues patient numbers under this OID, or None."""
    return session.scalars(
        select(Organization).where(Organization.issuer == issuer.removeprefix("urn:oid:"))
    ).one_or_none()


def everyone(session: Session) -> Sequence[Organization]:
    """All hospitals, in the order of their codes. Their directory is open to every requester."""
    return session.scalars(select(Organization).order_by(Organization.code)).all()


def entities(session: Session) -> Sequence[ApplicationEntity]:
    """All application entities, by hospital and title."""
    order = (ApplicationEntity.organization_id, ApplicationEntity.title)
    return session.scalars(select(ApplicationEntity).order_by(*order)).all()


def agreements(session: Session, now: datetime) -> set[int]:
    """The row numbers of the hospitals that are in the sharing agreement now."""
    sharing = select(Organization.id).where(shares(Organization.id))
    return set(session.scalars(sharing, {"now": now}))


def caller(
    exchange: Exchange, title: str, address: str, certificate_fingerprint: str = ""
) -> Requester | None:
    """Who calls under this AE title from this IP address: the hospital's system, or nobody.

    An entity that is registered with a certificate is recognized by that alone, wherever it calls
    from; one without must call from its address. Raises Unavailable.
    """
    if not _TITLE.fullmatch(title):
        return None
    peer = str(normal(address))
    unknown = Requester(
        name=title, role=Role.SYSTEM, organization=None, purpose=None, address=peer, door="dimse"
    )
    with exchange.on_behalf_of(unknown) as access:
        known = access.session.scalars(
            select(ApplicationEntity).where(ApplicationEntity.title == title)
        ).all()
        found = next((one for one in known if _is(one, peer, certificate_fingerprint)), None)
        if found is None:
            reason = "not the entity's address or certificate" if known else "unknown AE title"
            access.note(Action.AUTHENTICATE, outcome=Outcome.REFUSED, reason=reason)
            return None
    return replace(unknown, organization=found.organization_id, purpose=Purpose.TREATMENT)


def _is(entity: ApplicationEntity, address: str, certificate_fingerprint: str) -> bool:
    if entity.certificate_fingerprint:
        return hmac.compare_digest(entity.certificate_fingerprint, certificate_fingerprint)
    return calls_from(entity.address, address)


def calls_from(registered: str, address: str) -> bool:
    """Whether an IP `address` is the registered address, in its network, or its host's."""
    peer = normal(address)
    try:
        if "/" in registered:
            return peer in ipaddress.ip_network(registered, strict=False)
        return peer == normal(registered)
    except ValueError:
        pass  # a host name
    try:
        resolved = socket.getaddrinfo(registered, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return peer in {normal(str(entry[4][0])) for entry in resolved}


def normal(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IP address without zone, and as IPv4 where it is one mapped into IPv6 (RFC 4291)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _check(entity: Entity) -> None:
    if not _TITLE.fullmatch(entity.title):
        raise Invalid("an AE title has 1 to 16 printable characters without a backslash")
    if entity.certificate_fingerprint and not re.fullmatch(
        r"[0-9a-f]{64}", entity.certificate_fingerprint
    ):
        raise Invalid("a certificate fingerprint is a SHA-256 of 64 hex digits")


def _add(session: Session, organization: int, entity: Entity) -> None:
    others = select(func.count()).where(
        ApplicationEntity.title == entity.title, ApplicationEntity.address == entity.address
    )
    if session.execute(others).scalar_one():
        raise Invalid(f"{entity.title} at that address is registered already")
    session.add(
        ApplicationEntity(
            organization_id=organization,
            title=entity.title,
            address=entity.address,
            port=entity.port,
            certificate_fingerprint=entity.certificate_fingerprint,
        )
    )
