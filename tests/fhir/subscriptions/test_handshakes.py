"""Subscriptions: what waits for the answer to a handshake, and where it goes then."""

from __future__ import annotations

from region import ADMINISTRATOR
from subscribed import REPORT, Desk, Endpoint, active, endpoint, events, said, wish

from exchange import subscriptions


def test_without_an_answer_to_the_handshake_nothing_is_told(desk: Desk, hook: Endpoint) -> None:
    doctor = desk.clinician("beicheng")
    hook.statuses = [500]
    made = doctor.made(wish("report-final", hook.url))
    desk.work()

    hook.bundles()
    told = doctor.read(f"Subscription/{made['id']}")
    assert (told["status"], told["error"]) == (
        "error",
        "no handshake: the endpoint answers HTTP 500",
    )
    desk.system("beicheng").made(REPORT)
    desk.work(late=True)
    assert hook.received == []

    with desk.door.city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (listed,) = [
            one
            for one in subscriptions.listed(access)
            if one.state == "error" and one.number == desk.row(made).id
        ]
        assert listed.to == hook.host
        assert subscriptions.retry(access, listed.number) == 1
    desk.work()
    assert said(hook.bundles()[0], "type") == "handshake"
    assert "error" not in doctor.read(f"Subscription/{made['id']}")


def test_what_happens_before_the_handshake_is_answered_is_told_after_it(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = system.made(wish("report-final", hook.url))
    report = system.made(REPORT)

    desk.work()
    desk.work(late=True)

    handshake, told = hook.bundles()
    assert said(handshake, "type") == "handshake"
    assert events(told) == [(1, f"DiagnosticReport/{report['id']}")]
    system.send("DELETE", f"Subscription/{made['id']}")


def test_what_waits_is_told_at_the_endpoint_that_its_owner_names_instead(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    hook.statuses = [503]
    first = system.made(REPORT)
    desk.work()
    second = system.made(REPORT)  # which nobody has looked at yet
    with endpoint() as elsewhere:
        desk.allow("beicheng", elsewhere)
        wished = system.read(f"Subscription/{made['id']}")
        wished["channel"]["endpoint"] = elsewhere.url
        system.send("PUT", f"Subscription/{made['id']}", wished)

        desk.work(late=True)
        desk.work(late=True)

        handshake, *told = elsewhere.bundles()
    assert said(handshake, "type") == "handshake"
    assert [one for bundle in told for one in events(bundle)] == [
        (1, f"DiagnosticReport/{first['id']}"),
        (2, f"DiagnosticReport/{second['id']}"),
    ]
    system.send("DELETE", f"Subscription/{made['id']}")


def test_what_waits_is_not_told_to_who_asks_for_something_else_now(
    desk: Desk, hook: Endpoint
) -> None:
    system = desk.system("beicheng")
    made = active(desk, system, wish("report-final", hook.url), hook)
    hook.statuses = [503]
    system.made(REPORT)
    desk.work()
    hook.bundles()

    other = wish("new-study", hook.url) | {"id": made["id"]}
    system.send("PUT", f"Subscription/{made['id']}", other)
    desk.work(late=True)

    assert [said(one, "type") for one in hook.bundles()] == ["handshake"]
    system.send("DELETE", f"Subscription/{made['id']}")
