"""Notifications: Bundles of type history that begin with the state of the subscription.

As the Subscriptions Backport (1.1.0) has it for R4, where SubscriptionStatus is a Parameters
resource. What they hold is read through the gate for the owner of the subscription, each time anew:
of what the owner may not see any more only the number of the event is told.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from exchange import notifying
from exchange.errors import ExchangeError, Unavailable
from exchange.policy import Requester
from exchange_fhir import interactions, json_format, xml_format
from exchange_fhir.datatypes import Json, concept, instant
from exchange_fhir.interactions import Asked
from exchange_fhir.negotiation import XML
from exchange_fhir.outcome import Problem
from exchange_fhir.serving import Serving
from exchange_fhir.subscribing import EXTENSION
from exchange_fhir.topics import TOPICS
from exchange_storage.records import Subscription, SubscriptionEvent

EMPTY, ID_ONLY, FULL = "empty", "id-only", "full-resource"

BYTES = 16 << 20
"""Bytes of resources in one notification, at most: what is behind them comes in the next."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An event, and what its subscriber may see of it."""

    event: SubscriptionEvent
    content: bytes | None
    """The resource as it is now; None where it is not theirs to see."""
    patient: str = ""
    """The reference to the patient, as the subscriber's hospital knows them if it does."""


def shown(
    serving: Serving,
    one: Subscription,
    event: SubscriptionEvent,
    asker: Requester | None = None,
) -> Shown:
    """What the owner of a subscription, or who else asks for it, may see of an event.

    Raises Unavailable.
    """
    place = serving.place_at(one.base)
    asked = Asked(kind=event.kind, logical_id=event.logical_id)
    try:
        with serving.exchange.on_behalf_of(asker or notifying.owner(one)) as access:
            content = interactions.read(serving.here(place, access), asked).content
            if event.patient_id is None:
                return Shown(event, content)
            patient = notifying.own_record(access, event.patient_id)
            return Shown(event, content, f"Patient/{patient}")
    except Unavailable:
        raise
    except (ExchangeError, Problem):
        return Shown(event, None)


def status(
    one: Subscription, kind: str, *, events: Sequence[Shown] = (), content: str = ""
) -> Json:
    """SubscriptionStatus as Parameters (backport-subscription-status-r4).

    `kind` is a code of the value set subscription-notification-type.
    """
    content = content or one.content
    listed: list[Json] = [
        {
            "name": "subscription",
            "valueReference": {"reference": f"{one.base}/Subscription/{one.logical_id}"},
        }
    ]
    if content != EMPTY or kind == "query-status":
        url = TOPICS[one.topic].url(one.base)
        listed.append({"name": "topic", "valueCanonical": url})
    listed += [
        {"name": "status", "valueCode": one.state},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(one.events)},
    ]
    listed += [_event(one, each, content) for each in events]
    if one.state == "error" and one.reason:
        told = concept("http://hl7.org/fhir/subscription-status", "error") | {"text": one.reason}
        listed.append({"name": "error", "valueCodeableConcept": told})
    return {
        "resourceType": "Parameters",
        "id": str(uuid.uuid4()),
        "meta": {"profile": [f"{EXTENSION}subscription-status-r4"]},
        "parameter": listed,
    }


def _event(one: Subscription, told: Shown, content: str) -> Json:
    parts: list[Json] = [
        {"name": "event-number", "valueString": str(told.event.number)},
        {"name": "timestamp", "valueInstant": instant(told.event.recorded)},
    ]
    if content != EMPTY and told.content is not None:
        focus = f"{one.base}/{told.event.kind}/{told.event.logical_id}"
        parts.append({"name": "focus", "valueReference": {"reference": focus}})
        if told.patient:
            of_patient = {"reference": f"{one.base}/{told.patient}"}
            parts.append({"name": "additional-context", "valueReference": of_patient})
    return {"name": "notification-event", "part": parts}


def bundle(
    one: Subscription, kind: str, *, events: Sequence[Shown] = (), content: str = ""
) -> bytes:
    """A notification, as JSON.

    `kind` is ``handshake``, ``heartbeat``, ``event-notification`` or ``query-event``.
    """
    content = content or one.content
    told = status(one, kind, events=events, content=content)
    entries: list[Json] = [
        {
            "fullUrl": f"urn:uuid:{told['id']}",
            "resource": told,
            "request": {"method": "GET", "url": f"Subscription/{one.logical_id}/$status"},
            "response": {"status": "200"},
        }
    ]
    if content != EMPTY:
        focused = {
            (each.event.kind, each.event.logical_id): each
            for each in events
            if each.content is not None
        }
        entries += [_entry(one, each, full=content == FULL) for each in focused.values()]
    return orjson.dumps(
        {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "meta": {"profile": [f"{EXTENSION}subscription-notification-r4"]},
            "type": "history",
            "timestamp": instant(datetime.now(UTC)),
            "entry": entries,
        }
    )


def written(one: Subscription, content: bytes) -> bytes:
    """A notification in the media type of the subscription."""
    return xml_format.serialize(json_format.parse(content)) if one.payload == XML else content


def _entry(one: Subscription, told: Shown, *, full: bool) -> Json:
    named = f"{told.event.kind}/{told.event.logical_id}"
    made: Json = {"fullUrl": f"{one.base}/{named}"}
    if full and told.content is not None:
        made["resource"] = orjson.Fragment(told.content)
    created = told.event.created
    return made | {
        "request": {
            "method": "POST" if created else "PUT",
            "url": told.event.kind if created else named,
        },
        "response": {"status": "201" if created else "200"},
    }


def within(events: Sequence[Shown], content: str) -> Sequence[Shown]:
    """The first events, as many as a notification holds; of any there is one."""
    if content != FULL:
        return events
    size = 0
    for at, one in enumerate(events):
        size += len(one.content or b"")
        if at and size > BYTES:
            return events[:at]
    return events
