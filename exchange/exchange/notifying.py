"""Notifying: what the worker does so that subscribers are told of what has happened.

What has happened is matched by the fhir floor with what was wished for; here it becomes an event,
numbered for each subscription in the order of the commits, in one transaction with its removal from
the outbox. Whether its owner may know is decided by the one gate, when the event is numbered and
again whenever it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from exchange import jobs, users
from exchange.access import Access
from exchange.errors import NotFound, Refused
from exchange.policy import Action, Purpose, Requester, Role
from exchange.recording import Draft, Writing
from exchange.subscriptions import LIVE, Channel, State
from exchange_storage.prepared import Prepared
from exchange_storage.records import (
    Happening,
    HookHost,
    Patient,
    Subscription,
    SubscriptionEvent,
)
from exchange_storage.rows import one_of

KEPT = timedelta(days=7)
"""For so long $events tells of an event."""

GIVES_UP = timedelta(hours=24)
"""After so long without an answer from its endpoint a subscription is in error."""

AT_ONCE = 100
"""Happenings that are looked at in one transaction."""

FORGOTTEN = 1000
"""Old events that are removed at a time."""

_LONGEST = 3600.0
"""Seconds between two tries, at most; the first pause is two, and each is twice the last."""


def owner(one: Subscription) -> Requester:
    """Whose a subscription is, as who asks now: what may be told is decided as of now."""
    return Requester(
        name=one.requester,
        role=Role(one.role),
        organization=one.organization_id,
        purpose=Purpose(one.purpose) if one.purpose else None,
        door="subscription",
    )


def why_over(session: Session, one: Subscription) -> str:
    """Why a subscription must end, "" where nothing has changed about its owner."""
    user = users.by_name(session, one.requester)
    if user is None or not users.may_sign_in(session, user):
        return "its owner may not sign in any more"
    if user.organization_id != one.organization_id or user.role != one.role:
        return "its owner has another hospital or role"
    if one.channel == Channel.REST_HOOK and not _is_allowed(session, one):
        return "its host is not registered for the hospital's notifications any more"
    return ""


def _is_allowed(session: Session, one: Subscription) -> bool:
    found = urlsplit(one.endpoint)
    host = (found.hostname or "").lower()
    port = found.port or (443 if found.scheme == "https" else 80)
    with_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    allowed = select(HookHost.host).where(
        HookHost.organization_id == one.organization_id, HookHost.host.in_([host, with_port])
    )
    return session.scalars(allowed).first() is not None


def waiting(access: Access) -> Sequence[Happening]:
    """The first `AT_ONCE` of what has happened and was not looked at. Raises Refused."""
    _only_the_exchange(access)
    return access.session.scalars(select(Happening).order_by(Happening.id).limit(AT_ONCE)).all()


def live(access: Access) -> Sequence[Subscription]:
    """The subscriptions that are told of events, if only once their endpoint has answered.

    Raises Refused.
    """
    _only_the_exchange(access)
    return access.session.scalars(
        select(Subscription).where(Subscription.state.in_(LIVE)).order_by(Subscription.id)
    ).all()


def patient_of(access: Access, patient: int) -> tuple[int, int | None]:
    """Hospital and person of a patient record. Raises Refused, NotFound."""
    _only_the_exchange(access)
    row = access.session.execute(
        select(Patient.organization_id, Patient.person_id).where(Patient.id == patient)
    ).one_or_none()
    if row is None:
        raise NotFound("no such patient record")
    return row.organization_id, row.person_id


def persons(access: Access, patients: Iterable[int]) -> Mapping[int, int]:
    """The person of each of these patient records, as far as that is known. Raises Refused."""
    _only_the_exchange(access)
    wanted = {"wanted": f"[{','.join(map(str, sorted(set(patients))))}]"}
    return {row.id: row.person_id for row in _PERSONS.all(access.session.connection(), wanted)}


_PERSONS = Prepared(
    lambda dialect: select(Patient.id, Patient.person_id).where(
        one_of(Patient.id, "wanted", dialect), Patient.person_id.is_not(None)
    )
)


def number(
    access: Access, looked_at: Sequence[Happening], hits: Sequence[tuple[int, Happening]]
) -> None:
    """Make events of `hits`, and have what was looked at wait no more, both or neither.

    A hit is a subscription's number and what it is to be told. Raises Refused.
    """
    _only_the_exchange(access)

    def unit(session: Session) -> None:
        gone = session.execute(
            delete(Happening)
            .where(Happening.id.in_([one.id for one in looked_at]))
            .returning(Happening.id)
        ).all()
        there = {row.id for row in gone}  # what another worker has numbered is not numbered twice
        for subscription, happening in hits:
            if happening.id not in there:
                continue
            held = session.get(Subscription, subscription, with_for_update=True)
            if held is None or held.state not in LIVE or held.since > happening.recorded:
                continue
            held.events += 1
            session.add(
                SubscriptionEvent(
                    subscription_id=held.id,
                    number=held.events,
                    recorded=happening.recorded,
                    kind=happening.kind,
                    logical_id=happening.logical_id,
                    patient_id=happening.patient_id,
                    created=happening.created,
                )
            )
            if held.channel == Channel.REST_HOOK:  # a pause after a failure is not cut short
                ask = jobs.ask if held.failures else jobs.hasten
                ask(session, jobs.TELL, str(held.id), access.now)

    access.write(unit)


# What one subscriber is told.


def own_record(access: Access, patient: int) -> int:
    """The asking hospital's own record of the person of a patient record, or that record itself.

    It is for the caller to have been permitted to see that.
    """
    person = select(Patient.person_id).where(Patient.id == patient).scalar_subquery()
    own = access.session.scalars(
        select(Patient.id)
        .where(Patient.organization_id == access.organization, Patient.person_id == person)
        .order_by(Patient.replaced_by_id.is_not(None), Patient.id)
        .limit(1)
    ).one_or_none()
    return own or patient


def of_number(access: Access, subscription: int) -> Subscription | None:
    """A subscription by its number; None where it is gone. Raises Refused."""
    _only_the_exchange(access)
    return access.session.get(Subscription, subscription)


def events(
    access: Access, one: Subscription, first: int, last: int, *, limit: int
) -> Sequence[SubscriptionEvent]:
    """The kept events with the numbers from `first` to `last`, in their order.

    It is for the caller to have come by the subscription through the gate.
    """
    return access.session.scalars(
        select(SubscriptionEvent)
        .where(
            SubscriptionEvent.subscription_id == one.id,
            SubscriptionEvent.number >= first,
            SubscriptionEvent.number <= last,
        )
        .order_by(SubscriptionEvent.number)
        .limit(limit)
    ).all()


def news(access: Access, subscriptions: Sequence[int]) -> dict[int, int]:
    """The number of the last event of each of these that is active. Raises Refused."""
    _only_the_exchange(access)
    rows = access.session.execute(
        select(Subscription.id, Subscription.events).where(
            Subscription.id.in_(subscriptions), Subscription.state == State.ACTIVE
        )
    )
    return {row.id: row.events for row in rows}


def taken(access: Access, one: Subscription, upto: int) -> None:
    """The endpoint has taken what was told, up to the event of this number. Raises Refused."""
    _only_the_exchange(access)

    def unit(session: Session) -> None:
        session.execute(
            update(Subscription)
            .where(Subscription.id == one.id, Subscription.since == one.since)
            .values(told=upto, spoken=access.now, failures=0, failing=None, reason="")
        )
        _note(access, one, "notified", upto)

    access.write(unit)


def not_taken(access: Access, one: Subscription, reason: str) -> float | None:
    """The endpoint has not: seconds until the next try, or None where that was the last.

    Raises Refused.
    """
    _only_the_exchange(access)
    failures = one.failures + 1
    failing = one.failing or access.now

    def unit(session: Session) -> None:
        session.execute(
            update(Subscription)
            .where(Subscription.id == one.id, Subscription.since == one.since)
            .values(failures=failures, failing=failing, reason=reason[:4000])
        )
        _note(access, one, f"not notified: {reason}", one.told)

    access.write(unit)
    if access.now - failing >= GIVES_UP:
        return None
    return min(float(2 ** min(failures, 20)), _LONGEST)


def restated(
    access: Access, one: Subscription, state: State, reason: str, draft: Draft | None
) -> None:
    """A subscription is in another state from now on; `draft` is its resource, which says so.

    Not where its owner has changed it meanwhile. Raises Refused.
    """
    _only_the_exchange(access)

    def unit(session: Session) -> None:
        held = session.get(Subscription, one.id, with_for_update=True)
        if held is None or held.since != one.since or held.state != one.state:
            return
        held.state, held.reason = state, reason[:4000]
        if state is State.ACTIVE:
            held.spoken, held.failures, held.failing = access.now, 0, None
        if draft is not None:
            writing = Writing(access, session)
            row = writing.held(draft.kind, draft.logical_id)
            if row is not None and not row.deleted:
                writing.keep(draft, row)
        _note(access, one, f"is {state}{': ' if reason else ''}{reason}", held.told)

    access.write(unit)


def forget(access: Access) -> int:
    """Remove events of which $events tells no more, `FORGOTTEN` at a time; returns how many.

    Raises Refused.
    """
    _only_the_exchange(access)
    old = (
        select(SubscriptionEvent.subscription_id, SubscriptionEvent.number)
        .where(SubscriptionEvent.recorded < access.now - KEPT)
        .limit(FORGOTTEN)
    )
    found = access.session.execute(old).all()

    def unit(session: Session) -> None:
        for subscription, last in found:
            session.execute(
                delete(SubscriptionEvent).where(
                    SubscriptionEvent.subscription_id == subscription,
                    SubscriptionEvent.number == last,
                )
            )

    if found:
        access.write(unit)
    return len(found)


def _note(access: Access, one: Subscription, reason: str, upto: int) -> None:
    detail = {"subscription": one.logical_id, "for": one.requester, "events": upto}
    access.note(Action.SUBSCRIBE, reason=reason[:500], detail=detail)


def _only_the_exchange(access: Access) -> None:
    if access.requester.role is not Role.EXCHANGE:
        raise Refused("only the exchange itself notifies subscribers")


def until(one: Subscription, now: datetime) -> float | None:
    """Seconds until a subscription wants something though nothing happens; None for never."""
    moments = [one.ends] if one.ends is not None else []
    if one.heartbeat and one.channel == Channel.REST_HOOK:
        moments.append((one.spoken or one.since) + timedelta(seconds=one.heartbeat))
    return max(0.0, (min(moments) - now).total_seconds()) if moments else None
