"""What a Consent says of sharing with other hospitals (R4 6.2), read from it.

The exchange shares all of a person's records or none: what denies a part of them, or denies them to
some, denies all. That is for the period of the provision that denies, or else of the one around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from exchange.consent import Statement
from exchange_fhir import moments
from exchange_fhir.datatypes import Json

SCOPE = "patient-privacy"
"""Of what is about sharing (http://terminology.hl7.org/CodeSystem/consentscope)."""

OPT_OUT = frozenset({"OPTOUT", "OPTOUTE"})
OPT_IN = frozenset({"OPTIN", "OPTINR"})
"""Policies (http://terminology.hl7.org/CodeSystem/v3-ActCode)."""

TOLD = (
    "One that a hospital writes of its own patient, with the scope patient-privacy, decides from "
    "then on what others see of the person: whatever denies a part of their records, or denies "
    "them to some, denies all of them to all others, in the period of its provision."
)
"""What the CapabilityStatement says of it."""

_WHOLE = frozenset({"id", "extension", "type", "period"})
"""Elements of a provision that do not narrow what it permits."""


def statements(consent: Json, zone: ZoneInfo) -> Sequence[Statement]:
    """What it says; nothing where it is not in force, or not about sharing."""
    scopes = {one.get("code") for one in consent.get("scope", {}).get("coding", ())}
    if consent.get("status") != "active" or SCOPE not in scopes:
        return ()
    rules = {one.get("code") for one in consent.get("policyRule", {}).get("coding", ())}
    provision = consent.get("provision", {})
    if rules & OPT_OUT:
        return (Statement("deny"),)
    if denials := tuple(_denials(provision, {}, zone)):
        return denials
    if provision.get("type") == "permit" and not provision.keys() - _WHOLE:
        return (_given("permit", provision.get("period", {}), zone),)
    return (Statement("permit"),) if not provision and rules & OPT_IN else ()


def _denials(provision: Json, around: Json, zone: ZoneInfo) -> Iterator[Statement]:
    period = provision.get("period", around)
    if provision.get("type") == "deny":
        yield _given("deny", period, zone)
    for one in provision.get("provision", ()):
        yield from _denials(one, period, zone)


def _given(decision: str, period: Json, zone: ZoneInfo) -> Statement:
    """A decision for a Period: from the first moment of its start to the last of its end."""
    first = moments.span(str(period.get("start", "")), zone)
    last = moments.span(str(period.get("end", "")), zone)
    since = _moment(first[0]) if first else None
    return Statement(decision, since, _moment(last[1]) if last else None)


def _moment(microseconds: int) -> datetime | None:
    """None for one beyond the calendar: nothing that is known began or ends there."""
    with suppress(OverflowError):
        return moments.EPOCH + timedelta(microseconds=microseconds)
    return None
