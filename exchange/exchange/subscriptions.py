"""Subscriptions: who wishes to be told of what, and to which hosts a hospital is notified.

What is wished for comes with the resource that says so (`Terms`), in its transaction, and goes with
it. The door knows topics, filters and the form of notifications; here is whose a subscription is,
whether it could be told anything, and what of it administrators see.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, delete, func, select, true
from sqlalchemy.orm import Session

from exchange import clinical, facts, jobs, organizations, policy, sealing, visibility
from exchange.access import Access
from exchange.errors import Invalid, NotFound, Refused, TooLarge
from exchange.policy import Action, Deny, Permit
from exchange_storage.records import (
    HookHost,
    Organization,
    Resource,
    Subscription,
    SubscriptionEvent,
)

MOST = 200
"""Subscriptions of one hospital."""

HOSTS = 100
"""Hosts at which one hospital is notified, at most."""

HIDDEN = "***"
"""What is told of a header's value: it is the endpoint's secret."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


class State(StrEnum):
    """What becomes of a subscription (value set subscription-status)."""

    REQUESTED = "requested"
    """Its endpoint has not answered yet."""
    ACTIVE = "active"
    ERROR = "error"
    """It ended: its endpoint, or its owner, is not what it was."""
    OFF = "off"


LIVE = (State.REQUESTED, State.ACTIVE)
"""Those in which what happens is numbered: from the commit on that it was accepted by."""


class Channel(StrEnum):
    """The ways by which notifications go."""

    REST_HOOK = "rest-hook"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a subscription asks for, as its door understands it."""

    topic: str
    filters: Sequence[Any] = ()
    patients: tuple[int, ...] = ()
    """Row numbers of the patient records of whose persons it tells; none for no such filter."""
    channel: Channel
    endpoint: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values; `HIDDEN` where the value is what it was."""
    content: str
    payload: str
    heartbeat: int | None = None
    timeout: int
    most: int
    ends: datetime | None = None
    base: str
    off: bool = False
    """Whether its owner has switched it off."""


# What a resource that is written or deleted makes of it, in its own transaction.


def accepted(access: Access, session: Session, resource: int, named: str, terms: Terms) -> None:
    """Tell by these terms from now on; nothing is accepted that could not be told of.

    `resource` is the row that was written, `named` its logical id. Raises Refused, Invalid,
    TooLarge.
    """
    requester = access.requester
    held = session.scalars(
        select(Subscription).where(Subscription.resource_id == resource)
    ).one_or_none()
    if held is None:
        match policy.may(requester, Action.SEARCH):
            case Deny() as refusal:
                raise Refused(refusal.reason)
            case Permit():
                pass
        _has_room(session, access.organization)
        owner = access.organization
    else:
        owner = held.organization_id
        if requester.name != held.requester and not (
            terms.off and terms.endpoint == held.endpoint and terms.channel == held.channel
        ):
            # An administrator may not see what it tells: so they do not say where that goes.
            raise Refused("only its owner changes a subscription: switch it off, or delete it")
    goes_on = held is not None and _goes_on(held, terms)
    if terms.channel is Channel.REST_HOOK and not terms.off:
        _may_be_called(session, owner, terms.endpoint)
    _may_see(access, session, terms.patients)
    columns: dict[str, Any] = {
        "topic": terms.topic,
        "filters": list(terms.filters),
        "patients": list(terms.patients),
        "channel": terms.channel,
        "endpoint": terms.endpoint,
        "headers": _headers(access.exchange.signing_key, terms, held),
        "content": terms.content,
        "payload": terms.payload,
        "heartbeat": terms.heartbeat,
        "timeout": terms.timeout,
        "most": terms.most,
        "ends": terms.ends,
        "base": terms.base,
        "state": _first_state(terms),
        "since": access.now,
        "reason": "",
        "failures": 0,
        "failing": None,
    }
    if held is None:
        held = Subscription(
            resource_id=resource,
            logical_id=named,
            organization_id=owner,
            requester=requester.name,
            role=requester.role,
            purpose=requester.purpose or "",
            **columns,
        )
        session.add(held)
    else:
        if goes_on:
            # What is under way is known by this moment, so that it changes; what was not looked at
            # yet has happened since.
            columns["since"] = held.since + timedelta(microseconds=1)
        else:
            held.told = held.events  # what waited was asked for by other terms
        for column, value in columns.items():
            setattr(held, column, value)
        if requester.name == held.requester:
            held.role, held.purpose = requester.role, requester.purpose or ""
    session.flush()
    if not terms.off:
        jobs.hasten(session, jobs.TELL, str(held.id), access.now)


def ended(session: Session, resource: int) -> None:
    """Tell no more by the subscription of this resource, and forget what was told."""
    of_resource = select(Subscription.id).where(Subscription.resource_id == resource)
    session.execute(
        delete(SubscriptionEvent).where(SubscriptionEvent.subscription_id.in_(of_resource))
    )
    session.execute(delete(Subscription).where(Subscription.resource_id == resource))


def _goes_on(held: Subscription, terms: Terms) -> bool:
    """Whether a subscription asks for what it asked for, so that what waits is told by new terms:
    at another endpoint, for instance, where the first does not answer.
    """
    return (
        held.state != State.OFF
        and not terms.off
        and held.channel == terms.channel == Channel.REST_HOOK
        and (held.topic, held.filters, held.patients)
        == (terms.topic, list(terms.filters), list(terms.patients))
    )


def _first_state(terms: Terms) -> State:
    if terms.off:
        return State.OFF
    return State.REQUESTED if terms.channel is Channel.REST_HOOK else State.ACTIVE


def _has_room(session: Session, organization: int) -> None:
    count = session.scalar(
        select(func.count())
        .select_from(Subscription)
        .where(Subscription.organization_id == organization)
    )
    if (count or 0) >= MOST:
        raise TooLarge(f"a hospital may have {MOST} subscriptions")


def _may_be_called(session: Session, organization: int, endpoint: str) -> None:
    found = urlsplit(endpoint)
    host = (found.hostname or "").lower()
    port = found.port or (443 if found.scheme == "https" else 80)
    known = session.scalars(
        select(HookHost.host).where(
            HookHost.organization_id == organization,
            HookHost.host.in_([host, _with_port(host, port)]),
        )
    ).first()
    if known is None:
        raise Refused(
            "this host is not registered for the hospital's notifications; its administrator"
            " allows it: exchange subscription allow"
        )


def _may_see(access: Access, session: Session, patients: Sequence[int]) -> None:
    given = visibility.parameters(access.requester, access.now)
    known = facts.of(session, given, patients)
    for patient in patients:
        seen = known.get(patient)
        if seen is None or isinstance(policy.decide(access.requester, Action.RETRIEVE, seen), Deny):
            raise Invalid("a patient that it refers to is not known")


def _headers(key: Ed25519PrivateKey, terms: Terms, held: Subscription | None) -> list[list[str]]:
    """The headers as they are kept; one that is hidden is as it was, for the same endpoint."""
    known: Mapping[str, list[str]] = {}
    if held is not None and urlsplit(held.endpoint)[:2] == urlsplit(terms.endpoint)[:2]:
        known = {one[0].lower(): one for one in held.headers}
    made = []
    for name, value in terms.headers:
        if value == HIDDEN:
            if name.lower() not in known:
                raise Invalid("a header's value is given anew where the endpoint is another")
            made.append([name, *known[name.lower()][1:]])
        else:
            made.append(sealing.header(key, name, value))
    return made


# What its owner asks of it.


def of_asker(access: Access, logical_id: str = "") -> Sequence[Subscription]:
    """The subscriptions that the asker may see, or the one with this logical id.

    Raises Refused, NotFound, Gone.
    """
    access.require(Action.SUBSCRIBE, detail={"what": f"Subscription/{logical_id}".rstrip("/")})
    given = visibility.parameters(access.requester, access.now)
    wanted = (
        select(Subscription)
        .join(Resource, Resource.id == Subscription.resource_id)
        .where(visibility.visible_clinical(access.requester, Action.SUBSCRIBE))
        .order_by(Subscription.id)
    )
    if logical_id:
        clinical.read(access, clinical.SUBSCRIPTION, logical_id)
        wanted = wanted.where(Subscription.logical_id == logical_id)
    found = access.session.scalars(wanted, given).all()
    if logical_id and not found:
        raise NotFound("nobody is told by this subscription: it was written before any were told")
    if not logical_id:
        access.note(Action.SUBSCRIBE, reason="asked for", detail={"answered": len(found)})
    return found


# What administrators see of it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A subscription as a list of them shows it: neither its filters nor its secrets."""

    number: int
    organization: str
    requester: str
    topic: str
    to: str
    """The host of its endpoint, or ``websocket``."""
    state: str
    reason: str
    events: int
    waiting: int
    """Events that its endpoint has not taken."""
    failures: int


def listed(access: Access) -> Sequence[Listed]:
    """All subscriptions; to a hospital's administrator, the hospital's own. Raises Refused."""
    access.require(Action.ADMINISTER)
    access.note(Action.ADMINISTER, reason="subscriptions listed")
    rows = access.session.execute(
        select(Subscription, Organization.code)
        .join(Organization, Organization.id == Subscription.organization_id)
        .where(_administered(access))
        .order_by(Organization.code, Subscription.id)
    )
    return [
        Listed(
            number=one.id,
            organization=code,
            requester=one.requester,
            topic=one.topic,
            to=urlsplit(one.endpoint).netloc if one.endpoint else one.channel,
            state=one.state,
            reason=one.reason,
            events=one.events,
            waiting=one.events - one.told if one.channel == Channel.REST_HOOK else 0,
            failures=one.failures,
        )
        for one, code in rows
    ]


def retry(access: Access, number: int | None = None) -> int:
    """Try again now what is in error or has failed: one, or all; returns how many.

    An endpoint is asked first whether it answers again. Raises Refused, NotFound.
    """
    access.require(Action.ADMINISTER, detail={"subscription": number})

    def unit(session: Session) -> int:
        wanted = select(Subscription).where(
            _administered(access),
            (Subscription.state == State.ERROR) | (Subscription.failures > 0),
        )
        if number is not None:
            wanted = wanted.where(Subscription.id == number)
        found = session.scalars(wanted).all()
        if number is not None and not found:
            raise NotFound("no subscription of this number has failed; exchange subscription list")
        for one in found:
            if one.state == State.ERROR:
                one.state = State.REQUESTED
            one.failures, one.failing = 0, None
            session.flush()
            jobs.hasten(session, jobs.TELL, str(one.id), access.now)
        access.note(
            Action.ADMINISTER,
            reason="subscriptions retried",
            detail={"subscription": number, "count": len(found)},
        )
        return len(found)

    return access.write(unit)


def _administered(access: Access) -> ColumnElement[bool]:
    own = access.requester.organization
    return true() if own is None else Subscription.organization_id == own


# Where a hospital may be notified.


def allow(access: Access, code: str, host: str) -> None:
    """Let a hospital have itself notified at a host. Raises Refused, NotFound, Invalid."""
    known = _host(host)
    about = {"code": code, "host": known}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        organization = _own(access, session, code)
        there = session.scalar(
            select(func.count())
            .select_from(HookHost)
            .where(HookHost.organization_id == organization)
        )
        if (there or 0) >= HOSTS:
            raise Invalid(f"a hospital has at most {HOSTS} such hosts")
        session.merge(HookHost(organization_id=organization, host=known))
        access.note(Action.ADMINISTER, reason="notifications allowed", detail=about)

    access.write(unit)


def disallow(access: Access, code: str, host: str) -> None:
    """Notify a hospital at a host no more; subscriptions that lead there end at their next
    notification. Raises Refused, NotFound.
    """
    about = {"code": code, "host": host.lower()}
    access.require(Action.ADMINISTER, detail=about)

    def unit(session: Session) -> None:
        held = session.get(HookHost, (_own(access, session, code), host.lower()))
        if held is None:
            raise NotFound("this hospital is not notified at this host")
        session.delete(held)
        access.note(Action.ADMINISTER, reason="notifications not allowed", detail=about)

    access.write(unit)


def hosts(access: Access) -> Sequence[tuple[str, str]]:
    """Hospitals, by their codes, and the hosts at which they may be notified. Raises Refused."""
    access.require(Action.ADMINISTER)
    own = access.requester.organization
    rows = access.session.execute(
        select(Organization.code, HookHost.host)
        .join(Organization, Organization.id == HookHost.organization_id)
        .where(true() if own is None else HookHost.organization_id == own)
        .order_by(Organization.code, HookHost.host)
    )
    return [(code, host) for code, host in rows]


def _own(access: Access, session: Session, code: str) -> int:
    organization = organizations.by_code(session, code).id
    if access.requester.organization not in {None, organization}:
        raise NotFound(
            "no organization of yours has this code; `exchange organization list` shows them"
        )
    return organization


def _host(told: str) -> str:
    """A host as it is kept. Raises Invalid."""
    form = "a host is written NAME, ADDRESS or either with :PORT, an IPv6 address in brackets"
    try:
        found = urlsplit(f"//{told.strip().lower()}")
        port, host = found.port, found.hostname or ""
    except ValueError:
        raise Invalid(form) from None
    if found.path or found.query or found.fragment or found.username or not host:
        raise Invalid(form)
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        last = host.rpartition(".")[2]
        if len(host) > 253 or not _NAME.fullmatch(host) or last.isdigit() or last[:2] == "0x":
            raise Invalid(form) from None
    return host if port is None else _with_port(host, port)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
