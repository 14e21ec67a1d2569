"""What a Subscription asks for, read from it: refused wherever it could not be delivered.

The form is the Subscriptions Backport's (hl7.fhir.uv.subscriptions-backport 1.1.0) for R4: the
topic in `criteria`, filters, content, heartbeat, time-out and count in its extensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from exchange.subscriptions import HIDDEN, Channel, State, Terms
from exchange_fhir import elements
from exchange_fhir.datatypes import Json
from exchange_fhir.definitions import search_parameters
from exchange_fhir.negotiation import JSON, XML
from exchange_fhir.outcome import Issue, Problem
from exchange_fhir.primitives import moment
from exchange_fhir.resources import patient
from exchange_fhir.topics import PATIENT, TOPICS, Filter, Topic

GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport"
EXTENSION = f"{GUIDE}/StructureDefinition/backport-"
PROFILE = f"{GUIDE}/StructureDefinition/backport-subscription"
CONTENTS = ("empty", "id-only", "full-resource")
PAYLOADS = {JSON: JSON, "application/json": JSON, XML: XML}
"""Media types of notifications, as they may be written."""

HEARTBEAT = 10
"""Seconds between two heartbeats, at least."""
HEARTBEAT_MOST = 7 * 86400
TIMEOUT, TIMEOUT_MOST = 10, 60
"""Seconds that an endpoint has to answer: where nothing is said, and at most."""
EVENTS_MOST = 100
"""Events of one notification: where nothing is said, and at most."""
HEADERS = 16
VALUES = 50
"""Values of one filter."""
FILTERS = 20

_HEADER = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x21-\x7e\x80-\xff][\x20-\x7e\x80-\xff]*)"
)
_OURS = frozenset(
    {
        *("host", "content-length", "content-type", "transfer-encoding", "connection", "expect"),
        *("upgrade", "te", "trailer", "keep-alive", "proxy-authorization", "proxy-connection"),
    }
)
"""Headers that are not the subscriber's to set."""


def read(resource: Json, base: str, *, plain_http: bool) -> tuple[Json, Terms]:
    """A valid Subscription as it is kept, with its state and without secrets; and its terms.

    `plain_http`: whether notifications may go unencrypted. Raises Problem with all that is wrong.
    """
    found = _Reading(resource, base, plain_http=plain_http)
    terms = found.terms()
    if found.issues:
        raise Problem(422, found.issues[0].code, "", issues=found.issues)
    state = State.REQUESTED if terms.channel is Channel.REST_HOOK else State.ACTIVE
    kept = {**resource, "status": State.OFF if terms.off else state}
    kept.pop("error", None)
    if terms.headers:
        channel = {**resource["channel"]}
        channel["header"] = [f"{name}: {HIDDEN}" for name, _ in terms.headers]
        kept["channel"] = channel
    return kept, terms


def restated(resource: Json, state: State, reason: str) -> Json:
    """A Subscription in another state."""
    made = {**resource, "status": str(state)}
    made.pop("error", None)
    return made | ({"error": reason} if reason else {})


class _Reading:
    """Reads a Subscription, and collects what is wrong with it."""

    def __init__(self, resource: Json, base: str, *, plain_http: bool) -> None:
        self._resource = resource
        self._channel: Json = resource["channel"]
        self._base = base
        self._plain_http = plain_http
        self.issues: list[Issue] = []

    def terms(self) -> Terms:
        """What it asks for, as far as it can be understood."""
        topic = self._topic()
        filters, patients = self._filters(topic)
        channel = self._way()
        extensions = self._extensions(self._channel, "Subscription.channel")
        return Terms(
            topic=topic.name if topic else "",
            filters=[one.told() for one in filters],
            patients=tuple(patients),
            channel=channel or Channel.WEBSOCKET,
            endpoint=self._endpoint(channel) if channel else "",
            headers=self._headers(channel) if channel else (),
            content=self._content(),
            payload=self._payload(),
            heartbeat=self._number(extensions, "heartbeat-period", HEARTBEAT, HEARTBEAT_MOST),
            timeout=self._number(extensions, "timeout", 1, TIMEOUT_MOST) or TIMEOUT,
            most=self._number(extensions, "max-count", 1, None) or EVENTS_MOST,
            ends=self._ends(),
            base=self._base,
            off=self._resource["status"] == State.OFF,
        )

    def _wrong(self, code: str, told: str, place: str) -> None:
        self.issues.append(Issue(code, told, f"Subscription{place}"))

    def _topic(self) -> Topic | None:
        criteria = self._resource["criteria"]
        for topic in TOPICS.values():
            if criteria == topic.url(self._base):
                return topic
        known = ", ".join(topic.url(self._base) for topic in TOPICS.values())
        told = f"criteria is the address of a topic of this server: {known}"
        self._wrong("not-supported", told, ".criteria")
        return None

    def _filters(self, topic: Topic | None) -> tuple[list[Filter], list[int]]:
        place = ".criteria"
        told = [
            str(one.get("valueString", ""))
            for one in self._resource.get("_criteria", {}).get("extension", ())
            if one.get("url") == f"{EXTENSION}filter-criteria"
        ]
        if topic is None:
            return [], []
        found: list[Filter] = []
        for text in told:
            found += self._filter(topic, text)
        if len(found) > FILTERS:
            self._wrong("too-costly", f"at most {FILTERS} filters", place)
            return [], []
        named = [value for one in found if one.parameter == PATIENT for value in one.values]
        rows: list[int] = []
        for value in named:
            kind, logical_id = elements.target(value, f"{self._base}/")
            of_patient = patient.rows(logical_id if kind == "Patient" else value)
            if (kind and kind != "Patient") or not of_patient:
                self._wrong("not-found", "a patient of a filter is not known", place)
            rows += of_patient
        if len({one.values for one in found if one.parameter == PATIENT}) > 1:
            self._wrong("business-rule", "patients are named in one filter, with commas", place)
        return found, rows

    def _filter(self, topic: Topic, text: str) -> list[Filter]:
        """``Type?name=value&name=value``, ``Type.name=value`` or ``name=value``."""
        place = ".criteria"
        form = re.fullmatch(r"(?:(?P<kind>[A-Z][A-Za-z]{1,63})[?.])?(?P<query>[^?]+)", text)
        try:
            pairs = parse_qsl(form["query"], strict_parsing=True) if form else []
        except ValueError:
            pairs = []
        if form is None or not pairs:
            self._wrong("invalid", "a filter is written Type?name=value", place)
            return []
        kinds = [form["kind"]] if form["kind"] else list(topic.filters)
        made: list[Filter] = []
        for name, value in pairs:
            values = tuple(part.strip() for part in value.split(",") if part.strip())
            matching = [kind for kind in kinds if name in topic.filters.get(kind, ())]
            if len(matching) < len(kinds) or not matching:
                known = ", ".join(
                    f"{kind}?{one}=" for kind, names in topic.filters.items() for one in names
                )
                self._wrong("not-supported", f"this topic is narrowed by {known}", place)
            elif not values or len(values) > VALUES:
                self._wrong("invalid", f"a filter has from 1 to {VALUES} values", place)
            elif any(not _possible(kind, name, one) for kind in matching for one in values):
                self._wrong("invalid", f"{name} of a filter can never be met", place)
            else:
                made += [Filter(kind, name, values) for kind in matching]
        return made

    def _way(self) -> Channel | None:
        told = self._channel["type"]
        beside = self._channel.get("_type", {}).get("extension", ())
        if told in set(Channel) and not beside:
            return Channel(told)
        ways = " and ".join(Channel)
        self._wrong("not-supported", f"notifications go by {ways}", ".channel.type")
        return None

    def _endpoint(self, channel: Channel) -> str:
        place = ".channel.endpoint"
        told = str(self._channel.get("endpoint", ""))
        if channel is Channel.WEBSOCKET:
            if told:
                self._wrong("invalid", "a websocket is opened by the subscriber", place)
            return ""
        schemes = {"https", "http"} if self._plain_http else {"https"}
        try:
            found = urlsplit(told)
            port = found.port
        except ValueError:
            found, port = urlsplit(""), None
        right = (
            found.scheme in schemes
            and found.hostname
            and found.username is None
            and found.password is None
            and not found.fragment
            and port != 0
            and re.fullmatch(r"[\x21-\x7e]{1,2048}", told)
            and "\\" not in told
        )
        if not right:
            written = "https or http" if self._plain_http else "https"
            why = f"an endpoint is an {written} address without a login"
            if found.scheme == "http" and not self._plain_http:
                why += "; the operators allow http by EXCHANGE_HOOK_HTTP=true"
            self._wrong("invalid", why, place)
        return told

    def _headers(self, channel: Channel) -> tuple[tuple[str, str], ...]:
        place = ".channel.header"
        told = self._channel.get("header", ())
        if told and channel is Channel.WEBSOCKET:
            self._wrong("invalid", "a websocket has no headers", place)
        if len(told) > HEADERS:
            self._wrong("too-costly", f"at most {HEADERS} headers", place)
            return ()
        made: list[tuple[str, str]] = []
        for one in told:
            form = _HEADER.fullmatch(str(one))
            if form is None or len(one) > 4096:
                self._wrong("invalid", "a header is written Name: value", place)
            elif form[1].lower() in _OURS:
                self._wrong("business-rule", f"the header {form[1]} is not yours to set", place)
            else:
                made.append((form[1], form[2]))
        return tuple(made)

    def _content(self) -> str:
        beside = self._channel.get("_payload", {})
        extensions = self._extensions(beside, "Subscription.channel.payload")
        told = extensions.get("payload-content", {}).get("valueCode")
        if told not in CONTENTS:
            place = ".channel.payload"
            self._wrong("required", f"{EXTENSION}payload-content is {', '.join(CONTENTS)}", place)
        return str(told)

    def _payload(self) -> str:
        told = str(self._channel.get("payload", "")).partition(";")[0].strip()
        if told not in PAYLOADS:
            known = ", ".join(PAYLOADS)
            self._wrong("not-supported", f"payload is one of {known}", ".channel.payload")
        return PAYLOADS.get(told, JSON)

    def _extensions(self, element: Json, place: str) -> Mapping[str, Json]:
        found: dict[str, Json] = {}
        for one in element.get("extension", ()):
            url = str(one.get("url", ""))
            if url.startswith(EXTENSION):
                name = url.removeprefix(EXTENSION)
                if name in found:
                    self.issues.append(Issue("invalid", f"{name} is given once", place))
                found[name] = one
        return found

    def _number(
        self, extensions: Mapping[str, Json], name: str, least: int, most: int | None
    ) -> int | None:
        if name not in extensions:
            return None
        one = extensions[name]
        told: Any = one.get("valueUnsignedInt", one.get("valuePositiveInt"))
        if not isinstance(told, int) or told < least or (most is not None and told > most):
            upto = f" to {most}" if most is not None else ""
            self._wrong("value", f"{name} is a whole number from {least}{upto}", ".channel")
            return None
        return min(told, EVENTS_MOST) if most is None else told

    def _ends(self) -> datetime | None:
        told = self._resource.get("end")
        if not told:
            return None
        ends = moment(str(told))
        if ends <= datetime.now(UTC):
            self._wrong("business-rule", "its end has passed", ".end")
        return ends


def _possible(kind: str, name: str, value: str) -> bool:
    """Whether a value of a filter could ever be met."""
    if name == PATIENT:
        return True  # looked up
    one = search_parameters.of(kind)[name]
    if one.type == "token":
        return value.strip("|") != ""
    return "/" in value or ":" in value
