"""Telling subscribers what has happened: the worker's part, by jobs HAPPENED and TELL.

First it is seen whom each happening concerns, and whether its owner may know: then it is an event
with a number. Then each endpoint is told, one notification after the other; what it has not taken
is told again, so that it may come twice but never in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from exchange import clinical, notifying, sealing
from exchange.access import Access, Exchange
from exchange.departments import Directory
from exchange.errors import Invalid, NotFound
from exchange.jobs import Later
from exchange.policy import Requester
from exchange.recording import Draft
from exchange.subscriptions import Channel, State
from exchange_fhir import (
    elements,
    indexing,
    interactions,
    json_format,
    notifications,
    subscribing,
    topics,
    writing,
)
from exchange_fhir.datatypes import Json
from exchange_fhir.hooks import Hooks, NotTaken
from exchange_fhir.interactions import Asked
from exchange_fhir.serving import Serving
from exchange_fhir.topics import TOPICS, Topic
from exchange_storage.records import Happening, Subscription, SubscriptionEvent
from exchange_storage.resource_index import Value


def see(exchange: Exchange, worker: Requester, serving: Serving) -> None:
    """Make events of all that has happened, for whom it concerns. Raises Unavailable."""
    looked_at: Sequence[Happening] = ()
    while True:
        with exchange.on_behalf_of(worker) as access:
            looked_at = notifying.waiting(access)
            if not looked_at:
                return
            live = notifying.live(access)
            persons = notifying.persons(access, (row for one in live for row in one.patients))
            seen = [_Seen(serving, access, one, persons) for one in looked_at]
            concerned = [
                (subscription, one)
                for one in seen
                for subscription in live
                if subscription.since <= one.happening.recorded and one.concerns(subscription)
            ]
        hits: list[tuple[int, Happening]] = []
        over: dict[int, tuple[Subscription, str]] = {}
        with exchange.on_behalf_of(worker) as access:
            for subscription, _ in concerned:
                if why := notifying.why_over(access.session, subscription):
                    over[subscription.id] = (subscription, why)
        for subscription, one in concerned:
            if subscription.id not in over and _may_know(serving, subscription, one.happening):
                hits.append((subscription.id, one.happening))
        for subscription, why in over.values():
            _restate(exchange, worker, subscription, State.ERROR, why, serving)
        with exchange.on_behalf_of(worker) as access:
            notifying.number(access, looked_at, hits)


def _may_know(serving: Serving, subscription: Subscription, happening: Happening) -> bool:
    event = SubscriptionEvent(
        subscription_id=subscription.id,
        number=0,
        recorded=happening.recorded,
        kind=happening.kind,
        logical_id=happening.logical_id,
        patient_id=happening.patient_id,
        created=happening.created,
    )
    return notifications.shown(serving, subscription, event).content is not None


class _Seen:
    """A happening, and what of it decides whom it concerns; read when it is asked for."""

    def __init__(
        self,
        serving: Serving,
        access: Access,
        happening: Happening,
        persons: Mapping[int, int],
    ) -> None:
        self.happening = happening
        self._serving = serving
        self._access = access
        self._persons = persons
        self._read: dict[int, Json | None] = {}
        self._held: dict[str, Sequence[Value]] = {}
        self._directory = Directory(access.session)
        self._whose: tuple[int, int | None] | None = None

    def concerns(self, one: Subscription) -> bool:
        """Whether it is what a subscription asks for; not whether its owner may know."""
        topic = TOPICS.get(one.topic)
        if topic is None or self.happening.kind not in topic.filters:
            return False
        if not self._is_of_patient(one, topic):
            return False
        now = self._version(one, self.happening.version)
        hospital = one.organization_id
        whose = partial(self._of, one.base)
        if now is None or not topic.met(now, hospital, whose):
            return False
        if not topic.anew and self.happening.version > 1:
            before = self._version(one, self.happening.version - 1)
            if before is not None and topic.met(before, hospital, whose):
                return False
        filters = [topics.read(told) for told in one.filters]
        return topics.passes(
            self.happening.kind, partial(self._values, now, one.base), filters, one.base
        )

    def _of(self, base: str, reference: Json) -> frozenset[int]:
        """The hospitals to which a Reference leads, for who asks at one address."""
        entry = elements.target(reference.get("reference", ""), f"{base}/")
        number = reference.get("identifier", {}).get("value")
        return self._directory.named([entry], [number] if number else [])

    def _values(self, now: Json, base: str) -> Sequence[Value]:
        """What the version is found under: the same for all who ask at one address."""
        if base not in self._held:
            self._held[base] = indexing.values(now, self._serving.timezone, base)
        return self._held[base]

    def _is_of_patient(self, one: Subscription, topic: Topic) -> bool:
        patient = self.happening.patient_id
        if not one.patients and topic.name not in topics.OWN_PATIENTS:
            return True
        if patient is None:
            return False
        if self._whose is None:
            self._whose = notifying.patient_of(self._access, patient)
        hospital, person = self._whose
        if not one.patients:
            return hospital == one.organization_id
        return patient in one.patients or (
            person is not None and person in {self._persons.get(row) for row in one.patients}
        )

    def _version(self, one: Subscription, version: int) -> Json | None:
        if version not in self._read:
            self._read[version] = self._found(one.base, version)
        return self._read[version]

    def _found(self, base: str, version: int) -> Json | None:
        kind, named = self.happening.kind, self.happening.logical_id
        try:
            if kind in writing.NATIVE:
                here = self._serving.here(self._serving.place_at(base), self._access)
                asked = Asked(kind=kind, logical_id=named)
                return json_format.parse(interactions.read(here, asked).content)
            return json_format.parse(clinical.vread(self._access, kind, named, version).content)
        except NotFound:
            return None


# -- One subscriber -------------------------------------------------------------------------------


def tell(
    exchange: Exchange, worker: Requester, number: int, serving: Serving, hooks: Hooks
) -> None:
    """Notify the subscriber of what waits; Later says when something is due again.

    Raises Later, Unavailable.
    """
    while True:
        with exchange.on_behalf_of(worker) as access:
            one = notifying.of_number(access, number)
            why = notifying.why_over(access.session, one) if one is not None else ""
        if one is None or one.state in {State.OFF, State.ERROR}:
            return
        if why:
            _restate(exchange, worker, one, State.ERROR, why, serving)
            return
        now = datetime.now(UTC)
        if one.ends is not None and one.ends <= now:
            _restate(exchange, worker, one, State.OFF, "", serving)
            return
        if one.state == State.REQUESTED:
            if one.channel == Channel.WEBSOCKET:  # whoever binds it is greeted there
                _restate(exchange, worker, one, State.ACTIVE, "", serving)
            elif not _shake_hands(exchange, worker, one, serving, hooks):
                return
            continue
        if one.channel == Channel.REST_HOOK and one.told < one.events:
            if not _notify(exchange, worker, one, serving, hooks):
                return
            continue
        wait = notifying.until(one, now)
        if wait is None:
            return
        if wait > 0:
            raise Later(wait)
        if not _speak(exchange, worker, one, serving, hooks, one.told, _heartbeat(one)):
            return


def _heartbeat(one: Subscription) -> Callable[[], bytes]:
    return lambda: notifications.bundle(one, "heartbeat")


def _shake_hands(
    exchange: Exchange, worker: Requester, one: Subscription, serving: Serving, hooks: Hooks
) -> bool:
    """Whether the endpoint has answered a handshake: only then it is told anything."""
    try:
        _post(exchange, hooks, one, notifications.bundle(one, "handshake"))
    except NotTaken as error:
        _restate(exchange, worker, one, State.ERROR, f"no handshake: {error}", serving)
        return False
    _restate(exchange, worker, one, State.ACTIVE, "", serving)
    return True


def _notify(
    exchange: Exchange, worker: Requester, one: Subscription, serving: Serving, hooks: Hooks
) -> bool:
    """Tell of the next events; whether the endpoint has taken them. Raises Later."""
    with exchange.on_behalf_of(worker) as access:
        waiting = notifying.events(access, one, one.told + 1, one.events, limit=one.most)
    if not waiting:  # they were not fetched for so long that they are forgotten
        with exchange.on_behalf_of(worker) as access:
            notifying.taken(access, one, one.events)
        return True
    told = [notifications.shown(serving, one, event) for event in waiting]
    told = list(notifications.within(told, one.content))
    return _speak(
        exchange,
        worker,
        one,
        serving,
        hooks,
        told[-1].event.number,
        lambda: notifications.bundle(one, "event-notification", events=told),
    )


def _speak(
    exchange: Exchange,
    worker: Requester,
    one: Subscription,
    serving: Serving,
    hooks: Hooks,
    upto: int,
    content: Callable[[], bytes],
) -> bool:
    """Whether the endpoint has taken a notification; False where it is given up. Raises Later."""
    try:
        _post(exchange, hooks, one, content())
    except NotTaken as error:
        with exchange.on_behalf_of(worker) as access:
            pause = notifying.not_taken(access, one, str(error))
        if pause is not None:
            raise Later(pause) from None
        _restate(exchange, worker, one, State.ERROR, str(error), serving)
        return False
    with exchange.on_behalf_of(worker) as access:
        notifying.taken(access, one, upto)
    return True


def _post(exchange: Exchange, hooks: Hooks, one: Subscription, content: bytes) -> None:
    try:
        headers = sealing.headers(exchange.signing_key, one.headers)
    except Invalid:
        raise NotTaken("its headers cannot be read any more: write them anew") from None
    body = notifications.written(one, content)
    hooks.post(one.endpoint, body, headers, one.payload, one.timeout)


def _restate(
    exchange: Exchange,
    worker: Requester,
    one: Subscription,
    state: State,
    reason: str,
    serving: Serving,
) -> None:
    """A subscription, and its resource, are in another state."""
    with exchange.on_behalf_of(worker) as access:
        draft: Draft | None = None
        try:
            held = clinical.read(access, clinical.SUBSCRIPTION, one.logical_id)
        except NotFound:
            pass
        else:
            resource = subscribing.restated(json_format.parse(held.content), state, reason)
            draft = writing.plain(resource, serving.place_at(one.base), one.logical_id)
        notifying.restated(access, one, state, reason, draft)
