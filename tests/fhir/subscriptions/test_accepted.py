"""Subscriptions: what is accepted, from whom, and whose it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fhir_door import BASE, outcome
from region import ADMINISTRATOR
from subscribed import Desk, Endpoint, endpoint, wish

from exchange import subscriptions
from exchange_fhir import subscribing
from exchange_fhir.outcome import Problem
from exchange_fhir.subscribing import EXTENSION


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"criteria": "Patient?"}, "Subscription.criteria"),
        ({"criteria": f"{BASE}/SubscriptionTopic/admission"}, "Subscription.criteria"),
        ({"end": "2020-01-01T00:00:00Z"}, "Subscription.end"),
        ({"channel": {"type": "email", "endpoint": "mailto:a@b.cn"}}, "Subscription.channel.type"),
        ({"channel": {"type": "sms", "endpoint": "tel:1"}}, "Subscription.channel.type"),
        ({"channel": {"endpoint": "ftp://127.0.0.1/"}}, "Subscription.channel.endpoint"),
        ({"channel": {"endpoint": "http://a:b@127.0.0.1/"}}, "Subscription.channel.endpoint"),
        ({"channel": {"endpoint": "http:///x"}}, "Subscription.channel.endpoint"),
        ({"channel": {"endpoint": "http://127.0.0.1:99999/"}}, "Subscription.channel.endpoint"),
        ({"channel": {"payload": "text/plain"}}, "Subscription.channel.payload"),
        ({"channel": {"payload": None}}, "Subscription.channel.payload"),
        ({"channel": {"_payload": None}}, "Subscription.channel.payload"),
        ({"channel": {"header": ["no colon"]}}, "Subscription.channel.header"),
        ({"channel": {"header": ["Host: elsewhere"]}}, "Subscription.channel.header"),
        ({"channel": {"header": ["X: a\r\nY: b"]}}, "Subscription.channel.header"),
        ({"filter": "ImagingStudy?colour=red"}, "Subscription.criteria"),
        ({"filter": "Encounter?patient=Patient/1"}, "Subscription.criteria"),
        ({"filter": "ImagingStudy?modality="}, "Subscription.criteria"),
        ({"filter": "ImagingStudy?modality=|"}, "Subscription.criteria"),
        ({"filter": "ImagingStudy?patient=Practitioner/1"}, "Subscription.criteria"),
        ({"filter": "ImagingStudy?patient:missing=true"}, "Subscription.criteria"),
        ({"filter": "((((("}, "Subscription.criteria"),
        ({"heartbeat-period": 1}, "Subscription.channel"),
        ({"timeout": 3600}, "Subscription.channel"),
    ],
)
def test_what_could_not_be_delivered_is_not_accepted(
    desk: Desk, hook: Endpoint, wrong: dict[str, Any], place: str
) -> None:
    wrong = dict(wrong)
    resource = wish("new-study", hook.url, *([wrong.pop("filter")] if "filter" in wrong else []))
    for name in [name for name in wrong if name in {"heartbeat-period", "timeout"}]:
        url, value = f"{EXTENSION}{name}", wrong.pop(name)
        resource["channel"]["extension"] = [{"url": url, "valueUnsignedInt": value}]
    channel = resource["channel"] | wrong.pop("channel", {})
    resource |= wrong
    resource["channel"] = {name: value for name, value in channel.items() if value}

    refused = desk.clinician("beicheng").send("POST", "Subscription", resource)

    assert refused.status_code == 422, refused.text
    assert [one["expression"] for one in refused.json()["issue"]] == [[place]]  # and no more
    assert hook.received == []


def test_a_patient_who_is_not_known_to_the_subscriber_is_not_told_of(desk: Desk) -> None:
    doctor = desk.clinician("beicheng")

    wished = wish("new-study", "", "ImagingStudy?patient=Patient/99999")
    outcome(doctor.send("POST", "Subscription", wished), 400, "invalid")


def test_a_hospital_is_notified_at_its_registered_hosts_only(desk: Desk) -> None:
    doctor = desk.clinician("beicheng")
    with endpoint() as other:
        refused = doctor.send("POST", "Subscription", wish("new-study", other.url))
        assert "not registered" in outcome(refused, 403, "forbidden")
        desk.allow("nanhu", other)
        assert doctor.send("POST", "Subscription", wish("new-study", other.url)).status_code == 403
        desk.allow("beicheng", other)
        made = doctor.made(wish("new-study", other.url))
        with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            subscriptions.disallow(access, "beicheng", other.host)
        desk.work()
        assert other.received == []
    assert doctor.read(f"Subscription/{made['id']}")["status"] == "error"


def test_https_is_asked_for_unless_a_setting_allows_http() -> None:
    resource = wish("new-study", "http://hook.example/")
    with pytest.raises(Problem) as refused:
        subscribing.read(resource, BASE, plain_http=False)
    assert "EXCHANGE_HOOK_HTTP=true" in refused.value.issues[0].told
    resource["channel"]["endpoint"] = "https://hook.example/"
    assert subscribing.read(resource, BASE, plain_http=False)[1].endpoint


def test_whoever_may_not_ask_of_patients_has_nothing_to_be_told(desk: Desk) -> None:
    clerk = replace(ADMINISTRATOR, name="clerk", organization=desk.door.city.ids["beicheng"])
    refused = desk.user(clerk).send("POST", "Subscription", wish("new-study"))
    outcome(refused, 403, "forbidden")


def test_a_subscription_is_its_owners_and_their_hospitals_administrators(desk: Desk) -> None:
    doctor = desk.clinician("beicheng")
    made = doctor.made(wish("new-study"))
    named = f"Subscription/{made['id']}"
    city = desk.door.city
    colleague = desk.user(replace(city.clinician("beicheng"), name="dr.other"))
    clerk = replace(ADMINISTRATOR, name="clerk", organization=city.ids["beicheng"])
    others_clerk = replace(ADMINISTRATOR, name="clerk2", organization=city.ids["nanhu"])

    for stranger in (
        colleague,
        desk.clinician("nanhu"),
        desk.system("beicheng"),
        desk.user(others_clerk),
        desk.user(ADMINISTRATOR),
    ):
        for path in (named, f"{named}/_history/1", f"{named}/$status", f"{named}/$events"):
            assert stranger.get(path).status_code == 404, path
        assert stranger.send("PUT", named, made).status_code == 404
        assert stranger.send("DELETE", named).status_code == 204
        assert made["id"] not in stranger.get("Subscription").text
        assert made["id"] not in stranger.get("Subscription/_history").text
        assert made["id"] not in stranger.get("Subscription/$status").text

    for theirs in (doctor, desk.user(clerk)):
        assert theirs.read(named)["status"] == "active"
        assert named in theirs.ids("Subscription?status=active")
        assert theirs.get(f"{named}/$status").status_code == 200
    assert desk.user(clerk).send("DELETE", named).status_code == 204
    assert doctor.get(named).status_code == 410


def test_an_administrator_ends_a_subscription_and_leads_it_nowhere_else(
    desk: Desk, hook: Endpoint
) -> None:
    doctor = desk.clinician("beicheng")
    made = doctor.made(wish("new-study", hook.url, content="full-resource"))
    named = f"Subscription/{made['id']}"
    desk.work()
    clerk = desk.user(
        replace(ADMINISTRATOR, name="clerk", organization=desk.door.city.ids["beicheng"])
    )
    elsewhere = made | {"channel": made["channel"] | {"endpoint": f"{hook.url}&by=clerk"}}

    for wanted in (made | {"reason": "x"}, elsewhere, elsewhere | {"status": "off"}):
        outcome(clerk.send("PUT", named, wanted), 403, "forbidden")

    assert clerk.send("PUT", named, made | {"status": "off"}).status_code == 200
    outcome(clerk.send("PUT", named, made), 403, "forbidden")
    assert doctor.read(named)["status"] == "off"
    assert doctor.send("PUT", named, made).status_code == 200
