"""A hospital's administrator sees and settles what is the hospital's own; the region's, all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from region import ADMINISTRATOR, ID_CARD, Region

from exchange import (
    admission,
    check,
    conflicts,
    consent,
    deliveries,
    jobs,
    ledger,
    membership,
    operation,
    orders,
    organizations,
    reindex,
    rejected,
    rejection,
    retention,
    retrieval,
    routing,
    scrub,
    traffic,
    users,
)
from exchange.access import Access
from exchange.admission import Limits, UserIdentity
from exchange.errors import NotFound, Refused
from exchange.organizations import Entity
from exchange.policy import Requester, Role
from exchange.routing import Rule
from exchange_storage.records import Delivery, Job

ZONE = ZoneInfo("Asia/Shanghai")
PASSWORD = "long enough"


def today() -> date:
    return datetime.now(ZONE).date()


def own(city: Region, code: str) -> Requester:
    return replace(ADMINISTRATOR, name=f"admin.{code}", organization=city.ids[code])


@pytest.fixture
def filled(city: Region) -> Region:
    """Two hospitals, each with a conflict, and a route of which a delivery was given up."""
    for code, number, study in (("beicheng", "B1", "1.2.1"), ("nanhu", "N1", "1.2.2")):
        for body in (b"first", b"other"):
            city.send(
                code, patient=number, study=study, instance=f"{study}.9", card=ID_CARD, body=body
            )
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            routing.add(access, code, Rule(name="cloud", url="http://127.0.0.1:9/dicom"))
        with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
            (route,) = [one.route for one in routing.everything(access) if one.organization == code]
        now = datetime.now(UTC)
        with city.exchange.database.writing() as session:
            made = Delivery(study_instance_uid=study, asked=now, route_id=route.id)
            session.add(made)
            session.flush()
            session.add(
                Job(kind=jobs.FORWARD, subject=str(made.id), due=now, dead=True, attempts=9)
            )
    return city


def test_a_hospitals_administrator_has_the_hospitals_conflicts_routes_and_deliveries(
    filled: Region,
) -> None:
    with filled.exchange.on_behalf_of(own(filled, "beicheng")) as access:
        assert [one.sender for one in conflicts.waiting(access)] == ["beicheng"]
        assert [one.organization for one in routing.everything(access)] == ["beicheng"]
        assert [one.organization for one in deliveries.waiting(access)] == ["beicheng"]
        lines = ledger.lines(access, today(), today(), timezone=ZONE)
        assert [one.organization for one in lines] == ["beicheng"]
        assert organizations.administered(access, "beicheng").code == "beicheng"
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert len(conflicts.waiting(access)) == 2
        assert len(deliveries.waiting(access)) == 2


@pytest.mark.parametrize(
    "act",
    [
        lambda access, other, _: conflicts.promote(access, other),
        lambda access, other, _: conflicts.keep(access, other),
        lambda access, other, _: conflicts.discard(access, other),
        lambda access, other, _: conflicts.pair(access, other),
        lambda access, _, delivery: deliveries.retry(access, delivery),
        lambda access, *_: traffic.of_day(access, today(), "nanhu", timezone=ZONE),
        lambda access, *_: ledger.lines(
            access, today(), today(), timezone=ZONE, organization="nanhu"
        ),
    ],
    ids=["promote", "keep", "discard", "pair", "retry", "traffic", "ledger"],
)
def test_another_hospitals_are_as_if_they_were_not_there(
    filled: Region, act: Callable[[Access, int, int], object]
) -> None:
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        (other,) = [one.number for one in conflicts.waiting(access) if one.sender == "nanhu"]
        (delivery,) = [
            one.number for one in deliveries.waiting(access) if one.organization == "nanhu"
        ]
    with (
        pytest.raises(NotFound),
        filled.exchange.on_behalf_of(own(filled, "beicheng")) as access,
    ):
        act(access, other, delivery)
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        act(access, other, delivery)


def test_retrying_all_retries_the_hospitals_own(filled: Region) -> None:
    with filled.exchange.on_behalf_of(own(filled, "beicheng")) as access:
        assert deliveries.retry(access) == 1
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        given_up = deliveries.waiting(access, given_up=True)
        assert [one.organization for one in given_up] == ["nanhu"]


def test_a_conflict_about_another_hospitals_study_does_not_show_its_patient(city: Region) -> None:
    city.send("nanhu", patient="N1", study="1.2.5", instance="1.4.5")
    city.send("beicheng", patient="B1", study="1.2.5", instance="1.4.6")
    with city.exchange.on_behalf_of(own(city, "beicheng")) as access:
        (one,) = conflicts.waiting(access)
        assert conflicts.pair(access, one.number).known == {}
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert conflicts.pair(access, one.number).known["PatientID"] == "N1"


def test_a_conflict_with_another_hospitals_instance_does_not_show_that(city: Region) -> None:
    city.send("nanhu", study="1.2.5", instance="1.4.5")
    city.send("beicheng", study="1.2.6", instance="1.4.5", body=b"other")
    with city.exchange.on_behalf_of(own(city, "beicheng")) as access:
        (one,) = conflicts.waiting(access)
        assert conflicts.pair(access, one.number).primary is None
    with city.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert conflicts.pair(access, one.number).primary is not None


def test_the_traffic_of_a_day_tells_what_came_and_who_fetched_it(filled: Region) -> None:
    for who in ("beicheng", "nanhu", "nanhu"):
        with filled.exchange.on_behalf_of(filled.clinician(who)) as access:
            retrieval.instances(access, "1.2.1")
    with filled.exchange.on_behalf_of(own(filled, "beicheng")) as access:
        hours = traffic.of_day(access, today(), "beicheng", timezone=ZONE)
    assert len(hours) == 24
    assert sum(one.received for one in hours) == 2
    assert sum(one.size for one in hours) > 0
    assert sum(one.fetched for one in hours) == 1
    assert sum(one.fetched_by_others for one in hours) == 2


def test_the_region_sees_queues_errors_growth_and_nodes(filled: Region) -> None:
    with (
        pytest.raises(Refused),
        filled.exchange.on_behalf_of(filled.clinician("beicheng")) as access,
    ):
        conflicts.waiting(access)
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        state = operation.state(access, days=3, timezone=ZONE)
    assert [one.given_up for one in state.queues if one.kind == jobs.FORWARD] == [2]
    assert len(state.dead) == 2
    assert [one.instances for one in state.growth] == [0, 0, 4]
    assert state.growth[-1].size > 0
    assert {(one.title, one.last_sent is not None) for one in state.nodes} == {
        ("BEICHENG", True),
        ("NANHU", True),
        ("DONGSHAN", False),
    }
    assert ("administer", "refused", 1) in {
        (one.action, one.outcome, one.count) for one in state.failures
    }
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        operation.retry(access, state.dead[0].id)
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        assert len(operation.state(access, days=1, timezone=ZONE).dead) == 1


@pytest.mark.parametrize("role", [Role.ADMINISTRATOR, Role.CLINICIAN])
def test_nobody_of_a_hospital_sees_how_the_region_does(filled: Region, role: Role) -> None:
    somebody = replace(own(filled, "beicheng"), role=role)
    with pytest.raises(Refused), filled.exchange.on_behalf_of(somebody) as access:
        operation.state(access, days=1, timezone=ZONE)
    with pytest.raises(Refused), filled.exchange.on_behalf_of(somebody) as access:
        operation.retry(access, 1)


def test_a_hospitals_administrator_administers_that_hospital_alone(filled: Region) -> None:
    """Each verb of administration, on another hospital and on the own one."""
    with filled.exchange.on_behalf_of(ADMINISTRATOR) as access:
        for code in ("beicheng", "nanhu"):
            users.add(
                access,
                name=f"dr.{code}",
                display_name="",
                role=Role.CLINICIAN,
                organization=code,
                password=PASSWORD,
            )

    def new_user(access: Access, code: str) -> None:
        users.add(
            access,
            name=f"new.{code}",
            display_name="",
            role=Role.CLINICIAN,
            organization=code,
            password=PASSWORD,
        )

    numbers = {"beicheng": ("B1", "1.2.1"), "nanhu": ("N1", "1.2.2")}
    entity = Entity(title="NEW", address="127.0.0.1", port=104)
    verbs: dict[str, Callable[[Access, str], object]] = {
        "user add": new_user,
        "user deactivate": lambda access, code: users.deactivate(access, f"dr.{code}"),
        "user activate": lambda access, code: users.activate(access, f"dr.{code}"),
        "user password": lambda access, code: users.set_password(access, f"dr.{code}", PASSWORD),
        "consent": lambda access, code: consent.opt_out(access, code, numbers[code][0]),
        "add-ae": lambda access, code: organizations.add_entity(access, code, entity),
        "remove-ae": lambda access, code: organizations.remove_entity(access, code, entity),
        "unshare": organizations.end_agreement,
        "share": organizations.join_agreement,
        "limit": lambda access, code: admission.limit(access, code, Limits(1, 1)),
        "user identity": lambda access, code: admission.name_users(
            access, code, UserIdentity.REQUIRE
        ),
        "route": lambda access, code: routing.remove(access, code, "cloud"),
        "rule": lambda access, code: retention.set_rule(access, code, "CT", 100),
        "hold": lambda access, code: retention.hold(access, numbers[code][1], "asked for"),
        "lift": lambda access, code: retention.lift(access, numbers[code][1]),
        "orders": lambda access, code: orders.listed(access, organization=code),
        "reject": lambda access, code: rejection.reject(
            access, code, "113037", study=numbers[code][1]
        ),
        "rejected": lambda access, code: rejected.listed(access, organization=code),
    }
    for verb in verbs.values():
        with (
            pytest.raises(NotFound),
            filled.exchange.on_behalf_of(own(filled, "beicheng")) as access,
        ):
            verb(access, "nanhu")
        with filled.exchange.on_behalf_of(own(filled, "beicheng")) as access:
            verb(access, "beicheng")


def test_what_concerns_the_whole_region_is_its_own_administrators(filled: Region) -> None:
    verbs: tuple[Callable[[Access], object], ...] = (
        lambda access: list(check.check(access)),
        reindex.ask,
        scrub.damages,
        lambda access: users.add(
            access,
            name="boss",
            display_name="",
            role=Role.ADMINISTRATOR,
            organization=None,
            password=PASSWORD,
        ),
        lambda access: membership.deactivate(access, "beicheng"),
        lambda access: membership.activate(access, "beicheng"),
        lambda access: organizations.register(
            access, code="west", name="西", credit_code="", issuer="2.25.9"
        ),
    )
    for verb in verbs:
        with (
            pytest.raises(Refused, match="region's own"),
            filled.exchange.on_behalf_of(own(filled, "beicheng")) as access,
        ):
            verb(access)
