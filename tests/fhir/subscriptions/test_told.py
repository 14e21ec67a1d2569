"""Subscriptions: who is told of what, and that nothing withheld is told to anybody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fhir_door import BASE, SHANGHAI, Asker
from region import ADMINISTRATOR, ID_CARD, WORKER
from sqlalchemy import select
from subscribed import REPORT, Desk, Endpoint, active, endpoint, events, only, said, wish

from exchange import consent, reports, sealing, subscriptions, users
from exchange.reports import Report
from exchange_fhir import reported, topics, xml_format
from exchange_fhir.subscribing import EXTENSION
from exchange_storage.records import Subscription


def test_a_clinician_is_told_of_a_new_study_of_a_person_at_another_hospital(
    desk: Desk, hook: Endpoint
) -> None:
    doctor = desk.clinician("beicheng")
    made = doctor.made(wish("new-study", hook.url, "ImagingStudy?patient=Patient/1"))
    assert made["status"] == "requested"
    desk.work()

    (handshake,) = hook.bundles()
    assert said(handshake, "type") == "handshake"
    assert said(handshake, "status") == "requested"
    assert said(handshake, "subscription") == {"reference": f"{BASE}/Subscription/{made['id']}"}
    active = doctor.read(f"Subscription/{made['id']}")
    assert (active["status"], active["meta"]["versionId"]) == ("active", "2")

    desk.door.city.send("nanhu", patient="W2", study="1.2.9", instance="1.4.9", card=ID_CARD)
    desk.door.city.send("beicheng", patient="L1", study="1.2.8", instance="1.4.8")
    desk.happens()

    (told,) = hook.bundles()
    assert said(told, "type") == "event-notification"
    assert events(told) == [(1, "ImagingStudy/1.2.9")]
    assert [entry["fullUrl"] for entry in told["entry"][1:]] == [f"{BASE}/ImagingStudy/1.2.9"]
    assert "resource" not in told["entry"][1]


def test_a_ward_is_told_of_new_images_of_a_body_part(desk: Desk, hook: Endpoint) -> None:
    doctor = desk.clinician("beicheng")
    chest = "ImagingStudy?bodysite=http://snomed.info/sct|816094009"
    active(desk, doctor, wish("new-study", hook.url, chest), hook)

    for uid, part in (("1.2.71", "KNEE"), ("1.2.72", "CHEST")):
        series: dict[str, Any] = {"BodyPartExamined": part}
        desk.door.city.send("beicheng", patient="L1", study=uid, instance=f"{uid}.1", **series)
    desk.happens()

    (told_of,) = hook.bundles()
    assert events(told_of) == [(1, "ImagingStudy/1.2.72")]


def in_the_index(desk: Desk, named: str, given: list[list[str]] | None = None) -> str:
    """The headers of a subscription as the index has them; given some, they are put there."""
    with desk.door.city.exchange.database.writing() as session:
        one = session.scalars(select(Subscription).where(Subscription.logical_id == named)).one()
        one.headers = given or one.headers
        return repr(one.headers)


def test_what_an_earlier_release_kept_plain_is_sealed_by_the_next_start(
    desk: Desk, hook: Endpoint
) -> None:
    made = desk.clinician("beicheng").made(wish("new-study", hook.url, header=["X-Key: k"]))
    in_the_index(desk, made["id"], [["X-Key", "plain-secret"]])
    desk.door.city.exchange.prepare()
    assert "plain-secret" not in in_the_index(desk, made["id"])
    desk.work()
    assert hook.received.pop()[0]["X-Key"] == "plain-secret"


def test_a_secret_that_was_sealed_with_another_key_is_asked_for_again(
    desk: Desk, hook: Endpoint
) -> None:
    doctor = desk.clinician("beicheng")
    made = doctor.made(wish("new-study", hook.url, header=["X-Key: k"]))
    other = sealing.header(Ed25519PrivateKey.generate(), "X-Key", "k")
    in_the_index(desk, made["id"], [other])
    desk.work()
    assert not hook.received
    told = doctor.get(f"Subscription/{made['id']}/$status").json()["entry"][0]["resource"]
    assert "write them anew" in str(told)


def test_secrets_go_to_the_endpoint_and_nowhere_else(desk: Desk, hook: Endpoint) -> None:
    doctor = desk.clinician("beicheng")
    secret = "Bearer s3cret-of-the-endpoint"
    wished = wish("new-study", hook.url, header=[f"Authorization: {secret}"])
    made = doctor.made(wished)
    desk.work()

    assert hook.received.pop()[0]["Authorization"] == secret
    told = doctor.read(f"Subscription/{made['id']}")
    assert told["channel"]["header"] == ["Authorization: ***"]
    assert secret not in doctor.get(f"Subscription/{made['id']}/_history").text
    assert secret not in in_the_index(desk, made["id"])

    assert doctor.send("PUT", f"Subscription/{made['id']}", told).status_code == 200
    desk.work()
    assert hook.received.pop()[0]["Authorization"] == secret
    told["channel"]["endpoint"] = "http://127.0.0.1:1/"
    desk.allow("beicheng", Endpoint("", "127.0.0.1:1"))
    assert doctor.send("PUT", f"Subscription/{made['id']}", told).status_code == 400


def test_a_redirect_is_not_followed(desk: Desk, hook: Endpoint) -> None:
    with endpoint() as elsewhere:
        hook.statuses, hook.location = [307], elsewhere.url
        made = desk.clinician("beicheng").made(wish("new-study", hook.url))
        desk.work()
        assert elsewhere.received == []
    assert desk.row(made).state == "error"


def test_reports_are_told_when_they_are_final_in_order_and_again_until_they_are_taken(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)

    report = system.made(REPORT | {"status": "preliminary"})
    named = f"DiagnosticReport/{report['id']}"
    hook.statuses = [503]
    assert system.send("PUT", named, report | {"status": "final"}).status_code == 200
    desk.work()
    assert system.send("PUT", named, report | {"status": "amended"}).status_code == 200
    other = f"DiagnosticReport/{system.made(REPORT)['id']}"
    desk.work()

    (not_taken,) = hook.bundles()
    assert events(not_taken) == [(1, named)]
    assert desk.row(made).failures == 1
    desk.work(late=True)
    (told,) = hook.bundles()
    assert events(told) == [(1, named), (2, named), (3, other)]
    assert said(told, "events-since-subscription-start") == "3"
    assert desk.row(made).failures == 0
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_an_endpoint_that_never_answers_again_ends_in_error(desk: Desk, hook: Endpoint) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    desk.changed(made, failing=datetime.now(UTC) - timedelta(hours=25), failures=30)
    hook.statuses = [404]
    system.made(REPORT)
    desk.work(late=True)
    desk.work(late=True)

    told = system.read(f"Subscription/{made['id']}")
    assert (told["status"], told["error"]) == ("error", "the endpoint answers HTTP 404")
    (entry,) = system.bundle(f"Subscription/{made['id']}/$status")["entry"]
    assert [one for one in entry["resource"]["parameter"] if one["name"] == "error"]


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
@pytest.mark.parametrize("payload", ["application/fhir+json", "application/fhir+xml"])
def test_as_much_is_told_as_was_asked_for(
    desk: Desk, hook: Endpoint, content: str, payload: str
) -> None:
    system = desk.system("beicheng")
    wished = wish("report-final", hook.url, content=content, payload=payload)
    made = system.made(wished)
    desk.work()
    hook.received.clear()
    report = system.made(REPORT | {"conclusion": "没有发现异常"})
    desk.work()

    (headers, body) = hook.received.pop()
    assert headers["Content-Type"] == payload
    told = orjson.loads(body) if payload.endswith("json") else xml_format.parse(body)
    focus = "" if content == "empty" else f"DiagnosticReport/{report['id']}"
    assert events(told) == [(1, focus)]
    assert bool(said(told, "topic")) == (content != "empty")
    assert ("没有发现异常" in body.decode()) == (content == "full-resource")
    assert len(told["entry"]) == (1 if content == "empty" else 2)
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_a_structured_report_that_is_verified_is_told_like_any_other(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    report = Report(
        sop_instance_uid="1.9.1",
        title=None,
        is_complete=True,
        is_preliminary=False,
        is_verified=True,
        date="20261101",
        time="101500",
        accession_number="",
        verifiers=(),
        items=(),
    )
    with desk.door.city.exchange.on_behalf_of(WORKER) as access:
        subject = reports.Subject(1, "1.2.1")
        reported.refresh(access, subject, [report], base=BASE, timezone=SHANGHAI)
    desk.work()

    named = reports.logical_id("1.2.1", "1.9.1")
    assert only(hook.bundles()) == [f"DiagnosticReport/{named}"]
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_filters_narrow_and_no_more_events_come_at_once_than_wanted(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    wished = wish(
        "report-final",
        hook.url,
        "DiagnosticReport?code=http://loinc.org|18748-4,|x&category=RAD",
        extension=[{"url": f"{EXTENSION}max-count", "valuePositiveInt": 2}],
    )
    made = active(desk, system, wished, hook)
    radiology = {"category": [{"coding": [{"code": "RAD"}]}]}
    other = {"code": {"coding": [{"system": "urn:x", "code": "18748-4"}]}}
    expected = [
        f"DiagnosticReport/{system.made(REPORT | radiology)['id']}",
        f"DiagnosticReport/{system.made(REPORT | radiology)['id']}",
        f"DiagnosticReport/{system.made(REPORT | radiology)['id']}",
    ]
    system.made(REPORT)
    system.made(REPORT | radiology | other)
    desk.work()

    told = hook.bundles()
    assert [len(events(one)) for one in told] == [2, 1]
    assert only(told) == expected
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


@pytest.mark.parametrize(
    ("before", "after", "is_told"),
    [
        ({}, {"interpretation": "AA"}, True),
        ({"interpretation": "H"}, {"interpretation": "HH"}, True),
        ({"interpretation": "LL"}, {"interpretation": "LL"}, False),
        ({}, {"interpretation": "A"}, False),
        ({}, {"interpretation": "AA", "status": "entered-in-error"}, False),
    ],
)
def test_a_critical_finding_is_told_when_it_becomes_one(
    desk: Desk, hook: Endpoint, before: dict[str, str], after: dict[str, str], is_told: bool
) -> None:
    def observed(interpretation: str = "N", status: str = "final") -> dict[str, Any]:
        judged = {"system": topics.INTERPRETATION, "code": interpretation}
        return {
            "resourceType": "Observation",
            "status": status,
            "code": {"text": "钾"},
            "subject": {"reference": "Patient/1"},
            "interpretation": [{"coding": [judged]}],
        }

    system = desk.system("beicheng")
    first = system.made(observed(**before))
    made = active(desk, system, wish("critical-finding", hook.url), hook)
    named = f"Observation/{first['id']}"
    changed = observed(**after) | {"id": first["id"], "note": [{"text": "again"}]}
    assert system.send("PUT", named, changed).status_code == 200
    desk.work()

    assert only(hook.bundles()) == ([named] if is_told else [])
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_a_critical_conclusion_of_a_report_is_told_too(desk: Desk, hook: Endpoint) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("critical-finding", hook.url), hook)
    coding = {"system": "http://radlex.org", "code": "RID49480"}
    report = system.made(REPORT | {"conclusionCode": [{"coding": [coding]}]})
    desk.work()
    assert only(hook.bundles()) == [f"DiagnosticReport/{report['id']}"]
    assert system.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_an_order_is_told_to_the_hospital_that_is_to_perform_it(desk: Desk, hook: Endpoint) -> None:
    nanhu, beicheng = desk.system("nanhu"), desk.system("beicheng")
    made = active(desk, nanhu, wish("order-for-us", hook.url), hook)

    def order(**told: Any) -> dict[str, Any]:
        return {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "subject": {"reference": "Patient/1"},
        } | told

    theirs = {"performer": [{"reference": "Organization/nanhu"}]}
    wanted = beicheng.made(order(**theirs))
    beicheng.made(order(performer=[{"reference": "Organization/dongshan"}]))
    beicheng.made(order(**theirs, status="draft"))
    named = f"ServiceRequest/{wanted['id']}"
    assert beicheng.send("PUT", named, wanted | {"priority": "stat"}).status_code == 200
    task = beicheng.made(
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "for": {"reference": "Patient/1"},
            "owner": {"reference": f"{BASE}/Organization/nanhu"},
        }
    )
    desk.work()

    told = hook.bundles()
    assert only(told) == [named, f"Task/{task['id']}"]
    # The patient is told as the subscriber's own hospital knows them.
    assert f"{BASE}/Patient/2" in str(told[0]["entry"][0])
    assert nanhu.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_an_order_for_a_department_is_told_to_its_hospital(desk: Desk, hook: Endpoint) -> None:
    nanhu, beicheng = desk.system("nanhu"), desk.system("beicheng")
    made = active(desk, nanhu, wish("order-for-us", hook.url), hook)

    def entry(kind: str, keeper: Asker = nanhu, **told: Any) -> str:
        return f"{kind}/{keeper.made({'resourceType': kind} | told)['id']}"

    def to(place: str) -> dict[str, Any]:
        return {"reference": place}

    theirs = to("Organization/nanhu")
    radiology = entry("Organization", name="放射科", partOf=theirs)
    ward = entry("Organization", name="CT 室", partOf=to(f"{BASE}/{radiology}"))
    kept = entry("Organization", name="住院部")
    service = entry("HealthcareService", name="CT", providedBy=to(ward))
    building = entry("Location", name="二号楼", managingOrganization=theirs)
    room = entry("Location", name="二号楼 201", partOf=to(building))
    at_room = entry("HealthcareService", name="MR", location=[to(room)])
    role = entry("PractitionerRole", organization=to(radiology))
    role_of_service = entry("PractitionerRole", healthcareService=[to(at_room)])
    told_by_other = entry("Organization", beicheng, name="南湖放射科", partOf=theirs)
    for_them = [*(radiology, ward, kept, service, at_room, role, role_of_service, told_by_other)]
    not_for_them = [
        entry("Organization", name="东山驻点", partOf=to("Organization/dongshan")),
        entry("HealthcareService", beicheng, name="CT"),
        entry("PractitionerRole", beicheng, organization=to("Organization/beicheng")),
        "Organization/not-there",
        "Organization/beicheng",
    ]
    one, other = (entry("Organization", beicheng, name=name) for name in "一二")
    for name, above in ((one, other), (other, one)):  # each is a part of the other
        changed = beicheng.read(name) | {"partOf": to(above), "name": "环"}
        assert beicheng.send("PUT", name, changed).status_code == 200

    def order(place: str) -> str:
        told = {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "subject": to("Patient/1"),
            "performer": [to(place)],
        }
        return f"ServiceRequest/{beicheng.made(told)['id']}"

    wanted = [order(place) for place in for_them]
    for place in (*not_for_them, one):
        order(place)
    task = {"resourceType": "Task", "status": "requested", "intent": "order", "owner": to(service)}
    wanted.append(f"Task/{beicheng.made(task | {'for': to('Patient/1')})['id']}")
    appointment = {
        "resourceType": "Appointment",
        "status": "proposed",
        "participant": [
            {"actor": to(place), "status": "needs-action"} for place in ("Patient/1", room)
        ],
    }
    wanted.append(f"Appointment/{beicheng.made(appointment)['id']}")
    desk.work()

    assert only(hook.bundles()) == wanted
    assert nanhu.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_a_heartbeat_comes_when_it_is_due_and_the_end_ends_it(desk: Desk, hook: Endpoint) -> None:
    doctor = desk.clinician("beicheng")
    wished = wish(
        "new-study",
        hook.url,
        extension=[{"url": f"{EXTENSION}heartbeat-period", "valueUnsignedInt": 60}],
    ) | {"end": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    made = active(desk, doctor, wished, hook)
    desk.work(late=True)
    assert hook.received == []

    desk.changed(made, spoken=datetime.now(UTC) - timedelta(minutes=2))
    desk.work(late=True)
    (beat,) = hook.bundles()
    assert (said(beat, "type"), said(beat, "events-since-subscription-start")) == ("heartbeat", "0")

    desk.changed(made, ends=datetime.now(UTC) - timedelta(seconds=1))
    desk.work(late=True)
    assert hook.received == []
    assert doctor.read(f"Subscription/{made['id']}")["status"] == "off"


def test_what_is_switched_off_is_told_nothing_and_goes_on_with_its_numbers(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    named = f"Subscription/{made['id']}"
    system.made(REPORT)
    desk.work()
    hook.bundles()

    off = system.read(named) | {"status": "off"}
    assert system.send("PUT", named, off).json()["status"] == "off"
    system.made(REPORT)
    desk.work(late=True)
    assert hook.received == []
    assert system.send("PUT", named, off | {"status": "active"}).json()["status"] == "requested"
    desk.work()
    system.made(REPORT)
    desk.work()
    handshake, told = hook.bundles()
    assert said(handshake, "events-since-subscription-start") == "1"
    assert [number for number, _ in events(told)] == [2]
    assert system.send("DELETE", named).status_code == 204


# Nothing withheld is told.


def test_who_has_withdrawn_consent_meanwhile_is_not_told_of(desk: Desk, hook: Endpoint) -> None:
    doctor, nanhu = desk.clinician("beicheng"), desk.system("nanhu")
    wished = wish("report-final", hook.url, "patient=Patient/1", content="full-resource")
    made = active(desk, doctor, wished, hook)
    theirs = REPORT | {"subject": {"reference": "Patient/2"}, "conclusion": "秘密"}

    hook.statuses = [503]
    first = nanhu.made(theirs)
    desk.work()
    assert only(hook.bundles()) == [f"DiagnosticReport/{first['id']}"]
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_out(access, "nanhu", "W2")
    nanhu.made(theirs)
    desk.work(late=True)

    ((_, body),) = hook.received
    (told,) = hook.bundles()
    assert events(told) == [(1, "")]
    assert "秘密" not in body.decode()
    kept = doctor.bundle(f"Subscription/{made['id']}/$events", "history")
    assert events(kept) == [(1, "")]
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        consent.opt_in(access, "nanhu", "W2")
    kept = doctor.bundle(f"Subscription/{made['id']}/$events?content=id-only", "history")
    assert events(kept) == [(1, f"DiagnosticReport/{first['id']}")]
    assert doctor.send("DELETE", f"Subscription/{made['id']}").status_code == 204


def test_who_may_not_sign_in_any_more_is_told_nothing(desk: Desk, hook: Endpoint) -> None:
    leaving = replace(desk.door.city.system("beicheng"), name="leaving")
    system = desk.user(leaving)
    made = active(desk, system, wish("report-final", hook.url), hook)
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.deactivate(access, "leaving")
    desk.system("beicheng").made(REPORT)
    desk.work()

    assert hook.received == []
    row = desk.row(made)
    assert (row.state, row.events) == ("error", 0)
    assert "may not sign in" in row.reason


def test_what_ended_with_its_owner_goes_on_when_they_are_back(desk: Desk) -> None:
    back = replace(desk.door.city.system("beicheng"), name="back")
    system = desk.user(back)
    made = system.made(wish("report-final"))
    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.deactivate(access, "back")
    desk.system("beicheng").made(REPORT)
    desk.work()
    assert desk.row(made).state == "error"

    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        users.activate(access, "back")
        assert subscriptions.retry(access, desk.row(made).id) == 1
    desk.work()
    assert system.read(f"Subscription/{made['id']}")["status"] == "active"


def test_without_a_filter_one_is_told_of_ones_own_patients(desk: Desk, hook: Endpoint) -> None:
    made = active(desk, desk.clinician("beicheng"), wish("report-final", hook.url), hook)
    desk.system("nanhu").made(REPORT | {"subject": {"reference": "Patient/2"}})
    own = desk.system("beicheng").made(REPORT)
    desk.work()
    assert only(hook.bundles()) == [f"DiagnosticReport/{own['id']}"]
    assert desk.clinician("beicheng").send("DELETE", f"Subscription/{made['id']}")


def test_events_are_told_again_for_those_who_missed_them(desk: Desk, hook: Endpoint) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    told = [f"DiagnosticReport/{system.made(REPORT)['id']}" for _ in range(4)]
    desk.work()
    named = f"Subscription/{made['id']}"

    asked = f"{named}/$events?eventsSinceNumber=2&eventsUntilNumber=3"
    bundle = system.bundle(asked, "history")
    assert said(bundle, "type") == "query-event"
    assert events(bundle) == [(2, told[1]), (3, told[2])]
    full = system.bundle(f"{asked}&content=full-resource", "history")
    assert [entry["resource"]["id"] for entry in full["entry"][1:]]
    system.refused(f"{named}/$events?eventsSinceNumber=x", 400, "invalid")
    system.refused(f"{named}/$events?content=all", 400, "invalid")

    (status,) = system.bundle(f"Subscription/$status?id={made['id']}&status=active")["entry"]
    assert said({"entry": [status]}, "events-since-subscription-start") == "4"
    assert "entry" not in system.bundle(f"Subscription/$status?id={made['id']}&status=error")
    assert system.send("DELETE", named).status_code == 204
