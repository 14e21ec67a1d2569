"""Whom an event is about: the patient as the subscriber's hospital knows them (additional-context).

As the Subscriptions Backport (1.1.0) has it for R4, backport-subscription-status-r4.
"""

from __future__ import annotations

from typing import Any

from fhir_door import BASE
from region import ADMINISTRATOR
from subscribed import REPORT, Desk, Endpoint, active, events, wish

from exchange import consent

NAMES = ("event-number", "timestamp", "focus", "additional-context")
"""The parts of an event, in the order in which the profile has them."""


def contexts(bundle: dict[str, Any]) -> list[str]:
    """The additional context of each event of a notification, "" for one without."""
    found = []
    for one in bundle["entry"][0]["resource"]["parameter"]:
        if one["name"] == "notification-event":
            parts = {part["name"]: part for part in one["part"]}
            assert list(parts) == sorted(parts, key=list(NAMES).index)
            told = parts.get("additional-context", {}).get("valueReference", {})
            found.append(told.get("reference", ""))
    return found


def test_an_event_comes_with_the_patient_as_the_subscribers_hospital_knows_them(
    desk: Desk, hook: Endpoint
) -> None:
    doctor, nanhu = desk.clinician("beicheng"), desk.system("nanhu")
    of_wang = active(
        desk, doctor, wish("report-final", hook.url, "patient=Patient/1,Patient/2"), hook
    )
    theirs = nanhu.made(REPORT | {"subject": {"reference": "Patient/2"}})
    desk.work()

    (told,) = hook.bundles()
    assert events(told) == [(1, f"DiagnosticReport/{theirs['id']}")]
    assert contexts(told) == [f"{BASE}/Patient/1"]  # of nanhu's Patient/2
    named = f"Subscription/{of_wang['id']}"
    for content, context in (("id-only", f"{BASE}/Patient/1"), ("empty", "")):
        again = doctor.bundle(f"{named}/$events?content={content}", "history")
        assert contexts(again) == [context]
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")
    assert contexts(doctor.bundle(f"{named}/$events", "history")) == [""]
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_in(access, "nanhu", "W2")
    assert doctor.send("DELETE", named).status_code == 204


def test_a_patient_whom_the_subscribers_hospital_does_not_know_is_the_others_record(
    desk: Desk, hook: Endpoint
) -> None:
    dongshan, beicheng = desk.clinician("dongshan"), desk.system("beicheng")
    desk.allow("dongshan", hook)
    made = active(desk, dongshan, wish("report-final", hook.url, "patient=Patient/3"), hook)
    beicheng.made(REPORT | {"subject": {"reference": "Patient/3"}})
    desk.work()

    (told,) = hook.bundles()
    assert contexts(told) == [f"{BASE}/Patient/3"]
    assert dongshan.send("DELETE", f"Subscription/{made['id']}").status_code == 204
