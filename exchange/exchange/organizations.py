"""Hospitals: registering them, their application entities and agreements; who a caller is."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.orm import Session

from exchange import refusals, registry
from exchange.access import Access, Exchange
from exchange.errors import Invalid, NotFound
from exchange.policy import SHARING, Action, Purpose, Requester, Role
from exchange.visibility import shares
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Agreement,
    ApplicationEntity,
    Delivered,
    Delivery,
    Organization,
    Route,
)
from exchange_storage.rows import Columns

_CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """An application entity to be registered (PS3.8 section 7)."""

    title: str
    address: str
    """An IP address, a network such as 10.1.0.0/16, or a host name."""
    port: int | None = None
    certificate_fingerprint: str = ""
    receives_priors: bool = False
    """Whether what other hospitals have of a patient is sent here before a visit."""
    told_of_availability: bool = False
    """Whether it is told what of the hospital's own studies can be fetched."""
    sees_rejected: bool = False
    """Whether it finds and gets what its hospital has rejected, instead of what is in use."""

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

    Raises Refused, or Invalid when a code or an entity is malformed or already taken.
    """
    access.require_region()
    if not _CODE.fullmatch(code):
        raise Invalid("a code has 1 to 32 lower-case letters, digits and hyphens")
    if not name.strip():
        raise Invalid("an organization needs a name")
    if not credit_code_is_valid(credit_code):
        raise Invalid("not a unified social credit code: 18 characters with a check digit")
    if not _OID.fullmatch(issuer) or len(issuer) > 64:
        raise Invalid("the issuer of patient numbers must be an OID of at most 64 characters")
    checked = [_checked(entity) for entity in entities]

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
        for entity in checked:
            _add(access, session, organization.id, entity)
        registry.changed(session)
        if sharing:
            session.add(Agreement(organization_id=organization.id, kind=SHARING, since=access.now))
        access.note(Action.ADMINISTER, reason="organization registered", detail={"code": code})
        return organization

    return access.write(unit)


def add_entity(access: Access, code: str, entity: Entity) -> None:
    """Register another application entity of a hospital. Raises Refused, NotFound, Invalid."""
    about = {"code": code, "title": entity.title, "address": entity.address}
    access.require(Action.ADMINISTER, detail=about)
    checked = _checked(entity)

    def unit(session: Session) -> None:
        _add(access, session, administered(access, code, session).id, checked)
        registry.changed(session)
        access.note(Action.ADMINISTER, reason="application entity registered", detail=about)

    access.write(unit)


def replace_entity(access: Access, code: str, entity: Entity) -> None:
    """The hospital's application entity of this title and address has another port or certificate
    from now on, or is sent other things; routes to it stay. Raises Refused, NotFound, Invalid.
    """
    about = {"code": code, "title": entity.title, "address": entity.address}
    access.require(Action.ADMINISTER, detail=about)
    checked = _checked(entity)

    def unit(session: Session) -> None:
        organization = administered(access, code, session).id
        found = session.scalars(
            select(ApplicationEntity).where(
                ApplicationEntity.organization_id == organization,
                ApplicationEntity.title == checked.title,
                ApplicationEntity.address == checked.address,
            )
        ).one_or_none()
        if found is None:
            raise NotFound("this hospital has no such application entity at this address")
        _check_free(access, session, organization, checked, instead=found.id)
        found.port = checked.port
        found.certificate_fingerprint = checked.certificate_fingerprint
        found.receives_priors = checked.receives_priors
        found.told_of_availability = checked.told_of_availability
        found.sees_rejected = checked.sees_rejected
        registry.changed(session)
        access.note(Action.ADMINISTER, reason="application entity replaced", detail=about)

    access.write(unit)


def remove_entity(access: Access, code: str, entity: Entity) -> None:
    """Remove the hospital's application entity of this title and address.

    It is nobody from its next association on; one that is open ends with its next message, once the
    node knows (`registry.SECONDS`). Priors that were on their way to it are not sent. Raises
    Refused, NotFound, Invalid while a route leads there.
    """
    about = {"code": code, "title": entity.title, "address": entity.address}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        found = session.scalars(
            select(ApplicationEntity).where(
                ApplicationEntity.organization_id == administered(access, code, session).id,
                ApplicationEntity.title == entity.title,
                ApplicationEntity.address.in_({entity.address, _written(entity.address)}),
            )
        ).all()
        if not found:
            raise NotFound("this hospital has no such application entity at this address")
        for one in found:
            _nothing_goes_there(session, one)
            session.delete(one)
        registry.changed(session)
        access.note(Action.ADMINISTER, reason="application entity removed", detail=about)

    access.write(unit)


def _nothing_goes_there(session: Session, entity: ApplicationEntity) -> None:
    """No delivery of priors leads to the entity any more. Raises Invalid while a route does."""
    routes = session.execute(
        select(Organization.code, Route.name)
        .join(Organization, Organization.id == Route.organization_id)
        .where(Route.entity_id == entity.id)
        .order_by(Organization.code, Route.name)
    ).all()
    if routes:
        named = ", ".join(f"{name} of {code}" for code, name in routes)
        raise Invalid(f"routes lead there: {named}; `exchange route remove` comes first")
    priors = select(Delivery.id).where(Delivery.entity_id == entity.id)
    session.execute(delete(Delivered).where(Delivered.delivery_id.in_(priors)))
    session.execute(delete(Delivery).where(Delivery.entity_id == entity.id))


def join_agreement(access: Access, code: str, kind: str = SHARING) -> None:
    """A hospital shares from now on. Raises Refused, NotFound, Invalid when it does already."""
    access.require(Action.ADMINISTER, detail={"code": code})

    def unit(session: Session) -> None:
        organization = administered(access, code, session)
        if organization.id in agreements(session, access.now, kind):
            raise Invalid("this hospital is in this agreement already")
        session.add(Agreement(organization_id=organization.id, kind=kind, since=access.now))
        access.note(Action.ADMINISTER, reason=f"{kind} agreement joined", detail={"code": code})

    access.write(unit)


def end_agreement(access: Access, code: str, kind: str = SHARING) -> None:
    """A hospital shares no longer, and sees nobody else's records, from this commit on.

    Raises Refused, NotFound, Invalid when it is in no agreement.
    """
    access.require(Action.ADMINISTER, detail={"code": code})

    def unit(session: Session) -> None:
        ended = session.execute(
            update(Agreement)
            .where(
                Agreement.organization_id == administered(access, code, session).id,
                Agreement.kind == kind,
                or_(Agreement.until.is_(None), Agreement.until > access.now),
            )
            .values(until=access.now)
            .returning(Agreement.id)
        ).all()
        if not ended:
            raise Invalid("this hospital is not in this agreement")
        access.note(Action.ADMINISTER, reason=f"{kind} agreement ended", detail={"code": code})

    access.write(unit)


def by_code(session: Session, code: str) -> Organization:
    """The hospital with this code. Raises NotFound."""
    found = session.scalars(select(Organization).where(Organization.code == code)).one_or_none()
    if found is None:
        raise NotFound("no organization has this code; `exchange organization list` shows them")
    return found


def administered(access: Access, code: str, session: Session | None = None) -> Organization:
    """The hospital with this code, that the asker administers: their own, or any of the region.

    Looked up through `session` within a unit of work. Raises NotFound for any other: that another
    hospital is there, its administrator learns elsewhere.
    """
    own = access.requester.organization
    found = (
        (session or access.session)
        .scalars(select(Organization).where(Organization.code == code))
        .one_or_none()
    )
    if found is None or own not in {None, found.id}:
        raise NotFound(
            "no organization of yours has this code; `exchange organization list` shows them"
        )
    return found


def by_issuer(session: Session, issuer: str) -> Organization | None:
    """The hospital that issues patient numbers under this OID, or None."""
    return session.scalars(
        select(Organization).where(Organization.issuer == issuer.removeprefix("urn:oid:"))
    ).one_or_none()


def everyone(session: Session) -> Sequence[Organization]:
    """All hospitals, in the order of their codes, only to be read.

    Their directory is open to every requester.
    """
    return [one for (one,) in _HOSPITAL.all(_EVERYONE.all(session.connection(), {}))]


_HOSPITAL = Columns(Organization)
_EVERYONE = Prepared(select(*_HOSPITAL.selected).order_by(Organization.code))


def look_up(access: Access, what: str) -> None:
    """Decide and record that the directory of hospitals and endpoints is read. Raises Refused."""
    access.require(Action.LOOK_UP, detail={"what": what})
    access.note(Action.LOOK_UP, detail={"what": what})


def entities(session: Session) -> Sequence[ApplicationEntity]:
    """All application entities, by hospital and title."""
    order = (ApplicationEntity.organization_id, ApplicationEntity.title)
    return session.scalars(select(ApplicationEntity).order_by(*order)).all()


def agreements(session: Session, now: datetime, kind: str = SHARING) -> set[int]:
    """The row numbers of the hospitals that are in an agreement now."""
    sharing = select(Organization.id).where(shares(Organization.id, kind))
    return set(session.scalars(sharing, {"now": now}))


_CALLING = Prepared(
    # Asked for each association, of which some modalities begin one for each image.
    select(
        ApplicationEntity.organization_id,
        ApplicationEntity.address,
        ApplicationEntity.certificate_fingerprint,
        ApplicationEntity.sees_rejected,
        Organization.active,
    )
    .join(Organization, Organization.id == ApplicationEntity.organization_id)
    .where(ApplicationEntity.title == bindparam("title"))
)


def caller(
    exchange: Exchange, title: str, address: str, certificate_fingerprint: str = ""
) -> Requester | None:
    """Who calls under this AE title from this IP address: the hospital's system, or nobody.

    An entity that is registered with a certificate is recognized by that alone, wherever it calls
    from; one without must call from its address. Who could be of two hospitals is nobody, and who
    shows the certificate of one hospital is no other.
    Raises Unavailable.
    """
    refusals.settle(exchange)
    if not _TITLE.fullmatch(title):
        refused(exchange, title, address, "malformed AE title")
        return None
    unknown = _nobody(title, address)
    with exchange.on_behalf_of(unknown) as access:
        known = _CALLING.all(access.session.connection(), {"title": title})
        bound = _bound_to(access.session, certificate_fingerprint)
    # Out here, since a host name may be slow to resolve, and would keep a connection meanwhile.
    met = [one for one in known if _is(one, address, certificate_fingerprint)]
    found = [one for one in met if one.active]
    match len({one.organization_id for one in found}):
        case 1 if bound and found[0].organization_id not in bound:
            reason = "the certificate is another hospital's"
        case 1:
            return replace(
                unknown,
                organization=found[0].organization_id,
                purpose=Purpose.TREATMENT,
                rejected=all(one.sees_rejected for one in found),
            )
        case 0 if met:
            reason = "the organization was deactivated"
        case 0:
            reason = "not the entity's address or certificate" if known else "unknown AE title"
        case _:
            reason = "application entities of several hospitals match"
    refused(exchange, title, address, reason)
    return None


def refused(exchange: Exchange, title: str, address: str, reason: str) -> None:
    """Audit that an association was refused; those of one caller are counted after the first few.

    Raises Unavailable.
    """
    refusals.record(exchange, _nobody(title, address), reason)


def _nobody(title: str, address: str) -> Requester:
    """Who calls, before it is known whose system that is."""
    return Requester(
        name=title,
        role=Role.SYSTEM,
        organization=None,
        purpose=None,
        address=str(normal(address)),
        door="dimse",
    )


def _bound_to(session: Session, certificate_fingerprint: str) -> set[int]:
    """The row numbers of the hospitals whose systems are known by this certificate."""
    if not certificate_fingerprint:
        return set()
    return set(
        session.scalars(
            select(ApplicationEntity.organization_id).where(
                ApplicationEntity.certificate_fingerprint == certificate_fingerprint
            )
        )
    )


def _is(entity: Any, address: str, certificate_fingerprint: str) -> bool:
    if entity.certificate_fingerprint:
        return hmac.compare_digest(entity.certificate_fingerprint, certificate_fingerprint)
    return calls_from(entity.address, address)


def calls_from(registered: str, address: str) -> bool:
    """Whether an IP `address` is the registered address, in its network, or its host's."""
    peer = normal(address)
    try:
        place = _place(registered)
    except Invalid:
        return False  # registered before addresses were checked
    if not isinstance(place, str):
        return peer in place
    try:
        resolved = socket.getaddrinfo(place, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return peer in {normal(str(entry[4][0])) for entry in resolved}


def normal(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IP address without zone, and as IPv4 where it is one mapped into IPv6 (RFC 4291)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _place(address: str) -> _Network | str:
    """The network, or the host name in small letters, that stands at `address`.

    A name that ends in a number is none (RFC 1123 section 2.1): a resolver would read it as an
    address of the old short forms. Raises Invalid.
    """
    try:
        if "/" not in address:
            return ipaddress.ip_network(normal(address))
        network = ipaddress.ip_network(address, strict=False)
    except ValueError:
        name = address.lower()
        labels = name.split(".")
        proper = len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
        if not proper or _NUMBER.fullmatch(labels[-1]):
            raise Invalid(
                "an address is an IP address, a network such as 10.1.0.0/16, or a host name"
            ) from None
        return name
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def destination(access: Access, title: str) -> ApplicationEntity | None:
    """The asking hospital's own application entity that listens under `title`, if it has one.

    Nobody has objects sent to another hospital: what that one gets is decided when it asks.
    """
    listening = access.session.scalars(
        select(ApplicationEntity)
        .where(
            ApplicationEntity.organization_id == access.organization,
            ApplicationEntity.title == title,
            ApplicationEntity.port.is_not(None),
            registry.takes_part(ApplicationEntity.organization_id),
        )
        .order_by(ApplicationEntity.id)
    )
    return next((entity for entity in listening if can_be_called(entity)), None)


def can_be_called(entity: ApplicationEntity) -> bool:
    """Whether the entity's address is one place with a port, and not a network."""
    try:
        place = _place(entity.address)
    except Invalid:
        return False
    return entity.port is not None and (isinstance(place, str) or place.num_addresses == 1)


def _written(address: str) -> str:
    """An address in the one form that is kept (RFC 4632, RFC 5952); as it is when it is none."""
    try:
        place = _place(address)
    except Invalid:
        return address
    if isinstance(place, str):
        return place
    return str(place.network_address if place.num_addresses == 1 else place)


def _checked(entity: Entity) -> Entity:
    """The entity with its address as it is kept. Raises Invalid."""
    if not _TITLE.fullmatch(entity.title):
        raise Invalid("an AE title has 1 to 16 printable characters without a backslash")
    if entity.certificate_fingerprint and not re.fullmatch(
        r"[0-9a-f]{64}", entity.certificate_fingerprint
    ):
        raise Invalid("a certificate fingerprint is a SHA-256 of 64 hex digits")
    _place(entity.address)
    return replace(entity, address=_written(entity.address))


def _add(access: Access, session: Session, organization: int, entity: Entity) -> None:
    _check_free(access, session, organization, entity)
    session.add(
        ApplicationEntity(
            organization_id=organization,
            title=entity.title,
            address=entity.address,
            port=entity.port,
            certificate_fingerprint=entity.certificate_fingerprint,
            receives_priors=entity.receives_priors,
            told_of_availability=entity.told_of_availability,
            sees_rejected=entity.sees_rejected,
        )
    )


def _check_free(
    access: Access,
    session: Session,
    organization: int,
    entity: Entity,
    instead: int | None = None,
) -> None:
    """Raises Invalid where the entity is registered, but for row `instead`, or is not its own.

    Which other hospital has it is told to those alone who administer that one as well.
    """
    same_title = select(ApplicationEntity).where(
        ApplicationEntity.title == entity.title, ApplicationEntity.id != (instead or 0)
    )
    for other in session.scalars(same_title):
        if other.address == entity.address and other.organization_id != organization:
            if access.requester.organization is not None:
                raise Invalid(
                    f"{entity.title} at {entity.address} is another hospital's; ask who runs the "
                    "exchange"
                )
            owner = session.get_one(Organization, other.organization_id).code
            raise Invalid(
                f"{entity.title} at {entity.address} is that of {owner}: `exchange organization "
                f"remove-ae {owner} {entity.title}@{entity.address}` comes first"
            )
        if other.address == entity.address:
            raise Invalid(
                f"{entity.title} at that address is registered already; `exchange organization "
                "add-ae --replace` changes it"
            )
        if other.organization_id != organization and _confusable(other, entity):
            raise Invalid(
                f"{entity.title} at {entity.address} could not be told from the one of another "
                f"hospital at {other.address}"
            )
    if _bound_to(session, entity.certificate_fingerprint) - {organization}:
        raise Invalid("this certificate is that of another hospital's application entity")


def _confusable(one: ApplicationEntity, other: Entity) -> bool:
    """Whether a caller could be both, of the same title; what names resolve to shows only then."""
    if one.certificate_fingerprint and other.certificate_fingerprint:
        return one.certificate_fingerprint == other.certificate_fingerprint
    try:
        place, place_of_other = _place(one.address), _place(other.address)
    except Invalid:
        return False  # registered before addresses were checked: nobody calls from there
    if isinstance(place, str) or isinstance(place_of_other, str):
        return place == place_of_other
    return place.overlaps(place_of_other)
